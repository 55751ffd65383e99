"""Reasons to doubt a trial, from its record alone: what was lost, impossible, late, saturated, growing or drifting.

Each function takes the trial's row, its events or its series (DataFrames with the columns of a run folder), and
answers unknown where what it needs was not recorded.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import pandas as pd

from fuze_bench.lab.experiments.factors import LOCUST
from fuze_bench.lab.judgement.growth import STRETCHES, Growth, growth_of, line_through_stretches
from fuze_bench.lab.judgement.stats import BLOCKS_TO_CONCLUDE, SAMPLES_BEYOND
from fuze_bench.lab.judgement.tables import cell
from fuze_bench.lab.judgement.verdicts import Answer, Verdict, Verdicts
from fuze_bench.lab.runs.records import GONE

#: A send is late when it comes later than the gap between two sends, and in any case after this …
LATE_MS = 10.0
#: … but not within this: an operating system wakes a sleeping sender no more punctually.
PUNCTUAL_MS = 1.0
#: The share of sends that may be late: none of them moves a p99.
LATE_SHARE = 0.01
#: So many may be late in a trial of any size: no quantile is stated that so few could move (see `stats.SAMPLES_BEYOND`).
LATE_SENDS = 2
#: A load generator above this share of its own ceiling measures itself.
CEILING_SHARE = 0.6
#: Service times that changed by more than this share over the window have a trend.
TREND_SHARE = 0.1
GENERATOR_LATE = "load generator late"
GROWING_BACKLOG = "growing backlog"
#: With one of these a trial does not count: what was offered, or recorded, is not what the figures would say.
INVALIDATING = frozenset({"impossible samples", GENERATOR_LATE, "load generator saturated"})
#: Stamps in the order in which a job passes them; it is acknowledged at any time after it was sent.
_ORDER = (("intended_ns", "sent_ns"), ("sent_ns", "acknowledged_ns"), ("sent_ns", "queued_ns"))
_ORDER_OF_WORK = (("queued_ns", "started_ns"), ("started_ns", "done_ns"))
_DURATIONS = ("fetch_ms", "extract_ms", "embed_ms", "analyse_ms")
_ENDED = ("processed", "failed", "refused")

#: A row of the trials: a mapping or a Series.
Row = Mapping[str, Any]


def judge(
    trials: pd.DataFrame,
    events: pd.DataFrame,
    series: pd.DataFrame,
    *,
    target_wait_s: float | None = None,
) -> Verdicts:
    """Every verdict on every trial that ended well, and on the number of blocks with trials that count.

    `target_wait_s`: with it, a growing backlog says when it breaks this wait.
    """
    good = trials[trials["status"] == "ok"]
    found: list[Verdict] = []
    for _, row in good.iterrows():
        of_trial = [table[table["trial"] == row["trial"]] for table in (events, series)]
        found += judge_trial(row, *of_trial, target_wait_s=target_wait_s)
    counts = good[~good["trial"].isin(invalid_trials(found))]
    return Verdicts.of([too_few_blocks(int(counts["block"].nunique())), *found])


def judge_trial(
    trial: Row, events: pd.DataFrame, series: pd.DataFrame, *, target_wait_s: float | None = None
) -> Verdicts:
    """Every verdict on one trial. A backlog, sent all at once, has no rate that a sender could fall behind of."""
    found = [
        lost(trial, events),
        duplicated(trial, events),
        impossible_samples(trial, events),
        not_drained(trial),
        growing_backlog(trial, events, series, target_wait_s=target_wait_s),
        trend(trial, events),
    ]
    return Verdicts.of([*found, *_on_the_generator(trial, events)])


def _on_the_generator(trial: Row, events: pd.DataFrame) -> list[Verdict]:
    if trial.get("arrivals") == "backlog":
        return []
    found = [generator_late(trial, events), generator_saturated(trial)]
    return [*found, sent_by_another(trial)] if trial.get("sender") == LOCUST else found


def invalid_trials(verdicts: Iterable[Verdict]) -> set[int]:
    """Numbers of the trials that do not count, because a verdict in INVALIDATING holds."""
    return {
        v.trial for v in verdicts if v.trial is not None and v.answer is Answer.YES and v.name in INVALIDATING
    }


def growing_trials(verdicts: Iterable[Verdict]) -> set[int]:
    """Numbers of the trials in which a queue grew."""
    return {
        v.trial
        for v in verdicts
        if v.trial is not None and v.answer is Answer.YES and v.name == GROWING_BACKLOG
    }


def lost(trial: Row, events: pd.DataFrame) -> Verdict:
    """Whether a job was acknowledged and, though all was drained, never came to an end.

    Where the wait for the jobs was cut off, a bookmark that is still in the database is not lost: whoever works next
    finds it. Of other jobs that were open then, nobody knows what would have become of them.
    """
    name, recorded, drained = "lost", _number(trial, "lost"), _flag(trial, "drained")
    open_jobs = _open_jobs(events)
    if recorded is None and open_jobs is None:
        return _verdict(trial, name, Answer.UNKNOWN, "neither a count nor events were recorded")
    if open_jobs is not None and (gone := int((open_jobs["status"] == GONE).sum())):
        reason = f"{_jobs(gone)} acknowledged, but not in the database"
        return _verdict(trial, name, Answer.YES, reason)
    count = max(int(recorded or 0), 0 if open_jobs is None else len(open_jobs))
    if not count:
        return _verdict(trial, name, Answer.NO, "every acknowledged job came to an end")
    if drained is None:
        reason = f"{_jobs(count)} without an end, and whether the queues were empty was not recorded"
        return _verdict(trial, name, Answer.UNKNOWN, reason)
    if not drained:
        reason = f"{_jobs(count)} still open when the wait for them ended"
        if open_jobs is not None and _are_in_the_database(open_jobs, count):
            return _verdict(trial, name, Answer.NO, f"{reason}, and in the database")
        return _verdict(trial, name, Answer.UNKNOWN, reason)
    reason = f"{_jobs(count)} acknowledged, but never at an end, though nothing waited any more"
    return _verdict(trial, name, Answer.YES, reason)


def _open_jobs(events: pd.DataFrame) -> pd.DataFrame | None:
    """The jobs that were acknowledged and did not end; None where no events were recorded."""
    if not len(events) or not _has(events, "acknowledged_ns", "done_ns", "status"):
        return None
    ended = events["done_ns"].notna() | events["status"].isin(_ENDED)
    return events[events["acknowledged_ns"].notna() & ~ended]


def _are_in_the_database(open_jobs: pd.DataFrame, count: int) -> bool:
    """Whether these are `count` bookmarks, which alone have a `mode`: their status is the database's, and not GONE."""
    return len(open_jobs) == count and _has(open_jobs, "mode") and bool(open_jobs["mode"].notna().all())


def duplicated(trial: Row, events: pd.DataFrame) -> Verdict:
    """Whether work was done twice, or a job stands twice in the record."""
    name, recorded = "duplicated", _number(trial, "duplicated")
    twice = int(events["job"].duplicated().sum()) if _has(events, "job") else 0
    if recorded or twice:
        reason = f"{_jobs(recorded or 0)} done more than once, {_jobs(twice)} twice in the record"
        return _verdict(trial, name, Answer.YES, reason)
    if recorded is None:
        return _verdict(trial, name, Answer.UNKNOWN, "how often each job was done was not recorded")
    return _verdict(trial, name, Answer.NO, "no job was done more than once")


def impossible_samples(trial: Row, events: pd.DataFrame) -> Verdict:
    """Whether stamps run backwards, work ended that had not begun, or a figure is negative or not finite."""
    name = "impossible samples"
    if not len(events) or not _has(events, "started_ns", "done_ns"):
        return _verdict(trial, name, Answer.UNKNOWN, "no events were recorded")
    faults = {
        f"{later.removesuffix('_ns')} before {earlier.removesuffix('_ns')}": _before(events, later, earlier)
        for earlier, later in (*_ORDER, *_ORDER_OF_WORK)
        if _has(events, earlier, later)
    }
    faults["done without a start"] = int((events["done_ns"].notna() & events["started_ns"].isna()).sum())
    for column in _DURATIONS:
        if _has(events, column):
            values = events[column].dropna().to_numpy(dtype=np.float64)
            faults[f"{column} negative or infinite"] = int((~np.isfinite(values) | (values < 0)).sum())
    counts = (
        "offered",
        "sent",
        "acknowledged",
        "processed",
        "lost",
        "throughput_per_s",
        "window_s",
        "drain_s",
    )
    for column in counts:
        value = _number(trial, column)
        if value is not None and (value < 0 or not np.isfinite(value)):
            faults[f"{column} is {value:g}"] = 1
    found = [f"{count} × {fault}" for fault, count in faults.items() if count]
    if found:
        return _verdict(trial, name, Answer.YES, ", ".join(found))
    return _verdict(trial, name, Answer.NO, f"the stamps of all {len(events)} jobs are in order")


def late_limit_ms(rate_per_s: float | None) -> float:
    """How late a send may be: the gap between two sends at this rate, between PUNCTUAL_MS and LATE_MS."""
    return LATE_MS if not rate_per_s else min(LATE_MS, max(PUNCTUAL_MS, 1e3 / rate_per_s))


def generator_late(trial: Row, events: pd.DataFrame) -> Verdict:
    """Whether more than LATE_SHARE of the sends, so their p99, and more than LATE_SENDS came later than `late_limit_ms`
    after the intended time. Counted, so that it holds for any number of sends."""
    name = GENERATOR_LATE
    if not _has(events, "intended_ns", "sent_ns"):
        return _verdict(trial, name, Answer.UNKNOWN, "when jobs were sent was not recorded")
    sent = events[["intended_ns", "sent_ns"]].dropna().astype("int64")
    late_ms = ((sent["sent_ns"] - sent["intended_ns"]) / 1e6).to_numpy(dtype=np.float64)
    if not len(late_ms):
        return _verdict(trial, name, Answer.UNKNOWN, "when jobs were sent was not recorded")
    limit_ms = late_limit_ms(_number(trial, "rate_per_s"))
    late = int((late_ms > limit_ms).sum())
    share = late / len(late_ms)
    reason = f"{cell(100 * share)} % of {len(late_ms)} sends came more than {cell(limit_ms)} ms late"
    answer = Answer.YES if are_too_many_late(late, len(late_ms)) else Answer.NO
    return _verdict(trial, name, answer, reason)


def are_too_many_late(late: int, sends: int) -> bool:
    """Whether so many late sends are more than LATE_SENDS and more than LATE_SHARE of all."""
    return late > max(LATE_SENDS, LATE_SHARE * sends)


def generator_saturated(trial: Row) -> Verdict:
    """Whether the load generator sent more than CEILING_SHARE of what it can send at most on this machine."""
    name = "load generator saturated"
    sent, window_s = _number(trial, "sent"), _number(trial, "window_s")
    ceiling = _number(trial, "sender_ceiling_per_s")
    if sent is None or not window_s or not ceiling:
        return _verdict(trial, name, Answer.UNKNOWN, "its ceiling, or what it sent, was not recorded")
    share = sent / window_s / ceiling
    reason = f"it sent {cell(sent / window_s)} /s, {cell(100 * share)} % of its ceiling of {cell(ceiling)} /s"
    return _verdict(trial, name, Answer.YES if share > CEILING_SHARE else Answer.NO, reason)


def sent_by_another(trial: Row) -> Verdict:
    """Whether the lean sender took over where Locust was asked for and would not have kept up."""
    name, sent_by = "sent by another load generator", trial.get("sent_by")
    if sent_by is None or pd.isna(sent_by):
        return _verdict(trial, name, Answer.UNKNOWN, "what sent the saves was not recorded")
    if sent_by == LOCUST:
        return _verdict(trial, name, Answer.NO, "Locust sent it, as asked for")
    reason = "the lean sender took over, as the times asked for are more than Locust keeps up with here"
    return _verdict(trial, name, Answer.YES, reason)


def not_drained(trial: Row) -> Verdict:
    """Whether jobs were still in flight when the time for them was up; their times are then lower bounds."""
    name, drained, unfinished = "not drained", _flag(trial, "drained"), _number(trial, "unfinished")
    if drained is False or unfinished:
        what = _jobs(unfinished) if unfinished else "some jobs"
        reason = f"{what} still in flight when the time was up, so that quantiles are lower bounds"
        return _verdict(trial, name, Answer.YES, reason)
    if drained is None:
        return _verdict(trial, name, Answer.UNKNOWN, "whether the queues were empty was not recorded")
    return _verdict(trial, name, Answer.NO, "nothing was in flight at the end")


def queue_growth(trial: Row, events: pd.DataFrame, series: pd.DataFrame) -> dict[str, Growth | None]:
    """The growth of each queue over the window of the offered load; None where there are too few samples.

    A queue that could not be looked at, as there was no Redis or it was away, is counted by its jobs' stamps.
    """
    found = _growth_seen(trial, series)
    for queue, counted in _growth_by_stamps(trial, events).items():
        if found.get(queue) is None:
            found[queue] = counted
    return found


def _growth_seen(trial: Row, series: pd.DataFrame) -> dict[str, Growth | None]:
    if not _has(series, "t_s", "thing", "metric", "value"):
        return {}
    depths = series[(series["metric"] == "depth") & (series["t_s"] >= 0)]
    if (window_s := _number(trial, "window_s")) is not None:
        depths = depths[depths["t_s"] <= window_s]
    return {
        str(queue): growth_of(str(queue), rows["t_s"].tolist(), rows["value"].tolist())
        for queue, rows in depths.dropna(subset=["value"]).groupby("thing")
    }


def _growth_by_stamps(trial: Row, events: pd.DataFrame) -> dict[str, Growth | None]:
    """How many jobs were queued and not taken up yet, at each second of the window as the series has it."""
    window_s = _number(trial, "window_s")
    if not window_s or not len(events) or not _has(events, "queue", "intended_ns", "queued_ns", "started_ns"):
        return {}
    times_s = np.arange(int(window_s) + 1, dtype=np.float64)
    at_ns = int(events["intended_ns"].min()) + (times_s * 1e9).astype(np.int64)
    found: dict[str, Growth | None] = {}
    for queue, jobs in events.groupby("queue"):
        queued, started = (
            np.sort(jobs[name].dropna().to_numpy(np.int64)) for name in ("queued_ns", "started_ns")
        )
        depths = np.searchsorted(queued, at_ns, "right") - np.searchsorted(started, at_ns, "right")
        found[str(queue)] = growth_of(str(queue), times_s.tolist(), depths.tolist())
    return found


def growing_backlog(
    trial: Row, events: pd.DataFrame, series: pd.DataFrame, *, target_wait_s: float | None = None
) -> Verdict:
    """Whether a queue grew while load was offered: then it has no typical wait, and no quantile says anything."""
    name = GROWING_BACKLOG
    if trial.get("arrivals") == "backlog":
        return _verdict(trial, name, Answer.NO, "all jobs came at once, and none after")
    growths = queue_growth(trial, events, series)
    known = [growth for growth in growths.values() if growth is not None]
    growing = [growth for growth in known if growth.grows]
    if growing:
        words = [
            growth.in_words(target_wait_s, _done_per_s(trial, events, growth.queue)) for growth in growing
        ]
        return _verdict(trial, name, Answer.YES, "; ".join(words))
    if not growths:
        return _verdict(trial, name, Answer.UNKNOWN, "how many jobs waited was not recorded")
    if len(known) < len(growths):
        reason = (
            f"too short: it takes {SAMPLES_BEYOND} seconds, and a look at the queue in each sixth of them"
        )
        return _verdict(trial, name, Answer.UNKNOWN, reason, too_small=True)
    return _verdict(trial, name, Answer.NO, "; ".join(growth.in_words() for growth in known))


def trend(trial: Row, events: pd.DataFrame) -> Verdict:
    """Whether service times rose or fell by more than TREND_SHARE over the window: it was not one state that was
    measured, but a warm-up or a machine that changed."""
    name = "trend inside the window"
    if not _has(events, "started_ns", "done_ns"):
        return _verdict(trial, name, Answer.UNKNOWN, "no events were recorded")
    done = events[["started_ns", "done_ns"]].dropna().astype("int64")
    if len(done) < STRETCHES * SAMPLES_BEYOND:
        reason = f"too few: {len(done)} jobs are done, {STRETCHES * SAMPLES_BEYOND} are needed"
        return _verdict(trial, name, Answer.UNKNOWN, reason, too_small=True)
    started_s = (done["started_ns"] - done["started_ns"].min()).to_numpy(dtype=np.float64) / 1e9
    service_ms = (done["done_ns"] - done["started_ns"]).to_numpy(dtype=np.float64) / 1e6
    line = line_through_stretches(started_s.tolist(), service_ms.tolist())
    if line is None or line.mean <= 0:
        reason = "jobs started in too few parts of the window"
        return _verdict(trial, name, Answer.UNKNOWN, reason, too_small=True)
    share = line.slope * line.window_s / line.mean
    is_clear = not line.low <= 0 <= line.high
    reason = f"service times changed by {cell(100 * share)} % over {cell(line.window_s)} s ({len(done)} jobs)"
    answer = Answer.YES if is_clear and abs(share) > TREND_SHARE else Answer.NO
    return _verdict(trial, name, answer, reason)


def too_few_blocks(blocks: int) -> Verdict:
    """Whether a run's blocks are too few for a claim."""
    answer = Answer.YES if blocks < BLOCKS_TO_CONCLUDE else Answer.NO
    made = f"{blocks} block{'' if blocks == 1 else 's'}"
    return Verdict("too few blocks", answer, f"{made}, {BLOCKS_TO_CONCLUDE} are needed for a claim")


def _done_per_s(trial: Row, events: pd.DataFrame, queue: str) -> float | None:
    """What was finished of a queue's jobs a second within the window; None where that was not recorded."""
    window_s = _number(trial, "window_s")
    if not window_s or not _has(events, "queue", "intended_ns", "done_ns") or not len(events):
        return None
    end_ns = int(events["intended_ns"].min()) + round(window_s * 1e9)
    done_ns = events.loc[events["queue"] == queue, "done_ns"].dropna()
    return int((done_ns <= end_ns).sum()) / window_s


def _jobs(count: float) -> str:
    return f"{cell(count)} job{'' if count == 1 else 's'}"


def _before(events: pd.DataFrame, later: str, earlier: str) -> int:
    """How many rows have the later stamp before the earlier one."""
    both = events[[earlier, later]].dropna().astype("int64")
    return int((both[later] < both[earlier]).sum())


def _has(table: pd.DataFrame, *columns: str) -> bool:
    return set(columns) <= set(table.columns)


def _number(trial: Row, column: str) -> float | None:
    value = trial.get(column)
    return None if value is None or pd.isna(value) else float(value)


def _flag(trial: Row, column: str) -> bool | None:
    value = trial.get(column)
    return None if value is None or pd.isna(value) else bool(value)


def _verdict(trial: Row, name: str, answer: Answer, reason: str, *, too_small: bool = False) -> Verdict:
    return Verdict(name, answer, reason, int(trial["trial"]), too_small)
