"""Tables of figures as people read them."""

from __future__ import annotations

from typing import Any

import pandas as pd


def show(table: pd.DataFrame) -> Any:
    """The table with three significant digits, and a dash where there are too few samples for a figure."""
    # The name of the rows stands above them instead of in a line of its own.
    named = table.rename_axis(index=None, columns=table.index.name)
    return named.style.format(_cell).set_table_attributes("class='figures'")


def _cell(value: object) -> str:
    if value is None or value is pd.NA or value != value:
        return "–"
    if not isinstance(value, float):
        return str(value)
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"
