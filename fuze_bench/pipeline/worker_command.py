"""The command line of a worker: `fuze-bench worker` and `python -m fuze_bench.pipeline.worker`."""

from __future__ import annotations

import logging
import os
from typing import Annotated

import typer

from fuze_bench.errors import FuzeError, SettingsError, nearest
from fuze_bench.pipeline.settings import QUEUES, Kind, Settings


def worker(
    queue: Annotated[
        list[str] | None,
        typer.Option(help="A queue to listen to; repeatable, in priority order. Default: all."),
    ] = None,
    count: Annotated[int, typer.Option(help="How many workers.", min=1)] = 1,
    kind: Annotated[Kind, typer.Option(help="How a worker runs its jobs.")] = Kind.SIMPLE,
    burst: Annotated[bool, typer.Option("--burst", help="Stop when the queues are empty.")] = False,
    name: Annotated[str | None, typer.Option(help="Name in `rq info`; by default unique.")] = None,
) -> None:
    """Run workers until Ctrl-C or SIGTERM (which let the jobs in hand finish; a second one stops at once)."""
    queues = tuple(queue or QUEUES)
    for each in queues:
        if each not in QUEUES:
            raise SettingsError(f"--queue {each}: {nearest(each, QUEUES)}")
    # Only now: a wrong option is refused before RQ is imported.
    from fuze_bench.pipeline.redis_server import redis_for
    from fuze_bench.pipeline.worker import run_workers

    with redis_for(Settings.from_mapping(os.environ)) as settings:
        code = run_workers(settings, queues=queues, count=count, kind=kind, burst=burst, name=name)
    if code:
        raise typer.Exit(code)


def configure_logging(level: str = "INFO") -> None:
    """Plain lines on standard error: time, logger, message."""
    logging.basicConfig(
        level=level, format="%(asctime)s %(levelname)s %(name)s %(message)s", datefmt="%H:%M:%S"
    )


def main() -> int:
    """Run the command of this process; the exit code."""
    configure_logging()
    app = typer.Typer(add_completion=False)
    app.command()(worker)
    try:
        app(standalone_mode=False)
    except FuzeError as error:
        typer.echo(f"fuze-bench worker: {error}", err=True)
        return 1
    except typer.Exit as stop:
        return stop.exit_code
    return 0
