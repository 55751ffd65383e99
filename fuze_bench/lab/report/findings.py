"""What executed notebooks found, read from their files and run folders alone: answers, plots, runs, the decision."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import nbformat
import pandas as pd
import pyarrow.parquet as pq

from fuze_bench.errors import FuzeError, one_line
from fuze_bench.lab.judgement import summaries
from fuze_bench.lab.judgement.checks import CONCLUSION_MIME_TYPE, Conclusion
from fuze_bench.lab.judgement.verdict_tables import DOUBTS, doubts_on
from fuze_bench.lab.planning.decision import Decision, can_decide, decide
from fuze_bench.lab.runs.hidden_paths import HiddenPaths
from fuze_bench.lab.runs.results import RUN_MIME_TYPE, Run, load_run

#: The notebook that a decision is made from, if it has a run for that.
_DECIDES = "worker_counts"
#: The status of a trial that ended well, in no figure all the same: see `Run.invalid`.
DOES_NOT_COUNT = "does not count"
_PLAIN_FILES = (".json", ".parquet")


@dataclass(frozen=True)
class Executed:
    """A notebook that was run: its file in the report, how long it took, and why it failed, if it did."""

    name: str
    path: Path
    failure: str | None
    took_s: float = 0.0


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One notebook: its answer, its first plot (a PNG in base64), and the runs it read, in the report's `data`."""

    name: str
    title: str
    failure: str | None
    took_s: float
    answer: Conclusion | None
    plot: str
    plot_description: str
    runs: tuple[Run, ...]
    node: Any = field(repr=False)


@dataclass(frozen=True)
class Findings:
    """Everything the report says. `undecided` says why there is no decision."""

    notebooks: tuple[Finding, ...]
    decision: Decision | None
    undecided: str

    @property
    def runs(self) -> tuple[Run, ...]:
        """Every run once, in the order of the notebooks."""
        return tuple({run.folder: run for finding in self.notebooks for run in finding.runs}.values())

    @property
    def failed(self) -> tuple[Finding, ...]:
        return tuple(finding for finding in self.notebooks if finding.failure is not None)


def read(
    executed: Sequence[Executed],
    out: Path,
    *,
    rate_per_s: float | None = None,
    wait_p95_s: float | None = None,
) -> Findings:
    """Copy the runs that the notebooks read into `out/data`, take this machine's paths out, and say what was found.

    `rate_per_s` and `wait_p95_s` are the decision's: see `decision.decide`.
    """
    nodes = [nbformat.read(each.path, as_version=4) for each in executed]  # type: ignore[no-untyped-call]
    folders = _names(
        [
            each.path.parent / folder
            for each, node in zip(executed, nodes, strict=True)
            for folder in _runs(node)
        ]
    )
    hidden = HiddenPaths({out: ".", **{folder: f"../data/{name}" for folder, name in folders.items()}})
    found = tuple(
        _finding(each, node, out, folders, hidden) for each, node in zip(executed, nodes, strict=True)
    )
    return Findings(found, *_decided(found, rate_per_s, wait_p95_s))


def trials_table(findings: Findings) -> pd.DataFrame:
    """Every trial of every run, those that failed or do not count too, with its figures; columns as they are to be shown."""
    tables: dict[Path, pd.DataFrame] = {}
    for finding in findings.notebooks:
        for run in finding.runs:
            if run.folder in tables:
                continue
            figures = summaries.figures(run)[["trial", "wait_p50_s", "cpu_s_per_1000", "peak_pss_mib"]]
            table = run.trials.merge(figures, on="trial", how="left")
            again = table["copy"].map({True: " (again)", False: ""})
            tables[run.folder] = pd.DataFrame(
                {
                    "configuration": table["label"] + again,
                    "jobs/s": table["throughput_per_s"],
                    "median wait, s": table["wait_p50_s"],
                    "processor s per 1,000": table["cpu_s_per_1000"],
                    "memory, MiB": table["peak_pss_mib"],
                    "done": table["processed"] + table["failed"],
                    "lost": table["lost"],
                    "done twice": table["duplicated"],
                    "status": table["status"].mask(table["trial"].isin(run.invalid), DOES_NOT_COUNT),
                    DOUBTS: [doubts_on(run, [trial]) for trial in table["trial"]],
                    "notebook": finding.name,
                    "run": run.experiment.name,
                    "block": table["block"],
                    "trial": table["trial"],
                }
            )
    return pd.concat(tables.values(), ignore_index=True) if tables else pd.DataFrame()


def _names(folders: Sequence[Path]) -> dict[Path, str]:
    """A name in the report for every run folder."""
    names: dict[Path, str] = {}
    for folder in (folder.resolve() for folder in folders):
        name = folder.name
        while folder not in names and name in names.values():
            name += "-2"
        names.setdefault(folder, name)
    return names


def _finding(each: Executed, node: Any, out: Path, folders: dict[Path, str], hidden: HiddenPaths) -> Finding:
    problems = [] if each.failure is None else [each.failure]
    runs: list[Run] = []
    for folder in dict.fromkeys((each.path.parent / name).resolve() for name in _runs(node)):
        try:
            runs.append(_kept(folder, out / "data" / folders[folder], hidden))
        except (FuzeError, OSError) as error:
            problems.append(f"a run cannot be read: {one_line(error)}")
    clean = _clean(node, each.path, folders, hidden)
    plot, description = _first_plot(clean)
    return Finding(
        name=each.name,
        title=title_of(clean),
        failure=hidden.text("; ".join(problems)) if problems else None,
        took_s=each.took_s,
        answer=_last_conclusion(clean),
        plot=plot,
        plot_description=description,
        runs=tuple(runs),
        node=clean,
    )


def _kept(folder: Path, target: Path, hidden: HiddenPaths) -> Run:
    """The run, read from its copy in the report."""
    load_run(folder)  # what is no run is not copied
    target.mkdir(parents=True, exist_ok=True)
    for path in sorted(folder.iterdir()):
        if path.suffix not in _PLAIN_FILES or path.resolve() == (target / path.name).resolve():
            continue
        if path.suffix == ".json":
            content = hidden.value(json.loads(path.read_text(encoding="utf-8")))
            text = json.dumps(content, indent=2, ensure_ascii=False)
            (target / path.name).write_text(text + "\n", encoding="utf-8")
        elif path.name == "trials.parquet":
            # Alone of the tables it quotes messages and logs.
            pq.write_table(hidden.table(pq.read_table(path)), target / path.name)
        else:
            shutil.copyfile(path, target / path.name)
    return load_run(target)


def _clean(node: Any, path: Path, folders: dict[Path, str], hidden: HiddenPaths) -> Any:
    """The notebook, in the report's copy as well, without this machine's paths; it names the copies of its runs."""
    for cell in node.cells:
        for output in cell.get("outputs", []):
            if RUN_MIME_TYPE in output.get("data", {}):
                folder = (path.parent / output["data"][RUN_MIME_TYPE]["folder"]).resolve()
                output["data"][RUN_MIME_TYPE] = {"folder": f"../data/{folders[folder]}"}
    for name in ("input_path", "output_path"):
        node.metadata.get("papermill", {}).pop(name, None)
    clean = nbformat.from_dict(hidden.value(node))  # type: ignore[no-untyped-call]
    nbformat.write(clean, path)  # type: ignore[no-untyped-call]
    return clean


def _decided(
    found: Sequence[Finding], rate_per_s: float | None, wait_p95_s: float | None
) -> tuple[Decision | None, str]:
    in_order = sorted(found, key=lambda finding: finding.name != _DECIDES)
    for run in (run for finding in in_order for run in finding.runs if can_decide(run)):
        try:
            return decide(run, rate_per_s=rate_per_s, wait_p95_s=wait_p95_s), ""
        except FuzeError as error:
            return None, one_line(error)
    return None, f"no notebook measured a backlog with several choices of workers: run {_DECIDES}"


def _outputs(node: Any) -> list[Any]:
    return [output.get("data", {}) for cell in node.cells for output in cell.get("outputs", [])]


def _runs(node: Any) -> list[str]:
    """The run folders that the notebook says it read."""
    return [str(data[RUN_MIME_TYPE]["folder"]) for data in _outputs(node) if RUN_MIME_TYPE in data]


def _last_conclusion(node: Any) -> Conclusion | None:
    said = [data[CONCLUSION_MIME_TYPE] for data in _outputs(node) if CONCLUSION_MIME_TYPE in data]
    return Conclusion(said[-1]["sentence"], tuple(said[-1]["doubts"])) if said else None


def _first_plot(node: Any) -> tuple[str, str]:
    """The first picture and what it shows in words; empty if there is none."""
    for data in _outputs(node):
        if "image/png" in data:
            return data["image/png"].replace("\n", ""), str(data.get("text/plain", "A plot"))
    return "", ""


def title_of(node: Any) -> str:
    """The notebook's first heading."""
    for cell in node.cells:
        if cell.cell_type == "markdown" and cell.source.startswith("# "):
            return str(cell.source.splitlines()[0].removeprefix("# "))
    return "Notebook"
