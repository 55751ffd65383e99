"""The canonical URL: what is the same page, what never is, and what is no URL at all."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fuze_bench.errors import InvalidUrlError
from fuze_bench.pipeline.settings import TRACKING_PARAMETERS
from fuze_bench.pipeline.urls import parse_page_url


def canonical(url: str) -> str:
    return parse_page_url(url, tracking_parameters=TRACKING_PARAMETERS).canonical


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("https://a.org", "https://a.org/"),
        ("https://EXAMPLE.org:443/", "https://example.org"),
        ("HTTP://a.org:80/x", "http://a.org/x"),
        ("https://bücher.example/", "https://xn--bcher-kva.example/"),
        ("https://a.org/x/../y/./z", "https://a.org/y/z"),
        ("https://a.org/x#section", "https://a.org/x"),
        ("https://a.org/x?utm_source=mail&id=1", "https://a.org/x?id=1"),
        ("https://a.org/x?id=1&FBCLID=abc&gclid=d", "https://a.org/x?id=1"),
        ("https://a.org/x?utm%5Fsource=mail", "https://a.org/x"),
        ("https://a.org/x?", "https://a.org/x"),
        ("https://a.org/x?gclid=d&", "https://a.org/x"),
        ("  https://a.org/x\n", "https://a.org/x"),
    ],
)
def test_the_same_page(one: str, other: str) -> None:
    assert canonical(one) == canonical(other)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("https://a.org/a", "https://a.org/a/"),
        ("https://a.org/A", "https://a.org/a"),
        ("https://a.org/watch?v=A", "https://a.org/watch?v=B"),
        ("https://a.org/x?a=1&b=2", "https://a.org/x?b=2&a=1"),
        ("https://a.org/x?a", "https://a.org/x?a="),
        ("https://a.org/x?a=1&a=1", "https://a.org/x?a=1"),
        ("https://a.org/x?q=a+b", "https://a.org/x?q=a%2Bb"),
        ("https://a.org/x?ref=main", "https://a.org/x"),
        ("https://a.org/#/inbox", "https://a.org/#/sent"),
        ("https://a.org/#!inbox", "https://a.org/"),
        ("https://a.org/x", "http://a.org/x"),
        ("https://a.org:8443/x", "https://a.org/x"),
        ("https://www.a.org/x", "https://a.org/x"),
        ("https://a.org//x", "https://a.org/x"),
        ("https://a.org/a%2Fb", "https://a.org/a/b"),
    ],
)
def test_two_pages(one: str, other: str) -> None:
    assert canonical(one) != canonical(other)


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("", "is not a URL"),
        ("example.org/x", "is not a URL"),
        ("/x", "is not a URL"),
        ("http://", "is not a URL"),
        ("https://a b.org/", "is not a URL"),
        ("see https://example.org/x", "is not a URL"),
        ("https://[fe80::1%25eth0]/", "is not a URL"),
        ("file:///etc/passwd", "file: URLs cannot be saved"),
        ("ftp://a.org/x", "ftp: URLs cannot be saved"),
        ("javascript:alert(1)", "javascript: URLs cannot be saved"),
        ("data:text/html,x", "data: URLs cannot be saved"),
        ("https://user:secret@a.org/", "carries a user name or password"),
        ("https://user@a.org/", "carries a user name or password"),
        ("https://a.org/\0", "NUL"),
        ("https://a.org/\ud800", "surrogate"),
        ("https://a.org/" + "x" * 100_000, "has 100,014 characters"),
    ],
)
def test_no_page(url: str, message: str) -> None:
    with pytest.raises(InvalidUrlError, match=message):
        parse_page_url(url)


def test_a_secret_in_a_url_is_not_repeated_in_the_error() -> None:
    with pytest.raises(InvalidUrlError) as caught:
        parse_page_url("https://user:secret@a.org/")
    assert "secret" not in str(caught.value)


def test_an_underscore_in_a_host_name_is_fine() -> None:
    assert canonical("http://my_shop.localhost:5000/") == "http://my_shop.localhost:5000/"


def test_the_given_url_is_kept() -> None:
    page = parse_page_url(" https://A.org/x?utm_source=1#top ", tracking_parameters=TRACKING_PARAMETERS)
    assert page.given == "https://A.org/x?utm_source=1#top"


names = st.text("abcdefghijklmnopqrstuvwxyz0123456789-._~%20+ü", min_size=1, max_size=8).filter(
    lambda name: name.lower() not in TRACKING_PARAMETERS and not name.startswith(("utm_", "."))
)
pairs = st.lists(st.tuples(names, names), max_size=5)


@given(pairs, st.lists(st.sampled_from(TRACKING_PARAMETERS), max_size=3), st.randoms())
def test_every_other_parameter_keeps_its_place_and_value(
    query: list[tuple[str, str]], tracking: list[str], random
) -> None:  # type: ignore[no-untyped-def]
    """Tracking parameters strewn in anywhere change nothing; all others stay, in their order."""
    parts = [f"{name}={value}" for name, value in query]
    strewn = list(parts)
    for name in tracking:
        strewn.insert(random.randint(0, len(strewn)), f"{name}=x")
    clean = canonical("https://a.org/p" + ("?" + "&".join(parts) if parts else ""))
    assert canonical("https://a.org/p?" + "&".join(strewn)) == clean
    assert clean.count("&") == max(0, len(parts) - 1)


@given(pairs)
def test_canonical_is_a_fixed_point(query: list[tuple[str, str]]) -> None:
    once = canonical("https://A.org/p?" + "&".join(f"{n}={v}" for n, v in query))
    assert canonical(once) == once
