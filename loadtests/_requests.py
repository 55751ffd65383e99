"""The requests of the scenarios, one after the other, for as long as somebody asks; nothing here knows of Locust."""

from __future__ import annotations

import itertools
import json
from collections.abc import Container, Iterator
from dataclasses import dataclass, field
from urllib.parse import urlencode

QUICK_SAVE = "/api/bookmarks/quick-save"
IMPORT = "/api/bookmarks/import"
SAVED = frozenset({200, 201})
#: Each tenth of the priority mix, spread out.
_MIX = ("high", "default", "low", "low", "low", "low", "default", "low", "low", "default")
#: Of five saves, the last is one that was saved before.
_REPEATED_EACH = 5


@dataclass(frozen=True)
class Request:
    """What to send, under which name it is counted, and which statuses are right; all others are failures."""

    name: str
    path: str
    body: bytes | None = None
    content_type: str | None = "application/json"
    method: str = "POST"
    right: Container[int] = SAVED
    headers: dict[str, str] = field(default_factory=dict)


def pages(origin: str, who: str) -> Iterator[str]:
    """Addresses that nobody else saves; the site there shows pages of the corpus."""
    return (f"{origin}/page/{number}?user={who}" for number in itertools.count())


def quick_save(
    url: str, queue: str | None = None, name: str = "quick-save", right: Container[int] = SAVED
) -> Request:
    """Save one page."""
    body = {"url": url} if queue is None else {"url": url, "queue": queue}
    return Request(name, QUICK_SAVE, json.dumps(body).encode(), right=right)


def quick_saves(urls: Iterator[str]) -> Iterator[Request]:
    """New pages."""
    return (quick_save(url) for url in urls)


def shares(urls: Iterator[str]) -> Iterator[Request]:
    """What the installed page sends when something is shared with it: the address is in the text."""
    for url in urls:
        form = {"title": "Shared by a load test", "text": f"Worth reading: {url}", "url": ""}
        kind = "application/x-www-form-urlencoded"
        yield Request("share", "/share", urlencode(form).encode(), kind, headers={"Sec-Fetch-Site": "none"})


def duplicates(urls: Iterator[str]) -> Iterator[Request]:
    """New pages, but each fifth is the one four saves ago."""
    while True:
        first, *others = itertools.islice(urls, _REPEATED_EACH - 1)
        for url in (first, *others):
            yield quick_save(url, name="quick-save, new")
        yield quick_save(first, name="quick-save, repeated", right={200})


def priorities(urls: Iterator[str]) -> Iterator[Request]:
    """A tenth `high`, three `default`, six `low`."""
    for queue, url in zip(itertools.cycle(_MIX), urls, strict=False):
        yield quick_save(url, queue, name=f"quick-save, {queue}")


def import_list(urls: Iterator[str], count: int) -> Request:
    """An import of `count` pages at once."""
    listed = [{"url": url} for url in itertools.islice(urls, count)]
    return Request("import", IMPORT, json.dumps({"bookmarks": listed}).encode(), right={200})


def _bad_save(name: str, body: object, **more: object) -> Request:
    sent = body if isinstance(body, bytes) else json.dumps(body).encode()
    return Request(f"hostile: {name}", QUICK_SAVE, sent, right=range(400, 500), **more)  # type: ignore[arg-type]


def _bad(name: str, method: str, path: str, **more: object) -> Request:
    return Request(f"hostile: {name}", path, method=method, right=range(400, 500), **more)  # type: ignore[arg-type]


_URL = "https://example.org/"

#: Each must be answered with 4xx: what is saved, or breaks the API, is a failure.
HOSTILE = (
    _bad_save("no JSON", b"{"),
    _bad_save("empty", b""),
    _bad_save("a list", []),
    _bad_save("null", None),
    _bad_save("deep", b"[" * 60_000),
    _bad_save("NaN", b'{"url": "https://example.org/", "title": NaN}'),
    _bad_save("UTF-16", json.dumps({"url": _URL}).encode("utf-16")),
    _bad_save("not UTF-8", b'{"url": "https://example.org/\xff"}'),
    _bad_save("half a surrogate", b'{"url": "https://example.org/", "title": "\\ud800"}'),
    _bad_save("NUL", {"url": _URL, "title": "a\0b"}),
    _bad_save("no URL", {}),
    _bad_save("empty URL", {"url": ""}),
    _bad_save("URL without a scheme", {"url": "example.org/page"}),
    _bad_save("file URL", {"url": "file:///etc/passwd"}),
    _bad_save("javascript URL", {"url": "java\nscript:alert(1)"}),
    _bad_save("URL with a password", {"url": "https://user:secret@example.org/"}),
    _bad_save("URL with a bad port", {"url": "https://example.org:99999/"}),
    _bad_save("URL of 100 KB", {"url": _URL + "x" * 100_000}),
    _bad_save("title of 20 KB", {"url": _URL, "title": "x" * 20_000}),
    _bad_save("body of 300 KB", {"url": _URL, "description": "x" * 300_000}),
    _bad_save("number for a URL", {"url": 1}),
    _bad_save("unknown field", {"url": _URL, "user_id": 2}),
    _bad_save("field twice", b'{"url": "https://example.org/", "url": "https://example.org/"}'),
    _bad_save("unknown queue", {"url": _URL, "queue": "urgent"}),
    _bad_save("another type", {"url": _URL}, content_type="text/plain"),
    _bad_save("no type", {"url": _URL}, content_type=None),
    _bad_save("another site", {"url": _URL}, headers={"Sec-Fetch-Site": "cross-site"}),
    _bad_save("another host", {"url": _URL}, headers={"Host": "evil.example"}),
    _bad("share without a link", "POST", "/share", body=b"title=x&text=nothing+here",
         content_type="application/x-www-form-urlencoded"),
    _bad("import that is none", "POST", IMPORT, body=b'{"bookmarks": 1}'),
    _bad("another method", "PUT", QUICK_SAVE, body=b"{}"),
    _bad("unknown bookmark", "GET", "/api/bookmarks/999999999999"),
    _bad("bookmark that is no number", "GET", "/api/bookmarks/-1"),
    _bad("job with NUL", "GET", "/api/jobs/%00"),
    _bad("job with slash", "GET", "/api/jobs/a%2Fb"),
    _bad("long job", "GET", f"/api/jobs/{'x' * 5_000}"),
    _bad("unknown parameter", "GET", "/api/bookmarks?limits=1"),
    _bad("limit too large", "GET", "/api/bookmarks?limit=100000000000"),
    _bad("way up", "GET", "/%2e%2e/%2e%2e/etc/passwd"),
)  # fmt: skip
