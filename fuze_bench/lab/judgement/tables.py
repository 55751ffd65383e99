"""Tables of figures as people read them."""

from __future__ import annotations

import math
from typing import Any

import pandas as pd

#: What stands where a figure would need more samples.
TOO_FEW = "too few"
#: What stands where a queue grows: its times grow with it, and say nothing but how long the trial was.
GROWS = "grows"


def show(table: pd.DataFrame, *, missing: str = "–") -> Any:
    """The table with three significant digits, and `missing` (a dash, or TOO_FEW) where there is no figure."""
    # The name of the rows stands above them instead of in a line of its own.
    named = table.rename_axis(index=None, columns=table.index.name)
    return named.style.format(lambda value: cell(value, missing)).set_table_attributes("class='figures'")


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
