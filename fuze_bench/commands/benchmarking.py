"""`fuze-bench bench`: how fast the product is, as ratios measured side by side."""

from __future__ import annotations

import json

import click

#: The benchmarks: the module of each in `fuze_bench.lab.benchmarks`, and what it asks.
BENCHMARKS = {
    "backlog": ("backlog", "Whether a long backlog makes a job cost more"),
    "memory": ("memory", "What each further worker of a shared model takes"),
    "start": ("start", "From nothing to the first bookmark done, and how long short commands take"),
    "bookmarks": ("bookmarks", "Two workers on real pages, against a plain loop and the naive recipe"),
    "bookmarks-slow-origin": ("bookmarks_slow_origin", "The same when the web site answers after 300 ms"),
    "empty-jobs": ("empty_jobs", "What a queue itself costs, by kind of worker"),
    "quick-save": ("quick_save", "What one API process answers, every save committed and queued"),
    "embedding": ("embedding", "What a text's vector costs, against one `encode` after another in float32"),
    "extraction": ("extraction", "What a page's title, text, language and date cost, against trafilatura"),
    "replay": ("replayed_jobs", "How fast recorded jobs are put through another queue, as a plan does"),
}

_LIST = "\n".join(f"{name:<22} {what}" for name, (_, what) in sorted(BENCHMARKS.items()))


@click.command(epilog=f"\b\nBenchmarks:\n{_LIST}")
@click.argument("name", metavar="BENCHMARK", type=click.Choice(sorted(BENCHMARKS)))
@click.option(
    "--blocks", type=click.IntRange(1, 100), default=6, show_default=True, help="Repeats of everything."
)
@click.option(
    "--scale", type=click.FloatRange(0.001, 1), default=1.0, help="Less work in each: for a first look."
)
@click.option("--seed", type=int, default=1, show_default=True, help="Of the order within a block.")
@click.option("--json", "as_json", is_flag=True, help="The ratios as JSON.")
def bench(name: str, blocks: int, scale: float, seed: int, as_json: bool) -> None:
    """Measure the product against others, in turn, and show ratios with intervals."""
    from importlib import import_module

    from fuze_bench.lab.benchmarks import side_by_side
    from fuze_bench.lab.parts.machine import describe_machine

    benchmark = import_module(f"fuze_bench.lab.benchmarks.{BENCHMARKS[name][0]}")
    figures = side_by_side.measure_in_turn(
        benchmark.contenders(scale), blocks, seed, lambda line: click.echo(line, err=True)
    )
    found = side_by_side.ratios(figures, benchmark.TARGETS)
    agreements = benchmark.agreements(scale) if hasattr(benchmark, "agreements") else []
    if as_json:
        plain = side_by_side.as_plain(name, describe_machine(), found, agreements)
        click.echo(json.dumps(plain, indent=2))
    else:
        click.echo(side_by_side.in_words(figures, found, benchmark.UNIT, agreements))
