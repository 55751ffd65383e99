"""What goes over the API: these types validate, encode, and make the OpenAPI description."""

from __future__ import annotations

import json
from typing import Annotated, Any, Literal

import msgspec

from fuze_bench.errors import InputError, one_line
from fuze_bench.pipeline.bookmarks import Bookmark
from fuze_bench.pipeline.job_states import JobHandle
from fuze_bench.pipeline.settings import QueueName
from fuze_bench.pipeline.urls import SURROGATE


class QuickSave(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A page to be saved; `title` and `description` win over the page's own."""

    url: Annotated[str, msgspec.Meta(min_length=1, examples=["https://example.org/an-article"])]
    title: str | None = None
    description: str | None = None
    queue: QueueName = "default"


def _without_repeated(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    seen: set[str] = set()
    for name, _ in pairs:
        if name in seen:
            raise InputError(f"{name[:50]} is given twice: give it once", field=name[:50])
        seen.add(name)
    return dict(pairs)


#: None of them twice in a body without backslashes: no name is there twice. Reading it again takes ten times as long.
_QUOTED_NAMES = [b'"%s"' % name.encode() for name in QuickSave.__struct_fields__]
_decode_quick_save = msgspec.json.Decoder(QuickSave).decode
_read_strictly = json.JSONDecoder(object_pairs_hook=_without_repeated).decode


def read_quick_save(body: bytes) -> QuickSave:
    """The save that a request's body asks for. Raises InputError, with the field's name where there is one."""
    try:
        sent = _decode_quick_save(body)
    except msgspec.ValidationError as error:
        raise _invalid(error) from None
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise _not_json(body, one_line(error)) from None
    # Of a name that is there twice the decoder takes the last, other readers the first.
    if b"\\" in body or any(body.count(name) > 1 for name in _QUOTED_NAMES):
        _read_strictly(body.decode())
    return sent


def _invalid(error: msgspec.ValidationError, whole: str = "the body") -> InputError:
    detail, _, path = str(error).partition(" - at `")
    field = path.strip("`$.") or None
    return InputError(f"{field or whole}: {detail[:300]}", field=field)


def _not_json(body: bytes, detail: str) -> InputError:
    """The error for what the decoder cannot read; a text that is not Unicode is put down to its field."""
    try:
        sent = json.loads(body.decode("utf-8", "surrogateescape"))
    except (ValueError, RecursionError):
        sent = None
    for name, value in sent.items() if isinstance(sent, dict) else ():
        if isinstance(value, str) and SURROGATE.search(value):
            field = name if name in QuickSave.__struct_fields__ else None
            where = field or "a field"
            return InputError(
                f"{where} contains half a surrogate pair or is not UTF-8: correct it", field=field
            )
    return InputError(f"the body is not JSON: {detail}", status=400)


class ImportedPage(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One page of a list that is imported."""

    url: str
    title: str | None = None
    description: str | None = None


class Import(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Pages to be saved, each by itself: an entry that is not an ImportedPage is refused, the others are not."""

    bookmarks: list[Any]


def read_import(body: bytes) -> list[ImportedPage | str]:
    """The pages that a request's body lists (or what is wrong with them). Raises InputError."""
    try:
        # Unlike msgspec's, this decoder passes half a surrogate pair on: one bad entry, not a bad list.
        sent = msgspec.convert(_read_strictly(body.decode()), Import)
    except msgspec.ValidationError as error:
        raise _invalid(error) from None
    except (ValueError, RecursionError) as error:
        raise InputError(f"the body is not JSON: {one_line(error)[:300]}", status=400) from None
    return [_imported_page(entry) for entry in sent.bookmarks]


def _imported_page(entry: Any) -> ImportedPage | str:
    try:
        return msgspec.convert(entry, ImportedPage)
    except msgspec.ValidationError as error:
        return str(_invalid(error, "the entry"))


class QuickSaved(msgspec.Struct, frozen=True, rename="camel"):
    """The answer to a save; the page itself is fetched later. `warning`: why nobody will do that as things are."""

    message: str
    bookmark: Bookmark
    processing: Literal["background"]
    was_duplicate: bool
    job: JobHandle
    warning: str | msgspec.UnsetType = msgspec.UNSET


class ImportedItem(msgspec.Struct, frozen=True, rename="camel", omit_defaults=True, kw_only=True):
    """What became of one entry: `error` says why it was refused, `line` where it stands in a file."""

    url: str
    result: Literal["saved", "duplicate", "refused"]
    line: int | None = None
    bookmark_id: int | None = None
    job: JobHandle | None = None
    error: str | None = None


class Imported(msgspec.Struct, frozen=True):
    """The numbers of an import, and an answer for each of its entries, in their order; `warning` as with QuickSaved."""

    saved: int
    duplicates: int
    refused: int
    items: list[ImportedItem]
    warning: str | msgspec.UnsetType = msgspec.UNSET


class BookmarkPage(msgspec.Struct, frozen=True):
    """Bookmarks, newest first; `next` is the `after` of the following page, null at the end."""

    bookmarks: list[Bookmark]
    next: int | None


class QueueDepth(msgspec.Struct, frozen=True):
    """Jobs of one queue that wait for a worker, and that are to be tried again later; null without Redis."""

    name: str
    waiting: int | None = None
    scheduled: int | None = None


class Queues(msgspec.Struct, frozen=True):
    """The queues, at most a second ago; `away`: Redis cannot be reached, or does not answer."""

    redis: Literal["ok", "away"]
    queues: list[QueueDepth]


class Health(msgspec.Struct, frozen=True):
    """`database` and `queue` say "ok", or what is wrong; without Redis, saves go to threads."""

    status: Literal["ok", "degraded", "unavailable"]
    database: str
    queue: str


class SignIn(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A token to be exchanged for a session."""

    token: str


class SignedIn(msgspec.Struct, frozen=True, rename="camel"):
    """Whose session it is, null for nobody's."""

    user_id: int | None


class Problem(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """An error as RFC 9457 describes it (application/problem+json); `field` names the offending field."""

    title: str
    status: int
    detail: str
    field: str | None = None
