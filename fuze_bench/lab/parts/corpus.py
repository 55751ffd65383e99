"""Pages for experiments: the shipped corpus with what extraction should find, any folder of HTML, or any size."""

import gzip
import json
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from fuze_bench.errors import LabError, SettingsError, one_line

CORPUS_DIRECTORY = Path(__file__).resolve().parents[3] / "data" / "corpus"
_SMALLEST_BYTES = 300
_SIZED_TOTAL_BYTES = 64_000_000
_READERS: dict[str, Callable[[bytes], bytes]] = {
    ".html": bytes,
    ".htm": bytes,
    ".html.gz": gzip.decompress,
}


@dataclass(frozen=True)
class Page:
    """A page as a server sends it: its path within the folder, its Content-Type header and its bytes.

    Only the shipped corpus knows the rest: `charset` is the Python codec that decodes `body`, `language` an
    ISO 639-1 code, `date` the ISO date that the page states (None if it states none), `text` the article's
    paragraphs, list items, table cells and code, one block a line.
    """

    path_name: str
    content_type: str
    body: bytes
    title: str | None = None
    language: str | None = None
    charset: str | None = None
    date: str | None = None
    text: str | None = None


def load_corpus() -> list[Page]:
    """The shipped corpus in the order of its index.

    Raises LabError if `data/corpus` is not beside the package, as in an installation without the repository.
    """
    index = CORPUS_DIRECTORY / "index.json"
    try:
        return [_indexed(entry) for entry in json.loads(index.read_bytes())]
    except FileNotFoundError as error:
        raise LabError(
            f"the page corpus lacks {error.filename}; work in a checkout of the repository, run"
            " `python data/make_corpus.py` there, or name a folder of HTML pages instead"
        ) from None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise LabError(
            f"cannot read {index} ({one_line(error)}); write it again with `python data/make_corpus.py`"
        ) from None


def _indexed(entry: dict[str, str]) -> Page:
    return Page(
        path_name=entry["file"],
        content_type=entry["content_type"],
        body=(CORPUS_DIRECTORY / entry["file"]).read_bytes(),
        title=entry["title"],
        language=entry["language"],
        charset=entry["charset"],
        date=entry["date"],
        text=entry["text"],
    )


def load_pages(directory: Path) -> list[Page]:
    """Every *.html, *.htm and *.html.gz (decompressed) below `directory`, sorted by path.

    They are to be served as plain `text/html`, so that each page's own declaration of its encoding counts.
    Raises LabError if there is no such page, or one cannot be read.
    """
    found = [(path, reader) for path in sorted(directory.rglob("*")) if (reader := _reader(path))]
    if not found:
        raise LabError(
            f"no HTML pages in {directory}; name a folder that holds *.html, *.htm or *.html.gz files"
        )
    return [
        Page(path.relative_to(directory).as_posix(), "text/html", _read(path, read)) for path, read in found
    ]


def _reader(path: Path) -> Callable[[bytes], bytes] | None:
    """How to turn the file into a page's bytes; None for what is not a page."""
    name = path.name.lower()
    reader = next((reader for ending, reader in _READERS.items() if name.endswith(ending)), None)
    return reader if reader and path.is_file() else None


def _read(path: Path, reader: Callable[[bytes], bytes]) -> bytes:
    try:
        return reader(path.read_bytes())
    except (OSError, EOFError, zlib.error) as error:
        raise LabError(f"cannot read the page {path} ({one_line(error)}); repair or remove it") from None


def sized_pages(page_bytes: int) -> list[Page]:
    """Plain English pages of exactly `page_bytes` bytes each: a hundred, or fewer if they took over 64 MB.

    Raises SettingsError below 300 bytes, where no article fits.
    """
    if page_bytes < _SMALLEST_BYTES:
        raise SettingsError(f"page_bytes is {page_bytes}; a page takes at least {_SMALLEST_BYTES} bytes")
    count = max(1, min(100, _SIZED_TOTAL_BYTES // page_bytes))
    return [
        Page(
            f"sized-{number}.html",
            "text/html; charset=utf-8",
            _sized_body(number, page_bytes),
            f"Report {number}",
        )
        for number in range(count)
    ]


def _sized_body(number: int, page_bytes: int) -> bytes:
    """Paragraphs as long as they fit, then spaces."""
    head = f'<!DOCTYPE html><html lang="en"><title>Report {number}</title><body><article><h1>Report {number}</h1>\n'
    tail = "</article></body></html>\n"
    written, paragraphs = len(head) + len(tail), [head]
    while written + len(line := _sized_paragraph(number, len(paragraphs))) <= page_bytes:
        paragraphs.append(line)
        written += len(line)
    return ("".join(paragraphs) + " " * (page_bytes - written) + tail).encode()


def _sized_paragraph(number: int, position: int) -> str:
    return f"<p>Section {position} of report {number} describes how the workers took job {number * 1000 + position} from the queue.</p>\n"
