"""A checkout in a folder with blanks and umlauts in its path: `make report` and `make test` work there."""

from __future__ import annotations

import os
import shutil
import subprocess
import sysconfig
import venv
from pathlib import Path

import nbformat
import pytest
from pip._vendor.distlib.scripts import ScriptMaker, enquote_executable

ROOT = Path(__file__).parent.parent
#: Some that start processes, and what they need.
TESTS = (
    "conftest.py",
    "nursery.py",
    "postgresql.py",
    "api_server.py",
    "test_settings.py",
    "test_api_queues.py",
)
#: Of the tests that `make test` runs by themselves one that takes no time.
MEASURING = "test_run.py"
FEW = "worker_counts = [1]\nkinds = ['simple']\njobs = 2\nblocks = 1\norigin_latencies_ms = [20]\npool_jobs = 0\n"

pytestmark = pytest.mark.xdist_group("report")


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy with few tests, one notebook that measures little, and an environment as `make` leaves it, but for the copies
    of packages: it uses the ones of this environment.
    """
    copy = tmp_path_factory.mktemp("path") / "büro kopie" / "fuze bench"
    left_out = shutil.ignore_patterns("__pycache__", ".*", "tests", "reports", "build", "*.egg-info")
    shutil.copytree(ROOT, copy, ignore=left_out)
    (copy / "tests").mkdir()
    for name in TESTS:
        shutil.copy(ROOT / "tests" / name, copy / "tests" / name)
    (copy / "tests" / MEASURING).write_text("def test_that_it_is_run() -> None:\n    pass\n")
    path = copy / "notebooks" / "worker_counts.ipynb"
    for other in set(path.parent.glob("*.ipynb")) - {path}:
        other.unlink()
    notebook = nbformat.read(path, as_version=4)
    [parameters] = [cell for cell in notebook.cells if "parameters" in cell.metadata.get("tags", [])]
    parameters.source += f"\n{FEW}"
    nbformat.write(notebook, path)
    venv.create(copy / ".venv", symlinks=True)
    packages = sysconfig.get_path("purelib", vars={"base": str(copy / ".venv")})
    Path(packages, "here.pth").write_text(f"{copy}\n{sysconfig.get_path('purelib')}\n", encoding="utf-8")
    scripts = ScriptMaker(None, str(copy / ".venv" / "bin"))
    scripts.executable = enquote_executable(str(copy / ".venv" / "bin" / "python"))
    scripts.variants = {""}
    scripts.make("fuze-bench = fuze_bench.cli:main")
    (copy / ".venv" / ".ready").touch()
    return copy


def make(checkout: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    left_out = ("FUZE_", "REDIS_", "MAKE", "PYTHONPATH", "PYTEST_")
    environment = {name: value for name, value in os.environ.items() if not name.startswith(left_out)}
    return subprocess.run(
        ["make", *arguments],
        cwd=checkout,
        env=environment | {"FUZE_EMBEDDING_MODEL": "off"},
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )


def test_make_report(checkout: Path) -> None:
    done = make(checkout, "report")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "trial 2/2" in done.stdout
    assert (checkout / "reports" / "index.html").is_file()
    [run] = (checkout / ".fuze" / "runs").iterdir()
    assert (run / "spec.json").is_file()


def test_make_test(checkout: Path) -> None:
    done = make(checkout, "--assume-old", "lint", "test")
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("passed") == 2 or done.stdout.count("100%") == 2
    assert "skipped" not in done.stdout


def test_its_own_code_is_what_runs(checkout: Path) -> None:
    code = "import fuze_bench, sys; print(fuze_bench.__file__, sys.prefix)"
    python = checkout / ".venv" / "bin" / "python"
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(
        [str(python), "-c", code], env=environment, cwd="/", capture_output=True, text=True, check=True
    )
    assert done.stdout == f"{checkout / 'fuze_bench' / '__init__.py'} {checkout / '.venv'}\n"
