"""A URL's canonical key: what counts as "the same page", and what never does.

The WHATWG URL parser (ada, the one inside Node.js) does the reading, as browsers do: scheme and host in lower case,
IDN to ASCII, default port and dot segments dropped. On top of that the listed tracking parameters and a fragment that
does not route are dropped; everything else is kept to the letter, because it may mean another page.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Collection
from dataclasses import dataclass
from urllib.parse import unquote_plus

import ada_url

from fuze_bench.errors import InvalidUrlError

_SHOWN_CHARS = 80
#: Fragments that single-page sites route by.
_ROUTING_FRAGMENTS = ("#/", "#!")
#: Tabs and line breaks inside a URL are left out, as browsers do: text that was wrapped when it was copied.
_LINE_BREAKS = dict.fromkeys(map(ord, "\t\n\r"))
#: What HTTP libraries read as browsers do; `http:/host`, `http:host` and backslashes are beyond them.
_PLAIN = re.compile(r"https?://[^/?#]", re.IGNORECASE)
#: How the parser writes a URL that a page can have: its own `@`, `/`, `?` and `#` are all that are left of these, and a
#: host is always there. Asking the parser for each part takes five times as long.
_NORMALIZED = re.compile(r"(https?://)(?:([^/?#@]*)@)?([^/?#@]+)(/[^?#]*)(?:\?([^#]*))?(#.*)?", re.DOTALL)
#: Half a surrogate pair: no text that can be stored or sent.
SURROGATE = re.compile("[\ud800-\udfff]")


@dataclass(frozen=True)
class PageUrl:
    """`given` as the user sent it (spelled out where only a browser could read it), `canonical` as the page's key."""

    given: str
    canonical: str


def parse_page_url(
    text: str, *, tracking_parameters: Collection[str] = (), max_chars: int = 8_000
) -> PageUrl:
    """The page that `text` addresses.

    Raises InvalidUrlError if it is not an absolute http(s) URL, is too long, or carries credentials.
    """
    given = text.strip().translate(_LINE_BREAKS)
    if len(given) > max_chars:
        raise InvalidUrlError(f"the URL has {len(given):,} characters: the limit is {max_chars:,}")
    if "\0" in given or SURROGATE.search(given):
        raise InvalidUrlError("the URL contains a NUL or half a surrogate pair: remove it")
    try:
        href = ada_url.normalize_url(given)
    except ValueError:
        raise InvalidUrlError(
            f"{_shown(given)} is not a URL: give one like https://example.org/page"
        ) from None
    parts = _NORMALIZED.fullmatch(href)
    if parts is None:
        raise InvalidUrlError(f"{href.partition(':')[0]}: URLs cannot be saved: only http and https")
    site, login, host, path, query, fragment = parts.groups()
    if login:
        raise InvalidUrlError(
            "the URL carries a user name or password: remove it, it would be stored in clear"
        )
    if "\\" in given or not _PLAIN.match(given):
        given = href
    if query:
        query = _without_tracking(query, _lowered(tuple(tracking_parameters)))
    query = f"?{query}" if query else ""
    fragment = fragment if fragment and fragment.startswith(_ROUTING_FRAGMENTS) else ""
    return PageUrl(given=given, canonical=f"{site}{host}{path}{query}{fragment}")


def _without_tracking(query: str, tracking: frozenset[str]) -> str:
    return "&".join(pair for pair in query.split("&") if not _is_tracking(pair, tracking))


@functools.lru_cache(maxsize=8)
def _lowered(names: tuple[str, ...]) -> frozenset[str]:
    return frozenset(name.lower() for name in names)


def _is_tracking(pair: str, tracking: frozenset[str]) -> bool:
    return unquote_plus(pair.partition("=")[0]).lower() in tracking


def _shown(text: str) -> str:
    return repr(text if len(text) <= _SHOWN_CHARS else text[:_SHOWN_CHARS] + "…")
