"""`fuze-bench status`, `recover`, `retry` and `cancel`: look at jobs, send them on again, give them up."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from typing import TYPE_CHECKING, Any

import click

from fuze_bench.errors import QueueUnavailableError
from fuze_bench.pipeline.bookmarks import Mode, Reason, parse_job_id
from fuze_bench.pipeline.settings import QUEUES
from fuze_bench.pipeline.worker_command import remark, settings_of_short_command

if TYPE_CHECKING:
    import redis

    from fuze_bench.pipeline.service import SaveResult

_UNITS_S = {"s": 1, "m": 60, "h": 3600, "d": 86_400}


class Moment(click.ParamType[float]):
    """A date and time of this place (ISO 8601), or how long ago; as seconds since 1970 UTC."""

    name = "time"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        if isinstance(value, float):
            return value
        if ago := re.fullmatch(r"(\d{1,9})([smhd])", value):
            return time.time() - int(ago[1]) * _UNITS_S[ago[2]]
        try:
            return datetime.fromisoformat(value).timestamp()
        except (ValueError, OverflowError, OSError):
            return self.fail(
                f"{value!r} is not a time: give 2026-01-31, 2026-01-31T18:00, or 90m, 6h, 2d ago."
            )


class BookmarkNumber(click.ParamType[int]):
    """A bookmark's number, also as it stands in its job's id."""

    name = "bookmark"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        text = str(value)
        key = parse_job_id(text) or parse_job_id(f"bookmark-{text}-1")
        if key is None:
            self.fail(
                f"{value!r} is not a bookmark: give a number such as 12, or a job such as bookmark-12-1."
            )
        return key[0]


@click.command()
@click.argument("job")
@click.option("--json", "as_json", is_flag=True, help="As JSON.")
def status(job: str, as_json: bool) -> None:
    """Show what is known of a job (its id is in every answer to a save)."""
    import msgspec

    from fuze_bench.pipeline.job_states import no_such_job
    from fuze_bench.pipeline.redis_server import with_running_redis
    from fuze_bench.pipeline.store import Store
    from fuze_bench.pipeline.task_queue import TaskQueue

    settings = with_running_redis(settings_of_short_command())
    with Store(settings) as store:
        state = TaskQueue(settings).job_state(job, store)
        if state is None:
            raise no_such_job(job, store)
        key = parse_job_id(job)
        bookmark = None if key is None else store.get(key[0])
    if as_json:
        click.echo(msgspec.json.encode(state).decode())
        return
    for name, value in msgspec.to_builtins(state).items():
        click.echo(f"{name:<12} {_shown(name, value)}")
    if bookmark is not None and bookmark.job_id == job and bookmark.retry_at is not None:
        click.echo(f"{'again_at':<12} {_shown('again_at', bookmark.retry_at)}")


@click.command()
def recover() -> None:
    """Put saved bookmarks that fell out of the queue back on it, now."""
    from fuze_bench.pipeline.recovery import Recovery
    from fuze_bench.pipeline.redis_server import require_running_redis
    from fuze_bench.pipeline.store import Store
    from fuze_bench.pipeline.task_queue import TaskQueue

    settings = require_running_redis(settings_of_short_command())
    queue = TaskQueue(settings)
    if problem := queue.problem():
        raise QueueUnavailableError(
            f"Redis cannot be used ({problem}): nothing can go back on a queue before it is"
        )
    with Store(settings) as store:
        click.echo(Recovery(settings, store, queue).everything())


_RETRY_GROUP = 200


@click.command()
@click.option("--failed", is_flag=True, required=True, help="Every bookmark that has failed.")
@click.option("--reason", type=click.Choice([str(reason) for reason in Reason]), help="Only for this reason.")
@click.option(
    "--since",
    "since_s",
    type=Moment(),
    default=0.0,
    help="Only since then: 2026-01-31, 2026-01-31T18:00, 90m, 6h, 2d.",
)
@click.option("--dry-run", is_flag=True, help="Only say how many.")
def retry(failed: bool, reason: str | None, since_s: float, dry_run: bool) -> None:
    """Process bookmarks that have failed again, on the low queue."""
    from fuze_bench.commands.progress_bar import progress_bar
    from fuze_bench.pipeline.redis_server import require_running_redis
    from fuze_bench.pipeline.service import BookmarkService

    settings = require_running_redis(settings_of_short_command())
    with BookmarkService(settings) as service:
        service.fallback.close()  # nothing is processed here: what waits for a thread would be dropped at the end
        found = service.store.failed(reason=Reason(reason) if reason else None, since_s=since_s)
        if dry_run:
            click.echo(f"{len(found)} would be processed again")
            return
        again: list[SaveResult] = []
        with progress_bar() as progress:
            task = progress.add_task("sending", total=len(found))
            for first in range(0, len(found), _RETRY_GROUP):
                group = found[first : first + _RETRY_GROUP]
                again += service.reprocess(group, only_failed=True)
                progress.advance(task, len(group))
                if any(result.job.mode is not Mode.RQ for result in again):
                    break
    queued = sum(result.job.mode is Mode.RQ for result in again)
    click.echo(f"{queued} of {len(found)} failed bookmarks are on their way again, on the low queue")
    for warning in {result.warning for result in again} - {None}:
        remark(f"warning    {warning}")
    if queued < len(again):
        raise QueueUnavailableError(
            f"Redis went away: {len(again) - queued} more wait in the database until it is back, the rest are left as "
            "they were"
        )


@click.command()
@click.argument("bookmarks", nargs=-1, required=True, type=BookmarkNumber())
def cancel(bookmarks: tuple[int, ...]) -> None:
    """Give up bookmarks (by number, or by a job of theirs) that wait or are at work; they have failed as `cancelled`."""
    from fuze_bench.pipeline.redis_server import with_running_redis
    from fuze_bench.pipeline.service import BookmarkService

    with BookmarkService(with_running_redis(settings_of_short_command())) as service:
        cancelled = {bookmark.id for bookmark in service.cancel(bookmarks)}
        for number in bookmarks:
            found = service.store.get(number)
            state = f"was {found.status} already" if found else "is not known"
            click.echo(f"bookmark {number} {'cancelled' if number in cancelled else state}")
    if len(cancelled) < len(set(bookmarks)):
        raise click.exceptions.Exit(1)


@click.command()
@click.argument("queue", type=click.Choice(QUEUES))
def pause(queue: str) -> None:
    """Let no worker take jobs from QUEUE any more; what runs is finished, saves are taken."""
    from fuze_bench.pipeline import control

    with _running_redis() as client:
        if not control.pause(client, queue):
            click.echo(f"{queue} was paused already")
            return
        if control.living_workers(client):
            time.sleep(control.PAUSE_TAKES_S)
    click.echo(f"{queue} is paused; `fuze-bench resume {queue}` lets it go on")


@click.command()
@click.argument("queue", type=click.Choice(QUEUES))
def resume(queue: str) -> None:
    """Let the workers take jobs from QUEUE again."""
    from fuze_bench.pipeline import control

    with _running_redis() as client:
        click.echo(f"{queue} goes on" if control.resume(client, queue) else f"{queue} was not paused")


@click.command()
def drain() -> None:
    """Have every worker finish what it has in hand and end; Ctrl-C only stops waiting for them."""
    from fuze_bench.commands.progress_bar import progress_bar
    from fuze_bench.pipeline import control

    with _running_redis() as client, progress_bar() as progress:
        task = progress.add_task("draining", total=None)
        count = control.drain(client, lambda ended, all_: progress.update(task, completed=ended, total=all_))
    click.echo(
        f"workers ended: {count}; what waits stays in the queues" if count else "no worker was running"
    )


@contextmanager
def _running_redis() -> Iterator[redis.Redis]:
    """A client for the Redis that is there. Raises QueueUnavailableError."""
    import redis

    from fuze_bench.pipeline.redis_server import cannot_be_used, connect, require_running_redis

    settings = require_running_redis(settings_of_short_command())
    assert settings.redis_url is not None
    try:
        with connect(settings.redis_url, connect_timeout_s=5, timeout_s=10) as client:
            yield client
    except redis.RedisError as error:
        raise cannot_be_used(error) from None


def _shown(name: str, value: object) -> str:
    from datetime import datetime

    if name.endswith("_at") and isinstance(value, int | float):
        return datetime.fromtimestamp(value).astimezone().isoformat(sep=" ", timespec="milliseconds")
    return "-" if value is None else str(value)
