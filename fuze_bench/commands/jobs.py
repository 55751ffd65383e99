"""`fuze-bench status` and `recover`: look at jobs, and see to those that fell out of the queue."""

from __future__ import annotations

import os

import click

from fuze_bench.errors import InputError
from fuze_bench.pipeline.settings import Settings


@click.command()
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


@click.command()
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
