"""`fuze-bench save`: pages from the command line or a file."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterator
from itertools import islice
from typing import TYPE_CHECKING, TextIO

import click

from fuze_bench.errors import InputError
from fuze_bench.pipeline.settings import QUEUES, Settings

if TYPE_CHECKING:
    from rich.progress import Progress

    from fuze_bench.pipeline.service import BookmarkService

_SAVE_GROUP = 500


@click.command()
@click.argument("urls", nargs=-1)
@click.option(
    "--file", "file", type=click.File("r", encoding="utf-8"), help="One URL a line; - reads standard input."
)
@click.option("--queue", type=click.Choice(QUEUES), help="[default: default, and low for --file]")
@click.option("--title", help="Your own title, for a single URL.")
def save(urls: tuple[str, ...], file: TextIO | None, queue: str | None, title: str | None) -> None:
    """Save pages; they are processed by the workers, or here and now if no Redis is running."""
    if not urls and file is None:
        raise click.UsageError("Nothing to save: give URLs or --file.")
    if title is not None and (len(urls) != 1 or file is not None):
        raise click.UsageError("--title goes with exactly one URL.")
    refused = _save_all(addresses(urls, file), queue or ("default" if file is None else "low"), title)
    if refused:
        raise click.exceptions.Exit(1)


def addresses(urls: tuple[str, ...], file: TextIO | None) -> Iterator[str]:
    """What is to be saved: the arguments, then the lines of the file without comments and blank ones."""
    yield from urls
    for line in file or ():
        text = re.split(r"(?:^|\s)#", line, maxsplit=1)[0].strip()  # a # within an address is its own
        if text:
            yield text


def _save_all(given: Iterator[str], queue: str, title: str | None) -> int:
    """Save in groups, an answer a line; how many were refused."""
    from rich.progress import Progress

    from fuze_bench.pipeline.redis_server import with_running_redis
    from fuze_bench.pipeline.service import BookmarkService

    refused = 0
    interactive = sys.stderr.isatty()
    with BookmarkService(with_running_redis(Settings.from_mapping(os.environ))) as service:
        everything = list(given)
        with Progress(disable=not interactive, transient=True) as progress:
            task = progress.add_task("saving", total=len(everything))
            waiting = iter(everything)
            while group := list(islice(waiting, _SAVE_GROUP)):
                refused += _save_group(service, group, queue, title)
                progress.advance(task, len(group))
            _finish_here(service, progress)
    return refused


def _save_group(service: BookmarkService, group: list[str], queue: str, title: str | None) -> int:
    accepted, refused = [], 0
    for url in group:
        try:
            accepted.append(service.check(user_id=1, url=url, title=title, queue=queue))
        except InputError as error:
            refused += 1
            click.echo(f"refused    {url[:200]}: {error}", err=True)
    results = service.save(accepted)
    for warning in {result.warning: None for result in results if result.warning}:
        click.echo(f"warning    {warning}", err=True)
    for result in results:
        word = "duplicate" if result.was_duplicate else "saved"
        click.echo(
            f"{word:<10} {result.job.id} ({result.job.mode}, {result.bookmark.status}) {result.bookmark.url}"
        )
    return refused


def _finish_here(service: BookmarkService, progress: Progress) -> None:
    """Where no queue took the bookmarks, this process is the one that works on them: it stays until they are done."""
    left = service.fallback.size()
    if not left:
        return
    click.echo(f"no Redis: processing {left} here (Ctrl-C leaves the rest saved)", err=True)
    task = progress.add_task("processing", total=left)
    while not service.fallback.join(timeout_s=0.5):
        progress.update(task, completed=left - service.fallback.size())
    counts = ", ".join(f"{name} {number}" for name, number in service.store.counts().items() if number)
    click.echo(f"bookmarks now: {counts}", err=True)
