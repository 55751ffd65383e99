"""Draws the README's picture from the recorded run: `python data/draw_example.py`."""

from pathlib import Path

from fuze_bench.lab.questions.plots import OF_WORKERS, against
from fuze_bench.lab.runs.results import load_run

FOLDER = Path(__file__).parent / "example-run"


def picture() -> bytes:
    """The picture of the recorded run, as PNG."""
    return against(load_run(FOLDER), "workers", OF_WORKERS[:1]).png()


if __name__ == "__main__":
    (FOLDER / "worker-counts.png").write_bytes(picture())
