"""Tables of figures as people read them."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from html import escape
from typing import Any

import pandas as pd

from fuze_bench.lab.judgement.stats import samples_needed

#: How it begins what stands where a quantile would need more samples: see `show`.
TOO_FEW = "too few"
#: What stands where a queue grows: its times grow with it, and say nothing but how long the trial was.
GROWS = "grows"
#: A column in which some text is longer than this has lines of text in it, instead of figures.
_LONGEST_FIGURE = 18
#: The key in a table's `attrs` of what is to be said once, below it.
BELOW = "below"
#: The columns that hold quantiles say which in their name.
_QUANTILE = re.compile(r"\bp(\d\d)\b")


def show(table: pd.DataFrame) -> Any:
    """The table with three significant digits, and a dash where there is no figure; where a column named after a quantile
    («p95 wait, ms») has none, how many samples it takes. Below it what the table's `attrs` have as BELOW."""
    # The name of the rows stands above them instead of in a line of its own.
    named = table.rename_axis(index=None, columns=table.index.name)
    wordy = {name for name in named if any(len(cell(value)) > _LONGEST_FIGURE for value in named[name])}
    formats: dict[Any, Any] = {name: _in_lines if name in wordy else _figures(str(name)) for name in named}
    styled = named.style.format(formats).set_table_attributes("class='figures'")
    if below := table.attrs.get(BELOW):
        styled = styled.set_caption(f"<span class='below'>{escape(below)}</span>")
        # Where no style of ours is, as in Jupyter.
        styled = styled.set_table_styles(
            [{"selector": "caption", "props": "caption-side: bottom; text-align: left"}]
        )
    return styled


def _figures(column: str) -> Callable[[object], str]:
    quantile = _QUANTILE.search(column)
    missing = f"{TOO_FEW}: {samples_needed(int(quantile[1]) / 100)} needed" if quantile else "–"
    return lambda value: _missing(missing) if (shown := cell(value, missing)) == missing else escape(shown)


def _missing(text: str) -> str:
    """Words among figures, which would else make their column the widest."""
    return f"<span class='few'>{text}</span>" if text.startswith(TOO_FEW) else text


def _in_lines(value: object) -> str:
    """Text that may be broken into lines, which a column of figures is not."""
    return f"<span class='words'>{escape(cell(value))}</span>"


def cell(value: object, missing: str = "–") -> str:
    """A figure with three significant digits, never with an exponent; what is no number as it is."""
    if value is None or value is pd.NA or value != value:
        return missing
    if not isinstance(value, float):
        return str(value)
    if abs(value) >= 999.5:
        return f"{value:,.0f}" if math.isfinite(value) else missing
    # Not -0, which comes of a small negative number's last digits.
    return f"{value + 0.0:.3g}" if abs(value) >= 1e-4 else "0"
