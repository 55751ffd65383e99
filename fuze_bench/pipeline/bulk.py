"""Saving many pages at once: in groups, each a transaction of its own, with an answer for every entry."""

from __future__ import annotations

import enum
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice

from fuze_bench.errors import InputError
from fuze_bench.pipeline.bookmarks import NewBookmark
from fuze_bench.pipeline.imports import ImportItem
from fuze_bench.pipeline.service import BookmarkService, SaveResult

#: So few that a single save which has to wait for a group waits for a fraction of a tenth of a second.
GROUP = 100
#: After each group the database is left to others for as long as the group took, but no longer than this.
_LONGEST_PAUSE_S = 1.0
_SHOWN_CHARS = 200


class Result(enum.StrEnum):
    """What became of an entry."""

    SAVED = "saved"
    DUPLICATE = "duplicate"
    REFUSED = "refused"


@dataclass(frozen=True, slots=True)
class ItemResult:
    """An entry and what became of it: `saved` unless it was refused, `error` says why it was."""

    item: ImportItem
    saved: SaveResult | None = None
    error: str | None = None

    @property
    def result(self) -> Result:
        if self.saved is None:
            return Result.REFUSED
        return Result.DUPLICATE if self.saved.was_duplicate else Result.SAVED

    @property
    def warning(self) -> str | None:
        """Why nobody will process it as things are, and what to do."""
        return None if self.saved is None else self.saved.warning


def refusal(result: ItemResult) -> str:
    """The line that tells a person what was refused, and why."""
    where = "" if result.item.line is None else f"line {result.item.line}: "
    url = f"{result.item.url[:_SHOWN_CHARS]}: " if result.item.url else ""
    return printable(f"{result.result:<10} {where}{url}{result.error}")


def printable(text: str) -> str:
    """Addresses come from strangers: what would steer a terminal becomes a replacement character."""
    return "".join(char if char.isprintable() else "\N{REPLACEMENT CHARACTER}" for char in text)


def in_groups(items: Iterable[ImportItem]) -> Iterator[list[ImportItem]]:
    """The entries in lists of at most `GROUP`."""
    waiting = iter(items)
    while group := list(islice(waiting, GROUP)):
        yield group


def save_group(
    service: BookmarkService, items: Sequence[ImportItem], *, user_id: int, queue: str
) -> list[ItemResult]:
    """Save what can be saved, in one transaction; an answer for each entry, in order.

    Then wait for as long as that took: SQLite lets those who want to write try again now and then, and who always
    writes would leave them no chance. Raises StoreError; then nothing of the group was saved.
    """
    began_s = time.monotonic()
    checked = [_check(service, item, user_id, queue) for item in items]
    service.count_saves(Result.REFUSED, sum(isinstance(each, str) for each in checked))
    saved = iter(service.save([each for each in checked if isinstance(each, NewBookmark)]))
    results = [
        ItemResult(item, saved=next(saved)) if isinstance(each, NewBookmark) else ItemResult(item, error=each)
        for item, each in zip(items, checked, strict=True)
    ]
    time.sleep(min(time.monotonic() - began_s, _LONGEST_PAUSE_S))
    return results


def _check(service: BookmarkService, item: ImportItem, user_id: int, queue: str) -> NewBookmark | str:
    """What can be saved of the entry, or why nothing can."""
    if item.problem is not None:
        return item.problem
    try:
        return service.check(
            user_id=user_id, url=item.url, title=item.title, description=item.description, queue=queue
        )
    except InputError as error:
        return str(error)
