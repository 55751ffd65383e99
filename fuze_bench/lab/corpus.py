"""Pages for experiments: the shipped corpus with what extraction should find, or any folder of HTML."""

import gzip
import json
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from fuze_bench.errors import LabError, one_line

CORPUS_DIRECTORY = Path(__file__).resolve().parents[2] / "data" / "corpus"
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
