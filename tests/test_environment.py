"""Where there is no home, no name for the user, and a checkout that cannot be written to: it works, and leaves no traces."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from fuze_bench.lab.parts.origin import Origin
from fuze_bench.pipeline.bookmarks import EmbeddingState, Status
from fuze_bench.pipeline.settings import Settings
from fuze_bench.pipeline.store import Store

ROOT = Path(__file__).parent.parent
NOBODY = "54321"


@pytest.fixture
def checkout(tmp_path: Path) -> Iterator[Path]:
    """A copy of the code that nobody but root can write to."""
    copy = tmp_path / "checkout"
    for name in ("fuze_bench", "notebooks", "data"):
        shutil.copytree(ROOT / name, copy / name, ignore=shutil.ignore_patterns("__pycache__"))
    for path in [copy, *copy.rglob("*")]:
        path.chmod(path.stat().st_mode & ~0o222)
    yield copy
    for path in [copy, *copy.rglob("*")]:
        path.chmod(path.stat().st_mode | 0o200)


def files(*folders: Path) -> set[Path]:
    return {path for folder in folders for path in folder.rglob("*") if "__pycache__" not in path.parts}


def as_nobody() -> list[str]:
    """What makes a command run under a number that no user has."""
    prefix = ["unshare", "--user", f"--map-user={NOBODY}", f"--map-group={NOBODY}"]
    try:
        subprocess.run([*prefix, "true"], check=True, capture_output=True, timeout=10)
    except (OSError, subprocess.SubprocessError):
        pytest.skip("this machine lets nobody have a user namespace")
    return prefix


HOMELESS = pytest.mark.parametrize(("user", "home"), [("ours", "/nonexistent"), ("without a name", None)])


def run_homeless(
    code: str, home: str | None, user: str, checkout: Path, tmp_path: Path, settings: Settings
) -> subprocess.CompletedProcess[str]:
    """Run Python code of the checkout; only the data and the temporary folder may be written to."""
    temporary, elsewhere = tmp_path / "temporary", tmp_path / "elsewhere"
    for folder in (settings.data_dir, temporary, elsewhere):
        folder.mkdir()
    environment = settings.environment(os.environ)
    for name in ("HOME", "USER", "LOGNAME", "XDG_CACHE_HOME", "HF_HOME", "XDG_RUNTIME_DIR"):
        environment.pop(name, None)
    environment |= {"PYTHONPATH": str(checkout), "TMPDIR": str(temporary), "PYTHONWARNINGS": "default"}
    if home is not None:
        environment["HOME"] = home
    prefix = [] if user == "ours" else as_nobody()
    before = files(checkout)
    done = subprocess.run(
        [*prefix, sys.executable, "-c", f"import sys, fuze_bench; print(fuze_bench.__file__)\n{code}"],
        env=environment,
        cwd=elsewhere,
        capture_output=True,
        text=True,
        timeout=170,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(str(checkout))
    assert "Traceback" not in done.stderr
    assert files(checkout) == before
    assert not files(elsewhere)
    assert not Path("/nonexistent").exists()
    return done


@pytest.mark.xdist_group("model")
@HOMELESS
def test_the_pipeline_needs_no_home(
    home: str | None, user: str, checkout: Path, tmp_path: Path, origin: Origin
) -> None:
    """A private Redis, a worker that loads the model, and a page."""
    settings = Settings(data_dir=tmp_path / "data", fetch_allow=("127.0.0.1",))
    url = f"{origin.url}/page/1"
    code = (
        "from fuze_bench.cli import main\n"
        f"sys.exit(main(['save', {url!r}]) or main(['worker', '--burst', '--kind', 'fork']))"
    )
    run_homeless(code, home, user, checkout, tmp_path, settings)
    with Store(settings) as store:
        [row] = store.rows("status", "embedding")
    assert row == {"status": Status.PROCESSED, "embedding": EmbeddingState.OK}


@pytest.mark.xdist_group("report")
@HOMELESS
def test_a_notebook_needs_no_home(home: str | None, user: str, checkout: Path, tmp_path: Path) -> None:
    settings = Settings(data_dir=tmp_path / "data", embedding_model="off")
    out = settings.data_dir / "reports"
    code = (
        "from fuze_bench.lab.report import report_levels\nfrom fuze_bench.cli import main\n"
        "report_levels.TINY |= {'worker_counts': [1], 'kinds': ['simple'], 'jobs': 2}\n"
        f"sys.exit(main(['report', '--tiny', '--notebook', 'worker_counts', '--out', {str(out)!r}]))"
    )
    done = run_homeless(code, home, user, checkout, tmp_path, settings)
    assert "trial 2/2" in done.stdout
    assert (out / "index.html").is_file()
    assert not files(tmp_path / "temporary"), "the temporary home is left behind"
