"""What an experiment is: its workload, its configurations, and the balanced order of its trials."""

from __future__ import annotations

import dataclasses
import itertools
import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from fuze_bench.errors import LabError, nearest, one_line
from fuze_bench.lab.arrivals import LAWS, Arrivals
from fuze_bench.lab.experiments.factors import Configuration, factors, number, whole
from fuze_bench.lab.experiments.workloads import Bookmarks, Workload, Yours, workload_from

_LARGEST_SEED = 2**63 - 1
#: What arrivals take that is said elsewhere: in `arrivals` it would win in silence over what trials are labelled with.
_SAID_ELSEWHERE = {"rate_per_s": "a factor: name it in factors or fixed", "duration_s": "beside arrivals"}
_OF_BOOKMARKS = ("mode", "origin_latency_ms", "origin_failure_rate", "pages", "redis_outage_s", "sender")
#: What the threads of an API, or the request itself, do without; and what everything else does without.
_OF_RQ, _OF_THREADS = ("workers", "kind", "strategy", "redis_rtt_ms"), ("fallback_threads",)
#: One trial of more makes no sense, whatever the machine.
_MOST_CONFIGURATIONS = 200


@dataclass(frozen=True)
class PlannedTrial:
    """One configuration's place in the order: `number` from 1 over the run, `block` from 1.

    `label` says what differs from the other configurations. `copy`: the second run of the baseline in its block, whose
    ratio to the first shows how much the machine alone makes a difference.
    """

    number: int
    block: int
    configuration: Configuration
    label: str
    copy: bool = False


@dataclass(frozen=True, kw_only=True)
class Experiment:
    """A workload under every combination of factors, in balanced blocks.

    `factors` names the values of what is varied, `fixed` one value of what is not; what neither names has its
    default. Each combination is a configuration; `configurations`, if given, lists them instead of combining. The first
    one is the baseline. Every block runs each configuration once, and the baseline twice. Raises LabError on anything
    that is unknown, empty or impossible.
    """

    name: str = "experiment"
    workload: Workload = field(default_factory=Bookmarks)
    factors: Mapping[str, Sequence[Any]] = field(default_factory=dict)
    fixed: Mapping[str, Any] = field(default_factory=dict)
    configurations: tuple[Configuration, ...] = ()
    jobs: int = 20
    """How many a backlog has."""
    duration_s: float = 10.0
    """For how long jobs are offered, where they do not all come at once."""
    arrivals: Mapping[str, Any] = field(default_factory=dict)
    """What laws need beside rate and duration: fields of `arrivals.Arrivals`."""
    warm_up: int = 1
    """Jobs for each worker that are run first and not recorded."""
    drain_limit_s: float | None = None
    """How long after the last job was offered all have to be done; None: long."""
    blocks: int = 6
    seed: int = 1
    """Of the order of the trials, of send times, and of service times."""
    fresh: str | None = None
    """The factor of this name, said once for all configurations."""
    baseline_copy: bool = True

    def __post_init__(self) -> None:
        if not isinstance(self.name, str) or not self.name.replace("_", "").replace("-", "").isalnum():
            raise LabError(f"name is {self.name!r}: use letters, digits, _ and -")
        object.__setattr__(self, "workload", workload_from(self.workload))
        for name, parse in (
            ("jobs", whole(1, 1_000_000)),
            ("duration_s", number(0.1, 86_400)),
            ("warm_up", whole(0, 1_000)),
            ("drain_limit_s", number(0.1, 86_400, or_none=True)),
            ("blocks", whole(1, 1_000)),
            ("seed", whole(0, _LARGEST_SEED)),
        ):
            object.__setattr__(self, name, parse(name, getattr(self, name)))
        for name in ("factors", "fixed", "arrivals"):
            if not isinstance(getattr(self, name), Mapping):
                raise LabError(f"{name} is {getattr(self, name)!r}, not names with values")
        if self.configurations and self.factors:
            raise LabError("factors and configurations are both given: give one of them")
        if self.fresh is not None:
            self._say_fresh_once()
        made = tuple(self._configurations())
        if len(made) > _MOST_CONFIGURATIONS:
            raise LabError(f"{len(made)} configurations are too many: use at most {_MOST_CONFIGURATIONS}")
        if len(set(made)) < len(made):
            raise LabError("two configurations are the same: name each value once")
        # From here on the list says it all, so that an experiment can be copied with one thing changed.
        for name, value in (("configurations", made), ("factors", {}), ("fixed", {}), ("fresh", None)):
            object.__setattr__(self, name, value)
        self._check_arrivals()
        self._check_modes()
        if not isinstance(self.workload, Bookmarks) and len({c.fresh for c in made}) > 1:
            raise LabError("fresh makes no difference for stock workers, which are always new: leave it out")
        for configuration in made:
            if not isinstance(self.workload, Bookmarks):
                _check_is_for_jobs(configuration)
            if configuration.arrivals != "trace":
                self.arrivals_of(configuration)

    def _check_arrivals(self) -> None:
        """Raises LabError for what would be without effect, or contradict what the trials are labelled with."""
        taken = {name for c in self.configurations for name in LAWS[c.arrivals]}
        laws = " and ".join(sorted({c.arrivals for c in self.configurations}))
        for name in self.arrivals:
            if name in _SAID_ELSEWHERE:
                raise LabError(f"arrivals hold {name}, which is said {_SAID_ELSEWHERE[name]}")
            if name in {known for law in LAWS.values() for known in law} - taken:
                raise LabError(f"arrivals hold {name}, which {laws} arrivals do not take: leave it out")
        unlike = {
            c if "rate_per_s" in LAWS[c.arrivals] else dataclasses.replace(c, rate_per_s=None)
            for c in self.configurations
        }
        if len(unlike) < len(self.configurations):
            raise LabError(f"rate_per_s makes no difference under some of {laws} arrivals: give it to others")

    def _check_modes(self) -> None:
        """Raises LabError for factors that vary where they have no effect: the same would be measured twice."""
        usual, seen = Configuration(), dict[Configuration, Configuration]()
        for each in self.configurations:
            idle = {name: getattr(usual, name) for name in _without_effect(each)}
            other = seen.setdefault(dataclasses.replace(each, **idle), each)
            if other is not each:
                varying = [name for name in idle if getattr(other, name) != getattr(each, name)]
                raise LabError(
                    f"{' and '.join(varying)} made no difference with mode {each.mode}, which has no use for it: list"
                    " configurations instead of factors, and give it to those that have"
                )

    def _say_fresh_once(self) -> None:
        """Put `fresh` among what is fixed. Raises LabError if it is a factor already."""
        if "fresh" in (*self.factors, *self.fixed):
            raise LabError("fresh is given twice: give it once, or both its values in factors")
        object.__setattr__(self, "fixed", {**self.fixed, "fresh": self.fresh})

    def _configurations(self) -> Iterator[Configuration]:
        known = factors()
        for name in (*self.factors, *self.fixed):
            if name not in known:
                raise LabError(f"there is no factor {name!r}: {nearest(name, known)}")
        twice = set(self.factors) & set(self.fixed)
        if twice:
            raise LabError(f"{twice.pop()} is in factors and in fixed: give it once")
        if self.configurations:
            for each in self.configurations:
                yield self._listed(each)
            return
        values = [_values(name, given) for name, given in self.factors.items()]
        for combination in itertools.product(*values):
            yield Configuration(**{**self.fixed, **dict(zip(self.factors, combination, strict=True))})

    def _listed(self, each: object) -> Configuration:
        if isinstance(each, Configuration):
            return each
        if not isinstance(each, Mapping):
            raise LabError(f"configurations holds {each!r}: list factors with values")
        for name in each:
            if name not in factors():
                raise LabError(f"there is no factor {name!r}: {nearest(str(name), factors())}")
        return Configuration(**{**self.fixed, **each})

    @classmethod
    def from_mapping(cls, values: Mapping[str, Any]) -> Experiment:
        """An experiment from names and values; an unknown name is an error that says the nearest known one."""
        known = {f.name for f in dataclasses.fields(cls)}
        for name in values:
            if name not in known:
                raise LabError(f"an experiment has no {name!r}: {nearest(str(name), known)}")
        return cls(**values)

    @classmethod
    def from_yaml(cls, path: str | Path) -> Experiment:
        """An experiment from a file; its `name` is the file's unless it says another. Raises LabError."""
        try:
            values = yaml.load(Path(path).read_text(encoding="utf-8"), _OnceLoader)
        except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
            raise LabError(f"{path} cannot be read as YAML ({one_line(error)})") from None
        if not isinstance(values, Mapping):
            raise LabError(f"{path} holds no names with values: see data/experiments for examples")
        return cls.from_mapping({"name": Path(path).stem, **values})

    def arrivals_of(self, configuration: Configuration) -> Arrivals:
        """When the jobs of a trial are to be sent. Raises LabError, also for a trace that cannot be read."""
        known = {
            "rate_per_s": configuration.rate_per_s,
            "duration_s": self.duration_s,
            "burst_size": self.jobs,
            **self.arrivals,
        }
        for name in self.arrivals:
            nearby = {taken for law in LAWS.values() for taken in law}
            if name not in nearby:
                raise LabError(f"arrivals have no {name!r}: {nearest(str(name), nearby)}")
        taken = {name: known.get(name) for name in LAWS[configuration.arrivals]}
        return Arrivals(law=configuration.arrivals, **taken)

    def seed_of(self, block: int) -> int:
        """Of the send times, queues and service times of a block's trials.

        The same for all configurations of a block, which chance then hits alike; another in every block, so that the
        spread over the blocks holds this chance, too.
        """
        return self.seed + 1_000_003 * (block - 1)

    def check_files(self) -> None:
        """Raises LabError if a file or folder that the trials need is not there."""
        if isinstance(self.workload, Yours):
            self.workload.check_files()
        for configuration in self.configurations:
            configuration.check_files()
            self.arrivals_of(configuration)

    def to_mapping(self) -> dict[str, Any]:
        """Names and values as JSON has them; `from_mapping` makes an equal experiment of it."""
        plain = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        plain |= {
            "workload": self.workload.to_mapping(),
            "arrivals": dict(self.arrivals),
            "configurations": [c.to_mapping() for c in self.configurations],
        }
        return plain

    @property
    def varying(self) -> tuple[str, ...]:
        """The factors that differ between configurations, in their usual order."""
        return tuple(
            name for name in factors() if len({getattr(c, name) for c in self.configurations}) > 1
        ) or ("workers", "kind")

    @property
    def labels(self) -> dict[Configuration, str]:
        """What each configuration is called, saying what differs."""
        return {c: c.label(self.varying) for c in self.configurations}

    @property
    def baseline(self) -> Configuration:
        """What the others are compared with: the first."""
        return self.configurations[0]

    @property
    def trials_per_block(self) -> int:
        return len(self.configurations) + self.baseline_copy

    def block(self, block: int) -> list[PlannedTrial]:
        """The trials of one block in the order in which they run; the same for the same seed.

        Of two blocks the second runs in the reverse order of the first, so that what changes steadily with time (a
        machine that warms up) hits every configuration alike; the order itself is drawn anew for each two.
        """
        order: list[tuple[Configuration, bool]] = [(c, False) for c in self.configurations]
        if self.baseline_copy:
            order.append((self.baseline, True))
        pair, is_second = divmod(block - 1, 2)
        random.Random(f"{self.seed}/{pair}").shuffle(order)
        if is_second:
            order.reverse()
        before = (block - 1) * self.trials_per_block
        labels = self.labels
        return [
            PlannedTrial(before + place, block, configuration, labels[configuration], copy)
            for place, (configuration, copy) in enumerate(order, start=1)
        ]

    def plan(self) -> list[PlannedTrial]:
        """All trials of all blocks in order."""
        return [planned for block in range(1, self.blocks + 1) for planned in self.block(block)]


class _OnceLoader(yaml.SafeLoader):
    """Refuses a name that is given twice, where YAML's own would silently take the last."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        names = [key.value for key, _ in node.value]
        for name in names:
            if names.count(name) > 1:
                raise yaml.constructor.ConstructorError(
                    None, None, f"{name!r} is given twice", node.start_mark
                )
        return super().construct_mapping(node, deep=deep)


def _values(name: str, given: object) -> list[Any]:
    if isinstance(given, str | bytes | Mapping) or not isinstance(given, Sequence):
        raise LabError(f"{name} is {given!r}, not a list: write it as [{given}], or put it in fixed")
    if not given:
        raise LabError(f"{name} is empty: name at least one value")
    for value in given:
        if list(given).count(value) > 1:
            raise LabError(
                f"{name} holds {value!r} twice: name each once, and use blocks to measure more often"
            )
    return list(given)


def _without_effect(configuration: Configuration) -> tuple[str, ...]:
    """The factors that change nothing with its mode: threads work where there is no Redis, or none for a while."""
    has_threads = configuration.mode == "thread" or configuration.redis_outage_s > 0
    return (*(() if configuration.mode == "rq" else _OF_RQ), *(() if has_threads else _OF_THREADS))


def _check_is_for_jobs(configuration: Configuration) -> None:
    """Raises LabError for what only bookmarks have."""
    usual = Configuration()
    for name in _OF_BOOKMARKS:
        if getattr(configuration, name) != getattr(usual, name):
            raise LabError(
                f"{name}={getattr(configuration, name)} makes sense for the workload bookmarks alone: leave it out"
            )
