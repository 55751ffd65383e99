"""The page corpus: generated as shipped, decodable, extractable, and any other folder of pages."""

import gzip
import re
import runpy
import statistics
import sys
from collections import Counter
from pathlib import Path

import py3langid
import pytest
import trafilatura

from fuze_bench.errors import LabError
from fuze_bench.lab.parts import corpus
from fuze_bench.lab.parts.corpus import CORPUS_DIRECTORY, Page, load_corpus, load_pages

DATA = CORPUS_DIRECTORY.parent


@pytest.fixture(scope="module")
def pages() -> list[Page]:
    return load_corpus()


@pytest.fixture
def make_corpus(monkeypatch):
    """The names of the script, as if it had been run from its own folder."""
    monkeypatch.syspath_prepend(str(DATA))
    return runpy.run_path(str(DATA / "make_corpus.py"))


def words(text: str) -> Counter[str]:
    return Counter(re.findall(r"\w+", text))


def test_regenerating_gives_the_same_bytes(tmp_path, make_corpus):
    make_corpus["write_corpus"](tmp_path)
    made = {path.relative_to(tmp_path): path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    shipped = {
        path.relative_to(CORPUS_DIRECTORY): path.read_bytes()
        for path in CORPUS_DIRECTORY.rglob("*")
        if path.is_file()
    }
    assert made.keys() == shipped.keys()
    assert [name for name in made if made[name] != shipped[name]] == []


def test_sizes_spread_as_on_the_web(pages):
    sizes = [len(page.body) for page in pages]
    assert len(pages) >= 220
    assert 2_000 <= min(sizes) < 5_000
    assert 200_000 < max(sizes) <= 300_000
    assert 18_000 < statistics.median(sizes) < 30_000
    on_disk = sum(path.stat().st_size for path in CORPUS_DIRECTORY.rglob("*") if path.is_file())
    assert on_disk < 9_000_000


def test_languages_and_encodings_are_many(pages):
    assert {"en", "de", "fr", "es", "pl", "ru", "el", "ja", "zh", "ar"} <= {page.language for page in pages}
    expected = {"utf-8", "utf-8-sig", "utf-16", "iso-8859-1", "windows-1252", "windows-1251", "iso-8859-2"}
    assert expected | {"koi8-r", "shift_jis", "euc-jp", "gb18030"} <= {page.charset for page in pages}


def test_every_page_decodes_with_its_charset_and_declares_it_or_is_marked(pages):
    for page in pages:
        html = page.body.decode(page.charset)
        label = page.charset.removesuffix("-sig")
        declared = (f"charset={label}" in page.content_type, f"charset={label}" in html.replace('"', ""))
        marked = page.body.startswith((b"\xef\xbb\xbf", b"\xff\xfe"))
        assert any(declared) != marked, page.path_name


def test_texts_are_in_their_language(pages):
    wrong = [page.path_name for page in pages if py3langid.classify(page.text)[0] != page.language]
    assert wrong == []


def test_dates_stand_on_the_page(pages):
    dated = [page for page in pages if page.date]
    assert 0.6 < len(dated) / len(pages) < 0.95
    assert [page.path_name for page in dated if page.date not in page.body.decode(page.charset)] == []


def test_extraction_finds_the_article_and_leaves_the_rest(pages, make_corpus):
    markers = sys.modules["corpus_maker.surroundings"].MARKERS.values()
    poor, dirty = [], []
    for page in pages:
        html = page.body.decode(page.charset)
        assert sum(marker in html for marker in markers) >= 4, page.path_name
        extracted = trafilatura.extract(html, fast=True) or ""
        expected = words(page.text)
        if (expected & words(extracted)).total() < 0.9 * expected.total():
            poor.append(page.path_name)
        if any(marker in extracted for marker in markers):
            dirty.append(page.path_name)
    assert len(poor) <= 0.05 * len(pages), poor
    assert len(dirty) <= 0.05 * len(pages), dirty


def test_an_absent_corpus_says_what_to_do(tmp_path, monkeypatch):
    monkeypatch.setattr(corpus, "CORPUS_DIRECTORY", tmp_path)
    with pytest.raises(LabError, match=r"index\.json.*make_corpus\.py"):
        load_corpus()


def test_a_broken_index_says_what_to_do(tmp_path, monkeypatch):
    (tmp_path / "index.json").write_text('[{"file": "a.html"}]')
    monkeypatch.setattr(corpus, "CORPUS_DIRECTORY", tmp_path)
    with pytest.raises(LabError, match=r"index\.json.*content_type.*make_corpus\.py"):
        load_corpus()


def test_a_folder_is_searched_recursively_and_decompressed(tmp_path: Path):
    (tmp_path / "deep" / "deeper").mkdir(parents=True)
    (tmp_path / "deep" / "a.html").write_bytes(b"<p>\xe4</p>")
    (tmp_path / "deep" / "deeper" / "b.HTM").write_bytes(b"<p>b</p>")
    (tmp_path / "c.html.gz").write_bytes(gzip.compress(b"<p>c</p>"))
    (tmp_path / "notes.txt").write_bytes(b"no page")
    (tmp_path / "d.gz").write_bytes(gzip.compress(b"no page"))
    assert load_pages(tmp_path) == [
        Page("c.html.gz", "text/html", b"<p>c</p>"),
        Page("deep/a.html", "text/html", b"<p>\xe4</p>"),
        Page("deep/deeper/b.HTM", "text/html", b"<p>b</p>"),
    ]


@pytest.mark.parametrize("folder", ["", "absent"])
def test_a_folder_without_pages_is_named(tmp_path, folder):
    with pytest.raises(LabError, match=str(tmp_path / folder)):
        load_pages(tmp_path / folder)


def test_a_broken_archive_is_named(tmp_path):
    (tmp_path / "broken.html.gz").write_bytes(b"\x1f\x8bnot gzip at all")
    with pytest.raises(LabError, match=r"broken\.html\.gz"):
        load_pages(tmp_path)
