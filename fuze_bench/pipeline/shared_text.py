"""The addresses and the title in what a browser or an app shares: a `url`, or a text with a link somewhere in it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import chain, islice

#: Beyond these, a text is no share but a list; each one costs a look.
_MOST_ADDRESSES = 50
_SCHEME = re.compile(r"(?<![a-z0-9+.-])https?:", re.IGNORECASE)
#: An address ends at spaces, marks and quotes that none has unencoded, punctuation of scripts that write without
#: spaces, and the invisible characters that set a direction.
_ADDRESS = re.compile(
    r"(?<![a-z0-9+.-])https?://[^\s<>\"`«»“”„「」『』【】（）《》〈〉、。，！？；：\x00-\x1f"
    r"\u200b\u200e\u200f\u202a-\u202e\u2066-\u2069\ufeff]+",
    re.IGNORECASE,
)
_BRACKETS = {")": "(", "]": "[", "}": "{"}
_QUOTES = {"'": "'", "‘": "’"}
_AFTER_AN_ADDRESS = ".,;:!?'’‘*|…([{"


def shared_addresses(url: str, text: str, title: str) -> Iterator[str]:
    """What may be the page's address, the likeliest first; whether it can be saved is for others to say."""
    whole = url.strip()
    # A browser's own word has nothing around it that had to be taken off.
    is_whole = _SCHEME.match(whole) and len(_ADDRESS.findall(whole)) < 2
    own = [whole] if is_whole else _addresses_in(whole)
    return islice(chain(own, _addresses_in(text), _addresses_in(title)), _MOST_ADDRESSES)


def shared_title(title: str, text: str, max_chars: int) -> str | None:
    """The title, else the text's first line, shortened to the limit; None where that is a link: then the page's own is the better one."""
    found = title.strip()
    if not found or _is_link(found):
        found = next((line.strip() for line in text.splitlines() if line.strip()), "")
        if not found or _ADDRESS.search(found):
            return None
    return found if len(found) <= max_chars else found[: max_chars - 1] + "…"


def _addresses_in(text: str) -> Iterator[str]:
    for match in _ADDRESS.finditer(text):
        yield _without_surroundings(match[0], text[: match.start()][-1:])


def _without_surroundings(address: str, before: str) -> str:
    """Without the bracket or quote that closes what was opened before it, and the punctuation of the sentence."""
    if before in _QUOTES:
        address = re.split(_QUOTES[before] + r"(?!\w)", address, maxsplit=1)[0]
    opened: list[str] = []
    for index, char in enumerate(address):
        if char in _BRACKETS.values():
            opened.append(char)
        elif char in _BRACKETS:
            if not opened or opened[-1] != _BRACKETS[char]:
                address = address[:index]
                break
            opened.pop()
    return address.rstrip(_AFTER_AN_ADDRESS)


def _is_link(text: str) -> bool:
    match = _ADDRESS.search(text)
    return match is not None and match[0] == text.strip()
