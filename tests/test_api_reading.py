"""The reading side over HTTP: bookmarks, pages of them, jobs, health, the description, and ids nobody would send."""

from __future__ import annotations

import contextlib
import socket
import sqlite3
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from api_server import Client, api_for_many_tests, assert_problem, running_api
from psycopg.conninfo import conninfo_to_dict
from relay import Relay

from fuze_bench.pipeline.bookmarks import ProcessingError, Reason
from fuze_bench.pipeline.redis_server import PrivateRedis
from fuze_bench.pipeline.settings import Settings
from fuze_bench.pipeline.store import Store

HOSTILE_IDS = [
    "bookmark:1", "a%2Fb", "%00", "%C3%A9", "x" * 5_000, "9" * 5_000, "0" * 16 + "1", "-1", "1.0", "%EF%BC%91",
    "%FF", "..%2F..%2Fetc%2Fpasswd", "bookmark-1-1%0Ax", "bookmark-" + "9" * 5_000 + "-1", "bookmark-%D9%A1-1",
    "rq%3Ajob%3Abookmark-1-1", "9007199254740993",
]  # fmt: skip


@pytest.fixture(scope="module")
def lasting_api(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Client]:
    """One API, with one bookmark, for all the tests that change nothing."""
    with api_for_many_tests(tmp_path_factory.mktemp("reading")) as client:
        client.save("https://example.org/1")
        yield client


def test_a_bookmark_reads_as_it_was_saved(api: Client) -> None:
    saved = api.save("https://example.org/1").json["bookmark"]
    answer = api.get(f"/api/bookmarks/{saved['id']}")
    assert (answer.status, answer.json) == (200, saved)


def test_a_failed_bookmark_says_why(api: Client, settings: Settings) -> None:
    bookmark_id = api.save("https://example.org/1").json["bookmark"]["id"]
    with Store(settings) as store:
        [claim] = store.claim([bookmark_id], lease_s=30)
        store.finish([(claim, ProcessingError(Reason.NOT_FOUND, "HTTP 404", http_status=404), {})])
    read = api.get(f"/api/bookmarks/{bookmark_id}").json
    assert (read["status"], read["reason"], read["httpStatus"]) == ("failed", "not_found", 404)
    assert read["error"] == f"{Reason.NOT_FOUND.sentence} (HTTP 404)"
    assert api.get(f"/api/jobs/bookmark-{bookmark_id}-1").json["status"] == "failed"


def test_the_list_is_paged_newest_first(api: Client) -> None:
    ids = [api.save(f"https://example.org/{n}").json["bookmark"]["id"] for n in range(5)]
    newest_first = sorted(ids, reverse=True)
    seen, path = [], "/api/bookmarks?limit=2"
    while True:
        page = api.get(path).json
        seen.append([bookmark["id"] for bookmark in page["bookmarks"]])
        if page["next"] is None:
            break
        path = f"/api/bookmarks?limit=2&after={page['next']}"
    assert seen == [newest_first[:2], newest_first[2:4], newest_first[4:]]
    assert [bookmark["id"] for bookmark in api.get("/api/bookmarks").json["bookmarks"]] == newest_first


def test_the_list_is_filtered_by_status(api: Client, settings: Settings) -> None:
    first, second = (api.save(f"https://example.org/{n}").json["bookmark"]["id"] for n in range(2))
    with Store(settings) as store:
        store.claim([first], lease_s=30)
    found = {status: api.get(f"/api/bookmarks?status={status}").json for status in ("pending", "processing")}
    assert [bookmark["id"] for bookmark in found["pending"]["bookmarks"]] == [second]
    assert [bookmark["id"] for bookmark in found["processing"]["bookmarks"]] == [first]
    assert api.get("/api/bookmarks?status=failed").json == {"bookmarks": [], "next": None}


def test_the_list_is_filtered_by_reason(api: Client, settings: Settings) -> None:
    first, second = (api.save(f"https://example.org/{n}").json["bookmark"]["id"] for n in range(2))
    with Store(settings) as store:
        for bookmark_id, reason in ((first, Reason.NOT_FOUND), (second, Reason.TIMED_OUT)):
            [claim] = store.claim([bookmark_id], lease_s=30)
            store.finish([(claim, ProcessingError(reason, "so"), {})])
    found = api.get("/api/bookmarks?status=failed&reason=not_found").json
    assert [bookmark["id"] for bookmark in found["bookmarks"]] == [first]
    assert api.get("/api/bookmarks?status=pending&reason=not_found").json["bookmarks"] == []


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ("reason=", "reason"),
        ("reason=it%20failed", "reason"),
        ("status=done", "status"),
        ("status=", "status"),
        ("limit=0", "limit"),
        ("limit=201", "limit"),
        ("limit=-1", "limit"),
        ("limit=1e2", "limit"),
        ("limit=%D9%A1", "limit"),
        ("limit=" + "0" * 16 + "1" + "9" * 5_000, "limit"),
        ("after=0", "after"),
        ("after=9007199254740992", "after"),
        ("after=00000000000000001999999", "after"),
        ("page=2", "page"),
        ("limit=1&limit=2", None),
    ],
)
def test_a_wrong_parameter_is_named(lasting_api: Client, query: str, field: str | None) -> None:
    assert_problem(lasting_api.get(f"/api/bookmarks?{query}"), 422, field=field, says=field or "twice")


def test_a_job_reads_by_the_id_that_the_save_gave(api: Client) -> None:
    job = api.save("https://example.org/1", queue="high").json["job"]
    answer = api.get(f"/api/jobs/{job['id']}")
    assert answer.status == 200
    state = answer.json
    expected = {"id": job["id"], "queue": "high", "status": "queued", "attempts": 0}
    assert {name: state[name] for name in expected} == expected
    assert state["enqueued_at"] >= state["created_at"] > 1_600_000_000
    assert state["started_at"] is state["ended_at"] is state["error"] is state["result"] is None


@pytest.mark.parametrize("kind", ["bookmarks", "jobs"])
@pytest.mark.parametrize("hostile", HOSTILE_IDS)
def test_a_hostile_id_is_not_found(lasting_api: Client, kind: str, hostile: str) -> None:
    assert_problem(lasting_api.get(f"/api/{kind}/{hostile}"), 404, says="there is no")


def test_an_id_in_raw_bytes_is_a_client_error(lasting_api: Client) -> None:
    with socket.create_connection(lasting_api.address, timeout=10) as connection:
        connection.sendall(
            "GET /api/jobs/é HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode()
        )
        first_line = connection.makefile("rb").readline()
    assert first_line.split()[1] in (b"400", b"404")
    assert lasting_api.get("/healthz").status == 200


def test_health(api: Client, private_redis: PrivateRedis) -> None:
    assert (api.get("/healthz").status, api.get("/healthz").json["status"]) == (200, "ok")
    assert api.get("/readyz").json == {"status": "ok", "database": "ok", "queue": "ok"}
    private_redis.stop()
    degraded = api.get("/readyz")
    assert (degraded.status, degraded.json["status"], degraded.json["database"]) == (200, "degraded", "ok")
    assert degraded.json["queue"] == "Redis is away: saves go to threads (the log says why)"
    assert api.get("/healthz").status == 200
    private_redis.start()
    assert api.get("/readyz").json["status"] == "ok"


def test_what_a_database_says_of_itself_stays_in_the_log(
    settings: Settings, postgresql_database: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Who asks `/readyz` has shown no token; host, port and user are nobody's business."""
    database = conninfo_to_dict(postgresql_database)
    with Relay(Path(str(database["host"])) / f".s.PGSQL.{database.get('port', 5432)}") as relay:
        url = f"postgresql://postgres@127.0.0.1:{relay.port}/{database['dbname']}"
        with running_api(replace(settings, database_url=url)) as base_url:
            api = Client(base_url)
            assert api.get("/readyz").json["database"] == "ok"
            relay.close()
            answer = api.get("/readyz")
    assert (answer.status, answer.json["database"]) == (503, "the database cannot be used at the moment")
    assert any("the database refused" in record.getMessage() for record in caplog.records)


def test_without_its_table_it_is_unavailable(api: Client, settings: Settings) -> None:
    with contextlib.closing(sqlite3.connect(settings.data_dir / "bookmarks.sqlite")) as connection:
        connection.execute("ALTER TABLE fuze_bookmarks RENAME TO gone")
    assert_problem(api.save("https://example.org/1"), 503, says="nothing was saved")
    assert_problem(api.get("/api/bookmarks"), 503, says="database")


def test_the_description_covers_every_route(lasting_api: Client) -> None:
    answer = lasting_api.get("/openapi.json")
    assert (answer.status, answer.headers["content-type"]) == (200, "application/json")
    document = answer.json
    assert document["openapi"].startswith("3.1")
    assert set(document["paths"]) == {
        "/api/bookmarks/quick-save", "/api/bookmarks", "/api/bookmarks/{id}", "/api/bookmarks/{id}/reprocess",
        "/api/bookmarks/import", "/api/jobs/{id}", "/api/queues", "/healthz", "/metrics", "/readyz",
    }  # fmt: skip
    sent = document["components"]["schemas"]["QuickSave"]
    assert sent["required"] == ["url"]
    assert sent["additionalProperties"] is False
    assert sent["properties"]["url"]["maxLength"] == Settings().url_max_chars


def test_the_page_may_load_nothing_from_elsewhere_and_run_nothing_inline(lasting_api: Client) -> None:
    for path, kind in (
        ("/", "text/html; charset=utf-8"),
        ("/page.css", "text/css; charset=utf-8"),
        ("/page.js", "text/javascript; charset=utf-8"),
        ("/cards.js", "text/javascript; charset=utf-8"),
        ("/server.js", "text/javascript; charset=utf-8"),
        ("/manifest.webmanifest", "application/manifest+json"),
        ("/icon.svg", "image/svg+xml"),
        ("/icon-192.png", "image/png"),
    ):
        answer = lasting_api.get(path)
        assert (answer.status, answer.headers["content-type"]) == (200, kind)
        policy = answer.headers["content-security-policy"]
        assert policy.startswith("default-src 'none'")
        assert "unsafe" not in policy
        assert answer.headers["x-content-type-options"] == "nosniff"
