"""The share target over HTTP: what it takes, what it refuses, and whom it asks first."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from html import unescape
from pathlib import Path
from urllib.parse import urlencode

import pytest
from api_server import Answer, Client, api_for_many_tests, kept, running_api

from fuze_bench.pipeline.settings import Settings

CASES = Path(__file__).parent / "cases"
URLENCODED = "application/x-www-form-urlencoded"


@pytest.fixture(scope="module")
def unused_api(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Client]:
    """One API for all the tests that save nothing."""
    with api_for_many_tests(tmp_path_factory.mktemp("share")) as client:
        yield client


def post(api: Client, body: bytes | str, content_type: str = URLENCODED, **headers: str) -> Answer:
    sent = {"Content-Type": content_type} | {name.replace("_", "-"): value for name, value in headers.items()}
    return api.send("POST", "/share", body if isinstance(body, bytes) else body.encode(), sent)


def share(api: Client, **fields: str) -> Answer:
    return post(api, urlencode(fields))


def multipart(**fields: str) -> tuple[bytes, str]:
    parts = [
        f'--xyz\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{value}\r\n'
        for name, value in fields.items()
    ]
    return ("".join(parts) + "--xyz--\r\n").encode(), "multipart/form-data; boundary=xyz"


def stored(api: Client) -> list[tuple[str, str | None]]:
    bookmarks = api.get("/api/bookmarks").json["bookmarks"]
    return [(bookmark["url"], bookmark["title"]) for bookmark in bookmarks]


def says(answer: Answer, status: int, *texts: str) -> bool:
    """Whether it is a page with this status that says all of `texts`, and has the way back."""
    page = unescape(answer.raw.decode())
    assert answer.headers["content-type"] == "text/html; charset=utf-8"
    assert answer.status == status, page
    assert '<a href="/">' in page
    return all(text in page for text in texts)


def test_a_share_with_the_link_in_its_text_is_saved_and_queued(api: Client, settings: Settings) -> None:
    form = (CASES / "A05.form").read_bytes().strip()
    assert says(post(api, form), 201, "<h1>Saved</h1>", "The bridge at dawn", "no worker listens to")
    assert stored(api) == [("https://example.org/stories/bridge?id=7", "The bridge at dawn")]
    assert kept(settings)[1]["default"] == ["bookmark-1-1"]


def test_it_asks_before_a_get_saves(api: Client, settings: Settings) -> None:
    query = (CASES / "A05.form").read_text().strip()
    asked = api.get(f"/share?{query}")
    assert says(
        asked, 200, "Save this page?", 'value="https://example.org/stories/bridge?id=7"', "The bridge at dawn"
    )
    assert b'<form method="post" action="/share">' in asked.raw
    counts, jobs = kept(settings)
    assert not any(counts.values())
    assert not any(jobs.values())


def test_saving_it_again_is_no_second_bookmark(api: Client) -> None:
    assert says(share(api, url="https://example.org/1", title="A name"), 201, "<h1>Saved</h1>")
    assert says(share(api, text="(https://example.org/1)."), 200, "<h1>Saved before</h1>", "A name")
    assert len(stored(api)) == 1


def test_a_multipart_form_is_read_as_well(api: Client) -> None:
    body, content_type = multipart(title="Brücke", text="one\r\n--two: https://example.org/1", url="")
    assert says(post(api, body, content_type), 201)
    assert stored(api) == [("https://example.org/1", "Brücke")]


@pytest.mark.parametrize(
    "fields",
    [
        {"text": "first ftp://example.org/, http://user:word@example.org/, then https://example.org/ok"},
        {"url": "http://%", "title": "https://example.org/ok"},
        {
            "url": "javascript:alert(1)",
            "text": "https://example.org/ok",
        },
    ],
)
def test_the_first_address_that_can_be_saved_is(api: Client, fields: dict[str, str]) -> None:
    assert says(share(api, **fields), 201)
    assert stored(api)[0][0] == "https://example.org/ok"


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({}, "there is no address in what was shared"),
        ({"text": "nothing here"}, "there is no address in what was shared"),
        ({"url": "ftp://example.org/x"}, "ftp: URLs cannot be saved"),
        ({"url": "example.org"}, "'example.org' is not a URL"),
        ({"text": "https://a:b@example.org/"}, "user name or password"),
        ({"url": "https://example.org/", "title": "a\0b"}, "title contains a NUL"),
        ({"url": "https://example.org/" + "x" * 8_000}, "the limit is 8,000"),
    ],
)
@pytest.mark.parametrize("method", ["GET", "POST"])
def test_what_cannot_be_saved_is_refused_with_the_reason(
    unused_api: Client, method: str, fields: dict[str, str], reason: str
) -> None:
    query = urlencode(fields)
    answer = unused_api.get(f"/share?{query}") if method == "GET" else post(unused_api, query)
    assert says(answer, 422, "Not saved", reason)
    assert stored(unused_api) == []


@pytest.mark.parametrize(
    ("body", "content_type", "status", "reason"),
    [
        (b"{}", "application/json", 415, "application/json"),
        (b"url=https://example.org/", "", 415, "send a form"),
        (b"&".join([b"a=1"] * 101), URLENCODED, 400, "too many fields"),
        (b"--xyz\r\n", "multipart/form-data", 400, "boundary"),
        (b'--xyz\r\nContent-Disposition: form-data; name="url"\r\n\r\nhttps://e', "multipart/form-data; boundary=xyz",
         400, "not complete"),
        (b"title=%FF&url=https://example.org/", URLENCODED, 422, "title contains half a surrogate pair"),
        (b"url=https://example.org/%FF", URLENCODED, 422, "half a surrogate pair"),
        (b"url=https://example.org/" + b"x" * 300_000, URLENCODED, 413, "limit is 262,144"),
    ],
)  # fmt: skip
def test_a_body_that_is_no_form_is_refused(
    unused_api: Client, body: bytes, content_type: str, status: int, reason: str
) -> None:
    assert says(post(unused_api, body, content_type), status, "Not saved", reason)
    assert stored(unused_api) == []


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 201),
        ({"Sec_Fetch_Site": "none", "Origin": "null"}, 201),
        ({"Sec_Fetch_Site": "same-origin"}, 201),
        ({"Sec_Fetch_Site": "cross-site"}, 200),
        ({"Sec_Fetch_Site": "same-site"}, 200),
        ({"Sec_Fetch_Site": "cross-site", "Origin": "OWN"}, 200),
        ({"Origin": "OWN"}, 201),
        ({"Origin": "https://evil.example"}, 200),
        ({"Origin": "null"}, 200),
        ({"Origin": "http://["}, 200),
    ],
)
def test_a_form_of_another_site_only_asks(api: Client, headers: dict[str, str], status: int) -> None:
    headers = {name: api.base_url if value == "OWN" else value for name, value in headers.items()}
    answer = post(api, "url=https://example.org/1", **headers)
    assert says(answer, status, "<h1>Saved</h1>" if status == 201 else "Save this page?")
    assert len(stored(api)) == (1 if status == 201 else 0)


def test_what_is_shared_is_shown_and_not_run(api: Client) -> None:
    hostile = "</bdi></title><script>alert(1)</script>\"'><img src=x onerror=alert(2)>{heading}"
    for answer in (
        api.get("/share?" + urlencode({"url": "https://example.org/\"'><b>", "title": hostile})),
        share(api, url="https://example.org/\"'><b>", title=hostile),
        share(api, url=f"ftp:{hostile}"),
    ):
        assert not any(mark in answer.raw for mark in (b"<script", b"<img", b"<b>", b"\"'>"))
        policy = answer.headers["content-security-policy"]
        assert policy.startswith("default-src 'none'")
        assert "form-action 'self'" in policy
        assert "frame-ancestors 'none'" in policy
        assert "unsafe" not in policy
        # Without TLS, the form's origin is all that tells it from a stranger's; `no-referrer` would take it away.
        assert answer.headers["referrer-policy"] == "same-origin"
    assert stored(api)[0][1] == hostile


def test_every_character_of_a_title_is_kept_and_isolated(api: Client) -> None:
    title = json.loads((CASES / "A07.json").read_text())["title"]
    answer = share(api, url="https://example.org/a07", title=title)
    assert says(answer, 201, f"<bdi>{title}</bdi>")
    assert stored(api) == [("https://example.org/a07", title)]


def test_a_title_that_is_too_long_is_shortened(api: Client) -> None:
    assert says(share(api, url="https://example.org/", title="x" * 1_001), 201)
    assert stored(api) == [("https://example.org/", "x" * 999 + "…")]


@pytest.mark.parametrize(
    ("method", "headers", "status", "reason"),
    [
        ("GET", {"Host": "<b>.example"}, 400, "names no host"),
        ("GET", {"Host": "evil.example"}, 421, "does not answer as 'evil.example'"),
        ("POST", {"Host": "evil.example"}, 421, "does not answer as 'evil.example'"),
        ("PUT", {}, 405, "PUT is not possible here"),
    ],
)
def test_what_is_refused_before_it_is_looked_at_is_a_page_too(
    unused_api: Client, method: str, headers: dict[str, str], status: int, reason: str
) -> None:
    answer = unused_api.send(method, "/share", b"url=https://example.org/", headers)
    assert says(answer, status, "Not saved", reason)
    assert answer.headers["content-security-policy"].startswith("default-src 'none'")
    assert answer.headers["cross-origin-opener-policy"] == "same-origin"


def test_too_many_shares_and_tokens_that_cannot_be_read_are_said_on_a_page(
    settings: Settings, tmp_path: Path
) -> None:
    tokens = tmp_path / "tokens"
    tokens.write_text("five-0123456789abcdef 5\n")
    tokens.chmod(0o600)
    with running_api(replace(settings, api_tokens=tokens, rate_limit_per_min=10)) as base_url:
        api, user = Client(base_url), {"Authorization": "Bearer five-0123456789abcdef"}
        assert says(post(api, "url=https://example.org/1", **user), 201)
        refused = post(api, "url=https://example.org/2", **user)
        assert says(refused, 429, "Not saved", "too many requests: try again in")
        assert 1 <= int(refused.headers["retry-after"]) <= 6
        tokens.write_text("broken\n")
        assert says(post(api, "url=https://example.org/2", **user), 503, "Not saved", "its log says why")


def test_a_database_that_is_away_is_said_on_a_page(api: Client, settings: Settings) -> None:
    with closing(sqlite3.connect(settings.data_dir / "bookmarks.sqlite")) as connection:
        connection.execute("ALTER TABLE fuze_bookmarks RENAME TO gone")
    assert says(share(api, url="https://example.org/1"), 503, "Not saved", "the database cannot be used")
