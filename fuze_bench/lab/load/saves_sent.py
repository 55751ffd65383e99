"""A trial's saves on their way to the API: sent by the lean sender, or by Locust as long as it keeps up."""

from __future__ import annotations

import csv
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from fuze_bench.errors import LabError
from fuze_bench.lab.arrivals import Arrivals
from fuze_bench.lab.experiments.factors import LEAN, LOCUST, Configuration
from fuze_bench.lab.judgement.trial_verdicts import CEILING_SHARE, are_too_many_late, late_limit_ms
from fuze_bench.lab.load.locust_driver import start_locust
from fuze_bench.lab.load.request_log import Sample, read_request_log
from fuze_bench.lab.load.sender import Plan, planned_saves, start_sender
from fuze_bench.processes import Child

#: How long answers are waited for after the last save, by the load generators themselves …
_DRAIN_S = 10.0
#: … and by whoever waits for their end; to get ready, Locust has as long.
_LIMIT_S = 60.0
_SOON_NS = 500_000_000


@dataclass(frozen=True, kw_only=True)
class Saves:
    """As many URLs and queues as times: seconds from the first moment, in ascending order."""

    times_s: Sequence[float]
    urls: Sequence[str]
    queues: Sequence[str]


def who_sends(
    configuration: Configuration,
    times_s: Sequence[float],
    window_s: float,
    ceilings_per_s: Mapping[str, float],
) -> str:
    """The sender asked for, but the lean one where Locust would not keep up.

    `ceilings_per_s`: what each sender can do on this machine; one that is not named is taken to keep up. A backlog,
    sent all at once, has no times that anybody could fall behind of.
    """
    ceiling_per_s = ceilings_per_s.get(configuration.sender)
    if configuration.sender == LEAN or configuration.arrivals == "backlog" or ceiling_per_s is None:
        return configuration.sender
    return LOCUST if keeps_up(times_s, window_s, ceiling_per_s, configuration.rate_per_s) else LEAN


def keeps_up(
    times_s: Sequence[float], window_s: float, ceiling_per_s: float, rate_per_s: float | None
) -> bool:
    """Whether a sender with this ceiling can send at these times so that the verdicts on it let the trial count.

    It is taken to send at CEILING_SHARE of its ceiling, one after the other. Then neither may the window ask for more
    on average, nor a part of it (a burst, a step) leave more sends late than `trial_verdicts.generator_late` allows.
    """
    pace_per_s = CEILING_SHARE * ceiling_per_s
    if len(times_s) > pace_per_s * window_s:
        return False
    limit_s, late, free_s = late_limit_ms(rate_per_s) / 1e3, 0, 0.0
    for time_s in times_s:
        begin_s = max(time_s, free_s)
        late += begin_s - time_s > limit_s
        free_s = begin_s + 1 / pace_per_s
    return not are_too_many_late(late, len(times_s))


class SavesSent:
    """A load generator at work, in a process of its own that ends by itself; `settle` ends it in any case."""

    def __init__(
        self, child: Child, record: Path, saves: Saves, *, start_ns: int | None, begin_file: Path | None
    ) -> None:
        self._child, self._record, self._count = child, record, len(saves.times_s)
        self._last_s = saves.times_s[-1] if saves.times_s else 0.0
        # The first time of a trace is 0 for Locust.
        self._before_first_ns = round(saves.times_s[0] * 1e9) if saves.times_s else 0
        # Locust ends with 1 where a save failed.
        self._good_codes = (0,) if begin_file is None else (0, 1)
        self._begin_file, self._start_ns = begin_file, start_ns
        self._due_s = time.monotonic() + _LIMIT_S
        if start_ns is not None:
            self._has_begun()

    @classmethod
    def by(cls, sender: str, base_url: str, saves: Saves, folder: Path, name: str) -> SavesSent:
        """Have a sender begin to save at the API of `base_url`; its files are in `folder` (`name`: of the record)."""
        begin = cls._by_locust if sender == LOCUST else cls._by_lean
        return begin(base_url, saves, folder / name)

    @classmethod
    def _by_lean(cls, base_url: str, saves: Saves, folder: Path) -> SavesSent:
        folder.mkdir()
        start_ns = time.monotonic_ns() + _SOON_NS
        plan = Plan(
            base_url=base_url,
            record=str(folder / "requests.jsonl"),
            requests=planned_saves(saves.times_s, saves.urls, saves.queues),
            start_ns=start_ns,
            drain_s=_DRAIN_S,
        )
        child = start_sender(plan, folder)
        return cls(child, Path(plan.record), saves, start_ns=start_ns, begin_file=None)

    @classmethod
    def _by_locust(cls, base_url: str, saves: Saves, folder: Path) -> SavesSent:
        folder.mkdir()
        trace = folder / "trace.csv"
        with trace.open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            writer.writerow(["time", "url", "queue"])
            writer.writerows(zip(saves.times_s, saves.urls, saves.queues, strict=True))
        begin_file = folder / "begin"
        child = start_locust(
            "quick-save",
            base_url,
            Arrivals(law="trace", trace=str(trace)),
            folder,
            seed=1,
            origin_url=base_url,
            drain_s=_DRAIN_S,
            begin_file=begin_file,
        )
        return cls(child, folder / "requests.jsonl", saves, start_ns=None, begin_file=begin_file)

    def start_ns(self) -> int | None:
        """The monotonic nanoseconds that the times count from; None until the load generator is ready."""
        if self._start_ns is None and self._begin_file is not None and self._begin_file.exists():
            self._start_ns = int(self._begin_file.read_text()) - self._before_first_ns
            self._has_begun()
        return self._start_ns

    def _has_begun(self) -> None:
        self._due_s = time.monotonic() + self._last_s + _LIMIT_S

    def is_going_on(self) -> bool:
        """Whether it still runs. Raises LabError if it should have ended by now."""
        if not self._child.is_alive():
            return False
        if time.monotonic() > self._due_s:
            what = "did not end" if self._start_ns is not None else "was not ready in time"
            raise LabError(f"{self._child.name} {what}: see {self._child.log_path}")
        return True

    def settle(self) -> list[Sample]:
        """Stop it if it still runs; what became of the saves so far.

        Raises LabError if it had ended by itself, and not well: then not every save need be accounted for.
        """
        was_stopped = self._child.is_alive()
        self._child.stop()
        samples = read_request_log(self._record) if self._record.exists() else []
        is_well = self._child.returncode() in self._good_codes and len(samples) == self._count
        if not was_stopped and not is_well:
            raise LabError(
                f"{self._child.name} ended with code {self._child.returncode()}, and its record tells of"
                f" {len(samples)} of {self._count} saves: {self._child.log_tail(1)}"
            )
        return samples
