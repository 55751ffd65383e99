"""Draws the README's picture from the recorded run: `python data/draw_example.py`."""

from pathlib import Path

from fuze_bench.lab.plots import throughput_plot
from fuze_bench.lab.results import load_run

FOLDER = Path(__file__).parent / "example-run"


def picture() -> bytes:
    """The picture of the recorded run, as PNG."""
    return throughput_plot(load_run(FOLDER)).png()


if __name__ == "__main__":
    (FOLDER / "worker-counts.png").write_bytes(picture())
