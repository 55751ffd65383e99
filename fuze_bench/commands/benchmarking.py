"""`fuze-bench bench`: how fast the product is, as ratios measured side by side."""

from __future__ import annotations

import json

import click

from fuze_bench.errors import LabError
from fuze_bench.lab.benchmarks.known import ALL, BENCHMARKS

_LIST = "\n".join(f"{name:<22} {what}" for name, (_, what) in sorted(BENCHMARKS.items()))


@click.command(epilog=f"\b\nBenchmarks ({ALL}: each of them):\n{_LIST}")
@click.argument(
    "names", metavar="BENCHMARK…", nargs=-1, required=True, type=click.Choice([*sorted(BENCHMARKS), ALL])
)
@click.option(
    "--blocks",
    type=click.IntRange(1, 100),
    help="Repeats of everything.  [default: 6, or fewer where it counts and does not time]",
)
@click.option(
    "--scale", type=click.FloatRange(0.001, 1), default=1.0, help="Less work in each: for a first look."
)
@click.option("--seed", type=int, default=1, show_default=True, help="Of the order within a block.")
@click.option("--json", "as_json", is_flag=True, help="The ratios as JSON: an object, or a list of several.")
def bench(names: tuple[str, ...], blocks: int | None, scale: float, seed: int, as_json: bool) -> None:
    """Measure the product against others, in turn, and show ratios with intervals.

    Each result is kept in the data folder's `benchmarks`, as soon as it is there and in place of the last one (but no first
    look in place of a whole measurement): `fuze-bench report` makes a page of them. Exits with 1 if one could not be measured; the others are all the same.
    """
    from fuze_bench.lab.benchmarks import running

    chosen = sorted(BENCHMARKS) if ALL in names else list(dict.fromkeys(names))
    found = []
    for each in running.run_all(
        chosen,
        running.results_folder(),
        blocks=blocks,
        scale=scale,
        seed=seed,
        say=lambda line: click.echo(line, err=True),
    ):
        found.append(each)
        if each is not None and not as_json:
            click.echo(each.in_words())
    if as_json:
        plain = [each.as_plain() for each in found if each is not None]
        click.echo(json.dumps(plain if len(chosen) > 1 else plain[0] if plain else None, indent=2))
    if None in found:
        failed = [name for name, each in zip(chosen, found, strict=True) if each is None]
        raise LabError(f"{', '.join(failed)} could not be measured: what was wrong is said above")
