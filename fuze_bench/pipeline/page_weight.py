"""Tells ordinary pages, which any process may read, from heavy ones, which could take it seconds or much memory.

The limits leave room for the pages that people write: what is above them is not wrong, it is read elsewhere. Each
bounds something whose square or worse libxml2, trafilatura or one of their patterns takes.
"""

from __future__ import annotations

import re
from typing import Any

from lxml import etree

_MOST_BYTES = 300_000
_MOST_TAGS = 2_000
_MOST_ATTRIBUTES_OF_A_TAG = 100
_MOST_LEVELS = 60
_MOST_NESTED_TABLES = 5
_MOST_ROWSPANS = 20
#: Of what a page says of itself, where names, titles and dates are looked for with patterns that backtrack.
_MOST_SELF_DESCRIPTION_CHARS = 10_000

_SPACE = r"[ \t\n\f\r]"
_VALUE = r"""(?:"[^"]*+"|'[^']*+'|[^ \t\n\f\r>"'][^ \t\n\f\r>]*+|(?=>))"""
#: Attributes as the HTML standard's tokenizer takes them, without going back (each `++` and `*+` keeps what it has).
_ATTRIBUTE = rf"[ \t\n\f\r/]*+[^ \t\n\f\r/>][^ \t\n\f\r/>=]*+(?:{_SPACE}*+={_SPACE}*+{_VALUE})?+"
_OVERLOADED_TAG = re.compile(rf"<[a-zA-Z][^ \t\n\f\r/>]*+(?:{_ATTRIBUTE}){{{_MOST_ATTRIBUTES_OF_A_TAG}}}")

_IS_DEEP = etree.XPath(
    f"boolean({'/*' * _MOST_LEVELS}) or boolean(//table[count(ancestor::table) > {_MOST_NESTED_TABLES}])"
    f" or count(//@rowspan) > {_MOST_ROWSPANS}"
)
_SELF_DESCRIPTION = etree.XPath(
    "//meta/@content | //title//text() | //script[contains(@type, 'json')]/text()"
)


def is_light_body(body: bytes) -> bool:
    """Whether the bytes can be decoded in no time."""
    return len(body) <= _MOST_BYTES


def is_light_markup(page: str) -> bool:
    """Whether the decoded page can be parsed in no time."""
    return page.count("<") <= _MOST_TAGS and not _OVERLOADED_TAG.search(page)


def is_light_tree(tree: Any) -> bool:
    """Whether the text of the parsed page can be found in no time."""
    return not _IS_DEEP(tree) and sum(map(len, _SELF_DESCRIPTION(tree))) <= _MOST_SELF_DESCRIPTION_CHARS
