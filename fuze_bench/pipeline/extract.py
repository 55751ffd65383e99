"""bytes → title, text, language, date: what a person would read on the page."""

from __future__ import annotations

import logging
import re
import unicodedata
from dataclasses import dataclass
from typing import Any

import charset_normalizer
import lxml.html
import py3langid
import trafilatura
import w3lib.encoding
from trafilatura.settings import Extractor

from fuze_bench.errors import one_line
from fuze_bench.pipeline import page_weight
from fuze_bench.pipeline.bookmarks import ProcessingError, Reason
from fuze_bench.pipeline.self_description import SelfDescription
from fuze_bench.pipeline.walls import wall

_TITLE_MAX_CHARS = 1_000
#: Enough to tell a language; more only takes time.
_LANGUAGE_CHARS = 300
_SHORTEST_FOR_LANGUAGE = 20
#: Cells that claim to span more columns than any table has would be filled up with as many empty ones.
_MOST_COLUMNS = 50
#: trafilatura takes some 0.2 ms and several KB for an element, an attribute a tenth of it: this much takes seconds.
_MOST_ELEMENTS = 15_000
_ATTRIBUTES_OF_AN_ELEMENTS_COST = 10
_MOST_CHARS = 2_000_000
#: No element needs so many, and copying them takes the square of their number.
_MOST_ATTRIBUTES = 100
#: Searched for dates and for what the page says of itself.
_MOST_SCRIPT_CHARS = 500_000
#: What the web's labels mean to Python, and UTF-32. Python knows more, of which some take hours ("punycode").
_ENCODINGS = frozenset(
    """
    utf-8 utf-16 utf-16-le utf-16-be utf-32 utf-32-le utf-32-be cp866 iso8859-2 iso8859-3 iso8859-4 iso8859-5 iso8859-6
    iso8859-7 iso8859-8 iso8859-10 iso8859-13 iso8859-14 iso8859-15 iso8859-16 koi8-r koi8-u mac-roman mac-cyrillic
    cp874 cp1250 cp1251 cp1252 cp1253 cp1254 cp1255 cp1256 cp1257 cp1258 gb18030 big5hkscs euc_jp iso2022_jp cp932
    cp949
    """.split()
)
_BIG_ENDIAN = {"utf-16": "utf-16-be", "utf-32": "utf-32-be"}
_LONG_RUN = 100
_SIGN = r"[^\w\s\x00-\u02ff]"
_A_SIGN, _RUN_OF_SIGNS = re.compile(_SIGN), re.compile(f"({_SIGN}{{{_LONG_RUN},}})")
#: lxml's HTML parser asks Python for the class of every element that is touched, a tenth of what extraction takes; none of
#: its special classes (forms and their parts) is needed.
_ELEMENTS = lxml.etree.ElementDefaultClassLookup(element=lxml.html.HtmlElement)
_TEXT_ALONE = Extractor(output_format="python", fast=True, comments=False)

logger = logging.getLogger(__name__)

# It reports every page that is too short or odd, at levels meant for its own developers.
logging.getLogger("trafilatura").setLevel(logging.CRITICAL)
logging.getLogger("htmldate").setLevel(logging.CRITICAL)


@dataclass(frozen=True)
class Extracted:
    """`language` is an ISO 639-1 code, `published` a date as YYYY-MM-DD; None where the page does not tell."""

    title: str | None
    text: str
    language: str | None
    published: str | None


def extract(body: bytes, content_type: str, url: str) -> Extracted:
    """The readable part of an HTML page; `content_type` is the header it came with.

    Of a page with more than 15,000 elements or 2,000,000 characters of text the beginning is read; a warning then
    says how much was read of which page. What nobody reads is left out beyond its limits without one: scripts after
    500,000 characters, an element's more than 100 attributes. A page that means ill takes minutes and gigabytes all
    the same: `PageReader` limits that.

    Raises ProcessingError: `no_text` if there is nothing to read, `too_complex` if it is nested too deeply, and what
    `wall` says if the page is none.
    """
    tree = _parse(decode(body, content_type))
    if tree is not None:
        _cut(tree, url)
    return _read(tree, len(body), url)


def extract_light(body: bytes, content_type: str, url: str) -> Extracted | None:
    """As `extract`, of an ordinary page; None, soon, for one that could take seconds or much memory."""
    if not page_weight.is_light_body(body):
        return None
    page = decode(body, content_type)
    if not page_weight.is_light_markup(page):
        return None
    tree = _parse(page)
    if tree is not None and not page_weight.is_light_tree(tree):
        return None
    return _read(tree, len(body), url)  # what is so light has nothing to cut


def _read(tree: Any, page_bytes: int, url: str) -> Extracted:
    try:
        found = None if tree is None else _found(tree, url)
    except RecursionError as error:
        raise ProcessingError(Reason.TOO_COMPLEX, f"nested too deeply: {one_line(error)}") from None
    if found is None:
        raise ProcessingError(Reason.NO_TEXT, f"nothing to read in {page_bytes:,} bytes")
    return found


def _found(tree: Any, url: str) -> Extracted | None:
    """What is on the page; None if there is no text. Raises ProcessingError if it is none."""
    said = SelfDescription(tree, url)
    title = _clean(said.title()) or _own_title(tree)
    document: Any = trafilatura.bare_extraction(tree, options=_TEXT_ALONE)
    text = (document.text if document else None) or trafilatura.html2txt(tree)
    text = _normalized(text.replace("\0", "")).strip()
    standing_there = wall(tree, title, text)
    if standing_there is not None:
        raise ProcessingError(*standing_there)
    if not text:
        return None
    return Extracted(title=title, text=text, language=_language(text, tree), published=said.take_date())


def _normalized(text: str) -> str:
    """NFC, but for absurd runs of accents and other signs: sorting those takes the square of their number."""
    if text.isascii():
        return text
    # Every long run holds one of the characters that are so far apart: to look at these takes a hundredth of the time.
    if _A_SIGN.search(text[::_LONG_RUN]) is None or _RUN_OF_SIGNS.search(text) is None:
        return unicodedata.normalize("NFC", text)
    parts = _RUN_OF_SIGNS.split(text)
    parts[::2] = [unicodedata.normalize("NFC", part) for part in parts[::2]]
    return "".join(parts)


def decode(body: bytes, content_type: str) -> str:
    """The page as text, by the web's rules: byte-order mark, then header, then meta (WHATWG labels), then a guess."""
    encoding, mark = w3lib.encoding.read_bom(body)
    if encoding is None:
        declared = (
            w3lib.encoding.http_content_type_encoding(content_type or None),
            w3lib.encoding.html_body_declared_encoding(body),
        )
        known = (each for each in declared if each in _ENCODINGS)
        encoding = next(known, None) or _guess_encoding(body) or "utf-8"
    return w3lib.encoding.to_unicode(body[len(mark or b"") :], _BIG_ENDIAN.get(encoding, encoding))


def _guess_encoding(body: bytes) -> str | None:
    try:
        body.decode("utf-8")
    except UnicodeDecodeError:
        best = charset_normalizer.from_bytes(body[:100_000]).best()
        return best.encoding if best else None
    return "utf-8"


def _parse(page: str) -> Any:
    # libxml2 stops at 256 levels, in silence, unless told that the document may be huge.
    parser = lxml.html.HTMLParser(huge_tree=True, remove_comments=True, remove_pis=True, encoding="utf-8")
    parser.set_element_class_lookup(_ELEMENTS)
    try:
        tree = lxml.html.document_fromstring(page.replace("\0", "").encode("utf-8", "replace"), parser=parser)
    except (lxml.etree.ParserError, ValueError) as error:
        if "empty" in one_line(error):
            return None
        raise ProcessingError(Reason.NO_TEXT, f"cannot be parsed: {one_line(error)[:200]}") from None
    for cell in tree.iter("td", "th"):
        for name in ("colspan", "rowspan"):
            span = cell.get(name)
            if span is not None and not (
                span.isascii() and span.isdigit() and int(span[:9]) <= _MOST_COLUMNS
            ):
                del cell.attrib[name]
    return tree


def _cut(tree: Any, url: str) -> None:
    """Take away what lies beyond the limits, in the order in which the page is read."""
    attributes = chars = script_chars = 0
    for elements, node in enumerate(tree.iter("*"), start=1):
        if len(node.attrib) > _MOST_ATTRIBUTES:
            node.attrib.clear()
        attributes += len(node.attrib)
        if node.tag in ("script", "style"):
            script_chars += len(node.text or "")
            if script_chars > _MOST_SCRIPT_CHARS:
                node.text = None
        else:
            chars += len(node.text or "")
        chars += len(node.tail or "")
        cost = elements + attributes // _ATTRIBUTES_OF_AN_ELEMENTS_COST
        if cost > _MOST_ELEMENTS or chars > _MOST_CHARS:
            total = sum(1 for _ in tree.iter("*"))
            _end_at(node, max(0, chars - _MOST_CHARS))
            logger.warning(
                "%s: the first %d of %d elements are read, with %d characters: more would take too long",
                url, elements, total, min(chars, _MOST_CHARS),
            )  # fmt: skip
            return


def _end_at(node: Any, excess_chars: int) -> None:
    """Make this node, without its last characters, the last of its tree."""
    tail, text = node.tail or "", node.text or ""
    node.tail = tail[: max(0, len(tail) - excess_chars)]
    node.text = text[: len(text) - max(0, excess_chars - len(tail))]
    del node[:]
    while (parent := node.getparent()) is not None:
        del parent[parent.index(node) + 1 :]
        node = parent
        node.tail = None


def _own_title(tree: Any) -> str | None:
    found = tree.find(".//title")
    return None if found is None else _clean(found.text_content())


def _clean(text: str | None) -> str | None:
    """One line without control characters; None if nothing is left."""
    return re.sub(r"[\s\x00-\x1f\x7f]+", " ", text or "").strip()[:_TITLE_MAX_CHARS] or None


def _language(text: str, tree: Any) -> str | None:
    if len(text) >= _SHORTEST_FOR_LANGUAGE:
        return str(py3langid.classify(text[:_LANGUAGE_CHARS])[0])
    declared = re.match(r"[A-Za-z]{2}\b", tree.get("lang") or "")
    return declared[0].lower() if declared else None


def preload() -> None:
    """Extract a page, so that what loads itself at first use is there for the first bookmark, and forks share it."""
    page = (
        "<html><head><title>{0}</title></head><body><article><h1>{0}</h1><p>{0}</p></article></body></html>"
    )
    sentence = "Published on 2 March 2024, this is a page for warming up. " * 5
    extract(page.format(sentence).encode(), "text/html; charset=utf-8", "http://localhost/")
