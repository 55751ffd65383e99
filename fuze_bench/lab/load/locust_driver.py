"""Running the load tests in `loadtests/` from the lab: Locust as a process of its own, and our own record of it."""

from __future__ import annotations

import importlib.util
import math
import sys
from pathlib import Path

from fuze_bench.errors import LabError, nearest
from fuze_bench.lab.arrivals import Arrivals
from fuze_bench.lab.load.request_log import Sample, read_request_log
from fuze_bench.processes import Child

LOADTESTS = Path(__file__).resolve().parents[3] / "loadtests"
#: The open-loop users of `loadtests/open_loop.py`, by the scenario they follow.
SCENARIOS = {
    "quick-save": "OpenLoopQuickSaves",
    "share": "OpenLoopShares",
    "duplicates": "OpenLoopDuplicates",
    "priorities": "OpenLoopPriorities",
}
_OPTIONS = {
    "rate_per_s": "--rate",
    "duration_s": "--window",
    "burst_size": "--burst-size",
    "burst_every_s": "--burst-every",
    "trace": "--trace",
}
_START_S = 30


def start_locust(
    scenario: str,
    base_url: str,
    arrivals: Arrivals,
    folder: Path,
    *,
    seed: int,
    origin_url: str,
    drain_s: float,
    begin_file: Path | None = None,
) -> Child:
    """Locust, sending to the API at `base_url`; it ends by itself. Its record is `folder`/requests.jsonl.

    `begin_file`: written when it is ready, with the monotonic nanoseconds that times count from.
    Raises LabError for an unknown scenario, and where there is no `loadtests` beside the package, or no Locust.
    """
    if scenario not in SCENARIOS:
        raise LabError(f"there is no scenario {scenario!r}: {nearest(scenario, SCENARIOS)}")
    if not LOADTESTS.is_dir():
        raise LabError(f"there is no {LOADTESTS}: work in a checkout of the repository, or use sender: lean")
    if importlib.util.find_spec("locust") is None:
        raise LabError("Locust is not installed: install the package with [lab], or use sender: lean")
    argv = [sys.executable, "-m", "locust", "-f", str(LOADTESTS), SCENARIOS[scenario], "--headless"]
    argv += ["--only-summary", "--host", base_url, "--origin", origin_url, "--seed", str(seed)]
    argv += ["--request-log", str(folder / "requests.jsonl"), "--drain", f"{drain_s:g}"]
    if begin_file is not None:
        argv += ["--begin-file", str(begin_file)]
    # What hangs is ended by Locust itself.
    argv += [
        "--run-time",
        str(math.ceil(arrivals.window_s + drain_s) + _START_S),
        *_arrival_options(arrivals),
    ]
    return Child("locust", argv, folder / "locust.log")


def run_locust(
    scenario: str,
    base_url: str,
    arrivals: Arrivals,
    folder: Path,
    *,
    seed: int = 1,
    origin_url: str,
    drain_s: float = 10.0,
) -> list[Sample]:
    """Offer the load and wait for its end; what became of each request, as the sender says it, too.

    Raises LabError if Locust does not run; requests that failed are samples.
    """
    with start_locust(
        scenario, base_url, arrivals, folder, seed=seed, origin_url=origin_url, drain_s=drain_s
    ) as child:
        code = child.wait(arrivals.window_s + drain_s + 2 * _START_S)
        samples = read_request_log(folder / "requests.jsonl") if (folder / "requests.jsonl").exists() else []
        # Locust ends with 1 where a request failed.
        if code not in (0, 1) or not samples:
            raise LabError(f"locust ended with code {code} and {len(samples)} requests: {child.log_tail(3)}")
    return samples


def _arrival_options(arrivals: Arrivals) -> list[str]:
    options = ["--arrivals", arrivals.law]
    for name, option in _OPTIONS.items():
        if (value := getattr(arrivals, name)) is not None:
            options += [option, str(value)]
    if arrivals.steps is not None:
        options += ["--steps", ",".join(f"{rate!r}x{seconds!r}" for rate, seconds in arrivals.steps)]
    return options
