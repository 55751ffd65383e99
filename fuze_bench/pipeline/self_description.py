"""What a page says of itself: its title and the day it was published, found by trafilatura's and htmldate's rules.

Of all the metadata that trafilatura looks for, these two take half of the time; the rest goes into authors, tags and licences.
"""

from __future__ import annotations

import logging
from datetime import date
from html import unescape
from typing import Any

import htmldate
from lxml import etree
from rq.timeouts import JobTimeoutException
from trafilatura import metadata

from fuze_bench.errors import one_line

logger = logging.getLogger(__name__)

_PROGRAMS = etree.XPath("//style | //script[not(contains(@type, 'json'))]")
_EMBEDDED = etree.XPath("//@src[starts-with(., 'data:')]/..")


class SelfDescription:
    """Of a parsed page that came from `url`."""

    def __init__(self, tree: Any, url: str) -> None:
        self._tree = tree
        self._said = metadata.examine_meta(tree)
        try:
            self._said = metadata.extract_meta_json(tree, self._said)
        except JobTimeoutException:
            raise
        except Exception as error:  # noqa: BLE001 - what a page writes as JSON may be anything, and it is but one source
            logger.debug("%s: what it says as JSON is left out: %s", url, one_line(error))
        # Another address may tell the date, and is compared with nothing: it need not be brought into a common form.
        canonical = tree.find('.//link[@rel="canonical"][@href]')
        self._url = self._said.url or (url if canonical is None else canonical.get("href"))

    def title(self) -> str | None:
        """As it is written, or None."""
        found = self._said.title or metadata.extract_title(self._tree)
        return unescape(found) if found else None

    def take_date(self) -> str | None:
        """The day as YYYY-MM-DD, or None. Empties what of the tree is no text: to be called when that is done with.

        Where address, head and marked elements are silent, htmldate tries a dozen patterns on every character of the
        page. Those of style sheets, programs and embedded images are a third of it, and their numbers are no dates.
        """
        for node in _PROGRAMS(self._tree):
            node.text = None
        for node in _EMBEDDED(self._tree):
            del node.attrib["src"]
        found: str | None = htmldate.find_date(
            self._tree, original_date=True, url=self._url, max_date=date.today().isoformat()
        )
        return found
