"""`fuze-bench …`: parse, call, show."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

import click

import fuze_bench
from fuze_bench.errors import InputError
from fuze_bench.lab.report_command import report
from fuze_bench.pipeline.settings import QUEUES, Kind, Settings
from fuze_bench.pipeline.worker_command import configure_logging, run_command, worker

if TYPE_CHECKING:
    from rich.progress import Progress

    from fuze_bench.pipeline.service import BookmarkService

# Every command imports what it needs when it runs: `--help` and a wrong option answer at once.

_SAVE_GROUP = 500


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(fuze_bench.__version__, prog_name="fuze-bench")
def app() -> None:
    """Run a bookmark pipeline on RQ, put it under load, and find out which workers to run."""


app.add_command(worker)
app.add_command(report)


@app.command()
@click.option("--workers", type=click.IntRange(min=1), default=2, show_default=True, help="How many workers.")
@click.option(
    "--kind", type=click.Choice([str(k) for k in Kind]), default=str(Kind.SIMPLE), show_default=True
)
@click.option(
    "--port", type=click.IntRange(0, 65535), default=8000, show_default=True, help="Of the API; 0: any."
)
@click.option(
    "--origin-port",
    type=click.IntRange(0, 65535),
    help="Of the site to fetch from; 0: any.  [default: the next port]",
)
@click.option(
    "--pages",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="A folder of HTML for the origin to serve.  [default: the shipped corpus]",
)
@click.option(
    "--urls", type=click.File("r", encoding="utf-8"), help="Addresses to save at the start, one a line."
)
@click.option(
    "--latency-ms", type=click.IntRange(min=0), default=100, show_default=True, help="Of the origin."
)
def up(
    workers: int,
    kind: str,
    port: int,
    origin_port: int | None,
    pages: Path | None,
    urls: TextIO | None,
    latency_ms: int,
) -> None:
    """Start Redis, API, workers and a site to fetch from; Ctrl-C stops all of it."""
    from fuze_bench.up import run_up

    settings = Settings.from_mapping(os.environ)
    run_up(
        settings,
        workers=workers,
        kind=Kind(kind),
        port=port,
        origin_port=origin_port if origin_port is not None or port == 0 else port + 1,
        pages=pages,
        addresses=list(_addresses((), urls)),
        latency_ms=latency_ms,
    )


@app.command()
@click.option("--host", default="127.0.0.1", show_default=True)
@click.option("--port", type=click.IntRange(1, 65535), default=8000, show_default=True)
def api(host: str, port: int) -> None:
    """Serve quick-save and the reading side over HTTP."""
    from fuze_bench.pipeline.api import serve
    from fuze_bench.pipeline.redis_server import with_running_redis
    from fuze_bench.processes import free_port

    settings = with_running_redis(Settings.from_mapping(os.environ))
    serve(settings, host, free_port(host, port))


@app.command()
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
    refused = _save_all(_addresses(urls, file), queue or ("default" if file is None else "low"), title)
    if refused:
        raise click.exceptions.Exit(1)


def _addresses(urls: tuple[str, ...], file: TextIO | None) -> Iterator[str]:
    yield from urls
    for line in file or ():
        text = re.split(r"(?:^|\s)#", line, maxsplit=1)[0].strip()  # a # within an address is its own
        if text:
            yield text


def _save_all(addresses: Iterator[str], queue: str, title: str | None) -> int:
    """Save in groups, an answer a line; how many were refused."""
    from rich.progress import Progress

    from fuze_bench.pipeline.redis_server import with_running_redis
    from fuze_bench.pipeline.service import BookmarkService

    refused = 0
    interactive = sys.stderr.isatty()
    with BookmarkService(with_running_redis(Settings.from_mapping(os.environ))) as service:
        everything = list(addresses)
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
    for result in service.save(accepted):
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


@app.command()
@click.argument("job")
@click.option("--json", "as_json", is_flag=True, help="As JSON.")
def status(job: str, as_json: bool) -> None:
    """Show what is known of a job (its id is in every answer to a save)."""
    import msgspec

    from fuze_bench.pipeline.redis_server import with_running_redis
    from fuze_bench.pipeline.store import Store
    from fuze_bench.pipeline.task_queue import TaskQueue

    settings = with_running_redis(Settings.from_mapping(os.environ))
    with Store(settings) as store:
        state = TaskQueue(settings).job_state(job, store)
    if state is None:
        raise InputError(
            f"there is no job {job[:100]!r}: take the id from the answer to a save, like bookmark-12-1"
        )
    if as_json:
        click.echo(msgspec.json.encode(state).decode())
        return
    for name, value in msgspec.to_builtins(state).items():
        click.echo(f"{name:<12} {_shown(name, value)}")


@app.command()
def recover() -> None:
    """Put saved bookmarks that fell out of the queue back on it, now."""
    from fuze_bench.pipeline.recovery import Recovery
    from fuze_bench.pipeline.redis_server import require_running_redis
    from fuze_bench.pipeline.store import Store
    from fuze_bench.pipeline.task_queue import TaskQueue

    settings = require_running_redis(Settings.from_mapping(os.environ))
    with Store(settings) as store:
        click.echo(Recovery(settings, store, TaskQueue(settings)).everything())


def _shown(name: str, value: object) -> str:
    from datetime import datetime

    if name.endswith("_at") and isinstance(value, int | float):
        return datetime.fromtimestamp(value).astimezone().isoformat(sep=" ", timespec="milliseconds")
    return "-" if value is None else str(value)


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; the exit code: 0 done, 1 it went wrong, 2 the command line is wrong."""
    configure_logging()
    return run_command(app, sys.argv[1:] if argv is None else argv, "fuze-bench")


if __name__ == "__main__":
    sys.exit(main())
