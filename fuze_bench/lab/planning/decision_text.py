"""A decision in words: its sentences, the cells of its table, and plain values for machines."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

from fuze_bench.lab.experiments.factors import factors
from fuze_bench.lab.judgement import stats
from fuze_bench.lab.judgement.block_resampling import Estimate
from fuze_bench.lab.judgement.tables import cell
from fuze_bench.lab.planning.decision import RULE, SHARE_OF_BEST, Decision, Option
from fuze_bench.lab.planning.plan_text import duration, size


def question(decision: Decision) -> str:
    """What was decided, and where the rate and the wait come from."""
    asked = decision.asked
    best = "any option did" + (" whose wait can be told" if decision.unknown else "")
    rate = f" ({100 * SHARE_OF_BEST:.0f} % of the most that {best})" if asked.rate_is_derived else ""
    wait = " (the default)" if asked.wait_is_derived else ""
    return (
        f"Which workers keep up with {cell(asked.rate_per_s)} jobs a second{rate}, so that 95 % of them are taken up"
        f" within {duration(asked.wait_p95_s)}{wait}?{conditions(decision)}"
    )


def conditions(decision: Decision) -> str:
    """Of several conditions that were measured, those that the figures are for; empty if there was one."""
    if not decision.given:
        return ""
    said = " and ".join(_condition(name, value) for name, value in decision.given.items())
    return f" Figures are for {said}, the hardest of what was measured."


def _condition(name: str, value: object) -> str:
    words = name.removesuffix("_ms").removesuffix("_s").replace("_", " ")
    return f"{words} {value:g}{factors()[name]['unit']}" if isinstance(value, float) else f"{words} {value}"


def answer(decision: Decision) -> str:
    """The pick in a sentence, or that there is none, or that none can be known."""
    pick, asked = decision.pick, decision.asked
    begin = "Exploratory: " if decision.is_exploratory else ""
    if pick is None and len(decision.unknown) == len(decision.options):
        return "Unknown: of no measured option can the wait be told. Measure another kind of worker as well."
    if pick is None:
        others = f", {_cannot_be_told(decision)}" if decision.unknown else ""
        which = " whose wait can be told" if decision.unknown else ""
        return f"{begin}No measured option{which} meets the target{others}. Measure more workers, or ask for less."
    assert pick.p95_s is not None
    return (
        f"{begin}Run {pick.label}: 95 % of the jobs are taken up within {duration(pick.p95_s.value)} at"
        f" {cell(asked.rate_per_s)} a second; none was lost or done twice."
    )


def why_not_fewer(decision: Decision) -> str:
    if decision.pick is None:
        return ""
    if decision.fewer is None:
        return "There is no fewer than one worker."
    fewer = decision.fewer
    if fewer.meets:
        return f"{fewer.label}: was not measured; the model says it would do. Measure it."
    return f"{fewer.label}{_origin(fewer)}: {'; '.join(fewer.problems)}."


def why_not_more(decision: Decision) -> str:
    pick, more = decision.pick, decision.more
    if pick is None or more is None:
        return ""
    if not more.meets:
        return f"{more.label}{_origin(more)}: {'; '.join(more.problems)}."
    assert more.p95_s is not None
    memory = ""
    if pick.memory_mib is not None and more.memory_mib is not None:
        change = (more.memory_mib - pick.memory_mib) * 2**20
        memory = f", for {size(abs(change))} {'more' if change >= 0 else 'less'} memory"
    return f"{more.label}{_origin(more)}: taken up within {duration(more.p95_s.value)}{memory}; the target is met without it."


def why_not_others(decision: Decision) -> list[str]:
    """Of the other options with as many workers as the pick, why each is not it."""
    pick = decision.pick
    if pick is None:
        return [f"{option.label}: {'; '.join(option.problems)}." for option in decision.options]
    found = []
    for option in decision.options:
        if option is pick or option.workers != pick.workers:
            continue
        if not option.meets:
            found.append(f"{option.label}: {'; '.join(option.problems)}.")
        else:
            found.append(f"{option.label}: meets the target as well, {_cost_of(option, pick)}.")
    return found


def how_sure(decision: Decision) -> list[str]:
    """How far to trust it: blocks, interval, what a higher rate would change, and every doubt."""
    pick, blocks = decision.pick, decision.blocks
    many = f"{blocks} block{'' if blocks == 1 else 's'}"
    if decision.is_exploratory:
        found = [f"Exploratory: {many} of {stats.BLOCKS_TO_CONCLUDE} or more that a claim needs."]
    else:
        found = [f"{many}: enough for a claim."]
    if pick is not None and pick.p95_s is not None:
        found.append(f"95 % interval of the pick's wait: {_interval(pick.p95_s)}.")
    if decision.at_higher_rate is not None:
        still = "would still be" if decision.at_higher_rate else "would no longer be"
        found.append(f"With 20 % more jobs a second the target {still} met.")
    if pick is not None and decision.unknown:
        found.append(f"There may be a better one than the pick, {_cannot_be_told(decision)}.")
    return [*found, *(doubt for doubt in decision.doubts if "exploratory" not in doubt)]


def _cannot_be_told(decision: Decision) -> str:
    return f"as of {' and '.join(option.label for option in decision.unknown)} the wait cannot be told"


def columns(decision: Decision) -> list[str]:
    """The heads of the decision's table."""
    return [
        "option",
        f"meets {duration(decision.asked.wait_p95_s)}",
        f"p95 wait at {cell(decision.asked.rate_per_s)}/s",
        f"drain of {decision.jobs:,}",
        "lost",
        "done twice",
        "memory",
        "processor s per 1,000",
    ]


def cells(option: Option, decision: Decision) -> list[str]:
    """One option's row, as people read it."""
    return [
        option.label,
        _meets(option, decision),
        _wait(option),
        "–" if option.drain_s is None else duration(option.drain_s.median),
        "–" if option.lost is None else str(option.lost),
        "–" if option.duplicated is None else str(option.duplicated),
        "–" if option.memory_mib is None else size(option.memory_mib * 2**20),
        cell(option.cpu_s_per_1000),
    ]


def _meets(option: Option, decision: Decision) -> str:
    if option is decision.pick:
        return "pick"
    return "yes" if option.meets else "not modelled" if option.is_unknown else "no"


def mapping(decision: Decision) -> dict[str, Any]:
    """Plain values for JSON: seconds, MiB; what is not known or infinite is None."""
    return {
        "run": decision.run,
        "rate_per_s": decision.asked.rate_per_s,
        "rate_is_derived": decision.asked.rate_is_derived,
        "wait_p95_target_s": decision.asked.wait_p95_s,
        "wait_is_derived": decision.asked.wait_is_derived,
        "conditions": dict(decision.given),
        "rule": RULE,
        "blocks": decision.blocks,
        "is_exploratory": decision.is_exploratory,
        "options": [_option(option) for option in decision.options],
        "pick": None if decision.pick is None else decision.pick.label,
        "answer": answer(decision),
        "why_not_fewer": why_not_fewer(decision) or None,
        "why_not_more": why_not_more(decision) or None,
        "why_not_others": why_not_others(decision),
        "how_sure": how_sure(decision),
        "table": {
            "columns": columns(decision),
            "rows": [cells(option, decision) for option in decision.options],
        },
    }


def _option(option: Option) -> dict[str, Any]:
    spread = option.drain_s
    return {
        "label": option.label,
        "workers": option.workers,
        "kind": option.kind,
        "strategy": option.strategy,
        "blocks": option.blocks,
        "meets": option.meets,
        "problems": list(option.problems),
        "wait_p95_s": None if option.p95_s is None else _estimate(option.p95_s),
        "grows_per_s": None if option.growth is None else _finite(option.growth.per_s),
        "throughput_per_s": _finite(option.throughput_per_s),
        "drain_s": None if spread is None else dataclasses.asdict(spread),
        "lost": option.lost,
        "duplicated": option.duplicated,
        "memory_mib": _finite(option.memory_mib),
        "cpu_s_per_1000": _finite(option.cpu_s_per_1000),
    }


def _estimate(estimate: Estimate) -> dict[str, float | None]:
    return {
        "value": _finite(estimate.value),
        "low": _finite(estimate.low),
        "high": _finite(estimate.high),
    }


def _finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None


def _wait(option: Option) -> str:
    if option.growth is not None:
        return f"grows by {cell(option.growth.per_s)}/s"
    return "–" if option.p95_s is None else duration(option.p95_s.value)


def _interval(estimate: Estimate) -> str:
    if estimate.low is None or estimate.high is None:
        return "none, it would need more blocks"
    high = "without end" if math.isinf(estimate.high) else duration(estimate.high)
    return f"{duration(estimate.low)} to {high}"


def _origin(option: Option) -> str:
    """Whether what is said of an option was never measured."""
    return "" if option.throughput_per_s is not None else f" (not measured, {option.source})"


def _cost_of(option: Option, pick: Option) -> str:
    if option.memory_mib is not None and pick.memory_mib is not None and option.memory_mib > pick.memory_mib:
        return f"with {size((option.memory_mib - pick.memory_mib) * 2**20)} more memory"
    if option.cpu_s_per_1000 is not None and pick.cpu_s_per_1000 is not None:
        more = option.cpu_s_per_1000 - pick.cpu_s_per_1000
        return f"with {cell(more)} s more processor time per 1,000 jobs"
    return "at no lower cost"
