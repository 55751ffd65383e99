"""`fuze-bench doctor` over real systems, well and ill: each fault is named with its remedy, and nothing is changed."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from conftest import StartWorker, wait_until

from fuze_bench.cli import app
from fuze_bench.errors import StoreError
from fuze_bench.lab.parts.origin import Origin
from fuze_bench.pipeline import control
from fuze_bench.pipeline.process import Pipeline
from fuze_bench.pipeline.redis_server import PrivateRedis, connect
from fuze_bench.pipeline.service import BookmarkService
from fuze_bench.pipeline.settings import Settings
from fuze_bench.pipeline.store import Store
from fuze_bench.processes import free_port


def doctor(settings: Settings) -> tuple[int, dict[str, dict[str, Any]]]:
    """Exit code and findings by name."""
    done = CliRunner().invoke(app, ["doctor", "--json"], env=settings.to_mapping())
    report = json.loads(done.stdout)
    assert report["ok"] == (done.exit_code == 0)
    for finding in report["findings"]:
        assert finding["ok"] or finding["remedy"], "what is wrong has a remedy"
        assert "\n" not in finding["detail"]
    return done.exit_code, {finding["name"]: finding for finding in report["findings"]}


def wrong(settings: Settings) -> set[str]:
    return {name for name, finding in doctor(settings)[1].items() if not finding["ok"]}


def save(service: BookmarkService, *urls: str) -> list[int]:
    return [r.bookmark.id for r in service.save([service.check(user_id=1, url=url) for url in urls])]


def test_a_system_that_is_well(
    service: BookmarkService, settings: Settings, origin: Origin, start_worker: StartWorker
) -> None:
    save(service, f"{origin.url}/page/1", f"{origin.url}/status/404")
    with start_worker(settings):
        wait_until(lambda: service.store.counts()["failed"] == 1, what="both to be done")
        wait_until(lambda: doctor(settings)[0] == 0, what="the scheduler to have begun")
        _, found = doctor(settings)
        lines = CliRunner().invoke(app, ["doctor"], env=settings.to_mapping()).stdout.splitlines()
    assert found["redis"]["data"]["version"][0].isdigit()
    assert found["workers"]["data"]["alive"] == 1
    assert found["workers"]["data"]["by_queue"] == {"high": 1, "default": 1, "low": 1}
    assert found["queues"]["data"]["waiting"] == {"high": 0, "default": 0, "low": 0}
    assert found["failed"]["data"]["by_reason"] == {"not_found": 1}
    assert found["bookmarks"]["data"]["by_status"]["processed"] == 1
    assert len(lines) == len(found)
    assert all(line.startswith("ok ") for line in lines)


def test_nobody_works(service: BookmarkService, settings: Settings) -> None:
    save(service, "https://example.org/1")
    code, found = doctor(settings)
    assert code == 1
    assert not found["workers"]["ok"]
    assert "fuze-bench worker" in found["workers"]["remedy"]
    assert not found["scheduler"]["ok"]
    assert found["queues"]["data"]["waiting"]["default"] == 1
    assert found["queues"]["data"]["oldest_enqueued_at"] is not None


def test_paused_and_drained_are_seen(settings: Settings) -> None:
    with connect(settings.redis_url or "") as client:
        control.pause(client, "low")
        control.drain(client, lambda _ended, _all: None)
    _, found = doctor(settings)
    assert not found["queues"]["ok"]
    assert found["queues"]["data"]["paused"] == ["low"]
    assert "resume low" in found["queues"]["remedy"]
    assert "drained 0." in found["workers"]["detail"]


def test_what_was_cancelled_is_seen(service: BookmarkService, settings: Settings) -> None:
    service.cancel(save(service, "https://example.org/1"))
    failed = doctor(settings)[1]["failed"]
    assert "cancelled" in failed["detail"]


def test_no_password_of_a_database_is_shown(settings: Settings) -> None:
    away = {"DATABASE_URL": f"postgresql://someone:se%2Fcret@127.0.0.1:{free_port()}/bookmarks"}
    for command in (["doctor"], ["doctor", "--json"], ["save", "https://example.org/1"]):
        done = CliRunner().invoke(app, command, env={**settings.to_mapping(), **away})
        assert done.exit_code == 1
        said = f"{done.output}{done.exception}"
        assert "database" in said
        assert "cret" not in said


def test_a_lost_queue_entry_is_named_before_it_is_taken_up(
    service: BookmarkService, settings: Settings
) -> None:
    [bookmark_id] = save(service, "https://example.org/1")
    with connect(settings.redis_url or "") as client:
        client.lrem("rq:queue:default", 0, f"bookmark-{bookmark_id}-1")
    wait_until(lambda: "rows without a job" in wrong(settings), what="it to be old enough to be named")
    assert "recover" in doctor(settings)[1]["rows without a job"]["remedy"]


def test_jobs_of_rows_that_are_gone(service: BookmarkService, settings: Settings) -> None:
    [bookmark_id] = save(service, "https://example.org/1")
    service.store.delete(bookmark_id, user_id=1)
    assert doctor(settings)[1]["jobs without a row"]["data"] == {"number": 1}
    assert "jobs without a row" in wrong(settings)


def test_a_dead_workers_bookmarks_are_stuck(service: BookmarkService, settings: Settings) -> None:
    [bookmark_id] = save(service, "https://example.org/1")
    service.store.claim([bookmark_id], lease_s=0.01)
    wait_until(lambda: "stuck" in wrong(settings), what="the lease to have run out")


def test_redis_is_away_or_refuses_writes(settings: Settings, private_redis: PrivateRedis) -> None:
    with connect(private_redis.url) as client:
        client.config_set("maxmemory", 1)
    _, found = doctor(settings)
    assert "maxmemory" in found["redis"]["detail"]
    assert "memory limit" in found["redis"]["remedy"]
    private_redis.stop()
    assert "redis" in wrong(settings)
    assert "redis" in wrong(replace(settings, redis_url=None))


@pytest.mark.parametrize(
    ("more", "name", "says"),
    [
        ({"database_url": "postgresql://nobody@127.0.0.1:1/nothing"}, "database", "refused"),
        ({"embedding_model": "/no/such/folder"}, "model", "no model folder"),
    ],
)
def test_what_cannot_be_had(more: dict[str, str], name: str, says: str, settings: Settings) -> None:
    _, found = doctor(replace(settings, **more))  # type: ignore[arg-type]
    assert not found[name]["ok"]
    assert says in found[name]["detail"]


def test_a_broken_file_of_tokens(settings: Settings, tmp_path: Path) -> None:
    assert "tokens" not in doctor(settings)[1]
    tokens = tmp_path / "tokens"
    guarded = replace(settings, api_tokens=tokens)
    assert "cannot be read" in doctor(guarded)[1]["tokens"]["detail"]
    tokens.write_text("a-token-that-is-long-enough one\n")
    assert "line 1" in doctor(guarded)[1]["tokens"]["detail"]
    tokens.write_text("a-token-that-is-long-enough 1\n")
    assert "tokens" not in wrong(guarded)


def test_the_bundled_model_is_found(settings: Settings) -> None:
    having = replace(settings, embedding_model="bundled")
    found = doctor(having)[1]["model"]
    assert found["ok"]
    assert "all-MiniLM-L6-v2" in found["detail"]
    assert "computes" not in found["detail"]
    with connect(settings.redis_url or "") as client:
        control.note_embedding(client, "bfloat16 (twice as fast)")
    assert doctor(having)[1]["model"]["detail"].endswith("here it computes in bfloat16 (twice as fast)")
    assert "computes" not in doctor(settings)[1]["model"]["detail"], "it is switched off"


def test_looking_changes_nothing(service: BookmarkService, settings: Settings, origin: Origin) -> None:
    """Not even an entry of the started registry that has run out: tidying up is the workers' task."""
    save(service, f"{origin.url}/page/1", "https://example.org/1")
    pipeline = Pipeline(settings)
    pipeline.process([1])
    pipeline.close()
    with connect(settings.redis_url or "") as client:
        client.zadd("rq:wip:default", {"bookmark-1-1:execution": 1})
        client.delete("rq:job:bookmark-2-1")
        before = {key: client.dump(key) for key in client.keys("rq:*")}
        doctor(settings)
        assert {key: client.dump(key) for key in client.keys("rq:*")} == before


@pytest.fixture
def hanging_url() -> Iterator[str]:
    """Of a PostgreSQL that takes connections and never says a word."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield f"postgresql://nobody@127.0.0.1:{listener.getsockname()[1]}/nothing"


@pytest.mark.parametrize(("query", "least_s", "most_s"), [("", 4, 15), ("?connect_timeout=2", 1, 4)])
def test_a_database_that_hangs_is_given_up(
    query: str, least_s: float, most_s: float, hanging_url: str
) -> None:
    start_s = time.monotonic()
    with pytest.raises(StoreError, match="timeout"):
        Store(Settings(database_url=hanging_url + query))
    assert least_s < time.monotonic() - start_s < most_s


def test_findings_are_shown_while_the_next_is_looked_for(settings: Settings, hanging_url: str) -> None:
    more = replace(settings, database_url=f"{hanging_url}?connect_timeout=60")
    argv = [sys.executable, "-m", "fuze_bench.cli", "doctor"]
    environment = more.environment(os.environ)
    with subprocess.Popen(argv, env=environment, stdout=subprocess.PIPE, text=True) as child:
        try:
            assert child.stdout is not None
            assert [child.stdout.readline()[6:].split()[0] for _ in range(2)] == ["redis", "workers"]
            assert child.poll() is None
        finally:
            child.kill()
