"""What quick-save can take, from a recorded search: which rates held, why not, and where each way's knee lies; pure."""

from __future__ import annotations

import json
import statistics
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from fuze_bench.errors import LabError, one_line
from fuze_bench.lab.judgement.checks import Conclusion, doubts
from fuze_bench.lab.judgement.growth import line_through_stretches
from fuze_bench.lab.judgement.knee import Attempt, Knee, find_knee
from fuze_bench.lab.judgement.stats import quantile
from fuze_bench.lab.judgement.summaries import window_quantiles
from fuze_bench.lab.judgement.tables import GROWS, cell
from fuze_bench.lab.judgement.trial_verdicts import GENERATOR_LATE, Row, generator_late, generator_saturated
from fuze_bench.lab.judgement.verdict_tables import DOUBTS, doubts_on, told_below
from fuze_bench.lab.judgement.verdicts import Answer
from fuze_bench.lab.runs.records import OK, REFUSED
from fuze_bench.lab.runs.results import Run

#: The share of the saves that must be acknowledged, and of the answers that must come in time: their p95.
LEAST_ACKNOWLEDGED, LEAST_IN_TIME = 0.99, 0.95
#: Answers that took longer and longer, by more than this share of the target over the window, say that work piles up.
_GROWTH_SHARE = 0.25
#: Verdicts that say nothing here: nobody waits until all that was saved is processed.
_EXPECTED = frozenset(
    {"growing backlog", "not drained", "trend inside the window", "load generator saturated"}
)
#: The ways to process what is saved, in words.
WAYS = {"inline": "within the request", "thread": "by threads of the API", "rq": "by RQ"}


@dataclass(frozen=True, kw_only=True)
class Search:
    """How the knee is looked for: `target_ms` is what an answer may take, from its intended time; see `find_knee`."""

    target_ms: float
    start_per_s: Mapping[str, float]
    """By mode."""
    cap_per_s: float
    within: float
    most_trials: int
    """For each mode."""

    def to_mapping(self) -> dict[str, object]:
        """Names and values as JSON has them."""
        return asdict(self)

    @classmethod
    def of(cls, run: Run) -> Search:
        """As recorded with a run. Raises LabError if it is none of quick-save's."""
        path = Path(run.folder) / "verdict.json"
        try:
            return cls(**json.loads(path.read_text(encoding="utf-8"))["search"])
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise LabError(
                f"{run.folder} holds no finished search for a knee ({one_line(error)}): measure again"
            ) from None


@dataclass(frozen=True)
class Held:
    """Whether a rate held in its trial, and why it did not (or why that cannot be told); None: it does not count."""

    held: bool | None
    why: str
    goodput_per_s: float | None = None
    """Answers in time, per second of the window."""


def judge(trial: Row, events: pd.DataFrame, target_ms: float) -> Held:
    """One trial at a constant rate. It holds if at least LEAST_ACKNOWLEDGED of the saves were acknowledged, at least
    LEAST_IN_TIME within the target, and answers did not take longer and longer.

    In time is counted, not taken from a quantile, and so can be said of any number of saves. Latency is from the intended
    time: a load generator that was late makes it longer, so that a rate that holds all the same does hold. One that does
    not counts only if answers came too late even from when the saves were in fact sent. A generator near its own
    ceiling measures itself: then the trial does not count.
    """
    if trial["status"] != OK:
        return Held(None, f"the trial failed: {trial['problem']}")
    if not len(events):
        return Held(None, "nothing was offered")
    saturated = generator_saturated(trial)
    if saturated.answer is Answer.YES:
        return Held(None, f"{saturated.name}: {saturated.reason}")
    acknowledged = events[events["acknowledged_ns"].notna() & (events["status"] != REFUSED)]
    ack_ms = acknowledged["ack_ms"].to_numpy(np.float64)
    in_time = int((ack_ms <= target_ms).sum())
    goodput = in_time / float(trial["window_s"])
    if len(acknowledged) < LEAST_ACKNOWLEDGED * len(events):
        return Held(False, f"{len(acknowledged)} of {len(events)} saves were acknowledged", goodput)
    if in_time < LEAST_IN_TIME * len(events):
        late = generator_late(trial, events)
        quick = int((acknowledged["ack_service_ms"].to_numpy(np.float64) <= target_ms).sum())
        if late.answer is Answer.YES and quick >= LEAST_IN_TIME * len(events):
            return Held(None, f"{late.name}: {late.reason}", goodput)
        return Held(False, f"{cell(100 * in_time / len(events))} % of the answers came in time", goodput)
    if (slope := _ms_longer_each_s(acknowledged, target_ms)) is not None:
        return Held(False, f"answers took longer by {cell(slope)} ms each second", goodput)
    return Held(True, "", goodput)


def _ms_longer_each_s(acknowledged: pd.DataFrame, target_ms: float) -> float | None:
    """By how much answers took longer each second, where that is clear and matters; else None."""
    if acknowledged.empty:
        return None
    times_s = ((acknowledged["intended_ns"] - acknowledged["intended_ns"].min()) / 1e9).to_numpy(np.float64)
    line = line_through_stretches(times_s.tolist(), acknowledged["ack_ms"].to_numpy(np.float64).tolist())
    if line is None or line.low <= 0 or line.slope * line.window_s <= _GROWTH_SHARE * target_ms:
        return None
    return line.slope


def attempts_table(run: Run) -> pd.DataFrame:
    """A row a trial, by mode and rate: what was offered, whether it held, latencies and rates, and DOUBTS.

    Latency is from the intended send time to the answer. Where answers took longer and longer, it has no median and no
    p95 (GROWS): the longer the trial, the higher they would be. `p95` is missing where there are too few answers.
    """
    target_ms, rows = Search.of(run).target_ms, []
    for _, trial in run.trials.sort_values(["mode", "rate_per_s", "trial"]).iterrows():
        events = run.events[run.events["trial"] == trial["trial"]]
        found = judge(trial, events, target_ms)
        answered = events.dropna(subset=["ack_ms"])
        ack_ms = answered["ack_ms"].tolist()
        grows = _ms_longer_each_s(answered, target_ms) is not None
        rows.append(
            {
                "processed": WAYS[trial["mode"]],
                "offered /s": float(trial["rate_per_s"]),
                "held": "unknown" if found.held is None else "yes" if found.held else "no",
                "saves": len(events),
                "median, ms": GROWS if grows else statistics.median(ack_ms) if ack_ms else None,
                "p95, ms": GROWS if grows else quantile(ack_ms, 0.95),
                "answered /s": _answered_per_s(events),
                "answered in time /s": found.goodput_per_s,
                "stored meanwhile /s": _stored_per_s(trial, events),
                "why not": found.why,
                DOUBTS: doubts_on(run, [int(trial["trial"])], leave_out=_EXPECTED),
            }
        )
    return told_below(pd.DataFrame(rows).set_index("processed"), run, leave_out=_EXPECTED)


def windows_table(run: Run) -> pd.DataFrame:
    """Of each mode the highest rate that held and the lowest that did not: the median answer of all the trial's saves (see
    `attempts_table`) and, beside it, of each quarter of its window, which shows whether answers took longer and longer.
    """
    rows = []
    for mode, knee in knees(run).items():
        for rate, held in ((knee.low_per_s, "yes"), (knee.high_per_s, "no")):
            of_mode = run.trials[run.trials["mode"] == mode]
            if rate is None:
                continue
            trial = of_mode[np.isclose(of_mode["rate_per_s"].astype(float), rate)].iloc[-1]
            events = run.events[run.events["trial"] == trial["trial"]]
            answered = events.dropna(subset=["ack_ms"])
            grows = _ms_longer_each_s(answered, Search.of(run).target_ms) is not None
            whole = GROWS if grows else quantile(answered["ack_ms"].tolist(), 0.5)
            row = {"processed": WAYS[mode], "offered /s": rate, "held": held, "p50 of all, ms": whole}
            rows.append(row | _quarters(events, float(trial["window_s"])))
    names = ["processed"] if not rows else list(rows[0])
    return pd.DataFrame(rows, columns=names).set_index("processed")


def _quarters(events: pd.DataFrame, window_s: float) -> dict[str, object]:
    quarter_s = window_s / 4
    windows = window_quantiles(events, "ack_ms", 0.5, quarter_s)
    known = dict(zip(windows.iloc[:, 0], windows.iloc[:, 2], strict=True))
    return {f"p50 of quarter {n + 1} alone, ms": known.get(n * quarter_s) for n in range(4)}


def _answered_per_s(events: pd.DataFrame) -> float | None:
    """Throughput: answers over the time until the last one."""
    known = events.dropna(subset=["acknowledged_ns"])
    if len(known) < 2:
        return None
    return len(known) / (int(known["acknowledged_ns"].max() - events["intended_ns"].min()) / 1e9)


def _stored_per_s(trial: Row, events: pd.DataFrame) -> float | None:
    """Pages processed within the window, per second: what is saved faster than that has to wait."""
    if not len(events) or not trial["window_s"]:
        return None
    end_ns = int(events["intended_ns"].min()) + round(float(trial["window_s"]) * 1e9)
    return int((events["done_ns"].dropna() <= end_ns).sum()) / float(trial["window_s"])


def knees(run: Run) -> dict[str, Knee]:
    """Each mode's knee: the recorded trials are gone through again as the search did that made them."""
    search, found = Search.of(run), {}
    for mode in [mode for mode in WAYS if (run.trials["mode"] == mode).any()]:
        recorded = []
        for _, trial in run.trials[run.trials["mode"] == mode].sort_values("trial").iterrows():
            events = run.events[run.events["trial"] == trial["trial"]]
            held = judge(trial, events, search.target_ms)
            recorded.append(Attempt(float(trial["rate_per_s"]), held.held, held.goodput_per_s))
        found[mode] = _again(recorded, mode, search)
    return found


def _again(recorded: list[Attempt], mode: str, search: Search) -> Knee:
    left = iter(recorded)
    taken: list[Attempt] = []

    def next_one(rate_per_s: float) -> Attempt:
        attempt = next(left)
        if abs(attempt.rate_per_s / rate_per_s - 1) > 1e-6:
            raise LabError(
                f"the search asks for {rate_per_s:g} /s where {attempt.rate_per_s:g} /s was recorded: this run was"
                " judged by other rules, measure again"
            )
        taken.append(attempt)
        return attempt

    return find_knee(
        next_one,
        start_per_s=search.start_per_s[mode],
        cap_per_s=search.cap_per_s,
        within=search.within,
        most_trials=search.most_trials,
        is_time_left=lambda: len(taken) < len(recorded),
    )


def knees_table(run: Run) -> pd.DataFrame:
    """A row a mode: the highest rate that held, the lowest that did not, goodput, and whether that was confirmed."""
    rows = [
        {
            "processed": WAYS[mode],
            "held up to /s": knee.low_per_s,
            "not at /s": knee.high_per_s,
            "answered in time /s": knee.goodput_per_s,
            "confirmed": "yes" if knee.is_confirmed else "no",
            "trials": len(knee.attempts),
        }
        for mode, knee in knees(run).items()
    ]
    return pd.DataFrame(rows).set_index("processed")


def how_much_it_takes(run: Run) -> Conclusion:
    """Each way's knee in a sentence, and how many times what the request itself can process the others take."""
    found, search = knees(run), Search.of(run)
    sentences = [
        f"Exploratory, one search a way; wanted are 95 % of the answers within {cell(search.target_ms)} ms of the"
        " intended time."
    ]
    sentences += [f"Processed {WAYS[mode]}: {knee.sentence}." for mode, knee in found.items()]
    first = found.get("inline")
    for mode in [mode for mode in found if mode != "inline"]:
        other = found[mode]
        if first is not None and first.high_per_s and other.low_per_s:
            sentences.append(
                f"Processed {WAYS[mode]}, quick-save held at least {cell(other.low_per_s / first.high_per_s)} times the rate"
                " that processing within the request did not."
            )
    reasons = (*_doubts(run), *_late_ones(run), *doubts(run, expected=_EXPECTED | {GENERATOR_LATE}))
    return Conclusion(" ".join(sentences), reasons)


def _late_ones(run: Run) -> list[str]:
    """Elsewhere such trials do not count; here `judge` says which of them do."""
    found = run.verdicts.that_are(Answer.YES)
    numbers = [str(verdict.trial) for verdict in found if verdict.name == GENERATOR_LATE]
    if not numbers:
        return []
    return [
        f"The load generator was late in trial{'' if len(numbers) == 1 else 's'} {', '.join(numbers)}: answers seem"
        " slower than they were, so that a rate that held all the same did hold."
    ]


def _doubts(run: Run) -> list[str]:
    windows_s = run.trials["window_s"].astype(float)
    found = [
        f"Each rate was held for {cell(float(windows_s.max()))} s: what builds up more slowly is not seen."
    ]
    found.append(
        "A rate that quick-save holds is what can be saved: what is processed more slowly than that waits, with RQ in"
        " its queue."
    )
    if run.settings.get("FUZE_EMBEDDING_MODEL") == "off":
        found.append("The embedding model was off: with it, processing within the request holds less.")
    return found
