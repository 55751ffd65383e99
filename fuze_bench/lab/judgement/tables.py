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
_LONGEST_FIGURE = 24
#: The columns that hold quantiles say which in their name.
_QUANTILE = re.compile(r"\bp(\d\d)\b")


def show(table: pd.DataFrame) -> Any:
    """The table with three significant digits, and a dash where there is no figure; where a column named after a quantile
    («p95 wait, ms») has none, how many samples it takes."""
    # The name of the rows stands above them instead of in a line of its own.
    named = table.rename_axis(index=None, columns=table.index.name)
    wordy = {name for name in named if any(len(str(value)) > _LONGEST_FIGURE for value in named[name])}
    formats: dict[Any, Any] = {name: _in_lines if name in wordy else _figures(str(name)) for name in named}
    return named.style.format(formats).set_table_attributes("class='figures'")


def _figures(column: str) -> Callable[[object], str]:
    quantile = _QUANTILE.search(column)
    missing = f"{TOO_FEW}: {samples_needed(int(quantile[1]) / 100)} needed" if quantile else "–"
    return lambda value: escape(cell(value, missing))


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
