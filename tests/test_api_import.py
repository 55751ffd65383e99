"""Importing over HTTP: an answer for every entry, safe to repeat, and nobody's single save waits for it."""

from __future__ import annotations

import contextlib
import json
import socket
import sqlite3
import statistics
import time
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import replace
from pathlib import Path

import pytest
from api_server import Answer, Client, api_process, assert_problem, kept, queued, running_api
from conftest import StartWorker, wait_until

from fuze_bench.lab.parts.origin import Origin
from fuze_bench.pipeline.settings import Settings
from fuze_bench.pipeline.store import Store

IMPORT = "/api/bookmarks/import"


def send(api: Client, body: object, content_type: str = "application/json") -> Answer:
    data = body.encode() if isinstance(body, str) else json.dumps(body).encode()
    return api.send("POST", IMPORT, data, {"Content-Type": content_type})


def pages(count: int, site: str = "https://example.org") -> dict[str, object]:
    return {"bookmarks": [{"url": f"{site}/page/{number}?import"} for number in range(count)]}


def test_a_database_that_fails_on_the_way_is_said_in_words_of_ours(api: Client, settings: Settings) -> None:
    with contextlib.closing(sqlite3.connect(settings.data_dir / "bookmarks.sqlite")) as connection:
        connection.execute(
            "CREATE TRIGGER fails BEFORE INSERT ON fuze_bookmarks WHEN new.url LIKE '%/page/299?%'"
            " BEGIN SELECT RAISE(ABORT, 'db.intranet:5432'); END"
        )
    answer = send(api, pages(300))
    assert answer.json["saved"] > 0
    errors = {item["error"] for item in answer.json["items"] if item["result"] == "refused"}
    assert errors == {"not saved, send it again: the database cannot be used at the moment"}


def test_every_entry_has_an_answer_of_its_own(api: Client, settings: Settings) -> None:
    known = api.save("https://example.org/known").json
    entries = [
        {"url": "https://example.org/a", "title": " A ", "description": "why"},
        {"url": "HTTPS://example.org/a#top"},
        {"url": "https://example.org/known"},
        {"url": "javascript:alert(1)"},
        {"url": "https://example.org/b", "title": "x" * 1_001},
        {"title": "no address"},
        {"url": 5},
        {"url": "https://example.org/b", "tags": []},
        {"url": "https://example.org/\ud800"},
        "https://example.org/c",
        {"url": "https://example.org/c", "title": None},
    ]
    answer = send(api, {"bookmarks": entries})
    assert answer.status == 200
    assert (answer.json["saved"], answer.json["duplicates"], answer.json["refused"]) == (2, 2, 7)
    found = answer.json["items"]
    words = [item["result"] for item in found]
    assert words == ["saved", "duplicate", "duplicate", *["refused"] * 7, "saved"]
    saved_id = found[0]["bookmarkId"]
    job = {"id": f"bookmark-{saved_id}-1", "queue": "low", "mode": "rq"}
    url = "https://example.org/a"
    assert found[0] == {"url": url, "result": "saved", "bookmarkId": saved_id, "job": job}
    assert (found[1]["bookmarkId"], found[1]["job"]) == (saved_id, job)
    assert found[2]["job"] == known["job"]
    for item, says in zip(
        found[3:10],
        (
            "javascript: URLs cannot be saved",
            "title has 1,001 characters: the limit is 1,000",
            "missing required field `url`",
            "url: Expected `str`, got `int`",
            "unknown field `tags`",
            "surrogate",
            "Expected `object`, got `str`",
        ),
        strict=True,
    ):
        assert says in item["error"]
        assert "bookmarkId" not in item
    assert "no worker listens to the queue 'low'" in answer.json["warning"]
    stored = api.get(f"/api/bookmarks/{saved_id}").json
    assert (stored["title"], stored["description"], stored["queue"]) == ("A", "why", "low")
    assert queued(settings)["low"] == [found[0]["job"]["id"], found[10]["job"]["id"]]


@pytest.mark.parametrize(
    ("content_type", "body", "lines"),
    [
        ("text/plain", "# list\nhttps://example.org/a\nnonsense\nhttps://example.org/b # x\n", [2, 3, 4]),
        ("text/csv; charset=utf-8", "Title;URL\nA;https://example.org/a\nB;nonsense\nC;https://example.org/b\n", [2, 3, 4]),
        ("text/html", "<DT><A HREF='https://example.org/a'>A</A>\n<DT><A HREF='nonsense'>B</A>\n<DT><A HREF='https://example.org/b'>C</A>", [1, 2, 3]),
    ],
)  # fmt: skip
def test_files_answer_with_their_lines(api: Client, content_type: str, body: str, lines: list[int]) -> None:
    answer = send(api, body, content_type)
    assert [item["result"] for item in answer.json["items"]] == ["saved", "refused", "saved"]
    assert [item["line"] for item in answer.json["items"]] == lines
    assert "'nonsense' is not a URL" in answer.json["items"][1]["error"]
    again = send(api, body, content_type)
    assert (again.json["saved"], again.json["duplicates"], again.json["refused"]) == (0, 2, 1)


def test_an_empty_list(api: Client) -> None:
    assert send(api, {"bookmarks": []}).json == {"saved": 0, "duplicates": 0, "refused": 0, "items": []}


@pytest.mark.parametrize(
    ("content_type", "body", "status", "field", "says"),
    [
        ("application/xml", "<a/>", 415, None, "send one of application/json, text/plain, text/csv, text/html"),
        ("application/json", "{", 400, None, "the body is not JSON"),
        ("application/json", "[" * 100_000, 400, None, "the body is not JSON"),
        ("application/json", '{"bookmarks": ' + "[" * 100_000, 400, None, "the body is not JSON"),
        ("application/json", "[]", 422, None, "Expected `object`, got `array`"),
        ("application/json", '{"bookmarks": {}}', 422, "bookmarks", "Expected `array`"),
        ("application/json", '{"bookmarks": [], "bookmarks": []}', 422, "bookmarks", "given twice"),
        ("application/json", '{"bookmarks": [{"url": "a", "url": "b"}]}', 422, "url", "given twice"),
        ("application/json", '{"bookmarks": [], "queue": "high"}', 422, None, "unknown field `queue`"),
        ("application/json", '{"bookmark": []}', 422, None, "unknown field `bookmark`"),
        ("text/csv", "name,age\n", 422, None, "names no column url"),
        ("text/html", "<p>Hello", 422, None, "holds no bookmarks"),
        ("text/plain", "PK\x03\x04\x14\0\0\0", 422, None, "not text"),
    ],
)  # fmt: skip
def test_what_is_no_list_is_refused_whole(
    api: Client, settings: Settings, content_type: str, body: str, status: int, field: str | None, says: str
) -> None:
    assert_problem(send(api, body, content_type), status, field=field, says=says)
    assert sum(kept(settings)[0].values()) == 0


def test_methods(api: Client) -> None:
    assert_problem(api.get(IMPORT), 405, says="use POST")


def test_limits(settings: Settings) -> None:
    settings = replace(settings, import_max_items=3, import_max_bytes=1_000)
    with running_api(settings) as base_url:
        api = Client(base_url)
        for body, content_type in ((pages(4), "application/json"), ("https://a.org/\n" * 4, "text/plain")):
            assert_problem(send(api, body, content_type), 413, says="the limit is 3 entries")
        assert_problem(send(api, "#" * 1_001, "text/plain"), 413, says="the limit is 1,000")
        assert sum(kept(settings)[0].values()) == 0
        assert send(api, pages(3)).json["saved"] == 3


def test_two_imports_at_once(api: Client, settings: Settings) -> None:
    """The same pages in two orders: each is saved by one of the two and a duplicate of the other."""
    entries = [{"url": f"https://example.org/{number}"} for number in range(600)]
    with ThreadPoolExecutor(2) as pool:
        answers = list(pool.map(lambda order: send(api, {"bookmarks": order}), (entries, entries[::-1])))
    assert [answer.status for answer in answers] == [200, 200]
    assert sum(answer.json["saved"] for answer in answers) == 600
    assert sum(answer.json["duplicates"] for answer in answers) == 600
    assert all(answer.json["saved"] for answer in answers), "they take turns"
    assert len(queued(settings)["low"]) == len(set(queued(settings)["low"])) == 600


def test_a_client_that_goes_away_leaves_whole_groups(api: Client, settings: Settings) -> None:
    body = json.dumps(pages(5_000)).encode()
    with socket.create_connection(api.address) as connection, Store(settings) as store:
        head = f"POST {IMPORT} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
        connection.sendall(head.encode() + body)
        wait_until(lambda: store.counts()["pending"] > 0, what="the first group")
    # Another import waits its turn behind whatever is still being written.
    send(api, {"bookmarks": []})
    send(api, {"bookmarks": [{"url": "https://example.org/other"}]})
    counts, jobs = kept(settings)
    assert 0 < counts["pending"] < 5_000
    assert counts["pending"] % 100 == 1
    assert len(jobs["low"]) == counts["pending"]


@pytest.mark.parametrize(("database", "count"), [("sqlite", 5_000), ("postgresql", 3_000)])
def test_single_saves_do_not_wait_for_an_import(
    database: str,
    count: int,
    settings: Settings,
    tmp_path: Path,
    start_worker: StartWorker,
    request: pytest.FixtureRequest,
) -> None:
    """Saves every 50 ms are answered at once, and processed while nearly all of the import still waits."""
    if database == "postgresql":
        settings = replace(settings, database_url=request.getfixturevalue("postgresql_database"))
    with (
        Origin(latency_ms=50) as origin,
        api_process(settings, tmp_path / "api.log") as (base_url, _),
        start_worker(settings),
        Store(settings) as store,
        ThreadPoolExecutor(1) as importing,
    ):
        api = Client(base_url)
        answer = importing.submit(send, api, pages(count, origin.url))
        wait_until(lambda: store.counts()["pending"] > 0, what="the first group")
        took_s, ids = [], []
        while len(ids) < 25 and not answer.done():
            began_s = time.monotonic()
            saved = api.save(f"{origin.url}/page/{len(ids)}?single")
            took_s.append(time.monotonic() - began_s)
            ids.append(saved.json["bookmark"]["id"])
            wait([answer], max(0.0, began_s + 0.05 - time.monotonic()))
        assert len(ids) > 10
        assert statistics.median(took_s) < 0.1
        wait_until(lambda: {status(store, each) for each in ids} == {"processed"}, what="the single saves")
        assert store.counts()["processed"] - len(ids) < count / 4
        assert queued(settings)["low"]
        assert answer.result(120).json["saved"] == count


def status(store: Store, bookmark_id: int) -> str:
    bookmark = store.get(bookmark_id)
    assert bookmark
    return bookmark.status
