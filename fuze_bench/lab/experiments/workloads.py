"""What the jobs of an experiment are: the bookmark pipeline, synthetic jobs of a set service time, or your own."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fuze_bench.errors import LabError, nearest
from fuze_bench.lab.experiments.service_law import ServiceLaw

KINDS = ("bookmarks", "synthetic", "yours")


@dataclass(frozen=True)
class Bookmarks:
    """Pages of the origin, saved and processed by the real pipeline."""

    def to_mapping(self) -> dict[str, Any]:
        return {"kind": "bookmarks"}

    def __str__(self) -> str:
        return "bookmarks"


@dataclass(frozen=True)
class Synthetic:
    """Jobs that sleep or compute for times drawn from `service`, on stock RQ workers."""

    service: ServiceLaw

    def to_mapping(self) -> dict[str, Any]:
        return {"kind": "synthetic", **self.service.to_mapping()}

    def __str__(self) -> str:
        s = self.service
        cv = "" if s.cv is None else f", cv {s.cv:g}"
        return f"synthetic jobs ({s.law}, {s.mean_ms:g} ms{cv}, {s.how})"


@dataclass(frozen=True)
class Yours:
    """Calls of `function` (`package.module:name`) with the arguments in the file `jobs`, on stock RQ workers."""

    function: str
    jobs: str

    def __post_init__(self) -> None:
        module, _, name = self.function.partition(":")
        if not module or not name:
            raise LabError(f"function={self.function!r} names no function: write package.module:name")

    def check_files(self) -> None:
        """Raises LabError if the file of jobs is not there; a recorded one may be of another machine."""
        if not Path(self.jobs).is_file():
            raise LabError(f"jobs={self.jobs!r} is not a file: name one with a JSON object a line")

    def to_mapping(self) -> dict[str, Any]:
        return {"kind": "yours", "function": self.function, "jobs": self.jobs}

    def __str__(self) -> str:
        return f"calls of {self.function}"


Workload = Bookmarks | Synthetic | Yours
_CLASSES: dict[str, type[Any]] = {"bookmarks": Bookmarks, "yours": Yours}


def workload_from(given: object) -> Workload:
    """A workload from its name, or from a mapping with its `kind` and what that needs. Raises LabError."""
    if isinstance(given, Bookmarks | Synthetic | Yours):
        return given
    if isinstance(given, str):
        given = {"kind": given}
    if not isinstance(given, Mapping):
        raise LabError(f"workload is {given!r}: name one of {', '.join(KINDS)}")
    values = dict(given)
    kind = values.pop("kind", None)
    if kind not in KINDS:
        raise LabError(f"there is no workload {kind!r}: {nearest(str(kind), KINDS)}")
    made_from = ServiceLaw if kind == "synthetic" else _CLASSES[kind]
    known = [f.name for f in dataclasses.fields(made_from)]
    for name in values:
        if name not in known:
            raise LabError(f"the workload {kind} has no {name!r}: {nearest(name, known)}")
    lacking = [
        f.name
        for f in dataclasses.fields(made_from)
        if f.default is dataclasses.MISSING and f.name not in values
    ]
    if lacking:
        raise LabError(f"the workload {kind} lacks {' and '.join(lacking)}")
    made = made_from(**values)
    return Synthetic(made) if isinstance(made, ServiceLaw) else made
