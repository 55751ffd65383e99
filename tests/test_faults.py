"""Faults done to real parts, and the moments noted."""

from __future__ import annotations

import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
import redis
from conftest import wait_until

from fuze_bench.errors import ServiceError
from fuze_bench.lab.faults import Faults
from fuze_bench.lab.services import RunningOrigin, running_origin
from fuze_bench.pipeline.redis_server import PrivateRedis, connect
from fuze_bench.processes import Child


@pytest.fixture
def site(tmp_path: Path) -> Iterator[RunningOrigin]:
    with running_origin(tmp_path, latency_ms=0) as running:
        yield running


def ask(site: RunningOrigin, timeout_s: float = 20) -> int:
    with urllib.request.urlopen(f"{site.url}/page/1", timeout=timeout_s) as answer:
        return int(answer.status)


def names(faults: Faults) -> list[str]:
    times_ns = [mark.at_ns for mark in faults.marks]
    assert times_ns == sorted(times_ns)
    assert all(0 < at_ns <= time.monotonic_ns() for at_ns in times_ns)
    return [mark.name for mark in faults.marks]


def test_a_paused_origin_hangs_and_answers_again(site: RunningOrigin) -> None:
    faults = Faults()
    assert ask(site) == 200
    with faults.paused("origin", [site.child.pid]), pytest.raises(TimeoutError):
        ask(site, timeout_s=0.5)
    assert ask(site) == 200
    assert names(faults) == ["origin paused", "origin resumed"]
    assert faults.marks[1].at_ns - faults.marks[0].at_ns >= 0.5e9


def test_a_killed_origin_refuses_connections(site: RunningOrigin) -> None:
    faults = Faults()
    faults.kill("origin", site.child)
    with pytest.raises(urllib.error.URLError, match="refused"):
        ask(site)
    assert site.child.returncode() == -9
    with pytest.raises(ServiceError, match=r"origin .* does not run any more"):
        faults.kill("origin", site.child)
    assert names(faults) == ["origin killed"]


def test_redis_goes_and_comes_back_with_its_data(private_redis: PrivateRedis) -> None:
    faults = Faults()
    with connect(private_redis.url) as client:
        client.set("k", "v")
        with faults.without_redis(private_redis), pytest.raises(redis.ConnectionError):
            client.get("k")
        assert client.get("k") == b"v"
    assert names(faults) == ["Redis stopped", "Redis started"]


def test_what_was_paused_goes_on_after_an_error(tmp_path: Path) -> None:
    faults = Faults()
    argv = [sys.executable, "-c", "import time; time.sleep(600)"]
    with Child("sleeper", argv, tmp_path / "log") as child:
        process = psutil.Process(child.pid)

        def fail() -> None:
            with faults.paused("sleeper", [child.pid]):
                wait_until(lambda: process.status() == psutil.STATUS_STOPPED, what="it to stop")
                raise RuntimeError

        with pytest.raises(RuntimeError):
            fail()
        wait_until(lambda: process.status() != psutil.STATUS_STOPPED, what="it to go on")
    assert names(faults) == ["sleeper paused", "sleeper resumed"]


def test_nothing_is_paused_if_one_is_gone(tmp_path: Path) -> None:
    argv = [sys.executable, "-c", "import time; time.sleep(600)"]
    faults = Faults()
    with Child("sleeper", argv, tmp_path / "log") as here, Child("gone", argv, tmp_path / "log2") as gone:
        gone.kill_group()
        with (
            pytest.raises(ServiceError, match="does not run any more"),
            faults.paused("two", [here.pid, gone.pid]),
        ):
            pass
        assert psutil.Process(here.pid).status() != psutil.STATUS_STOPPED
    assert faults.marks == []
