"""`fuze-bench …`: parse, call, show."""

from __future__ import annotations

import sys
from collections.abc import Sequence

import click

import fuze_bench
from fuze_bench.pipeline.worker_command import configure_logging, run_command, worker


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(fuze_bench.__version__, prog_name="fuze-bench")
def app() -> None:
    """Run a bookmark pipeline on RQ, put it under load, and find out which workers to run."""


app.add_command(worker)


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; the exit code: 0 done, 1 it went wrong, 2 the command line is wrong."""
    configure_logging()
    return run_command(app, sys.argv[1:] if argv is None else argv, "fuze-bench")


if __name__ == "__main__":
    sys.exit(main())
