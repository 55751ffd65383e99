"""Writes the page corpus again, byte for byte: `python data/make_corpus.py [directory]`."""

import json
import shutil
import sys
from pathlib import Path

from corpus_maker.pages import PAGES, make_page

HERE = Path(__file__).resolve().parent / "corpus"


def write_corpus(directory: Path) -> int:
    """Replace `directory` with the corpus (pages and index.json); the number of pages."""
    shutil.rmtree(directory / "pages", ignore_errors=True)
    (directory / "pages").mkdir(parents=True)
    entries = []
    for number in range(PAGES):
        page = make_page(number)
        (directory / page.file).write_bytes(page.body)
        entries.append(page.entry)
    index = json.dumps(entries, ensure_ascii=False, indent=1)
    (directory / "index.json").write_bytes(index.encode() + b"\n")
    return len(entries)


if __name__ == "__main__":
    target = Path(sys.argv[1]) if len(sys.argv) > 1 else HERE
    sys.stdout.write(f"{write_corpus(target)} pages in {target}\n")
