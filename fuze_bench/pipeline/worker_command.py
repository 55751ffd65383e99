"""The command line of a worker: `fuze-bench worker` and `python -m fuze_bench.pipeline.worker`."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import click

from fuze_bench import logs
from fuze_bench.errors import FuzeError, InputError, SettingsError
from fuze_bench.pipeline.settings import DEFAULT_KIND, QUEUES, Kind, Settings, Strategy

EXIT_WENT_WRONG = 1
EXIT_WRONG_USE = 2
EXIT_INTERRUPTED = 130

logger = logging.getLogger(__name__)


def log_format_option(command: Callable[..., Any]) -> Callable[..., Any]:
    """`--log-format`, for commands that run on and log."""
    option = click.option(
        "--log-format",
        type=click.Choice(logs.FORMATS),
        help="Lines for people, or JSON for programs.  [default: FUZE_LOG_FORMAT, else text]",
    )
    return option(command)


def settings_and_logs(log_format: str | None = None, *, text_level: str = "INFO") -> Settings:
    """The environment's settings with the log format of the command line, if one is given; logs are set up so.

    `text_level`: for people, who read a command's answer, WARNING; programs get every line.
    """
    settings = Settings.from_mapping(os.environ)
    if log_format is not None:
        settings = replace(settings, log_format=log_format)
    logs.configure(settings.log_format, "INFO" if settings.log_format == "json" else text_level)
    return settings


@click.command()
@click.option(
    "--queue",
    "queues",
    multiple=True,
    type=click.Choice(QUEUES),
    default=QUEUES,
    help="A queue to listen to; repeatable, in priority order.  [default: all]",
)
@click.option("--count", type=click.IntRange(min=1), default=1, show_default=True, help="How many workers.")
@click.option(
    "--kind",
    type=click.Choice([str(kind) for kind in Kind]),
    default=str(DEFAULT_KIND),
    show_default=True,
    help="Jobs in the worker's own process, each in a fork, each in a new interpreter, or many at a time in one fork.",
)
@click.option(
    "--strategy",
    type=click.Choice([str(strategy) for strategy in Strategy]),
    default=str(Strategy.STRICT),
    show_default=True,
    help="Take from the first queue that holds a job, from each in turn, or from any.",
)
@click.option("--burst", is_flag=True, help="Stop when the queues are empty.")
@click.option("--name", help="Name in `rq info`.  [default: a unique one]")
@log_format_option
def worker(
    queues: tuple[str, ...],
    count: int,
    kind: str,
    strategy: str,
    burst: bool,
    name: str | None,
    log_format: str | None,
) -> None:
    """Run workers until Ctrl-C or SIGTERM.

    The first lets the jobs in hand finish, a second one stops at once. Without a Redis of your own (REDIS_URL), the
    private one of this data folder is used, and started if need be.
    """
    # Only now: a wrong option is refused before RQ is imported.
    from fuze_bench.pipeline.redis_server import redis_for
    from fuze_bench.pipeline.worker import run_workers

    with redis_for(settings_and_logs(log_format)) as settings:
        code = run_workers(
            settings,
            queues=queues,
            count=count,
            kind=Kind(kind),
            strategy=Strategy(strategy),
            burst=burst,
            name=name,
        )
    if code:
        raise click.exceptions.Exit(code)


def run_command(command: click.Command, argv: Sequence[str], program: str) -> int:
    """Run a command line; the exit code: 0 done, 1 it went wrong, 2 the command line or a value on it is wrong."""
    try:
        code = command.main(args=list(argv), prog_name=program, standalone_mode=False)
        return code if isinstance(code, int) else 0
    except (click.exceptions.Abort, KeyboardInterrupt):
        _complain(program, "stopped")
        return EXIT_INTERRUPTED
    except click.exceptions.NoArgsIsHelpError as error:
        click.echo(error.format_message(), err=True)
        return EXIT_WRONG_USE
    except click.ClickException as error:
        context = error.ctx.command_path if isinstance(error, click.UsageError) and error.ctx else program
        click.echo(f"{program}: {error.format_message()} See `{context} --help`.", err=True)
        return error.exit_code
    except (SettingsError, InputError) as error:
        _complain(program, str(error))
        return EXIT_WRONG_USE
    except FuzeError as error:
        _complain(program, str(error))
        return EXIT_WENT_WRONG


def _complain(program: str, message: str) -> None:
    remark(f"{program}: {message}", logging.ERROR)


def settings_of_short_command() -> Settings:
    """The environment's settings for a command that answers and ends; logs are set up so."""
    return settings_and_logs(text_level="WARNING")


def remark(message: str, level: int = logging.INFO) -> None:
    """Beside a command's answer: to the person at the terminal, or as every other line where programs read them."""
    if logs.are_json():
        logger.log(level, "%s", message)
    else:
        click.echo(message, err=True)


def main() -> int:
    """The worker's command line alone."""
    logs.configure()
    return run_command(worker, sys.argv[1:], "fuze-bench worker")
