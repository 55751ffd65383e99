"""`fuze-bench save`: pages from the command line or a file."""

from __future__ import annotations

import signal
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import TYPE_CHECKING, BinaryIO

import click

from fuze_bench.pipeline.bookmarks import LARGEST_ID
from fuze_bench.pipeline.settings import QUEUES
from fuze_bench.pipeline.worker_command import remark, settings_of_short_command

if TYPE_CHECKING:
    from rich.progress import Progress

    from fuze_bench.pipeline.bulk import ItemResult
    from fuze_bench.pipeline.imports import ImportItem
    from fuze_bench.pipeline.service import BookmarkService

_FORMATS = ("lines", "csv", "html")


@click.command()
@click.argument("urls", nargs=-1)
@click.option(
    "--file",
    "file",
    type=click.File("rb"),
    help="Addresses one a line, a CSV file with a column url, or a browser's bookmark export; - reads standard input.",
)
@click.option(
    "--format", "format_name", type=click.Choice(_FORMATS), help="Of the file.  [default: what it looks like]"
)
@click.option("--queue", type=click.Choice(QUEUES), help="[default: default, and low for --file]")
@click.option("--title", help="Your own title, for a single URL.")
@click.option(
    "--user",
    type=click.IntRange(1, LARGEST_ID),
    default=1,
    show_default=True,
    help="Whose bookmarks they are, where FUZE_API_TOKENS tells users apart.",
)
def save(
    urls: tuple[str, ...],
    file: BinaryIO | None,
    format_name: str | None,
    queue: str | None,
    title: str | None,
    user: int,
) -> None:
    """Save pages; they are processed by the workers, or here and now if no Redis is running."""
    if not urls and file is None:
        raise click.UsageError("Nothing to save: give URLs or --file.")
    if title is not None and (len(urls) != 1 or file is not None):
        raise click.UsageError("--title goes with exactly one URL.")
    if format_name is not None and file is None:
        raise click.UsageError("--format goes with --file.")
    from fuze_bench.pipeline.imports import ImportItem

    items = [ImportItem(url, title) for url in urls] + items_of(file, format_name)
    refused = _save_all(items, queue or ("default" if file is None else "low"), user, count=file is not None)
    if refused:
        raise click.exceptions.Exit(1)


def items_of(file: BinaryIO | None, format_name: str | None = None) -> list[ImportItem]:
    """All entries of the file: one that cannot be read to its end saves nothing. Raises InputError."""
    from fuze_bench.pipeline.imports import Format, read_items

    if file is None:
        return []
    return list(read_items(file.read(), None if format_name is None else Format(format_name)))


def _save_all(items: list[ImportItem], queue: str, user: int, *, count: bool) -> int:
    """Save in groups, an answer a line and, with `count`, a last line of numbers; how many were refused."""
    from fuze_bench.commands.progress_bar import progress_bar
    from fuze_bench.pipeline.redis_server import with_running_redis
    from fuze_bench.pipeline.service import BookmarkService

    with (
        BookmarkService(with_running_redis(settings_of_short_command())) as service,
        progress_bar() as progress,
    ):
        counts = _save_items(service, items, queue, user, progress, count=count)
        _finish_here(service, progress)
    return counts["refused"]


def _save_items(
    service: BookmarkService,
    items: list[ImportItem],
    queue: str,
    user: int,
    progress: Progress,
    *,
    count: bool,
) -> Counter[str]:
    """Save in groups, an answer a line; Ctrl-C stops behind the group in hand, and what is saved stays."""
    from fuze_bench.pipeline.bulk import in_groups, save_group

    counts: Counter[str] = Counter()
    warned: set[str | None] = {None}
    task = progress.add_task("saving", total=len(items))
    try:
        with _interrupted() as is_interrupted:
            for group in in_groups(items):
                for result in save_group(service, group, user_id=user, queue=queue):
                    counts[result.result] += 1
                    if result.warning not in warned:
                        warned.add(result.warning)
                        remark(f"warning    {result.warning}")
                    _say(result)
                progress.advance(task, len(group))
                if is_interrupted():
                    raise KeyboardInterrupt
    finally:
        if count:
            left = len(items) - counts.total()
            remark(
                f"{counts['saved']} saved, {counts['duplicate']} duplicates, {counts['refused']} refused"
                + (f", {left} not tried" if left else "")
            )
    return counts


def _say(result: ItemResult) -> None:
    from fuze_bench.pipeline.bulk import printable, refusal

    saved = result.saved
    if saved is None:
        remark(refusal(result))
    else:
        job, bookmark = saved.job, saved.bookmark
        click.echo(printable(f"{result.result:<10} {job.id} ({job.mode}, {bookmark.status}) {bookmark.url}"))


@contextmanager
def _interrupted() -> Iterator[Callable[[], bool]]:
    """Holds the first Ctrl-C back and tells of it; a second one interrupts at once."""
    before = signal.getsignal(signal.SIGINT)
    received: list[int] = []

    def note(number: int, _frame: FrameType | None) -> None:
        received.append(number)
        signal.signal(signal.SIGINT, before)

    signal.signal(signal.SIGINT, note)
    try:
        yield lambda: bool(received)
    finally:
        signal.signal(signal.SIGINT, before)


def _finish_here(service: BookmarkService, progress: Progress) -> None:
    """Where no queue took the bookmarks, this process is the one that works on them: it stays until they are done."""
    left = service.fallback.size()
    if not left:
        return
    remark(f"no Redis: processing {left} here (Ctrl-C leaves the rest saved)")
    task = progress.add_task("processing", total=left)
    while not service.fallback.join(timeout_s=0.5):
        progress.update(task, completed=left - service.fallback.size())
    counts = ", ".join(f"{name} {number}" for name, number in service.store.counts().items() if number)
    remark(f"bookmarks now: {counts}")
