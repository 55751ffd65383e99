"""Finding the address and the title in what is shared."""

from __future__ import annotations

import time

import pytest

from fuze_bench.pipeline.shared_text import shared_addresses, shared_title


def found(url: str = "", text: str = "", title: str = "") -> list[str]:
    return list(shared_addresses(url, text, title))


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("(see https://example.org/a_(b)).", "https://example.org/a_(b)"),
        ("<https://example.org/x>, and more", "https://example.org/x"),
        ("[a label](https://example.org/a_(b)) here", "https://example.org/a_(b)"),
        ("[https://example.org/1](https://example.org/2)", "https://example.org/1"),
        ('"https://example.org/x"!', "https://example.org/x"),
        ("'https://example.org/it's'", "https://example.org/it's"),
        ("('https://example.org/1','https://example.org/2')", "https://example.org/1"),
        ("“https://example.org/x”", "https://example.org/x"),
        ("‘https://example.org/x’", "https://example.org/x"),
        ("«https://example.org/x»", "https://example.org/x"),
        ("**https://example.org/x**", "https://example.org/x"),
        ("https://example.org/x, then", "https://example.org/x"),
        ("is it https://example.org/x?", "https://example.org/x"),
        ("wait… https://example.org/x…", "https://example.org/x"),
        ("HTTPS://EXAMPLE.ORG/X", "HTTPS://EXAMPLE.ORG/X"),
        ("look:https://example.org/x", "https://example.org/x"),
        ("看https://例え.jp/パス。次", "https://例え.jp/パス"),
        ("https://münchen.example/straße\nmore", "https://münchen.example/straße"),
        ("https://[::1]:8000/x]", "https://[::1]:8000/x"),
        ("https://example.org/?q=[1]&r=a,b;c#!/d", "https://example.org/?q=[1]&r=a,b;c#!/d"),
        ("https://web.example/2020/https://example.org/.", "https://web.example/2020/https://example.org/"),
        ("https://example.org/x\u202e rest", "https://example.org/x"),
        ("https://example.org/_id_-", "https://example.org/_id_-"),
    ],
)
def test_an_address_is_taken_out_of_its_surroundings(text: str, address: str) -> None:
    assert found(text=text)[0] == address
    assert found(title=text)[0] == address


@pytest.mark.parametrize(
    ("url", "addresses"),
    [
        ("https://example.org/x).", ["https://example.org/x)."]),
        (" https://example.org/a b ", ["https://example.org/a b"]),
        ("https:/example.org", ["https:/example.org"]),
        ("(https://example.org/x)", ["https://example.org/x"]),
        ("https://example.org/1\nhttps://example.org/2", ["https://example.org/1", "https://example.org/2"]),
    ],
)
def test_a_url_alone_is_taken_as_it_is(url: str, addresses: list[str]) -> None:
    assert found(url=url) == addresses


def test_the_url_comes_before_the_text_and_the_text_before_the_title() -> None:
    assert found("https://example.org/1", "https://example.org/2", "https://example.org/3") == [
        f"https://example.org/{n}" for n in (1, 2, 3)
    ]


@pytest.mark.parametrize(
    "text", ["", "no address", "ftp://example.org/x", "example.org/x", "xhttps://example.org/"]
)
def test_what_is_no_address_is_not_found(text: str) -> None:
    assert found(text, text, text) == []


def test_a_long_text_takes_no_time() -> None:
    texts = (
        "https://a" * 30_000,
        "https://a " * 30_000,
        "https://" + "(" * 200_000,
        "https://a" + ")." * 100_000,
    )
    began = time.monotonic()
    assert all(len(found(text=text)) <= 50 for text in texts)
    assert time.monotonic() - began < 5


@pytest.mark.parametrize(
    ("title", "text", "expected"),
    [
        ("My name", "First line", "My name"),
        ("", "\n  The bridge \nmore\nhttps://example.org/", "The bridge"),
        (" ", "", None),
        ("", "https://example.org/x\nmore", None),
        ("", "see https://example.org/x", None),
        ("https://example.org/x", "The bridge", "The bridge"),
        ("Read https://e.org/x", "", "Read https://e.org/x"),
        ("", "x" * 30, "x" * 19 + "…"),
        (" " + "y" * 30, "", "y" * 19 + "…"),
    ],
)
def test_the_title_is_the_given_one_else_the_first_line(title: str, text: str, expected: str | None) -> None:
    assert shared_title(title, text, max_chars=20) == expected
