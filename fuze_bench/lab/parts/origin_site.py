"""The routes of the origin: which answer a request target gets, and how often each was asked for."""

import html
import json
import random
from collections import Counter
from collections.abc import Sequence
from urllib.parse import parse_qs

from fuze_bench.errors import SettingsError

from .corpus import Page
from .origin_hostile import HOSTILE
from .origin_wire import Answer, Reply, reason, reply


class Site:
    """Serves `pages`; `latency_ms` and the share `failure_rate` of 503 answers apply to /page/ alone.

    The seeded generator is asked once per request for /page/, so the same order of requests fails alike.
    Raises SettingsError for a negative latency, a rate outside 0 to 1, or no pages.
    """

    def __init__(self, pages: Sequence[Page], *, latency_ms: float, failure_rate: float, seed: int) -> None:
        if not latency_ms >= 0:
            raise SettingsError(f"latency_ms is {latency_ms}; it must be 0 or more milliseconds")
        if not 0 <= failure_rate <= 1:
            raise SettingsError(f"failure_rate is {failure_rate}; it must be a share from 0 to 1")
        if not pages:
            raise SettingsError(
                "the origin has no pages to serve; give it at least one, or none for the corpus"
            )
        self._pages = pages
        self._latency_s = latency_ms / 1000
        self._failure_rate = failure_rate
        self._random = random.Random(seed)
        self.put_replies: dict[str, Reply] = {}
        self.hits: Counter[str] = Counter()
        self.total_hits = 0

    def answer(self, target: str) -> Answer:
        """The answer for a request target (path and query string); every target but /hits is counted."""
        path, _, query = target.partition("?")
        if path == "/hits":
            return self._hit_counts(query)
        self.hits[target] += 1
        self.total_hits += 1
        match path.split("/")[1:]:
            case [""]:
                return self._index()
            case ["page", n] if (number := _number(n)) is not None:
                return self._page_with_faults(number)
            case ["status", code] if (status := _number(code)) is not None and 200 <= status <= 599:
                return _error(status)
            case ["redirect", n] if (steps := _number(n)) is not None:
                return self._redirect(steps)
            case ["redirect-loop"]:
                return reply(302, headers={"Location": "/redirect-loop"})
            case ["slow", ms, n] if (number := _number(n)) is not None and (
                wait_ms := _number(ms)
            ) is not None:
                return self._page(number, delay_s=wait_ms / 1000)
            case ["flaky", times, n] if (number := _number(n)) is not None and (
                fails := _number(times)
            ) is not None:
                return _error(503) if self.hits[target] <= fails else self._page(number)
            case ["put", *_]:
                return self.put_replies.get(target) or self.put_replies.get(path) or _error(404)
            case ["hostile", name] if name in HOSTILE:
                return HOSTILE[name]()
        return _error(404)

    def _page(self, number: int, *, delay_s: float = 0.0) -> Reply:
        page = self._pages[number % len(self._pages)]
        return reply(200, page.body, page.content_type, delay_s=delay_s)

    def _page_with_faults(self, number: int) -> Reply:
        if self._random.random() < self._failure_rate:
            return _error(503, delay_s=self._latency_s)
        return self._page(number, delay_s=self._latency_s)

    def _redirect(self, steps: int) -> Reply:
        return reply(302, headers={"Location": f"/redirect/{steps - 1}"}) if steps else self._page(0)

    def _index(self) -> Reply:
        items = "\n".join(
            f'<li><a href="/page/{number}">{html.escape(page.title or page.path_name)}</a></li>'
            for number, page in enumerate(self._pages)
        )
        return reply(body=f"<!DOCTYPE html><title>Pages</title><h1>Pages</h1><ul>\n{items}\n</ul>".encode())

    def _hit_counts(self, query: str) -> Reply:
        paths = parse_qs(query).get("path")
        counts = {path: self.hits[path] for path in paths} if paths else self.hits
        return reply(body=json.dumps(counts).encode(), content_type="application/json")


def _error(status: int, *, delay_s: float = 0.0) -> Reply:
    words = f"{status} {reason(status)}"
    body = f"<!DOCTYPE html><title>{words}</title><h1>{words}</h1>".encode()
    return reply(status, body, delay_s=delay_s)


def _number(text: str) -> int | None:
    """The number that the path segment states, if it is one of at most nine digits."""
    return int(text) if text.isascii() and text.isdigit() and len(text) <= 9 else None
