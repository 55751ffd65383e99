"""`fuze-bench dashboard` in a real browser: queues, a finished and a failed job with its reason, and nothing run."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
from api_server import Client
from click.testing import CliRunner
from conftest import StartWorker, wait_until
from playwright.sync_api import Browser, expect
from rq import Callback, Queue
from rq.job import JobStatus
from rq.serializers import JSONSerializer

from fuze_bench.cli import app
from fuze_bench.lab.parts.origin import Origin
from fuze_bench.pipeline.redis_server import connect
from fuze_bench.pipeline.service import BookmarkService
from fuze_bench.pipeline.settings import Settings
from fuze_bench.processes import Child, free_port

pytest_plugins = ["browser"]
pytestmark = pytest.mark.browser


@contextmanager
def running_dashboard(settings: Settings, folder: Path) -> Iterator[Client]:
    """A client of the real command."""
    argv = [sys.executable, "-m", "fuze_bench.cli", "dashboard", "--port", str(free_port())]
    log = folder / "dashboard.log"
    with Child("dashboard", argv, log, environment=settings.environment(os.environ)) as child:
        client = Client(f"http://127.0.0.1:{argv[-1]}")

        def answers() -> bool:
            try:
                return client.get("/").status == 200
            except OSError:
                return False

        child.wait_ready(answers, timeout_s=60)
        yield client


@pytest.fixture
def dashboard(settings: Settings, tmp_path: Path) -> Iterator[Client]:
    with running_dashboard(settings, tmp_path) as client:
        yield client


@pytest.fixture(scope="module")
def empty_dashboard(shared_settings: Settings, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Client]:
    """One for many tests that change nothing."""
    with running_dashboard(shared_settings, tmp_path_factory.mktemp("dashboard")) as client:
        yield client


def test_it_shows_queues_and_jobs(
    dashboard: Client,
    service: BookmarkService,
    settings: Settings,
    origin: Origin,
    start_worker: StartWorker,
    browser: Browser,
) -> None:
    urls = [f"{origin.url}/page/1?<b>bold</b>&x=<img/src=x/onerror=alert(1)>", f"{origin.url}/status/404"]
    done, failed = service.save([service.check(user_id=1, url=url) for url in urls])
    with start_worker(replace(settings, retry_intervals_s=()), "--burst", wait=False) as worker:
        assert worker.wait(60) == 0
    page = browser.new_page()
    complaints: list[str] = []
    page.on("console", lambda message: complaints.append(message.text) if message.type == "error" else None)
    page.on("dialog", lambda dialog: (complaints.append(dialog.message), dialog.dismiss()))
    page.goto(f"{dashboard.base_url}/")
    row = page.get_by_role("row").filter(has_text="default")
    expect(row).to_be_visible(timeout=30_000)
    numbers = re.findall(r"\d+", row.inner_text())
    assert numbers == ["0", "0", "0", "0", "1", "1", "0"], "one finished, one failed"
    for result, words in ((done, "processed"), (failed, "The page does not exist (any more). (HTTP 404)")):
        page.goto(f"{dashboard.base_url}/0/view/job/{result.job.id}")
        expect(page.locator("#job-data")).to_contain_text(words, timeout=30_000)
        expect(page.locator("#job-data")).to_contain_text("process_bookmark_content_task")
    page.goto(f"{dashboard.base_url}/0/view/job/{done.job.id}")
    expect(page.locator("#job-data")).to_contain_text("<b>bold</b>", timeout=30_000)
    assert page.locator("#job-data img, #job-data b").count() == 0
    assert complaints == []
    page.close()


def test_a_failure_with_markup_emoji_and_50_kb_is_shown_as_text(
    dashboard: Client, settings: Settings, browser: Browser, start_worker: StartWorker
) -> None:
    """Any RQ user's job may end on the same queue; this one opens a file whose name, which is too long, is the reason."""
    hostile = "<b>bold</b><script>alert(1)</script> 🐘 " + "long " * 10_000
    with connect(settings.redis_url or "") as client:
        queue = Queue("default", connection=client, serializer=JSONSerializer)
        job = queue.enqueue("io.open", hostile)
        with start_worker(settings, "--burst", wait=False) as worker:
            assert worker.wait(60) == 0
        assert job.get_status() is JobStatus.FAILED
        page = browser.new_page()
        answer = page.goto(f"{dashboard.base_url}/0/view/job/{job.id}")
        assert answer is not None
        assert answer.status == 200
        data, reason = page.locator("#job-data"), page.locator("#job-data .exc_info")
        expect(reason).to_contain_text(
            "File name too long: '<b>bold</b><script>alert(1)</script> 🐘 ", timeout=30_000
        )
        assert len(reason.inner_text()) > 50_000
        expect(data.locator(".description-scroll")).to_contain_text("io.open('<b>bold</b><script>")
        assert data.locator("b, script").count() == 0
        page.close()


@pytest.mark.parametrize(
    ("method", "path", "headers", "status"),
    [
        ("GET", "/", {"Host": "evil.example"}, 421),
        ("GET", "/", {"Host": "localhost"}, 200),
        ("POST", "/queue/default/queued/empty", {"Sec-Fetch-Site": "cross-site"}, 403),
        ("POST", "/queue/default/queued/empty", {"Sec-Fetch-Site": "same-site"}, 403),
        ("POST", "/queue/default/queued/empty", {"Origin": "https://evil.example"}, 403),
        ("POST", "/queue/default/queued/empty", {"Origin": "http://127.0.0.1:1"}, 403),
        ("POST", "/queue/default/queued/empty", {"Origin": "null"}, 403),
        ("GET", "/requeue/default", {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "no-cors"}, 403),
        ("GET", "/requeue/default", {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate"}, 403),
        ("GET", "/", {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate"}, 200),
        ("GET", "/0/data/queues.json", {"Sec-Fetch-Site": "same-origin"}, 200),
    ],
)
def test_strangers_are_refused(
    method: str, path: str, headers: dict[str, str], status: int, empty_dashboard: Client
) -> None:
    assert empty_dashboard.send(method, path, headers=headers).status == status


def test_its_port_is_9181_unless_told() -> None:
    assert "[default: 9181" in CliRunner().invoke(app, ["dashboard", "--help"]).output


def test_looking_changes_nothing(dashboard: Client, service: BookmarkService, settings: Settings) -> None:
    """Not even a job that nobody works on any more, whose failure RQ would call back with a signal."""
    service.save([service.check(user_id=1, url="https://example.org/1")])
    with connect(settings.redis_url or "") as client:
        queue = Queue("default", connection=client, serializer=JSONSerializer)
        job = queue.enqueue("io.open", "x", job_id="gone", on_failure=Callback("fuze_bench.errors.one_line"))
        client.lrem(queue.key, 0, job.id)
        job.set_status(JobStatus.STARTED)
        client.zadd("rq:wip:default", {f"{job.id}:execution": 1})
        before = {key: client.dump(key) for key in client.keys("rq:*")}
        for path in (
            "/",
            "/0/data/queues.json",
            "/0/data/jobs/default/started/8/asc/1.json",
            f"/0/data/job/{job.id}.json",
            "/0/data/workers.json",
        ):
            wait_until(lambda path=path: dashboard.get(path).status == 200, what=path)
        [shown] = dashboard.get("/0/data/queues.json").json["queues"]
        assert (shown["count"], shown["started_job_registry_count"], shown["failed_job_registry_count"]) == (
            1,
            1,
            0,
        )
        assert dashboard.get(f"/0/data/job/{job.id}.json").json["status"] == "started"
        assert {key: client.dump(key) for key in client.keys("rq:*")} == before
