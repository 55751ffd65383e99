"""Paths of this machine out of what is there to be published: in texts, in parsed JSON, in tables of text."""

from __future__ import annotations

import re
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa

_CHECKOUT = Path(__file__).resolve().parents[3]


class HiddenPaths:
    """Replaces folders of this machine by short names, the longest path first."""

    def __init__(self, more: Mapping[Path, str] | None = None) -> None:
        """`more`: folders to hide beside the usual ones, and what to write instead."""
        names = {
            Path.cwd(): ".",
            _CHECKOUT: ".",
            Path.home(): "~",
            Path(sys.prefix): "<python>",
            Path(tempfile.gettempdir()): "<tmp>",
            **(more or {}),
        }
        self._names = {str(path.absolute()): name for path, name in names.items()}
        self._names |= {str(path.resolve()): name for path, name in names.items()}
        self._names.pop("/", None)
        longest_first = sorted(self._names, key=len, reverse=True)
        self._pattern = re.compile(f"(?<![\\w.-])(?:{'|'.join(map(re.escape, longest_first))})(?![\\w.-])")

    def text(self, text: str) -> str:
        """The text without them."""
        return self._pattern.sub(lambda found: self._names[found[0]], text)

    def value(self, value: Any) -> Any:
        """Parsed JSON without them; what is a picture stays as it is."""
        if isinstance(value, str):
            return self.text(value)
        if isinstance(value, list):
            return [self.value(each) for each in value]
        if isinstance(value, dict):
            return {
                name: each if name.startswith("image/") else self.value(each) for name, each in value.items()
            }
        return value

    def table(self, table: pa.Table) -> pa.Table:
        """A table without them in its columns of text."""
        for place, field in enumerate(table.schema):
            if pa.types.is_string(field.type):
                values = [self.value(value) for value in table.column(place).to_pylist()]
                table = table.set_column(place, field, pa.array(values, pa.string()))
        return table
