"""Lists of pages to be saved: lines, CSV files and bookmark exports, told apart by what is in them."""

from __future__ import annotations

import codecs
import csv
import enum
import io
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from lxml import etree

from fuze_bench.errors import InputError


class Format(enum.StrEnum):
    """What a list is written in."""

    LINES = "lines"
    """One address a line; `#` starts a comment."""
    CSV = "csv"
    """A table with a line of column names; commas, semicolons or tabs between the columns."""
    HTML = "html"
    """A bookmark export of a browser (Netscape bookmark file), Pocket or Instapaper."""


@dataclass(frozen=True, slots=True)
class ImportItem:
    """One entry of a list as it stands there, unchecked; `problem` says why it could not even be read.

    `line` is where it begins in the file, from 1; None where there are no lines.
    """

    url: str
    title: str | None = None
    description: str | None = None
    line: int | None = None
    problem: str | None = None


_URL_COLUMNS = ("url", "address", "link", "href")
_TITLE_COLUMNS = ("title", "name")
#: `selection` is Instapaper's, `note` and `excerpt` are Raindrop's; the user's own words come first.
_DESCRIPTION_COLUMNS = ("description", "note", "notes", "excerpt", "selection")
_DELIMITERS = ",;\t"
_NEITHER = "is neither a list of addresses, one a line, nor a CSV file with a column url, nor a browser's bookmark export"

#: How much of a file is looked at to tell its format, in characters, and how many of its lines.
_HEAD_CHARS = 64 * 1024
_HEAD_LINES = 100
_EXPORT = re.compile(
    r"<!doctype\s+netscape-bookmark|<dt>\s*<a\s|<title>[^<]*(pocket export|instapaper)", re.IGNORECASE
)
_SCHEME = re.compile(r"[a-z][a-z0-9+.-]*:", re.IGNORECASE)
#: A # within an address is its own.
_COMMENT = re.compile(r"(?:^|\s)#")

#: Nobody's folders lie this deep; the parser takes ever longer for each level.
_DEEPEST_FOLDER = 500
#: The csv module's own limit, 128 KiB, is less than the articles that some exports carry along.
_LARGEST_FIELD_CHARS = 16 * 1024 * 1024

_BOMS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)


def read_items(data: bytes, format: Format | None = None) -> Iterator[ImportItem]:
    """The entries of a list, in order; `format` None: what it looks like.

    The text is UTF-8 or UTF-16 by its byte order mark, else UTF-8 if it is valid, else Windows-1252, which includes
    Latin-1. Raises InputError if it is none of the formats.
    """
    encoding = _encoding(data)
    head = _open(data, encoding).read(_HEAD_CHARS)
    if "\0" in head:
        raise InputError(f"the file is not text: it {_NEITHER}")
    if format is None:
        format = _told_by(head)
    stream = _open(data, encoding)
    if format is Format.CSV:
        return _csv_items(stream)
    return _html_items(stream) if format is Format.HTML else _line_items(stream)


def _encoding(data: bytes) -> str:
    for mark, name in _BOMS:
        if data.startswith(mark):
            return name
    decoder, view = codecs.getincrementaldecoder("utf-8")(), memoryview(data)
    try:
        for start in range(0, len(data), _HEAD_CHARS):
            decoder.decode(view[start : start + _HEAD_CHARS])
        decoder.decode(b"", final=True)
    except UnicodeDecodeError:
        return "cp1252"
    return "utf-8"


def _open(data: bytes, encoding: str) -> io.TextIOWrapper:
    # A line break within quotes belongs to the field: the csv module wants to see it as it is.
    return io.TextIOWrapper(io.BytesIO(data), encoding=encoding, errors="replace", newline="")


def _told_by(head: str) -> Format:
    """The format of a file that starts like this. Raises InputError."""
    if head.lstrip().startswith("<"):
        if _EXPORT.search(head):
            return Format.HTML
        raise InputError(f"the file looks like HTML or XML but {_NEITHER}")
    if _header(head) is not None:
        return Format.CSV
    addresses = [
        item.url for _, item in zip(range(_HEAD_LINES), _line_items(io.StringIO(head)), strict=False)
    ]
    if addresses and not any(_SCHEME.match(address) for address in addresses):
        raise InputError(f"the file {_NEITHER}: its first entry is {addresses[0][:60]!r}")
    return Format.LINES


def _line_items(stream: io.TextIOBase) -> Iterator[ImportItem]:
    for number, line in enumerate(stream, 1):
        text = _COMMENT.split(line, maxsplit=1)[0].strip()
        if text:
            yield ImportItem(text, line=number)


def _header(head: str) -> tuple[str, list[str]] | None:
    """The delimiter and the column names, in lower case, if the first line that is not blank names an address."""
    line = head.lstrip().partition("\n")[0]
    for delimiter in _DELIMITERS:
        try:
            [names] = csv.reader([line], delimiter=delimiter, skipinitialspace=True)
        except (csv.Error, ValueError):
            continue
        names = [name.strip().lower() for name in names]
        if any(name in _URL_COLUMNS for name in names):
            return delimiter, names
    return None


def _csv_items(stream: io.TextIOWrapper) -> Iterator[ImportItem]:
    found = _header(stream.read(_HEAD_CHARS))
    if found is None:
        raise InputError(f"the first line of the CSV file names no column {', '.join(_URL_COLUMNS)}")
    delimiter, names = found
    csv.field_size_limit(max(csv.field_size_limit(), _LARGEST_FIELD_CHARS))
    stream.seek(0)
    rows = csv.reader(stream, delimiter=delimiter, skipinitialspace=True, strict=True)
    places = [_places(names, known) for known in (_URL_COLUMNS, _TITLE_COLUMNS, _DESCRIPTION_COLUMNS)]
    header_is_read = False
    while True:
        line = rows.line_num + 1
        try:
            row = next(rows)
        except StopIteration:
            return
        except csv.Error as error:
            yield ImportItem("", line=line, problem=_csv_problem(str(error), rows.line_num - line))
            continue
        if not any(cell.strip() for cell in row):
            continue
        if not header_is_read:
            header_is_read = True
            continue
        url, title, description = (_first(row, each) for each in places)
        yield ImportItem(url or "", title, description, line, None if url else "the line has no address")


def _places(names: Sequence[str], known: Sequence[str]) -> list[int]:
    return [names.index(name) for name in known if name in names]


def _first(row: Sequence[str], places: Sequence[int]) -> str | None:
    return next((row[place].strip() for place in places if place < len(row) and row[place].strip()), None)


def _csv_problem(error: str, lines_behind: int) -> str:
    if "unexpected end" in error:
        return f"a quotation mark is never closed: the {lines_behind} lines behind this one were not read"
    return f"the line cannot be read as CSV: {error}"


def _html_items(stream: io.TextIOBase) -> Iterator[ImportItem]:
    target, number = _Bookmarks(), 0
    # Fed in lines, because a parser of this kind does not say where it is.
    parser = etree.HTMLParser(target=target, encoding="utf-8", huge_tree=True)
    for number, line in enumerate(stream, 1):
        target.line = number
        parser.feed(line.encode("utf-8", "replace"))
        if target.depth > _DEEPEST_FOLDER:
            raise InputError(f"line {number}: the folders lie more than {_DEEPEST_FOLDER} deep in each other")
        yield from target.taken()
    if number:  # it refuses to close what never began
        parser.close()
    target.finish()
    yield from target.taken()
    if not (target.count or target.is_export):
        raise InputError(f"the HTML holds no bookmarks: it {_NEITHER}")


class _Bookmarks:
    """What the HTML parser calls: collects the links of `<dt>` and `<li>`, and the `<dd>` behind each."""

    def __init__(self) -> None:
        self.line = 1
        self.count = 0
        self.depth = 0
        self.is_export = False
        self._found: list[ImportItem] = []
        self._is_entry = False
        self._url: str | None = None
        self._line = 1
        self._title: list[str] = []
        self._description: list[str] = []
        self._text: list[str] | None = None

    def taken(self) -> list[ImportItem]:
        """What is complete since the last call."""
        found, self._found = self._found, []
        return found

    def start(self, tag: str, attributes: Mapping[str, str]) -> None:
        if tag in ("dl", "dt", "li", "ul", "ol"):
            self.finish()  # what comes now, a folder's <dd> say, is not this link's
            self.depth += tag in ("dl", "ul", "ol")
            self._is_entry = tag in ("dt", "li")
        elif tag == "a" and self._is_entry and "href" in attributes:
            self.finish()
            self._url, self._line = attributes["href"], self.line
            self._title, self._description = [], []
            self._text = self._title
        elif tag == "dd" and self._url is not None:
            self._text = self._description

    def end(self, tag: str) -> None:
        if tag in ("dl", "ul", "ol"):
            self.depth -= 1
        if tag in ("a", "dd"):
            self._text = None

    def data(self, text: str) -> None:
        if self._text is not None:
            self._text.append(text)

    def doctype(self, name: str | None, *_ids: Any) -> None:
        self.is_export = (name or "").lower().startswith("netscape-bookmark")

    def finish(self) -> None:
        """The link in hand is complete."""
        if self._url is not None:
            title, description = " ".join("".join(self._title).split()), "".join(self._description).strip()
            self._found.append(ImportItem(self._url.strip(), title or None, description or None, self._line))
            self.count += 1
        self._url = self._text = None

    def close(self) -> None:
        """The parser asks for it."""
