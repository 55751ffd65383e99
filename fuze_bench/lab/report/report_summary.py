"""The report for machines: `summary.json`, checked by a schema, and its text for a CI job's summary."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import fuze_bench
from fuze_bench.errors import LabError, one_line
from fuze_bench.lab.judgement import checks
from fuze_bench.lab.planning import decision_text
from fuze_bench.lab.report.findings import Finding, Findings
from fuze_bench.lab.runs.results import Run

#: Changes whenever a field changes its name or meaning.
FORMAT_VERSION = 1
SCHEMA = Path(__file__).resolve().parent / "templates" / "summary.schema.json"
_LONGEST = 500
_SPECIAL = re.compile(r"([\\`*_{}\[\]<>|#~])")


def mapping(findings: Findings, *, level: str, written_at: str) -> dict[str, Any]:
    """Plain values, as the schema has them."""
    decision = findings.decision
    runs = findings.runs
    return {
        "format_version": FORMAT_VERSION,
        "fuze_bench": fuze_bench.__version__,
        "written_at": written_at,
        "level": level,
        "decision": None if decision is None else decision_text.mapping(decision),
        "undecided": findings.undecided or None,
        "notebooks": [_notebook(finding) for finding in findings.notebooks],
        "machine": dict(runs[0].machine) if runs else None,
        "runs": [_run(run) for run in runs],
    }


def _notebook(finding: Finding) -> dict[str, Any]:
    answer = finding.answer
    return {
        "name": finding.name,
        "title": finding.title,
        "ok": finding.failure is None,
        "failure": finding.failure,
        "took_s": round(finding.took_s, 1),
        "page": f"notebooks/{finding.name}.html",
        "answer": None if answer is None else {"sentence": answer.sentence, "doubts": list(answer.doubts)},
        "runs": [run.folder.name for run in finding.runs],
    }


def _run(run: Run) -> dict[str, Any]:
    return {
        "name": run.folder.name,
        "experiment": run.experiment.name,
        "data": f"data/{run.folder.name}",
        "trials": len(run.trials),
        "good_trials": len(run.good_trials()),
        "blocks": int(run.good_trials()["block"].nunique()),
        "ended": run.ended,
        "verdicts": _verdicts(run),
    }


def _verdicts(run: Run) -> list[dict[str, Any]]:
    """Each verdict and answer once, with the trials that it was given for and the first reason."""
    found: dict[tuple[str, str], dict[str, Any]] = {}
    for verdict in checks.verdicts_on(run):
        row = found.setdefault(
            (verdict.name, verdict.answer.value),
            {"name": verdict.name, "answer": verdict.answer.value, "reason": verdict.reason, "trials": []},
        )
        if verdict.trial is not None:
            row["trials"].append(int(verdict.trial))
    return list(found.values())


def load(path: Path) -> dict[str, Any]:
    """A summary from its file. Raises LabError if it is none, or of another format version."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise LabError(f"{path} cannot be read ({one_line(error)}): name a report's summary.json") from None
    version = found.get("format_version") if isinstance(found, dict) else None
    if version != FORMAT_VERSION:
        raise LabError(
            f"{path} has format version {version!r} and this fuze_bench reads {FORMAT_VERSION}: make the report again"
        )
    return dict(found)


def markdown(summary: Mapping[str, Any]) -> str:
    """The decision, how sure it is, and how the notebooks ended, as GitHub's Markdown."""
    lines = ["## Which workers to run", ""]
    decision = summary["decision"]
    if decision is None:
        lines += [f"No decision: {_said(summary['undecided'])}.", ""]
    else:
        table = decision["table"]
        lines += [f"**{_said(decision['answer'])}**", ""]
        lines += [_row(table["columns"]), _row(["---"] * len(table["columns"]), plain=True)]
        lines += [*map(_row, table["rows"]), ""]
        for words, key in (("one fewer", "why_not_fewer"), ("one more", "why_not_more")):
            if decision[key]:
                lines.append(f"- Why not {words}: {_said(decision[key])}")
        lines += [f"- {_said(doubt)}" for doubt in decision["how_sure"]]
        lines.append("")
    lines += ["| notebook | answer |", "| --- | --- |"]
    for each in summary["notebooks"]:
        answer = each["answer"]["sentence"] if each["answer"] else "no answer"
        said = _said(answer) if each["ok"] else f"**failed:** {_said(each['failure'])}"
        lines.append(f"| {_said(each['name'])} | {said} |")
    return "\n".join(lines) + "\n"


def _row(texts: list[str], *, plain: bool = False) -> str:
    return f"| {' | '.join(text if plain else _said(text) for text in texts)} |"


def _said(text: str) -> str:
    """In one line, not too long, and with nothing that Markdown would take for its own."""
    line = " ".join(text.split())
    return _SPECIAL.sub(r"\\\1", line if len(line) <= _LONGEST else f"{line[:_LONGEST]} …")
