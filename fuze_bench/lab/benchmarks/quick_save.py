"""Saves a second, every answer committed with fsync and queued, by one API process: ours, the recipe, an empty answer."""

from __future__ import annotations

import os
import socket
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from pathlib import Path

from fuze_bench.errors import LabError
from fuze_bench.lab.benchmarks.side_by_side import Measure, Target
from fuze_bench.lab.load.closed_loop import answers
from fuze_bench.lab.parts.services import running_api
from fuze_bench.pipeline.redis_server import PrivateRedis, connect
from fuze_bench.pipeline.settings import Settings
from fuze_bench.processes import Child, free_port

#: Given a folder and the URL of a Redis, the URL to save to.
_Serving = Callable[[Path, str], AbstractContextManager[str]]

UNIT = "answers/s"
_CONNECTIONS = (16, 64)
_LEAST_TIMES_THE_RECIPE = {16: 10, 64: 14}
_DURATION_S = 4.0
_READY_S = 30
_EMPTY = "an empty answer"
_RECIPE = "Flask + SQLAlchemy + enqueue"


def _rate(name: str, connections: int) -> str:
    return f"{name}, {connections} connections"


def _p99_ms(name: str) -> str:
    return f"{name}, {_CONNECTIONS[0]} connections, p99"


UNITS = {_p99_ms(name): "ms" for name in ("ours", _RECIPE, _EMPTY)}
TARGETS = [
    *(Target(_rate("ours", n), _rate(_RECIPE, n), at_least=_LEAST_TIMES_THE_RECIPE[n]) for n in _CONNECTIONS),
    *(Target(_rate("ours", n), _rate(_EMPTY, n), at_least=0.2) for n in _CONNECTIONS),
    Target(_p99_ms("ours"), _p99_ms(_EMPTY), at_most=4),
]


def contenders(scale: float = 1.0) -> dict[str, Measure]:
    """What is compared; `scale` shortens it."""
    duration_s = max(0.5, _DURATION_S * scale)
    servers = {"ours": _ours, _RECIPE: _recipe, _EMPTY: _empty}
    return {name: partial(_measure, name, serving, duration_s) for name, serving in servers.items()}


def _measure(name: str, serving: _Serving, duration_s: float) -> Mapping[str, float]:
    """Raises LabError if a save was answered that is not queued."""
    found = {}
    with (
        tempfile.TemporaryDirectory(prefix="fuze-") as folder,
        PrivateRedis(Path(folder) / "redis") as server,
    ):
        with serving(Path(folder), server.url) as url:
            answers(url, _CONNECTIONS[0], 1.0)  # to warm up
            for connections in _CONNECTIONS:
                answered = answers(url, connections, duration_s)
                found[_rate(name, connections)] = answered.per_s
                if connections == _CONNECTIONS[0] and answered.p99_ms is not None:
                    found[_p99_ms(name)] = answered.p99_ms
        with connect(server.url) as client:
            queued = client.llen("rq:queue:default")
        least = duration_s * sum(found[_rate(name, each)] for each in _CONNECTIONS)
        if name != _EMPTY and queued < least:
            raise LabError(f"{name}: {queued} jobs were queued for more than {least:.0f} saves")
    return found


@contextmanager
def _ours(folder: Path, redis_url: str) -> Iterator[str]:
    settings = Settings(data_dir=folder / "data", redis_url=redis_url, embedding_model="off")
    with running_api(settings, folder) as (url, _):
        yield f"{url}/api/bookmarks/quick-save"


@contextmanager
def _recipe(folder: Path, redis_url: str) -> Iterator[str]:
    port = free_port()
    argv = [sys.executable, "-m", "gunicorn", "--workers", "1", "--threads", "16", "--log-level", "error"]
    argv += ["--bind", f"127.0.0.1:{port}", "fuze_bench.lab.benchmarks.quick_save_recipe:app"]
    environment = {**os.environ, "DATABASE": str(folder / "recipe.db"), "REDIS_URL": redis_url}
    with Child("the recipe", argv, folder / "recipe.log", environment=environment) as child:
        child.wait_ready(lambda: _listens(port), _READY_S)
        yield f"http://127.0.0.1:{port}/bookmarks"


@contextmanager
def _empty(folder: Path, _redis_url: str) -> Iterator[str]:
    port = free_port()
    argv = [sys.executable, "-m", "fuze_bench.lab.benchmarks.empty_answers", str(port)]
    with Child("the empty answers", argv, folder / "empty.log") as child:
        child.wait_ready(lambda: _listens(port), _READY_S)
        yield f"http://127.0.0.1:{port}/"


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        probe.settimeout(1)
        return probe.connect_ex(("127.0.0.1", port)) == 0
