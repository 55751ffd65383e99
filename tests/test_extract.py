"""Extraction: the right text in the right encoding, no padding, nothing cut in silence."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from fuze_bench.lab.parts.corpus import load_corpus
from fuze_bench.pipeline.bookmarks import ProcessingError, Reason
from fuze_bench.pipeline.extract import Extracted, decode, extract
from fuze_bench.pipeline.extract import _normalized as normalized

PAGES = Path(__file__).parent / "pages"


def extracted(name: str) -> Extracted:
    headers = json.loads((PAGES / f"{name}.headers.json").read_text())
    return extract((PAGES / f"{name}.html").read_bytes(), headers["Content-Type"], "https://example.org/")


@pytest.mark.parametrize(
    ("name", "title", "parts"),
    [
        ("charset-in-meta", "Frühstück über den Dächern", ["Die Bäckerin öffnet früh", "zählt die Störche"]),
        ("no-charset", "Šálek čaje", ["Žluťoučký kůň", "crème brûlée for 4 €"]),
        ("charset-in-header", "Трамвай на холме", ["кондуктор считает билеты"]),
        ("nonsense-label-1", "Café de la gare", ["où le soleil arrive déjà"]),
        ("nonsense-label-2", "Café de la gare", ["où le soleil arrive déjà"]),
        ("nonsense-label-3", "Café de la gare", ["où le soleil arrive déjà"]),
    ],
)
def test_encodings_by_the_webs_rules(name: str, title: str, parts: list[str]) -> None:
    found = extracted(name)
    assert found.title == title
    for part in parts:
        assert part in found.text
    assert not any(sign in found.text for sign in ("Ã", "\N{REPLACEMENT CHARACTER}", "Å¡"))


def test_the_byte_order_mark_wins_over_the_header() -> None:
    assert decode(b"\xef\xbb\xbf\xc3\xa9", "text/html; charset=koi8-r") == "é"
    assert decode("é".encode("utf-16"), "text/html; charset=utf-8") == "é"


def test_latin_1_means_windows_1252_on_the_web() -> None:
    assert decode(b"\x80", "text/html; charset=iso-8859-1") == "€"


def test_absurd_spans_do_not_become_empty_cells() -> None:
    found = extracted("absurd-colspan")
    assert found.title == "Return codes"
    assert "G2" in found.text
    assert "keep the gate locked" in found.text
    assert len(found.text) <= 1_000
    assert "|  |  |  |" not in found.text


def test_deep_pages_are_read_to_the_bottom() -> None:
    assert "blue ledger behind the third lamp" in extracted("deep").text


@pytest.mark.parametrize(
    ("body", "read"),
    [
        ("<p>A short paragraph of many.</p>" * 40_000, 15_000 * 27),
        ("<p>" + "Words of a text without end. " * 80_000 + "</p>", 2_000_000),
        (
            "<p>Before.</p>" + f"<p {' '.join(f'a{n}={n}' for n in range(90))}>Another one.</p>" * 5_000,
            1_500 * 13,
        ),
    ],
    ids=["elements", "characters", "attributes"],
)
def test_of_a_page_without_end_the_beginning_is_read_and_that_is_said(
    body: str, read: int, caplog: pytest.LogCaptureFixture
) -> None:
    page = f"<html><head><title>Long</title></head><body><div>{body}</div><p>The end.</p></body></html>"
    found = extract(page.encode(), "text/html; charset=utf-8", "https://example.org/long")
    assert found.title == "Long"
    assert len(found.text) == pytest.approx(read, rel=0.1)
    assert "The end." not in found.text
    [warning] = caplog.messages
    assert warning.startswith("https://example.org/long: the first ")


def test_scripts_and_attributes_beyond_measure_do_not_hide_the_text() -> None:
    body = f"<script>{'x = 1; ' * 400_000}</script><p {' '.join(f'a{n}=1' for n in range(2_000))}>What is to be read.</p>"
    assert extract(body.encode(), "text/html", "https://example.org/").text == "What is to be read."


def test_a_page_read_again_gives_the_same_text() -> None:
    assert len({extracted("repeated").text for _ in range(12)}) == 1


@pytest.mark.parametrize("signs", [99, 100, 199])
def test_long_runs_of_accents_are_left_as_they_are_wherever_they_stand(signs: int) -> None:
    """What is left is not in its canonical order; what stands before and behind it is composed all the same."""
    run = ("\u0301\u0323" * signs)[:signs]
    for before in range(1, 120, 7):
        text = normalized("e\u0301" + "x" * before + run + "y" + "e\u0301")
        assert text.startswith("\u00e9")
        assert text.endswith("\u00e9")
        assert (run in text) is (signs >= 100), before


def test_a_page_with_nothing_to_read_says_so() -> None:
    for body in (b"<html><body><script>x()</script></body></html>", b"<!-- nothing -->", b"<img src=a>"):
        with pytest.raises(ProcessingError) as caught:
            extract(body, "text/html", "https://example.org/")
        assert caught.value.reason is Reason.NO_TEXT


def test_control_characters_in_a_title_are_spaces() -> None:
    body = b"<title>One\n two\x1f\x01three</title><p>Some words that can be read on this page.</p>"
    assert extract(body, "text/html", "https://example.org/").title == "One two three"


def test_language_and_date() -> None:
    body = (
        "<html lang='en'><head><meta property='article:published_time' content='2023-11-05T08:00:00Z'></head><body>"
        "<article><h1>Der Bahnhof</h1><p>Am frühen Morgen stehen die Reisenden auf dem Bahnsteig und warten auf den "
        "Zug, der heute wieder einmal nicht pünktlich kommt.</p></article></body></html>"
    )
    found = extract(body.encode(), "text/html; charset=utf-8", "https://example.org/")
    assert found.language == "de"  # what is written, not what is declared
    assert found.published == "2023-11-05"


def test_the_corpus_is_found_again() -> None:
    """Of the words that the shipped pages are known to hold, 90 % and more are found on 95 % of the pages."""
    pages = load_corpus()[::4]
    good, titles, languages = 0, 0, 0
    for page in pages:
        found = extract(page.body, page.content_type, "https://example.org/")
        words = set((page.text or "").split())
        good += len(words & set(found.text.split())) >= 0.9 * len(words)
        titles += found.title == page.title
        languages += found.language == page.language
    assert good >= 0.95 * len(pages)
    assert titles >= 0.9 * len(pages)
    assert languages >= 0.9 * len(pages)
