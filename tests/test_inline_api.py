"""The API that processes inside the request, as a process, against a real origin."""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from api_server import Client, assert_problem, running_api

from fuze_bench.lab.parts.origin import Origin
from fuze_bench.pipeline.bookmarks import Status
from fuze_bench.pipeline.settings import Settings
from fuze_bench.pipeline.store import Store
from fuze_bench.processes import Child, free_port


@pytest.fixture(scope="module")
def origin() -> Iterator[Origin]:
    with Origin(latency_ms=200) as running:
        yield running


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    """No Redis: nothing here needs one."""
    return Settings(
        data_dir=tmp_path_factory.mktemp("data"),
        embedding_model="off",
        host_fetches=0,
        host_interval_s=0.0,
        fetch_allow=("127.0.0.1",),
    )


@pytest.fixture(scope="module")
def client(settings: Settings, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Client]:
    port = free_port()
    argv = [sys.executable, "-m", "fuze_bench.lab.parts.inline_api", "--port", str(port)]
    log = tmp_path_factory.mktemp("log") / "api.log"
    with Child("the inline API", argv, log, environment=settings.environment(os.environ)) as child:
        running = Client(f"http://127.0.0.1:{port}")
        child.wait_ready(running.is_answered, 60)
        assert "the API is ready" in child.log_tail()
        yield running
        child.stop()
        assert child.returncode() == 0


def test_the_answer_holds_what_became_of_the_page(client: Client, origin: Origin, settings: Settings) -> None:
    started_s = time.monotonic()
    answer = client.save(f"{origin.url}/page/1", queue="high")
    assert time.monotonic() - started_s >= 0.2, "the origin takes so long"
    assert answer.status == 201, answer.raw
    assert answer.json["bookmark"]["status"] == "processed"
    assert answer.json["bookmark"]["wordCount"] > 50
    assert answer.json["job"] == {"id": "bookmark-1-1", "queue": "high", "mode": "inline"}
    assert (answer.json["processing"], answer.json["wasDuplicate"]) == ("inline", False)
    assert origin.hits("/page/1") == 1
    with Store(settings) as store:
        stored = store.get(answer.json["bookmark"]["id"])
        assert stored is not None
        assert stored.status is Status.PROCESSED


def test_what_was_saved_is_not_fetched_again(client: Client, origin: Origin) -> None:
    first, second = (client.save(f"{origin.url}/page/2") for _ in range(2))
    assert (first.status, second.status) == (201, 200)
    assert second.json["wasDuplicate"] is True
    assert second.json["bookmark"]["status"] == "processed"
    assert origin.hits("/page/2") == 1


def test_a_page_that_cannot_be_had_is_saved_as_failed(client: Client, origin: Origin) -> None:
    answer = client.save(f"{origin.url}/status/404")
    assert answer.status == 201
    assert (answer.json["bookmark"]["status"], answer.json["bookmark"]["reason"]) == ("failed", "not_found")


def test_requests_do_not_wait_for_each_other(client: Client, origin: Origin) -> None:
    statuses: list[int] = []

    def save(number: int) -> None:
        statuses.append(client.save(f"{origin.url}/slow/2000/{number}").status)

    threads = [threading.Thread(target=save, args=(n,)) for n in range(8)]
    started_s = time.monotonic()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert statuses == [201] * 8
    assert time.monotonic() - started_s < 12, "one after the other would take 16 s"


def test_what_is_wrong_is_refused_as_by_the_other_api(client: Client) -> None:
    assert_problem(client.save("ftp://example.org/"), 422, field="url")
    assert_problem(client.post(b"{"), 400)
    assert_problem(client.post({"url": "https://example.org/"}, "text/plain"), 415)
    assert_problem(client.save("https://example.org/", colour="red"), 422, says="colour")
    assert_problem(client.get("/api/bookmarks/quick-save"), 405)
    stranger = {"Content-Type": "application/json", "Origin": "https://evil.example"}
    refused = client.send("POST", "/api/bookmarks/quick-save", b'{"url": "https://example.org/"}', stranger)
    assert_problem(refused, 403)


def test_it_answers_with_the_same_fields(client: Client, origin: Origin, tmp_path: Path) -> None:
    other_settings = Settings(data_dir=tmp_path, embedding_model="off", fetch_allow=("127.0.0.1",))
    with running_api(other_settings) as base_url:
        other = Client(base_url).save(f"{origin.url}/page/3")
    inline = client.save(f"{origin.url}/page/3")
    assert set(inline.json) == set(other.json)
    assert set(inline.json["bookmark"]) == set(other.json["bookmark"])
    assert set(inline.json["job"]) == set(other.json["job"])
