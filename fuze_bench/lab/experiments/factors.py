"""What can differ between configurations: each factor with its meaning, its values, and how it takes effect.

A factor is a field of Configuration, and a column of the recorded trials. One that is a setting of the pipeline needs
nothing else: `setting` names it, and every part of a trial is started with it.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from fuze_bench.errors import LabError, nearest
from fuze_bench.lab.arrivals import LAWS
from fuze_bench.pipeline.settings import QUEUES, Settings

KINDS = ("simple", "fork", "spawn", "pool", "batch")
STRATEGIES = ("strict", "round_robin", "random")
MODES = ("rq", "thread", "inline")
FRESH = ("data", "processes")
LEAN, LOCUST = SENDERS = ("lean", "locust")

#: Factors whose values say what they are.
_IN_A_WORD = ("strategy", "mode", "arrivals")

#: Turns what a spec says into the value, or raises LabError; told the factor's name and what was given.
Parse = Callable[[str, object], Any]


def one_of(names: Sequence[str]) -> Parse:
    """A parser of names."""

    def parse(factor: str, given: object) -> str:
        if given not in names:
            raise LabError(f"{factor} has no value {given!r}: {nearest(str(given), names)}")
        return str(given)

    return parse


def whole(lowest: int, highest: int) -> Parse:
    """A parser of whole numbers."""

    def parse(factor: str, given: object) -> int:
        if not isinstance(given, int) or isinstance(given, bool):
            raise LabError(f"{factor} holds {given!r}, not a whole number: use {lowest:,} to {highest:,}")
        return int(_within(factor, given, lowest, highest))

    return parse


def number(lowest: float, highest: float, *, or_none: bool = False) -> Parse:
    """A parser of numbers."""

    def parse(factor: str, given: object) -> float | None:
        if given is None and or_none:
            return None
        if not isinstance(given, int | float) or isinstance(given, bool):
            raise LabError(f"{factor} holds {given!r}, not a number: use {lowest:g} to {highest:,.10g}")
        return float(_within(factor, given, lowest, highest))

    return parse


def _within(name: str, value: float, lowest: float, highest: float) -> float:
    # Written so that "not a number" is out of range, too.
    if not lowest <= value <= highest:
        raise LabError(f"{name}={value} is out of range: use {lowest:,g} to {highest:,.10g}")
    return value


def queue_mix(factor: str, given: object) -> str:
    """`high:1,default:3`, as text or as a mapping of queues to shares; in the order in which workers take them."""
    if isinstance(given, Mapping):
        shares = dict(given)
    elif isinstance(given, str):
        shares = {}
        for part in given.split(","):
            name, _, share = part.strip().partition(":")
            try:
                shares[name] = float(share or 1)
            except ValueError:
                raise LabError(f"{factor}: {part!r} has no share: write it as «high:1,default:3»") from None
    else:
        raise LabError(f"{factor} holds {given!r}: name queues and shares, as «high:1,default:3»")
    for name, share in shares.items():
        if name not in QUEUES:
            raise LabError(f"{factor} has no queue {name!r}: {nearest(str(name), QUEUES)}")
        if not isinstance(share, int | float) or isinstance(share, bool) or not 0 < share < 1e6:
            raise LabError(f"{factor}: the share of {name} is {share!r}: use a number above 0")
    return ",".join(f"{name}:{shares[name]:g}" for name in QUEUES if name in shares)


def page_set(factor: str, given: object) -> str | None:
    """A folder of HTML pages; None for the shipped ones."""
    if given is None:
        return None
    if not isinstance(given, str):
        raise LabError(f"{factor} is {given!r}, not a folder's name: leave it None for the shipped pages")
    return given


def _factor(default: Any, meaning: str, parse: Parse, *, unit: str = "", setting: str | None = None) -> Any:
    metadata = {"meaning": meaning, "parse": parse, "unit": unit, "setting": setting}
    return field(default=default, metadata=metadata)


@dataclass(frozen=True, kw_only=True)
class Configuration:
    """One value of each factor. Raises LabError for a value that a factor cannot have."""

    workers: int = _factor(2, "number of workers", whole(1, 256))
    kind: str = _factor(
        "simple",
        "how workers run their jobs: in their own process, in a fork, in a new interpreter, many at a time in a fork that"
        " stays, or as RQ's own pool does",
        one_of(KINDS),
    )
    strategy: str = _factor(
        "strict", "which queue a worker takes from: the first, in turn, any", one_of(STRATEGIES)
    )
    mode: str = _factor(
        "rq", "who processes: RQ's workers, threads of the API, or the request itself", one_of(MODES)
    )
    queues: str = _factor("default:1", "share of the jobs on each queue", queue_mix)
    arrivals: str = _factor("backlog", "law of the intended send times", one_of(tuple(LAWS)))
    rate_per_s: float | None = _factor(
        None, "jobs offered per second", number(0.001, 100_000, or_none=True), unit="/s"
    )
    sender: str = _factor(
        LEAN,
        "who sends the saves: our own lean sender, or Locust, as long as it keeps up (see sent_by)",
        one_of(SENDERS),
    )
    origin_latency_ms: float = _factor(
        0.0, "the web site answers a page after so long, milliseconds", number(0, 60_000), unit=" ms"
    )
    origin_failure_rate: float = _factor(
        0.0, "share of requests that the web site answers with 503", number(0, 1)
    )
    pages: str | None = _factor(None, "folder of pages to serve; none: the shipped ones", page_set)
    redis_rtt_ms: float = _factor(
        0.0, "time added to each round trip to Redis, milliseconds", number(0, 1_000), unit=" ms"
    )
    redis_outage_s: float = _factor(
        0.0, "Redis is stopped for so long in the middle of the load, seconds", number(0, 600), unit=" s"
    )
    fresh: str = _factor(
        "data",
        "new in each trial: Redis, database and workers (the process that has loaded the model, and forks them, is kept),"
        " or that process as well",
        one_of(FRESH),
    )
    fallback_threads: int = _factor(
        Settings().fallback_threads,
        "threads of an API that has no Redis",
        whole(1, 64),
        setting="fallback_threads",
    )

    def __post_init__(self) -> None:
        for name, known in factors().items():
            object.__setattr__(self, name, known["parse"](name, getattr(self, name)))
        if self.mode != "rq" and self.redis_outage_s:
            raise LabError(f"mode={self.mode} has no Redis that could go away: set redis_outage_s to 0")
        if self.sender == LOCUST and not self.goes_through_the_api:
            raise LabError(
                "sender=locust has nothing to send of a backlog for RQ, which is saved in one go: "
                "give it other arrivals, such as poisson, or leave sender out"
            )

    def check_files(self) -> None:
        """Raises LabError if what the trial needs is not there; a recorded one may be of another machine."""
        if self.pages is not None and not Path(self.pages).is_dir():
            raise LabError(
                f"pages={self.pages!r} is not a folder: name one that holds *.html files, or leave it None"
            )

    @property
    def goes_through_the_api(self) -> bool:
        """Whether the pages of a trial are saved through the API, by a sender. A backlog for RQ is saved in one go."""
        return self.mode != "rq" or self.arrivals != "backlog"

    @property
    def shares(self) -> dict[str, float]:
        """The queues in order, each with its share of the jobs (they add up to 1)."""
        weights = {name: float(share) for name, share in (part.split(":") for part in self.queues.split(","))}
        total = sum(weights.values())
        return {name: weight / total for name, weight in weights.items()}

    def applied_to(self, settings: Settings) -> Settings:
        """The settings with which the parts of a trial run."""
        changed = {
            known["setting"]: getattr(self, name) for name, known in factors().items() if known["setting"]
        }
        return replace(settings, **changed)

    def to_mapping(self) -> dict[str, Any]:
        """Names and values."""
        return dataclasses.asdict(self)

    def label(self, varying: Sequence[str]) -> str:
        """«2 fork workers, origin latency 300 ms»: what differs from the other configurations and from the usual."""
        parts = []
        if self.mode == "rq":
            kind = f"{self.kind} " if "kind" in varying or "workers" in varying else ""
            parts.append(f"{self.workers} {kind}worker{'' if self.workers == 1 else 's'}")
        usual = {f.name: f.default for f in dataclasses.fields(self)}
        for name in varying:
            value = getattr(self, name)
            if name in _IN_A_WORD:
                parts.append(str(value).replace("_", " "))
            elif name not in ("workers", "kind") and value != usual[name]:
                parts.append(_in_words(name, value))
        return ", ".join(parts) or self.mode


def factors() -> dict[str, Mapping[str, Any]]:
    """Every factor by its name: `meaning`, `parse`, `unit`, and the pipeline's `setting` that it is, or None."""
    return {f.name: f.metadata for f in dataclasses.fields(Configuration)}


def _in_words(name: str, value: object) -> str:
    unit = factors()[name]["unit"]
    words = name.removesuffix("_per_s").removesuffix("_ms").removesuffix("_s").replace("_", " ")
    shown = f"{value:g}" if isinstance(value, float) else str(value)
    return f"{words} {shown}{unit}"
