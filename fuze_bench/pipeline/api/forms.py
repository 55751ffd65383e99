"""The fields of a form, as a query, urlencoded, or as multipart/form-data."""

from __future__ import annotations

import re
from email.message import Message
from urllib.parse import parse_qsl

from fuze_bench.errors import InputError

#: What is not UTF-8 stays visible as half a surrogate pair, which no check of a text lets pass.
_ERRORS = "surrogateescape"
_NAME = re.compile(
    r'^content-disposition:\s*form-data\b.*?;\s*name="([^"\r\n]*)"', re.IGNORECASE | re.MULTILINE
)


def read_form(body: bytes, content_type: str) -> dict[str, str]:
    """The fields of a form's body by name; of a name that is there twice, the first.

    Raises InputError: 415 for another type of body, 400 for one that cannot be read.
    """
    media_type = content_type.partition(";")[0].strip().lower()
    if media_type == "application/x-www-form-urlencoded":
        return read_urlencoded(body)
    if media_type != "multipart/form-data":
        raise InputError(f"Content-Type is {content_type[:50]!r}: send a form", status=415)
    header = Message()
    header["Content-Type"] = content_type
    boundary = header.get_boundary()
    if not boundary:
        raise InputError("the form has no boundary between its fields: send one", status=400)
    return _read_multipart(body, boundary.encode("utf-8", _ERRORS))


def read_urlencoded(text: bytes) -> dict[str, str]:
    """The fields of a query or of an urlencoded body. Raises InputError."""
    try:
        pairs = parse_qsl(
            text.decode("utf-8", _ERRORS), keep_blank_values=True, errors=_ERRORS, max_num_fields=100
        )
    except ValueError:
        raise InputError("the form has too many fields: send title, text and url", status=400) from None
    return dict(reversed(pairs))


def _read_multipart(body: bytes, boundary: bytes) -> dict[str, str]:
    fields: dict[str, str] = {}
    _, *parts = (b"\r\n" + body).split(b"\r\n--" + boundary)
    if not parts or not parts[-1].startswith(b"--"):
        raise InputError("the form is not complete: its last boundary is missing", status=400)
    for part in parts[:-1]:
        head, _, value = part.partition(b"\r\n\r\n")
        named = _NAME.search(head.decode("utf-8", _ERRORS))
        if named:
            fields.setdefault(named[1], value.decode("utf-8", _ERRORS))
    return fields
