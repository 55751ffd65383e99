"""quick-save over HTTP: the documented answer, commit before fetch, duplicates, queues, texts, broken clients."""

from __future__ import annotations

import socket
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from api_server import QUICK_SAVE, Client, api_process, kept, queued

from fuze_bench.lab.parts.origin import Origin
from fuze_bench.pipeline.redis_server import PrivateRedis
from fuze_bench.pipeline.settings import Settings
from fuze_bench.pipeline.store import Store


def test_a_save_is_committed_and_queued_before_any_fetch(
    api: Client, settings: Settings, origin: Origin
) -> None:
    url = f"{origin.url}/page/1?utm_source=mail#part"
    answer = api.save(url, title=" My title ", description="why")
    assert answer.status == 201
    assert answer.headers["content-type"] == "application/json"
    bookmark = answer.json["bookmark"]
    assert answer.json == {
        "message": "Bookmark saved",
        "bookmark": bookmark,
        "processing": "background",
        "wasDuplicate": False,
        "job": {"id": f"bookmark-{bookmark['id']}-1", "queue": "default", "mode": "rq"},
        "warning": "no worker listens to the queue 'default': start one with `fuze-bench worker`",
    }
    assert list(answer.json) == ["message", "bookmark", "processing", "wasDuplicate", "job", "warning"]
    expected = {"url": url, "canonicalUrl": f"{origin.url}/page/1", "status": "pending", "title": "My title"}
    assert {name: bookmark[name] for name in expected} == expected
    assert isinstance(bookmark["id"], int)
    counts, jobs = kept(settings)
    assert counts["pending"] == 1
    assert jobs == {"high": [], "default": [answer.json["job"]["id"]], "low": []}
    assert origin.total_hits() == 0


def test_the_same_page_again_is_a_duplicate_with_the_one_job(api: Client, settings: Settings) -> None:
    first = api.save("https://example.org/a?b=1")
    again = api.save("HTTPS://Example.org:443/x/../a?b=1&utm_medium=x#top", title="Now with a title")
    assert (first.status, again.status) == (201, 200)
    assert again.json["wasDuplicate"] is True
    assert again.json["bookmark"]["id"] == first.json["bookmark"]["id"]
    assert again.json["bookmark"]["title"] == "Now with a title"
    assert again.json["job"] == first.json["job"]
    counts, jobs = kept(settings)
    assert sum(counts.values()) == 1
    assert jobs["default"] == [first.json["job"]["id"]]


def test_fifty_saves_at_once_make_one_row_and_one_job(api: Client, settings: Settings) -> None:
    with ThreadPoolExecutor(50) as pool:
        answers = list(pool.map(lambda _: api.save("https://example.org/popular"), range(50)))
    assert sorted(answer.status for answer in answers) == [200] * 49 + [201]
    assert len({answer.json["bookmark"]["id"] for answer in answers}) == 1
    assert {answer.json["job"]["mode"] for answer in answers} == {"rq"}
    counts, jobs = kept(settings)
    assert sum(counts.values()) == 1
    assert sum(map(len, jobs.values())) == 1


@pytest.mark.parametrize("name", ["high", "low"])
def test_a_save_goes_to_the_queue_it_names(api: Client, settings: Settings, name: str) -> None:
    answer = api.save("https://example.org/q", queue=name)
    assert (answer.json["bookmark"]["queue"], answer.json["job"]["queue"]) == (name, name)
    assert [each for each, ids in queued(settings).items() if ids] == [name]


def test_texts_with_characters_of_four_bytes_come_back_equal(api: Client, settings: Settings) -> None:
    title, description, url = "👩🏽‍💻 𝒯itle", "𝔡escription 🏳️‍🌈", "https://example.org/👩🏽‍💻?q=𝒯"
    saved = api.save(url, title=title, description=description).json["bookmark"]
    read = api.get(f"/api/bookmarks/{saved['id']}").json
    for bookmark in (saved, read):
        assert (bookmark["title"], bookmark["description"], bookmark["url"]) == (title, description, url)
    with Store(settings) as store:
        assert store.rows("user_title") == [{"user_title": title}]


def test_line_breaks_of_a_wrapped_url_are_left_out(api: Client) -> None:
    saved = api.save(" https://example.org/a/long\n/path\t?q=1\r\n").json["bookmark"]
    assert saved["url"] == saved["canonicalUrl"] == "https://example.org/a/long/path?q=1"


@pytest.mark.parametrize(
    "url", [r"https:\\example.org\a", "https:/example.org/a", "https:example.org/a", "https:///example.org/a"]
)
def test_a_url_that_only_browsers_read_is_spelled_out(api: Client, url: str) -> None:
    assert api.save(url).json["bookmark"]["url"] == "https://example.org/a"


def test_without_redis_a_thread_does_the_work(
    api: Client, private_redis: PrivateRedis, origin: Origin
) -> None:
    private_redis.stop()
    answer = api.save(f"{origin.url}/page/1")
    assert answer.status == 201
    assert answer.json["job"]["mode"] == "thread"


def test_a_client_that_leaves_in_the_middle_of_its_body_harms_nobody(
    settings: Settings, tmp_path: Path
) -> None:
    head = f"POST {QUICK_SAVE} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    with api_process(settings, tmp_path / "api.log") as (base_url, child):
        api = Client(base_url)
        for framing in ("Content-Length: 1000\r\n\r\n", "Transfer-Encoding: chunked\r\n\r\n80\r\n"):
            with socket.create_connection(api.address, timeout=10) as leaver:
                leaver.sendall((head + framing).encode() + b'{"url": "https://exam')
            assert api.get("/healthz").status == 200
        assert api.save("https://example.org/after").status == 201
    assert sum(kept(settings)[0].values()) == 1
    assert "Traceback" not in child.log_tail(1_000)
