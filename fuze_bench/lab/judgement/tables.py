"""Tables of figures as people read them."""

from __future__ import annotations

import math
from collections.abc import Callable
from html import escape
from typing import Any

import pandas as pd

#: What stands where a figure would need more samples.
TOO_FEW = "too few"
#: What stands where a queue grows: its times grow with it, and say nothing but how long the trial was.
GROWS = "grows"
#: A column in which some text is longer than this has lines of text in it, instead of figures.
_LONGEST_FIGURE = 40


def show(table: pd.DataFrame, *, missing: str = "–") -> Any:
    """The table with three significant digits, and `missing` (a dash, or TOO_FEW) where there is no figure."""
    # The name of the rows stands above them instead of in a line of its own.
    named = table.rename_axis(index=None, columns=table.index.name)
    wordy = {name for name in named if any(len(str(value)) > _LONGEST_FIGURE for value in named[name])}
    formats: dict[Any, Any] = {name: _in_lines if name in wordy else _as_it_is(missing) for name in named}
    return named.style.format(formats).set_table_attributes("class='figures'")


def _as_it_is(missing: str) -> Callable[[object], str]:
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
