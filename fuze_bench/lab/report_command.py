"""The command line of the report: `fuze-bench report`."""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import click

from fuze_bench.errors import LabError, nearest

NOTEBOOKS_DIRECTORY = Path(__file__).resolve().parents[2] / "notebooks"

#: Few and short trials, to see that everything works; far too little to conclude from.
QUICK_PARAMETERS = {"worker_counts": [1, 2], "kinds": ["fork", "simple"], "bookmarks": 8, "repeats": 1}


@click.command()
@click.option(
    "--out",
    type=click.Path(file_okay=False, path_type=Path),
    default=Path("reports"),
    show_default=True,
    help="Folder for the report.",
)
@click.option(
    "--notebook",
    "names",
    multiple=True,
    help="A notebook to run, by its name or path; repeatable.  [default: all]",
)
@click.option("--quick", is_flag=True, help="Few and short trials, to see that everything works.")
def report(out: Path, names: tuple[str, ...], quick: bool) -> None:
    """Run the notebooks and write reports/index.html.

    Measures for some minutes, best on a machine that does nothing else. Exits with 1 if a notebook fails; its page then
    says why, and holds what it had done.
    """
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    notebooks = [find_notebook(name) for name in names] or list(known_notebooks().values())
    with _a_home():
        # Only now: a wrong option is refused before papermill and pandas are imported.
        from fuze_bench.lab.report import build_report

        executed = build_report(notebooks, out, parameters=QUICK_PARAMETERS if quick else None, say=_say)
    failed = [each for each in executed if each.failure is not None]
    if failed:
        raise LabError(f"{', '.join(each.name for each in failed)} failed: see {out / 'index.html'}")


@contextmanager
def _a_home() -> Iterator[None]:
    """Jupyter and matplotlib keep files in the home folder: where there is none to write to, in a temporary one."""
    home = os.path.expanduser("~")
    if os.path.isdir(home) and os.access(home, os.W_OK):
        yield
        return
    with tempfile.TemporaryDirectory(prefix="fuze-home-", ignore_cleanup_errors=True) as temporary:
        before = os.environ.get("HOME")
        os.environ["HOME"] = temporary
        try:
            yield
        finally:
            del os.environ["HOME"]
            if before is not None:
                os.environ["HOME"] = before


def known_notebooks() -> dict[str, Path]:
    """The notebooks of this checkout by their names. Raises LabError if there are none."""
    found = {path.stem: path for path in sorted(NOTEBOOKS_DIRECTORY.glob("*.ipynb"))}
    if not found:
        raise LabError("there are no notebooks beside the package: work in a checkout of the repository")
    return found


def find_notebook(name: str) -> Path:
    """A notebook by its name in `notebooks/` or by its path. Raises LabError if there is none."""
    if name.endswith(".ipynb"):
        if Path(name).is_file():
            return Path(name)
        raise LabError(f"there is no notebook {name}: give the path of one, or one of the known names")
    known = known_notebooks()
    if name not in known:
        raise LabError(f"there is no notebook {name!r}: {nearest(name, known)}")
    return known[name]


def _say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()
