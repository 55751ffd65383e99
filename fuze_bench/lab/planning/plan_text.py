"""A capacity plan in words: the sentences it is made of, as text, as HTML and as plain values for machines."""

from __future__ import annotations

import dataclasses
import math
from html import escape
from typing import TYPE_CHECKING, Any

from fuze_bench.lab.judgement.block_resampling import Estimate
from fuze_bench.lab.judgement.tables import cell
from fuze_bench.lab.queueing.queue_growth import Growth

if TYPE_CHECKING:
    from fuze_bench.lab.planning.plan import Option, Plan


def duration(seconds: float) -> str:
    """A time for people: 350 ms, 3.1 s, 12 min, 2.5 h."""
    if math.isinf(seconds):
        return "for ever"
    if seconds < 0.9995:
        return f"{cell(seconds * 1e3)} ms"
    for unit, length, below in (("s", 1, 120), ("min", 60, 7200)):
        if seconds < below:
            return f"{cell(seconds / length)} {unit}"
    return f"{cell(seconds / 3600)} h"


def size(amount: float) -> str:
    """Memory for people."""
    return f"{cell(amount / 2**30)} GiB" if amount >= 2**30 else f"{cell(amount / 2**20)} MiB"


def workers_text(count: int) -> str:
    """`1 worker`, `2 workers`."""
    return f"{count} worker{'' if count == 1 else 's'}"


def cpu_short(rate_per_s: float, limit_per_s: float, cores: int | None) -> str:
    """The CPUs do not keep up, and what that means."""
    return (
        f"the machine's {cores} CPUs do {cell(limit_per_s)} jobs a second, whatever the number of workers:"
        f" what waits grows by {cell(rate_per_s - limit_per_s)} a second"
    )


def grows(queue: str, growth: Growth, target_s: float | None) -> str:
    """How fast a queue grows, and when its target is broken; never a quantile."""
    sentence = f"{queue} grows by {cell(growth.per_s)} jobs a second"
    if target_s is None:
        return sentence
    after = growth.breaks_after_s(target_s)
    when = "at once" if not after else f"after {duration(after)}"
    return f"{sentence}, its {duration(target_s)} are broken {when}"


def may_grow(utilisation: Estimate) -> str:
    """The interval of the utilisation reaches 1."""
    return f"whether the queues grow cannot be told for sure: workers busy {percent(utilisation)} of the time"


def late(queue: str, p95_s: Estimate, target_s: float) -> str:
    """A wait that is longer than wanted."""
    return f"95 % of {queue} start within {duration(p95_s.value)}, not {duration(target_s)}"


def may_be_late(queue: str, p95_s: Estimate, target_s: float) -> str:
    """A wait whose interval reaches beyond what is wanted."""
    upper = "without end" if math.isinf(p95_s.upper) else f"of {duration(p95_s.upper)}"
    return (
        f"95 % of {queue} start within {duration(p95_s.value)}, but waits {upper} cannot be ruled out"
        f" ({duration(target_s)} wanted)"
    )


def too_rare(queue: str) -> str:
    """A queue without a quantile."""
    return f"{queue} has too few jobs to state within what time 95 % of them start"


def slow_drain(backlog: int, drain_s: Estimate, within_s: float) -> str:
    """A backlog that takes longer than wanted."""
    if math.isinf(drain_s.value):
        return f"a backlog of {backlog:,} is never done"
    return f"a backlog of {backlog:,} takes {duration(drain_s.value)}, not {duration(within_s)}"


def may_drain_slowly(backlog: int, drain_s: Estimate, within_s: float) -> str:
    """A backlog whose interval reaches beyond what is wanted."""
    return (
        f"a backlog of {backlog:,} takes {duration(drain_s.value)}, but {duration(drain_s.upper)} cannot be ruled out"
        f" ({duration(within_s)} wanted)"
    )


def no_memory(workers: int, memory: float, limit: float) -> str:
    """More memory than there is."""
    return f"{workers_text(workers)} take {size(memory)}, there are {size(limit)}"


def few_blocks(blocks: int, needed: int) -> str:
    """Too few blocks to conclude from."""
    interval = ", so nothing has an interval" if blocks == 1 else ""
    return f"Exploratory: {blocks} block{'' if blocks == 1 else 's'}{interval}; {needed} or more are needed to conclude."


def other_count(workers: int, measured: int) -> str:
    """Service times of another number of workers."""
    return (
        f"{workers_text(workers)} were not measured: service times are those of {measured}, and may be longer with more"
        " workers than the machine has CPUs."
    )


def cpu_tight(share: float, cores: int) -> str:
    """The CPUs will be busy."""
    return f"Jobs would take {share:.0%} of the machine's {cores} CPUs: service times may be longer than recorded."


def percent(estimate: Estimate) -> str:
    """A share with its interval."""
    return f"{estimate.value:.0%}" + _interval(estimate, lambda share: f"{share:.0%}")


def _interval(estimate: Estimate, shown: Any) -> str:
    if estimate.low is None or estimate.high is None:
        return ""
    high = "without end" if math.isinf(estimate.high) else shown(estimate.high)
    return f" ({shown(estimate.low)} to {high})"


def headline(plan: Plan) -> str:
    """The answer in one sentence."""
    wanted = plan.wanted
    load = f"{wanted.rate_per_s:g} jobs a second"
    if wanted.busiest_hour is not None:
        load += f" (the busiest hour, {wanted.busiest_hour})"
    if plan.workers is None or plan.needed is None:
        return f"No number of workers does it for {load}."
    spare = f": {plan.needed} needed and {wanted.spare} spare" if wanted.spare else ""
    prefix = "Exploratory: r" if plan.is_exploratory else "R"
    return f"{prefix}un {workers_text(plan.workers)} for {load}{spare}."


def reasons(plan: Plan) -> list[tuple[str, str]]:
    """Why this number and no other, as (question, answer)."""
    chosen, spare = plan.chosen, plan.wanted.spare
    if plan.workers is None:
        tried = [chosen] if plan.fewer is None else [plan.fewer, chosen]
        return [(f"Why not {option.workers}", _why_not(option)) for option in tried]
    found = []
    if plan.fewer is None:
        found.append(("Why not one fewer", "somebody has to do the work"))
    else:
        down = f"with {spare} down, {plan.fewer.workers} would be left: " if spare else ""
        found.append(("Why not one fewer", down + _why_not(plan.fewer)))
    if plan.more is not None:
        found.append(("Why not one more", _why_not_more(plan)))
    return found


def _why_not(option: Option) -> str:
    return "; ".join((*option.problems, *option.unsure)) or "it does what is wanted"


def _why_not_more(plan: Plan) -> str:
    chosen, more = plan.chosen, plan.more
    assert more is not None
    if more.problems:
        return _why_not(more)
    gains = [
        f"{now.queue} {duration(now.p95_s.value)} → {duration(then.p95_s.value)}"
        for now, then in zip(chosen.waits, more.waits, strict=True)
        if now.p95_s is not None and then.p95_s is not None
    ]
    busy = f"not needed: workers would be busy {more.utilisation.value:.0%} instead of {chosen.utilisation.value:.0%} of the time"
    memory = ""
    if more.memory_bytes is not None and chosen.memory_bytes is not None:
        memory = f", for {size(more.memory_bytes - chosen.memory_bytes)} more memory"
    return busy + (f", p95 waits {', '.join(gains)}" if gains else "") + memory


def figures(plan: Plan) -> list[tuple[str, str, str, str]]:
    """(what, figure, wanted, source) of the chosen number with all spare workers down."""
    chosen, wanted = plan.chosen, plan.wanted
    rows: list[tuple[str, str, str, str]] = [("workers busy", percent(chosen.utilisation), "", chosen.source)]
    for wait in chosen.waits:
        target = wanted.wait_p95_s.get(wait.queue)
        rows.append(
            (
                f"{wait.queue}: 95 % start within",
                _wait_text(wait.p95_s, wait.growth),
                "" if target is None else duration(target),
                str(wait.source),
            )
        )
    if chosen.drain_s is not None and wanted.drain_s is not None:
        text = duration(chosen.drain_s.value) + _interval(chosen.drain_s, duration)
        rows.append((f"backlog of {wanted.backlog:,} done in", text, duration(wanted.drain_s), chosen.source))
    if chosen.memory_bytes is not None:
        limit = "" if wanted.memory_bytes is None else size(wanted.memory_bytes)
        spare = ", spare ones too" if wanted.spare else ""
        rows.append(
            (f"memory of the workers{spare}", size(chosen.memory_bytes), limit, str(chosen.memory_source))
        )
    if plan.cpu_cores is not None:
        rows.append(("CPUs kept busy", cell(plan.cpu_cores), "", "modelled"))
    return rows


def _wait_text(p95_s: Estimate | None, growth: Growth | None) -> str:
    if growth is not None:
        return f"grows by {cell(growth.per_s)} a second"
    return "not stated" if p95_s is None else duration(p95_s.value) + _interval(p95_s, duration)


def changes(plan: Plan) -> list[tuple[str, str]]:
    """(what, then so many workers)."""
    return [
        (change.what, "no number does it" if change.workers is None else workers_text(change.workers))
        for change in plan.changes
    ]


def text(plan: Plan) -> str:
    """The plan for a terminal."""
    lines = [headline(plan), ""]
    rows = [("with " + workers_text(plan.chosen.workers), "", "wanted", ""), *figures(plan)]
    widths = [max(len(row[column]) for row in rows) for column in range(3)]
    for row in rows:
        cells = [cell.ljust(width) for cell, width in zip(row, widths, strict=False)]
        lines.append("  ".join(["", *cells, row[3]]).rstrip())
    lines.append("")
    lines += [f"{question}: {answer}." for question, answer in reasons(plan)]
    lines.append(
        "What would change it: " + "; ".join(f"{what}: {then}" for what, then in changes(plan)) + "."
    )
    return "\n".join([*lines, "", *plan.doubts])


def html(plan: Plan) -> str:
    """The plan for a notebook."""
    rows = "".join(
        f"<tr><th scope='row'>{escape(what)}</th>"
        + "".join(f"<td>{escape(cell)}</td>" for cell in cells)
        + "</tr>"
        for what, *cells in figures(plan)
    )
    why = "".join(f"<dt>{escape(q)}</dt><dd>{escape(a)}.</dd>" for q, a in reasons(plan))
    then = "".join(f"<li>{escape(what)}: {escape(count)}</li>" for what, count in changes(plan))
    doubts = "".join(f"<li>{escape(doubt)}</li>" for doubt in plan.doubts)
    return (
        f"<p><strong>{escape(headline(plan))}</strong></p>"
        f"<table class='facts'><thead><tr><th>with {escape(workers_text(plan.chosen.workers))}</th><th></th>"
        f"<th>wanted</th><th>source</th></tr></thead><tbody>{rows}</tbody></table><dl>{why}</dl>"
        f"<p>What would change it:</p><ul>{then}</ul><p>Doubts:</p><ul>{doubts}</ul>"
    )


def mapping(plan: Plan) -> dict[str, Any]:
    """The plan as plain values for JSON."""
    found: dict[str, Any] = _plain(dataclasses.asdict(plan))
    found["workers"] = plan.workers
    found["is_exploratory"] = plan.is_exploratory
    found["headline"] = headline(plan)
    found["reasons"] = [{"question": question, "answer": answer} for question, answer in reasons(plan)]
    for option in (name for name in ("chosen", "fewer", "more") if found[name] is not None):
        found[option]["meets"] = getattr(plan, option).meets
    return found


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(key): _plain(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(each) for each in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
