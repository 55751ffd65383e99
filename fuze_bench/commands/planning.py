"""`fuze-bench plan`: how many workers to run, from a recorded run."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from fuze_bench.errors import LabError

if TYPE_CHECKING:
    import pandas as pd


@click.command()
@click.option(
    "--run",
    "folder",
    type=click.Path(path_type=Path),
    required=True,
    help="Folder of a recorded run; best one that measured several worker counts.",
)
@click.option("--rate", type=float, help="Jobs a second that must be kept up with.")
@click.option("--profile", type=click.Path(path_type=Path), help="Instead: a CSV file with hour,rate.")
@click.option("--wait-p95", help="Within what time 95 % must start, by queue: high=2s,default=60s.")
@click.option("--backlog", type=int, help="So many jobs at once, while the rate goes on, …")
@click.option("--drain", help="… must be done within this time: 10m.")
@click.option("--memory", help="What all workers together may take: 2G.")
@click.option("--spare", type=int, default=0, show_default=True, help="Workers that may be down.")
@click.option(
    "--only", "only", multiple=True, help="Which trials, where the run has several: kind=simple; repeatable."
)
@click.option("--json", "as_json", is_flag=True, help="As JSON, with all figures.")
def plan(
    folder: Path,
    rate: float | None,
    profile: Path | None,
    wait_p95: str | None,
    backlog: int | None,
    drain: str | None,
    memory: str | None,
    spare: int,
    only: tuple[str, ...],
    as_json: bool,
) -> None:
    """Say how many workers to run, why not one fewer or one more, and how sure that is.

    Exits with 1 if no number of workers does what is wanted.
    """
    from fuze_bench.lab.planning import plan_wanted

    busiest = None
    if (rate is None) == (profile is None):
        raise LabError(
            "how much work there is, is missing or said twice: give --rate 20 or --profile hourly.csv"
        )
    if profile is not None:
        busiest, rate = max(plan_wanted.read_profile(profile).items(), key=lambda item: item[1])
    assert rate is not None
    wanted = plan_wanted.Wanted(
        rate_per_s=rate,
        wait_p95_s=plan_wanted.parse_waits_s(wait_p95) if wait_p95 is not None else {},
        backlog=backlog,
        drain_s=plan_wanted.parse_duration_s(drain) if drain is not None else None,
        memory_bytes=plan_wanted.parse_bytes(memory) if memory is not None else None,
        spare=spare,
        busiest_hour=busiest,
    )
    factors = dict(_factor(text) for text in only)

    # Only now: a wrong option is refused before pandas is imported.
    import msgspec

    from fuze_bench.lab.planning.plan import plan as make_plan

    events, trials, cores = _recorded(folder)
    made = make_plan(events, trials, wanted, cores=cores, only=factors)
    click.echo(msgspec.json.encode(made.to_mapping()).decode() if as_json else str(made))
    if made.workers is None:
        raise click.exceptions.Exit(1)


def _factor(text: str) -> tuple[str, str]:
    factor, equals, value = text.partition("=")
    if not equals:
        raise LabError(f"--only {text!r} chooses nothing: give factor=value, as in kind=simple")
    return factor.strip(), value.strip()


def _recorded(folder: Path) -> tuple[pd.DataFrame, pd.DataFrame, int | None]:
    """(events, trials, CPUs of the machine) of a run folder."""
    from fuze_bench.lab.runs.results import load_run

    run = load_run(folder)
    cores = run.machine.get("usable_cores")
    return run.good_events(), run.good_trials(), cores if isinstance(cores, int) else None
