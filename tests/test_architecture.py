"""The layers: imports point down only, whatever the file; and light commands import nothing heavy."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import fuze_bench

ROOT = Path(fuze_bench.__file__).parent
FILES = sorted(ROOT.rglob("*.py"))
GROUND = {"fuze_bench", "fuze_bench.errors", "fuze_bench.logs", "fuze_bench.timing", "fuze_bench.processes"}
FACES = ("fuze_bench.cli", "fuze_bench.commands", "fuze_bench.dashboard", "fuze_bench.up")
#: What reads run folders only, so that every report can be made again later, elsewhere.
FOLDER_READERS = ("runs", "judgement", "queueing", "planning", "questions", "report")
#: Of the questions, those that measure.
MEASURING = ("notebook.py", "quick_save_search.py")
MEASURERS = (
    "fuze_bench.lab.parts.services",
    "fuze_bench.lab.experiments.trial",
    "fuze_bench.lab.experiments.run",
    "fuze_bench.pipeline",
)


def imports(path: Path) -> Iterator[str]:
    """Every module a file imports, anywhere in it; `from package import module` gives the module too."""
    package = list(path.relative_to(ROOT.parent).parent.parts)
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = ".".join(package[: len(package) + 1 - node.level]) if node.level else ""
            module = ".".join(part for part in (base, node.module) if part)
            yield module
            yield from (f"{module}.{alias.name}" for alias in node.names)


def ours(path: Path) -> list[str]:
    return [name for name in imports(path) if name.split(".")[0] == "fuze_bench"]


def within(name: str, package: str) -> bool:
    return name == package or name.startswith(package + ".")


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_point_down(path: Path) -> None:
    where = path.relative_to(ROOT).parts[0]
    for name in ours(path):
        if where == "pipeline":
            assert not within(name, "fuze_bench.lab"), f"the pipeline must work without the lab: {name}"
            assert not any(within(name, face) for face in FACES)
        elif where == "lab":
            assert not any(within(name, face) for face in FACES)
        elif where in ("errors.py", "logs.py", "timing.py", "processes.py"):
            assert any(name == g or name.rpartition(".")[0] == g for g in GROUND), name


@pytest.mark.parametrize(
    "path",
    [p for p in FILES if p.parent.name in FOLDER_READERS and p.name not in MEASURING],
    ids=lambda path: str(path.relative_to(ROOT)),
)
def test_reports_come_from_run_folders_alone(path: Path) -> None:
    for name in ours(path):
        assert not any(within(name, measurer) for measurer in MEASURERS), name


@pytest.mark.parametrize("path", sorted((ROOT.parent / "loadtests").glob("*.py")), ids=lambda p: p.name)
def test_loadtests_import_arrivals_alone(path: Path) -> None:
    names = [n for n in imports(path) if n.split(".")[0] == "fuze_bench"]
    assert all(within(name, "fuze_bench.lab.arrivals") for name in names)


def test_a_file_has_one_subject() -> None:
    """Says it in its first line, is not a drawer, and is not long."""
    for path in FILES:
        tree = ast.parse(path.read_text(encoding="utf-8"))
        assert ast.get_docstring(tree), path
        assert path.stem not in ("util", "utils", "helpers", "common", "manager"), path
        assert len(path.read_text(encoding="utf-8").splitlines()) <= 400, path


@pytest.mark.parametrize(
    "code",
    [
        "from fuze_bench.cli import main; main(['--help'])",
        "from fuze_bench.cli import main; main(['status', 'bookmark-1-1'])",
        "from fuze_bench.cli import main; main(['save', '--help'])",
        "import fuze_bench.pipeline.task_queue",
        "import fuze_bench.pipeline.api",
        "import fuze_bench.pipeline.worker",
    ],
)
def test_light_things_stay_light(code: str, tmp_path: Path) -> None:
    check = (
        "import sys; print([m for m in ('torch', 'pandas', 'trafilatura', 'matplotlib') if m in sys.modules])"
    )
    script = f"try:\n    {code}\nexcept SystemExit:\n    pass\n{check}"
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, cwd=tmp_path
    )
    assert done.stdout.splitlines()[-1] == "[]", done.stdout


def test_nothing_reads_the_environment_at_import() -> None:
    """`os.environ` is read inside functions only, but for programs that other frameworks import to run them."""
    programs = {
        *ROOT.glob("lab/benchmarks/peers/*_jobs.py"),
        ROOT / "lab/benchmarks/quick_save_recipe.py",
    }
    assert programs < set(FILES)
    for path in set(FILES) - programs:
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
                assert "os.environ" not in ast.unparse(node), path
