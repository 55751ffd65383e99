"""Processing again, giving up and forgetting: what is stored is never replaced by less, and nothing is left behind."""

from __future__ import annotations

import contextlib
import os
import pty
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace

import pytest
from api_server import Client, assert_problem, queued, running_api
from click.testing import CliRunner
from conftest import StartWorker, wait_until
from rq.job import Job
from rq.serializers import JSONSerializer

from fuze_bench.cli import app
from fuze_bench.errors import QueueUnavailableError
from fuze_bench.lab.parts.origin import Origin
from fuze_bench.pipeline.bookmarks import Bookmark, NewBookmark, Reason, Status
from fuze_bench.pipeline.claims import process_name
from fuze_bench.pipeline.process import Pipeline
from fuze_bench.pipeline.redis_server import PrivateRedis, connect
from fuze_bench.pipeline.service import BookmarkService
from fuze_bench.pipeline.settings import Settings

_SENTENCE = "<p>Suspension bridge number {} hangs from steel cables that run over two tall towers.</p>"


def page(paragraphs: int, title: str = "On bridges") -> bytes:
    text = "".join(_SENTENCE.format(n) for n in range(paragraphs))
    return f"<title>{title}</title><article><h1>{title}</h1>{text}</article>".encode()


@pytest.fixture
def pipeline(any_database: Settings) -> Iterator[Pipeline]:
    opened = Pipeline(replace(any_database, retry_intervals_s=()))
    yield opened
    opened.close()


def saved(pipeline: Pipeline, url: str, **more: str) -> int:
    new = NewBookmark(user_id=1, url=url, canonical_url=url, **more)  # type: ignore[arg-type]
    return pipeline.store.save([new])[0].bookmark.id


def found(pipeline: Pipeline, bookmark_id: int) -> Bookmark:
    bookmark = pipeline.store.get(bookmark_id)
    assert bookmark is not None
    return bookmark


def processed_again(pipeline: Pipeline, bookmark_id: int) -> Bookmark:
    [again] = pipeline.store.reprocess([bookmark_id], "low")
    assert (again.status, again.queue) == (Status.PENDING, "low")
    pipeline.process([bookmark_id])
    return found(pipeline, bookmark_id)


def test_better_text_replaces_what_is_stored(pipeline: Pipeline, origin: Origin) -> None:
    bookmark_id = saved(pipeline, origin.put("/put/a", page(10)))
    pipeline.process([bookmark_id])
    before = found(pipeline, bookmark_id)
    origin.put("/put/a", page(12, "More on bridges"))
    after = processed_again(pipeline, bookmark_id)
    assert (after.status, after.title, after.generation, after.note) == (
        Status.PROCESSED,
        "More on bridges",
        2,
        None,
    )
    assert (after.word_count or 0) > (before.word_count or 0)


@pytest.mark.parametrize(
    ("status", "body", "reason"),
    [
        (200, page(1, "Bridges"), Reason.LESS_TEXT),
        (200, page(1, "Just a moment"), Reason.BLOCKED),
        (200, b"", Reason.EMPTY_PAGE),
        (200, b"<html><body><div></div></body></html>", Reason.NO_TEXT),
        (403, page(12), Reason.FORBIDDEN),
        (404, page(12), Reason.NOT_FOUND),
        (500, page(12), Reason.SERVER_ERROR),
    ],
)
def test_less_never_replaces_more(
    status: int, body: bytes, reason: Reason, pipeline: Pipeline, origin: Origin
) -> None:
    bookmark_id = saved(pipeline, origin.put("/put/a", page(10)))
    pipeline.process([bookmark_id])
    before, content = found(pipeline, bookmark_id), pipeline.store.content(bookmark_id)
    origin.put("/put/a", body, status=status)
    after = processed_again(pipeline, bookmark_id)
    assert after.note is not None
    assert (after.note.reason, after.note.http_status) == (reason, status)
    assert after.note.at == after.done_at
    kept = (
        "status", "title", "summary", "keywords", "word_count", "content_hash", "http_status", "reason", "durations_ms"
    )  # fmt: skip
    assert {name: getattr(after, name) for name in kept} == {name: getattr(before, name) for name in kept}
    assert pipeline.store.content(bookmark_id) == content
    origin.put("/put/a", page(10))
    assert processed_again(pipeline, bookmark_id).note is None


def test_while_it_is_tried_again_the_stored_text_is_there(any_database: Settings, origin: Origin) -> None:
    pipeline = Pipeline(any_database)
    bookmark_id = saved(pipeline, origin.put("/put/a", page(10)))
    pipeline.process([bookmark_id])
    origin.put("/put/a", b"", status=503)
    after = processed_again(pipeline, bookmark_id)
    assert (after.status, after.title, after.http_status, after.reason) == (
        Status.PENDING,
        "On bridges",
        200,
        None,
    )
    assert after.note is not None
    assert (after.note.reason, after.note.http_status) == (Reason.SERVER_ERROR, 503)
    pipeline.close()


def test_a_page_that_kills_its_worker_keeps_its_text(pipeline: Pipeline, origin: Origin) -> None:
    bookmark_id = saved(pipeline, origin.put("/put/a", page(10)))
    pipeline.process([bookmark_id])
    pipeline.store.reprocess([bookmark_id], "low")
    for _ in range(2):
        pipeline.store.claim([bookmark_id], 15)
        pipeline.store.note_death(process_name(), "signal 9")
        pipeline.store.take_back_expired()
    after = found(pipeline, bookmark_id)
    assert (after.status, after.title) == (Status.PROCESSED, "On bridges")
    assert after.note is not None
    assert after.note.reason is Reason.KILLED_WORKER
    assert "signal 9" in after.note.error


def test_what_the_user_said_wins(pipeline: Pipeline, origin: Origin) -> None:
    url = origin.put("/put/a", page(10))
    bookmark_id = saved(pipeline, url, title="My name", description="My words")
    pipeline.process([bookmark_id])
    origin.put("/put/a", page(12, "Another name"))
    after = processed_again(pipeline, bookmark_id)
    assert (after.title, after.description) == ("My name", "My words")


def test_what_waits_or_is_at_work_is_not_begun_again(pipeline: Pipeline, origin: Origin) -> None:
    bookmark_id = saved(pipeline, f"{origin.url}/page/1")
    assert pipeline.store.reprocess([bookmark_id], "low") == []
    pipeline.store.claim([bookmark_id], 15)
    assert pipeline.store.reprocess([bookmark_id], "low") == []
    assert found(pipeline, bookmark_id).generation == 1


def test_cancelled_in_the_middle(pipeline: Pipeline, origin: Origin) -> None:
    bookmark_id = saved(pipeline, f"{origin.url}/page/1")
    [claim] = pipeline.store.claim([bookmark_id], 15)
    [cancelled] = pipeline.store.cancel([bookmark_id])
    assert (cancelled.status, cancelled.reason) == (Status.FAILED, Reason.CANCELLED)
    pipeline.store.release([claim])
    assert pipeline.process([bookmark_id]) == {bookmark_id: None}
    assert found(pipeline, bookmark_id).status is Status.FAILED
    assert pipeline.store.cancel([bookmark_id]) == []


def test_failed_ones_are_found_by_reason_and_time(pipeline: Pipeline, origin: Origin) -> None:
    ids = [saved(pipeline, f"{origin.url}/status/{code}") for code in (404, 401, 410)]
    saved(pipeline, f"{origin.url}/page/1")
    pipeline.process(ids)
    assert pipeline.store.failed() == ids
    assert pipeline.store.failed(reason=Reason.NOT_FOUND) == [ids[0], ids[2]]
    ended_s = found(pipeline, ids[2]).done_at or 0
    assert pipeline.store.failed(since_s=ended_s) == ids
    assert pipeline.store.failed(since_s=ended_s + 1) == []


def test_deleted_in_the_middle_of_its_job(
    service: BookmarkService, settings: Settings, origin: Origin, start_worker: StartWorker
) -> None:
    """The job ends quietly: it has not failed, and nothing comes back."""
    [result] = service.save([service.check(user_id=1, url=f"{origin.url}/slow/1000/1")])
    with start_worker(settings) as worker:
        wait_until(lambda: origin.hits("/slow/1000/1") == 1, what="the job to begin")
        assert service.delete(result.bookmark.id, user_id=1)
        job = Job.fetch(
            result.job.id, connection=connect(settings.redis_url or ""), serializer=JSONSerializer
        )
        wait_until(lambda: job.get_status().value == "finished", what="the job to end")
        log = worker.log_tail(1_000)
    assert service.store.get(result.bookmark.id) is None
    assert "Traceback" not in log
    assert "failed" not in log


def test_over_http(settings: Settings, origin: Origin, start_worker: StartWorker) -> None:
    with running_api(settings) as url:
        client = Client(url)
        origin.put("/put/a", b"", status=404)
        saved_id = client.save(f"{origin.url}/put/a").json["bookmark"]["id"]
        path = f"/api/bookmarks/{saved_id}"
        waiting = client.send("POST", f"{path}/reprocess")
        assert (waiting.status, waiting.json["message"]) == (202, "Bookmark is being processed already")
        assert "no worker listens to the queue 'default'" in waiting.json["warning"]
        with start_worker(settings):
            wait_until(lambda: client.get(path).json["status"] == "failed", what="it to fail")
            others = (f"{origin.url}/page/{n}" for n in range(1_000))
            wait_until(lambda: "warning" not in client.save(next(others)).json, what="the worker to be seen")
            origin.put("/put/a", page(10))
            again = client.send("POST", f"{path}/reprocess")
            assert (again.status, again.json["job"]["id"]) == (202, f"bookmark-{saved_id}-2")
            assert (again.json["job"]["queue"], again.json["job"]["mode"]) == ("low", "rq")
            assert "warning" not in again.json
            wait_until(lambda: client.get(path).json["status"] == "processed", what="it to be done")
        assert client.send("DELETE", path).status == 204
        for method, where in (("DELETE", path), ("GET", path), ("POST", f"{path}/reprocess")):
            assert_problem(client.send(method, where), 404)
        wrong = client.send("PUT", path)
        assert_problem(wrong, 405)
        assert set(wrong.headers["allow"].split(", ")) == {"GET", "HEAD", "DELETE"}


def test_a_deleted_bookmark_leaves_no_job(settings: Settings) -> None:
    with running_api(settings) as url:
        client = Client(url)
        saved_id = client.save("https://example.org/a").json["bookmark"]["id"]
        assert queued(settings)["default"] == [f"bookmark-{saved_id}-1"]
        client.send("DELETE", f"/api/bookmarks/{saved_id}")
        assert queued(settings)["default"] == []


def run(settings: Settings, *arguments: str) -> tuple[int, str]:
    done = CliRunner().invoke(app, arguments, env=settings.to_mapping())
    return done.exit_code, done.output


def test_retry_from_the_command_line(service: BookmarkService, settings: Settings, origin: Origin) -> None:
    urls = [f"{origin.url}/status/{code}" for code in (404, 401, 410, 403)]
    results = service.save([service.check(user_id=1, url=url) for url in urls])
    pipeline = Pipeline(replace(settings, retry_intervals_s=()))
    pipeline.process([result.bookmark.id for result in results])
    pipeline.close()
    assert run(settings, "retry", "--failed", "--dry-run") == (0, "4 would be processed again\n")
    assert run(settings, "retry", "--failed", "--reason", "unauthorized", "--dry-run") == (
        0,
        "1 would be processed again\n",
    )
    assert run(settings, "retry", "--failed", "--since", "2100-01-01", "--dry-run")[1].startswith("0 ")
    code, output = run(settings, "retry", "--failed", "--reason", "not_found", "--since", "1h")
    assert (code, output.splitlines()) == (
        0,
        [
            "2 of 2 failed bookmarks are on their way again, on the low queue",
            "warning    no worker listens to the queue 'low': start one with `fuze-bench worker`",
        ],
    )
    assert queued(settings)["low"] == [f"bookmark-{n}-2" for n in (1, 3)]
    with connect(settings.redis_url or "") as client:
        client.delete("rq:job:bookmark-1-1")  # as Redis does a day after its end
    forgotten = CliRunner().invoke(app, ["status", "bookmark-1-1"], env=settings.to_mapping())
    assert "taken up again by bookmark-1-2" in str(forgotten.exception)


def test_retry_shows_how_far_it_is(service: BookmarkService, settings: Settings, origin: Origin) -> None:
    """On a terminal, and what it prints stays clean."""
    results = service.save([service.check(user_id=1, url=f"{origin.url}/status/404")])
    pipeline = Pipeline(settings)
    pipeline.process([result.bookmark.id for result in results])
    pipeline.close()
    ours, theirs = pty.openpty()
    done = subprocess.run(
        [sys.executable, "-m", "fuze_bench.cli", "retry", "--failed"],
        env={**os.environ, **settings.to_mapping(), "TERM": "xterm", "COLUMNS": "120"},
        stdout=subprocess.PIPE,
        stderr=theirs,
        text=True,
        timeout=60,
        check=True,
    )
    os.close(theirs)
    shown = b""
    with contextlib.suppress(OSError):  # the end of a terminal that nobody holds any more
        while part := os.read(ours, 4096):
            shown += part
    os.close(ours)
    assert done.stdout == "1 of 1 failed bookmarks are on their way again, on the low queue\n"
    assert b"sending" in shown
    assert b"100%" in shown


def test_retry_while_redis_goes_away(
    service: BookmarkService, settings: Settings, private_redis: PrivateRedis, origin: Origin
) -> None:
    """It says what is not on the queue; whoever looks after lost jobs sends that on."""
    new = [service.check(user_id=1, url=f"{origin.url}/status/404?{n}") for n in range(3)]
    pipeline = Pipeline(settings)
    pipeline.process([result.bookmark.id for result in service.save(new)])
    private_redis.stop()
    done = CliRunner().invoke(app, ["retry", "--failed"], env=settings.to_mapping())
    pipeline.close()
    assert "0 of 3 failed bookmarks are on their way again" in done.output
    assert isinstance(done.exception, QueueUnavailableError)
    assert "3 more wait in the database" in str(done.exception)
    assert service.store.counts()["pending"] == 3


def test_retry_leaves_what_is_done_meanwhile_alone(pipeline: Pipeline, origin: Origin) -> None:
    done, failed = saved(pipeline, f"{origin.url}/page/1"), saved(pipeline, f"{origin.url}/status/404")
    pipeline.process([done, failed])
    assert [each.id for each in pipeline.store.reprocess([done, failed], "low", only_failed=True)] == [failed]


def test_cancel_from_the_command_line(service: BookmarkService, settings: Settings) -> None:
    service.save([service.check(user_id=1, url=f"https://example.org/{n}") for n in range(2)])
    code, output = run(settings, "cancel", "1", "bookmark-2-1", "7")
    assert (code, output.splitlines()) == (
        1,
        ["bookmark 1 cancelled", "bookmark 2 cancelled", "bookmark 7 is not known"],
    )
    assert queued(settings)["default"] == []
    assert run(settings, "cancel", "1") == (1, "bookmark 1 was failed already\n")


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["retry"], "Missing option '--failed'"),
        (["retry", "--failed", "--since", "yesterday"], "'yesterday' is not a time"),
        (["retry", "--failed", "--reason", "nonsense"], "'nonsense' is not one of"),
        (["cancel", "0x1"], "'0x1' is not a bookmark"),
    ],
)
def test_wrong_words_are_refused(arguments: list[str], says: str, settings: Settings) -> None:
    code, output = run(settings, *arguments)
    assert code == 2
    assert says in output
