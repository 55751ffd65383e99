"""What a benchmark found, with what it was found on: as words, as JSON, and as a file that a report reads later."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fuze_bench.errors import LabError, one_line
from fuze_bench.lab.benchmarks.known import blocks_of
from fuze_bench.lab.benchmarks.side_by_side import BenchmarkRatio
from fuze_bench.lab.judgement.tables import cell

#: Changes whenever a field changes its name or meaning.
FORMAT_VERSION = 1


_NUMBER, _OR_NONE = (int, float), (int, float, type(None))
#: What a file holds of a result, and of each ratio and figure in it.
_FIELDS: dict[str, Any] = {
    "benchmark": str, "machine": dict, "ratios": list, "figures": list, "sentences": list, "measured_at": str,
    "blocks": int, "scale": _NUMBER, "took_s": _NUMBER,
}  # fmt: skip
_PARTS: dict[str, dict[str, Any]] = {
    "ratios": {
        "what": str, "against": str, "ratio": _NUMBER, "low": _OR_NONE, "high": _OR_NONE, "target": _OR_NONE,
        "holds": (bool, type(None)),
    },
    "figures": {"what": str, "median": _NUMBER, "unit": str},
}  # fmt: skip


@dataclass(frozen=True)
class Figure:
    """The median over the blocks of what was measured of one contender."""

    what: str
    median: float
    unit: str


@dataclass(frozen=True, kw_only=True)
class BenchmarkResult:
    """One measurement of one benchmark. `machine` is as in a run folder; `measured_at` is UTC, as YYYY-MM-DD HH:MM.

    `scale` below 1 is a shortened one. Agreements are among the ratios, without an interval.
    """

    benchmark: str
    machine: Mapping[str, Any]
    ratios: tuple[BenchmarkRatio, ...]
    figures: tuple[Figure, ...]
    sentences: tuple[str, ...]
    measured_at: str
    blocks: int
    scale: float
    took_s: float

    @property
    def is_first_look(self) -> bool:
        """Too short, or too few blocks, to conclude anything from."""
        return self.scale < 1 or self.blocks < blocks_of(self.benchmark)

    def as_plain(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "format_version": FORMAT_VERSION,
            **vars(self),
            "ratios": [vars(each) for each in self.ratios],
            "figures": [vars(each) for each in self.figures],
            "sentences": list(self.sentences),
        }

    def in_words(self) -> str:
        """Medians, then ratios, then sentences, a line each."""
        lines = [f"{each.what}: {cell(each.median)} {each.unit}" for each in self.figures]
        return "\n".join([*lines, *map(ratio_in_words, self.ratios), *self.sentences])


def ratio_in_words(ratio: BenchmarkRatio) -> str:
    """What against what, how many times, how sure, and whether the target is reached."""
    interval = "" if ratio.low is None else f" (95 % {cell(ratio.low)} to {cell(ratio.high)})"
    target = (
        "" if ratio.target is None else f", target {ratio.target:g}: {'holds' if ratio.holds else 'missed'}"
    )
    return f"{ratio.what} against {ratio.against}: {times(ratio.ratio)}{interval}{target}"


def times(ratio: float) -> str:
    """With three digits; where these would make it 1, with as many as tell it from that."""
    return cell(ratio) if not 0.99 < ratio < 1.01 else f"{ratio:.5g}"


def record(result: BenchmarkResult, folder: Path) -> str:
    """Keep it in the folder, in place of an earlier one of that benchmark; what became of it.

    A first look does not replace what took an hour, and can be concluded from. Raises LabError if it cannot be written.
    """
    path = folder / f"{result.benchmark}.json"
    if result.is_first_look and (whole := _whole_one(path)):
        return f"not recorded: a first look does not replace the measurement of {whole.measured_at} in {path}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        temporary = path.with_suffix(".tmp")
        temporary.write_text(json.dumps(result.as_plain(), indent=2) + "\n", encoding="utf-8")
        temporary.replace(path)
    except OSError as error:
        raise LabError(f"{path} cannot be written ({one_line(error)}): set FUZE_DATA_DIR") from None
    return f"recorded in {path}"


def _whole_one(path: Path) -> BenchmarkResult | None:
    """The result in the file, if anything can be concluded from it; what is not there or no result is to be replaced."""
    try:
        found = load(path)
    except LabError:
        return None
    return None if found.is_first_look else found


def recorded(folder: Path) -> tuple[list[BenchmarkResult], list[str]]:
    """The results in the folder, by name, and what is wrong with files that are none; nothing where there is no folder."""
    results, problems = [], []
    for path in sorted(folder.glob("*.json")):
        try:
            results.append(load(path))
        except LabError as error:
            problems.append(str(error))
    return results, problems


def load(path: Path) -> BenchmarkResult:
    """A result from its file. Raises LabError if it is none, or of another format version."""
    try:
        plain = json.loads(path.read_text(encoding="utf-8"))
        version = plain.pop("format_version")
        if version != FORMAT_VERSION:
            raise LabError(
                f"{path.name} has format version {version!r} and this fuze_bench reads {FORMAT_VERSION}:"
                f" run `fuze-bench bench {path.stem}` again"
            )
        _check_types(plain, _FIELDS)
        for name, types in _PARTS.items():
            for each in plain[name]:
                _check_types(each, types)
        return BenchmarkResult(
            **plain
            | {
                "ratios": tuple(BenchmarkRatio(**each) for each in plain["ratios"]),
                "figures": tuple(Figure(**each) for each in plain["figures"]),
                "sentences": tuple(plain["sentences"]),
            }
        )
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise LabError(
            f"{path.name} is no benchmark's result ({type(error).__name__}: {one_line(error)}): delete it, or run"
            f" `fuze-bench bench {path.stem}` again"
        ) from None


def _check_types(plain: Mapping[str, Any], types: Mapping[str, Any]) -> None:
    """Raises KeyError or TypeError for what would otherwise end the report that shows it."""
    for name, type_ in types.items():
        if not isinstance(plain[name], type_):
            raise TypeError(f"{name} is {plain[name]!r}")
