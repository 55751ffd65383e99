"""`fuze-bench …`: parse, call, show."""

from __future__ import annotations

import sys
from collections.abc import Sequence

import click
import typer

from fuze_bench.errors import FuzeError, InputError, SettingsError
from fuze_bench.pipeline.worker_command import configure_logging, worker

app = typer.Typer(
    name="fuze-bench",
    help="Run a bookmark pipeline on RQ, put it under load, and find out which workers to run.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
app.command()(worker)


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; the exit code: 0 done, 1 it went wrong, 2 the command line is wrong."""
    configure_logging()
    try:
        code = app(args=list(sys.argv[1:] if argv is None else argv), standalone_mode=False)
        return code if isinstance(code, int) else 0
    except click.exceptions.Abort:
        typer.echo("stopped", err=True)
        return 130
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except (SettingsError, InputError) as error:
        typer.echo(f"fuze-bench: {error}", err=True)
        return 2
    except FuzeError as error:
        typer.echo(f"fuze-bench: {error}", err=True)
        return 1


if __name__ == "__main__":
    sys.exit(main())
