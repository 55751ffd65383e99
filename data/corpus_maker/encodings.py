"""The encodings of the shipped pages, and how each page declares its own."""

import codecs
from dataclasses import dataclass

BYTE_ORDER_MARKS = {"utf-8-sig": codecs.BOM_UTF8, "utf-16": codecs.BOM_UTF16_LE}
_PLAIN = {"utf-8-sig": "utf-8", "utf-16": "utf-16-le"}
LABELS = {"utf-8-sig": "utf-8"}


@dataclass(frozen=True)
class Encoding:
    """A Python codec, and whether the HTTP header and the page's meta element declare it.

    The codecs `utf-8-sig` and `utf-16` stand for a byte order mark in front of the page.
    """

    codec: str
    in_header: bool
    in_meta: bool

    @property
    def label(self) -> str:
        """The name by which a page declares the encoding."""
        return LABELS.get(self.codec, self.codec)

    @property
    def content_type(self) -> str:
        """The Content-Type header to serve."""
        return f"text/html; charset={self.label}" if self.in_header else "text/html"

    def encoded(self, text: str) -> bytes:
        """The bytes to serve; characters outside the encoding become character references, as servers write them."""
        plain = _PLAIN.get(self.codec, self.codec)
        return BYTE_ORDER_MARKS.get(self.codec, b"") + text.encode(plain, "xmlcharrefreplace")


# Legacy encodings of each language beside UTF-8.
LEGACY = {
    "en": ("iso-8859-1", "windows-1252"),
    "de": ("iso-8859-1", "windows-1252"),
    "fr": ("iso-8859-1", "windows-1252"),
    "es": ("iso-8859-1", "windows-1252"),
    "it": ("iso-8859-1",),
    "pl": ("iso-8859-2", "windows-1250"),
    "cs": ("iso-8859-2",),
    "ru": ("windows-1251", "koi8-r"),
    "el": ("iso-8859-7",),
    "ja": ("shift_jis", "euc-jp"),
    "zh": ("gb18030",),
    "ar": ("windows-1256",),
}
DECLARATIONS = ((True, False), (False, True), (True, True))


def encoding_of(number: int, language: str) -> Encoding:
    """The encoding of the language's page `number` (from 0): of eight pages five are UTF-8, two legacy, one marked."""
    in_header, in_meta = DECLARATIONS[number % len(DECLARATIONS)]
    turn, round_number = number % 8, number // 8
    if turn in (2, 5):
        legacy = LEGACY[language]
        return Encoding(legacy[(round_number + turn) % len(legacy)], in_header, in_meta)
    if turn == 7:
        return Encoding(("utf-8-sig", "utf-16")[round_number % 2], False, False)
    return Encoding("utf-8", in_header, in_meta)
