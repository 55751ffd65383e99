"""The counts on their way to Redis: kept through an outage, added once, held by nobody, and not a parent's."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from dataclasses import replace

from conftest import wait_until

from fuze_bench.pipeline.bookmarks import Reason
from fuze_bench.pipeline.measurements import KEY, Measurements
from fuze_bench.pipeline.redis_server import PrivateRedis, connect
from fuze_bench.pipeline.settings import Settings


def counts(settings: Settings) -> dict[str, int]:
    with connect(settings.redis_url or "", timeout_s=5) as client:
        return {name.decode(): int(number) for name, number in client.hgetall(KEY).items()}


def test_nobody_waits_for_the_thread_that_asks_whether_redis_is_back(
    settings: Settings, private_redis: PrivateRedis
) -> None:
    locked: list[bool] = []

    class Watched(Measurements):
        def _send(self) -> str | None:
            if threading.current_thread().name == "measurements":
                locked.append(self._lock.locked())
            return super()._send()

    private_redis.stop()
    watched = Watched(replace(settings, redis_retry_s=0.05))
    watched.failed(Reason.TIMED_OUT, 1)
    wait_until(lambda: locked, what="the thread to ask")
    watched.failed(Reason.TIMED_OUT, 1)
    private_redis.start()
    wait_until(lambda: counts(settings).get("failed|timed_out") == 2, what="both to be added")
    assert len(locked) >= 3
    assert not any(locked)
    watched.close()


def test_a_fork_adds_only_its_own(settings: Settings) -> None:
    code = """
import os, sys
from fuze_bench.pipeline.measurements import Counts, Measurements
from fuze_bench.pipeline.settings import Settings
mine = Measurements(Settings.from_mapping(os.environ))
mine.add(Counts({"failed|timed_out": 1}))
mine._waiting["failed|timed_out"] = 5
pid = os.fork()
mine.add(Counts({"failed|not_found" if pid == 0 else "failed|no_text": 1}))
if pid:
    sys.exit(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
"""
    environment = {**os.environ, **settings.to_mapping()}
    subprocess.run([sys.executable, "-c", code], env=environment, check=True, timeout=60)
    assert counts(settings) == {"failed|timed_out": 6, "failed|not_found": 1, "failed|no_text": 1}
