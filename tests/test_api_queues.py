"""How many jobs wait, over HTTP: what Redis says, seldom asked, and no wait for one that hangs."""

from __future__ import annotations

import os
import signal
import time
from datetime import timedelta

from api_server import Client
from conftest import wait_until
from rq import Queue
from rq.serializers import JSONSerializer

from fuze_bench.pipeline.redis_server import PrivateRedis, connect
from fuze_bench.pipeline.settings import Settings

NOTHING_KNOWN = {
    "redis": "away",
    "queues": [{"name": name, "waiting": None, "scheduled": None} for name in ("high", "default", "low")],
}


def depths(api: Client) -> dict[str, tuple[int, int]]:
    answer = api.get("/api/queues").json
    assert answer["redis"] == "ok"
    return {queue["name"]: (queue["waiting"], queue["scheduled"]) for queue in answer["queues"]}


def commands_processed(settings: Settings) -> int:
    with connect(settings.redis_url or "") as client:
        return int(client.info("commandstats").get("cmdstat_llen", {"calls": 0})["calls"])


def test_it_counts_what_waits_and_what_is_scheduled(api: Client, settings: Settings) -> None:
    assert depths(api) == {"high": (0, 0), "default": (0, 0), "low": (0, 0)}
    for n in range(3):
        api.save(f"https://example.org/{n}", queue="low" if n else "high")
    with connect(settings.redis_url or "") as client:
        Queue("default", connection=client, serializer=JSONSerializer).enqueue_in(
            timedelta(hours=1), "math.sqrt", 4
        )
    wait_until(lambda: depths(api) == {"high": (1, 0), "default": (0, 1), "low": (2, 0)}, what="a fresh look")


def test_many_who_ask_are_one_who_looks(api: Client, settings: Settings) -> None:
    depths(api)
    before = commands_processed(settings)
    began = time.monotonic()
    for _ in range(20):
        depths(api)
    looks = (commands_processed(settings) - before) / 3
    assert looks <= 1 + (time.monotonic() - began)


def test_a_redis_that_hangs_or_is_gone_is_said_at_once(api: Client, private_redis: PrivateRedis) -> None:
    assert private_redis.pid is not None
    os.kill(private_redis.pid, signal.SIGSTOP)
    try:
        began = time.monotonic()
        assert api.get("/api/queues").json == NOTHING_KNOWN
        # Without a limit of its own, it would take until Redis's own, which is several times as long.
        assert time.monotonic() - began < 1.5
        assert api.get("/healthz").status == 200
    finally:
        os.kill(private_redis.pid, signal.SIGCONT)
    wait_until(lambda: api.get("/api/queues").json["redis"] == "ok", what="Redis to be back")
    private_redis.stop()
    wait_until(lambda: api.get("/api/queues").json == NOTHING_KNOWN, what="Redis to be missed")
