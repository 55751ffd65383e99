"""`fuze-bench run`: an experiment from a file."""

from __future__ import annotations

import re
from pathlib import Path

import click

from fuze_bench.errors import LabError

_UNITS_S = {"s": 1.0, "m": 60.0, "h": 3600.0}


class _Duration(click.ParamType[float]):
    """«90s», «8m» or «1h» as seconds."""

    name = "TIME"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> float:
        if isinstance(value, float):
            return value
        found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([smh])", str(value).strip())
        if found is None or float(found[1]) == 0:
            self.fail(f"{value!r} is no time: write it as 90s, 8m or 1h", param, ctx)
        return float(found[1]) * _UNITS_S[found[2]]


class _Share(click.ParamType[float]):
    """«5%» or «0.05» as a share."""

    name = "PRECISION"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> float:
        if isinstance(value, float):
            return value
        text = str(value).strip()
        try:
            share = float(text.removesuffix("%")) / (100 if text.endswith("%") else 1)
        except ValueError:
            share = 0.0
        if not 0 < share < 1:
            self.fail(f"{value!r} is no precision: write it as 5%", param, ctx)
        return share


@click.command()
@click.argument("spec", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option(
    "--out",
    type=click.Path(file_okay=False, path_type=Path),
    help="Folder for the run.  [default: a new one in the data folder's `runs`]",
)
@click.option(
    "--dry-run", is_flag=True, help="List the trials and about how long they take; measure nothing."
)
@click.option("--resume", is_flag=True, help="Go on with the run in --out, which was stopped.")
@click.option("--budget", type=_Duration(), help="Begin no block that would end after so long, such as 8m.")
@click.option("--precision", type=_Share(), help="Go on until every ratio is known that well, such as 5%.")
def run(
    spec: Path, out: Path | None, dry_run: bool, resume: bool, budget: float | None, precision: float | None
) -> None:
    """Measure the experiment that a YAML file describes (see data/experiments).

    Ctrl-C keeps the trials made so far; --resume goes on from there. Exits with 1 if no trial counts.
    """
    from fuze_bench.lab.experiments.spec import Experiment

    experiment = Experiment.from_yaml(spec)
    if dry_run:
        from fuze_bench.lab.experiments.estimate import plan_in_words

        experiment.check_files()
        click.echo(plan_in_words(experiment))
        return
    from fuze_bench.lab.experiments.run import run_experiment
    from fuze_bench.lab.judgement import checks, summaries

    measured = run_experiment(experiment, out=out, resume=resume, budget_s=budget, precision=precision)
    for comparison in summaries.comparisons(measured):
        click.echo(str(comparison))
    for doubt in checks.doubts(measured):
        click.echo(f"doubt: {doubt}")
    click.echo(f"recorded in {measured.folder}")
    if measured.good_trials().empty and len(measured.trials):
        raise LabError("no trial counts: see the doubts above, and `log_end` in the trials")
