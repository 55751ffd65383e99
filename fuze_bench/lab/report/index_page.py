"""The report's first page: the decision, each notebook's answer, the machine, and every trial."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from fuze_bench.lab.judgement.tables import cell
from fuze_bench.lab.judgement.verdict_tables import too_small_to_tell
from fuze_bench.lab.planning import decision_text
from fuze_bench.lab.planning.decision import RULE, Decision
from fuze_bench.lab.report import findings, pages
from fuze_bench.lab.report.findings import Findings
from fuze_bench.lab.runs.results import Run

TITLE = "Which workers to run: measured"


def index_page(found: Findings, *, speed: str, written_at: str) -> str:
    """The page as HTML that needs nothing else. `speed`: what the page on that says, in a sentence."""
    script = pages.template_text("sort.js")
    return pages.render(
        "index.html.j2",
        title=TITLE,
        policy=pages.policy(script),
        script=script,
        decision=None if found.decision is None else _decision(found.decision),
        undecided=found.undecided,
        notebooks=found.notebooks,
        failed=found.failed,
        runs=[_run(run) for run in found.runs],
        machine=pages.facts_table(_machine(found.runs[0])) if found.runs else "",
        trials=_trials(found),
        speed=speed,
        written_at=written_at,
    )


def _decision(decision: Decision) -> dict[str, Any]:
    return {
        "question": decision_text.question(decision),
        "answer": decision_text.answer(decision),
        "columns": decision_text.columns(decision),
        "rows": [
            (option is decision.pick, decision_text.cells(option, decision)) for option in decision.options
        ],
        "rule": RULE,
        "fewer": decision_text.why_not_fewer(decision),
        "more": decision_text.why_not_more(decision),
        "others": decision_text.why_not_others(decision),
        "sure": decision_text.how_sure(decision),
    }


def _run(run: Run) -> dict[str, Any]:
    files = [path for path in sorted(run.folder.iterdir()) if path.suffix in (".json", ".parquet")]
    return {
        "name": run.folder.name,
        "facts": pages.facts_table(
            {name: value for name, value in run.describe().items() if name != "Machine"}
        ),
        "files": [(path.name, Path("data", run.folder.name, path.name).as_posix()) for path in files],
    }


def _machine(run: Run) -> dict[str, object]:
    machine = run.machine
    memory = machine.get("memory_bytes")
    facts = {
        "Processor": machine.get("cpu_model"),
        "Usable cores": machine.get("usable_cores"),
        "CPU governor": machine.get("governor"),
        "Memory": None if memory is None else f"{memory / 2**30:.1f} GiB",
        "Linux": machine.get("kernel"),
        "Load before": cell(machine.get("load_1min_before")),
        "Python": machine.get("python"),
        "redis-server": machine.get("redis_server"),
        **machine.get("packages", {}),
        "git commit": machine.get("git_commit"),
    }
    return {name: "–" if value is None else value for name, value in facts.items()}


def _trials(found: Findings) -> dict[str, Any]:
    """Heads, and rows of (text, value to sort by, whether it is text that may be broken); a missing figure sorts last."""
    table = findings.trials_table(found)
    rows = [
        [
            (cell(value), "" if cell(value) == "–" else str(value), isinstance(value, str))
            for value in (each.item() if hasattr(each, "item") else each for each in row)
        ]
        for row in table.itertuples(index=False, name=None)
    ]
    return {"columns": list(table.columns), "rows": rows, "below": too_small_to_tell(*found.runs)}
