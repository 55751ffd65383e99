"""`fuze-bench …`: the command line as a whole."""

from __future__ import annotations

import sys
from collections.abc import Sequence

import click

import fuze_bench
from fuze_bench import logs
from fuze_bench.commands.benchmarking import bench
from fuze_bench.commands.dashboard import dashboard
from fuze_bench.commands.doctor import doctor
from fuze_bench.commands.jobs import cancel, drain, pause, recover, resume, retry, status
from fuze_bench.commands.measuring import run
from fuze_bench.commands.planning import plan
from fuze_bench.commands.saving import save
from fuze_bench.commands.serving import api, up
from fuze_bench.lab.report.report_command import report, speed, summary
from fuze_bench.pipeline.worker_command import run_command, worker

# Every command imports what it needs when it runs: `--help` and a wrong option answer at once.


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(fuze_bench.__version__, prog_name="fuze-bench")
def app() -> None:
    """Run a bookmark pipeline on RQ, put it under load, and find out which workers to run."""


for _command in (
    up,
    api,
    worker,
    save,
    status,
    recover,
    retry,
    cancel,
    pause,
    resume,
    drain,
    doctor,
    dashboard,
    plan,
    run,
    bench,
    report,
    speed,
    summary,
):
    app.add_command(_command)


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; the exit code: 0 done, 1 it went wrong, 2 the command line is wrong."""
    logs.configure(level="WARNING")
    return run_command(app, sys.argv[1:] if argv is None else argv, "fuze-bench")


if __name__ == "__main__":
    sys.exit(main())
