"""Logs: one line an event, text or JSON, with the ids that tie lines together, and no secret in any of them."""

from __future__ import annotations

import json
import logging
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from api_server import Client
from conftest import StartWorker, wait_until
from nursery import nursery
from rq import Queue
from rq.serializers import JSONSerializer

from fuze_bench import logs
from fuze_bench.lab.parts.origin import Origin
from fuze_bench.pipeline.redis_server import PrivateRedis, connect
from fuze_bench.pipeline.service import BookmarkService
from fuze_bench.pipeline.settings import Settings
from fuze_bench.processes import Child, free_port

TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z")


@contextmanager
def api_command(settings: Settings, log: Path, *options: str) -> Iterator[tuple[Client, Child]]:
    port = free_port()
    argv, environment = ["api", "--port", str(port), *options], settings.environment(os.environ)
    with nursery().start("api", "fuze_bench.cli:main", argv, environment, log) as child:
        child.wait_ready(lambda: "the API is ready" in child.log_tail(), timeout_s=60)
        yield Client(f"http://127.0.0.1:{port}"), child


def parsed(text: str) -> list[dict[str, Any]]:
    """Every line as JSON, with what every line has."""
    lines = [json.loads(line) for line in text.splitlines()]
    for line in lines:
        assert TIME.fullmatch(line["time"])
        datetime.fromisoformat(line["time"])
        assert line["level"] in ("info", "warning", "error", "critical")
        assert line["logger"]
        assert line["message"]
        assert "\n" not in line["message"]
    return lines


def of_events(lines: list[dict[str, Any]], bookmark: int) -> list[dict[str, Any]]:
    return [line for line in lines if line.get("bookmark") == bookmark]


def test_the_api_says_what_was_saved(settings: Settings, tmp_path: Path) -> None:
    with api_command(settings, tmp_path / "api.log", "--log-format", "json") as (client, api):
        for path in ("1", "2", "1"):
            client.save(f"https://example.org/{path}?token=very-secret")
        api.stop()
        text = api.log_path.read_text()
    saved = [line for line in parsed(text) if "bookmark" in line]
    assert [(line["job"], line["message"]) for line in saved] == [
        ("bookmark-1-1", "bookmark 1 saved (default, rq)"),
        ("bookmark-2-1", "bookmark 2 saved (default, rq)"),
        ("bookmark-1-1", "bookmark 1 saved again (default, rq)"),
    ]
    assert {(line["user"], line["queue"], line["mode"]) for line in saved} == {(1, "default", "rq")}
    assert "very-secret" not in text


@pytest.mark.parametrize("kind", ["simple", "fork", "spawn", "batch"])
def test_every_line_is_json_and_says_whose_it_is(
    kind: str, service: BookmarkService, settings: Settings, origin: Origin, start_worker: StartWorker
) -> None:
    urls = [f"{origin.url}{path}?token=very-secret" for path in ("/page/1", "/status/404", "/status/500")]
    service.save([service.check(user_id=1, url=url) for url in urls])
    with start_worker(settings, "--kind", kind, "--burst", "--name", "w", "--log-format", "json", wait=False) as worker:  # fmt: skip
        assert worker.wait(60) == 0
        text = worker.log_path.read_text()
    lines = parsed(text)
    outcomes = {1: "bookmark 1 processed", 2: "bookmark 2 failed", 3: "bookmark 3 to be tried again"}
    for number, outcome in outcomes.items():
        begin, end = of_events(lines, number)  # these two and no other line about the same
        assert begin["message"] == f"bookmark {number} claimed (default, attempt 1)"
        assert end["message"].startswith(outcome)
        assert end["duration_ms"] > 0
        for line in (begin, end):
            assert line["job"] == f"bookmark-{number}-1"
            assert (line["worker"], line["user"], line["queue"], line["attempt"]) == ("w", 1, "default", 1)
            assert line["logger"].startswith("fuze_bench.pipeline")
    assert of_events(lines, 2)[1]["reason"] == "not_found"
    assert (of_events(lines, 3)[1]["reason"], of_events(lines, 3)[1]["retry_s"]) == ("server_error", 60.0)
    assert [line["message"] for line in lines if "Listening on" in line["message"]] == [
        "worker w is ready. Listening on high, default, low"
    ]
    assert "remaining" not in text
    assert "very-secret" not in text


def test_text_stays_readable_and_names_the_worker(
    service: BookmarkService, settings: Settings, origin: Origin, start_worker: StartWorker
) -> None:
    service.save([service.check(user_id=1, url=origin.url + path) for path in ("/page/1", "/status/404")])
    with start_worker(settings, "--burst", "--name", "w", wait=False) as worker:
        assert worker.wait(60) == 0
        lines = worker.log_path.read_text().splitlines()
    assert all(re.match(r"\d\d:\d\d:\d\d INFO \S+ \S", line) for line in lines)
    shown = [line.split(maxsplit=3)[3] for line in lines]
    assert shown[0] == "worker w is ready. Listening on high, default, low"
    assert shown[1:3] == [f"bookmark {n} claimed (default, attempt 1) [w]" for n in (1, 2)]
    assert re.fullmatch(r"bookmark 1 processed in \d+ ms \[w\]", shown[3])
    assert shown[4] == "bookmark 2 failed: The page does not exist (any more). (HTTP 404) [w]"
    assert len(shown) == 6, shown  # the last: it is done


def test_what_an_operator_does_is_logged_where_programs_read(
    settings: Settings, service: BookmarkService
) -> None:
    service.save([service.check(user_id=1, url="https://example.org/1")])

    def run(log_format: str, *arguments: str) -> tuple[str, str]:
        environment = settings.environment(os.environ) | {"FUZE_LOG_FORMAT": log_format}
        done = nursery().run("fuze_bench.cli:main", arguments, environment)
        return done.stdout, done.stderr

    assert run("text", "cancel", "1") == ("bookmark 1 cancelled\n", "")
    answer, lines = run("json", "retry", "--failed")
    assert answer.startswith("1 of 1 failed bookmarks")
    assert [line["message"] for line in of_events(parsed(lines), 1)] == ["bookmark 1 to be processed again"]
    answer, lines = run("json", "cancel", "1")
    [line] = of_events(parsed(lines), 1)
    assert (line["message"], line["job"]) == ("bookmark 1 cancelled", "bookmark-1-2")
    answer, lines = run("json", "save", "https://example.org/2", "no-address")
    assert answer.startswith("saved")
    assert {"bookmark 2 saved (default, rq)"} <= {line["message"] for line in parsed(lines)}
    assert [line["level"] for line in parsed(run("json", "status", "nonsense")[1])] == ["error"]


@pytest.mark.parametrize("kind", ["simple", "fork", "batch"])
def test_a_line_that_knows_nothing_of_its_job_and_an_exception_say_whose_they_are(
    kind: str, settings: Settings, start_worker: StartWorker
) -> None:
    with connect(settings.redis_url or "") as connection:
        queue = Queue("default", connection=connection, serializer=JSONSerializer)
        queue.enqueue("logging.warning", "said by somebody's own function", job_id="their-own")
        queue.enqueue("fuze_bench.pipeline.urls.no_such_task", job_id="bookmark-7-1")
        with start_worker(settings, "--burst", "--kind", kind, "--log-format", "json", wait=False) as worker:
            assert worker.wait(60) == 0
            lines = parsed(worker.log_path.read_text())
    [said] = [each for each in lines if each["message"].startswith("said by")]
    assert (said["job"], said["queue"], "bookmark" in said) == ("their-own", "default", False)
    [line] = [each for each in lines if each["level"] == "error"]
    assert line["exception"].startswith("Traceback (most recent call last):\n")
    assert "no_such_task" in line["exception"]
    assert (line["job"], line["bookmark"], line["queue"]) == ("bookmark-7-1", 7, "default")


def test_loading_the_model_is_said(settings: Settings, start_worker: StartWorker) -> None:
    environment = settings.environment(os.environ) | {"FUZE_EMBEDDING_MODEL": "/no/such/model"}
    with start_worker(
        Settings.from_mapping(environment), "--burst", "--log-format", "json", wait=False
    ) as worker:
        assert worker.wait(60) == 0
        messages = [line["message"] for line in parsed(worker.log_path.read_text())]
    assert messages[0] == "loading the model (/no/such/model)"
    assert any(re.fullmatch(r"model unavailable after \d+\.\d s", message) for message in messages)


def test_an_error_at_start_is_json_too(data_dir: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "fuze_bench.pipeline.worker", "--log-format", "json"],
        env={**os.environ, "FUZE_DATA_DIR": str(data_dir), "REDIS_URL": "redis://:very-secret@127.0.0.1:1/0"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    [line] = parsed(done.stderr)
    assert (done.returncode, line["level"]) == (1, "error")
    assert "Redis cannot be used" in line["message"]
    assert "very-secret" not in done.stderr


@pytest.mark.parametrize(
    ("options", "environment", "message"),
    [
        (["--log-format", "xml"], {}, "'xml' is not one of 'text', 'json'"),
        ([], {"FUZE_LOG_FORMAT": "xml"}, "FUZE_LOG_FORMAT='xml': use text or json"),
    ],
)
@pytest.mark.parametrize("command", ["worker", "api", "up"])
def test_an_unknown_format_is_one_line(
    command: str, options: list[str], environment: dict[str, str], message: str, data_dir: Path
) -> None:
    environment = {**os.environ, "FUZE_DATA_DIR": str(data_dir), **environment}
    done = nursery().run("fuze_bench.cli:main", [command, *options], environment)
    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == 1
    assert message in done.stderr


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("redis://:p@h:6379/0 refused", "redis://***@h:6379/0 refused"),
        ("postgresql+psycopg://u:p%40q@h/d", "postgresql+psycopg://***@h/d"),
        ("Max retries exceeded with url: /a?key=abc&b=1 (Caused", "Max retries exceeded with url: /a?*** (Caused"),
        ("'https://example.org/x?access_token=abc'", "'https://example.org/x?***'"),
        ("https://example.org/x?8f3c1d", "https://example.org/x?***"),
        ("got https://example.org/x?token%3Dabc, twice", "got https://example.org/x?***, twice"),
        ("<https://example.org/?a,b=s(3)'c>", "<https://example.org/?***>"),
        ("https://example.org/?foo:bar=secret is old", "https://example.org/?*** is old"),
        ("//example.org/?$x=secret", "//example.org/?***"),
        ("/a?8f3c1d", "/a?***"),
        ("/a/?$x=secret", "/a/?***"),
        ("wss://[::1]:8/x?8f3c1d\nand more", "wss://[::1]:8/x?***\nand more"),
        ("https://example.org/x?a=secret: refused", "https://example.org/x?***: refused"),
        ("https://example.org: why? because", "https://example.org: why? because"),
        ("https://example.org/what?", "https://example.org/what?"),
        ("host=h password=abc user=u", "host=h password=*** user=u"),
        ("{'api_key': 'abc', 'n': 1}", "{'api_key': ***', 'n': 1}"),
        ("AUTH_TOKEN=abc", "AUTH_TOKEN=***"),
        ("https://example.org/@somebody/post", "https://example.org/@somebody/post"),
        ("bookmark 1 failed: who? nobody = 3: x@y", "bookmark 1 failed: who? nobody = 3: x@y"),
    ],
)  # fmt: skip
def test_secrets_are_left_out(text: str, shown: str) -> None:
    assert logs.without_secrets(text) == shown


def test_fields_of_a_job_reach_lines_that_know_nothing_of_it(tmp_path: Path) -> None:
    code = """
import logging, sys, threading, warnings
from fuze_bench import logs
logs.configure("json")
logs.configure("json")
logs.name_worker("w")
with logs.during({"job": "bookmark-1-1", "bookmark": 1}):
    logging.getLogger("elsewhere").warning("half a surrogate pair \\ud800, a line\\nbreak and %s", "ü")
warnings.warn("old")
thread = threading.Thread(target=lambda: 1 / 0)
thread.start(); thread.join()
raise SystemError("password=very-secret")
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    inside, warning, in_thread, last = (json.loads(line) for line in done.stderr.splitlines())
    assert (inside["job"], inside["bookmark"], inside["worker"]) == ("bookmark-1-1", 1, "w")
    assert inside["message"] == "half a surrogate pair \ud800, a line\nbreak and ü"
    assert "job" not in warning
    assert "old" in warning["message"]
    assert "ZeroDivisionError" in in_thread["exception"]
    assert last["level"] == "critical"
    assert last["exception"].endswith("SystemError: password=***")


def test_configuring_leaves_other_handlers_alone() -> None:
    before = list(logging.getLogger().handlers)
    code = "import logging; from fuze_bench import logs; h = logging.NullHandler(); logging.getLogger().addHandler(h); logs.configure(); print(h in logging.getLogger().handlers)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "True\n"
    assert logging.getLogger().handlers == before


def test_up_adds_to_its_logs_unless_they_are_large(data_dir: Path, private_redis: PrivateRedis, tmp_path: Path) -> None:  # fmt: skip
    folder = data_dir / "up" / "logs"
    folder.mkdir(parents=True)
    (folder / "worker.log").write_text("from before\n")
    (folder / "origin.log").write_text("ready http://127.0.0.1:1\n")
    with (folder / "api.log").open("w") as large:
        large.truncate(10 * 1024 * 1024 + 1)
    settings = Settings(data_dir=data_dir / "up", redis_url=private_redis.url, embedding_model="off")
    argv = [sys.executable, "-m", "fuze_bench.cli", "up", "--port", "0", "--workers", "1", "--log-format", "json"]  # fmt: skip
    with Child("up", argv, tmp_path / "up.log", environment=settings.environment(os.environ)) as up:
        up.wait_ready(lambda: "workers: 1" in up.log_tail(), timeout_s=60)
        api, site = re.findall(r"http://127\.0\.0\.1:\d+", up.log_tail(50))[:2]
        assert site != "http://127.0.0.1:1"
        Client(api).save(f"{site}/page/0")
        wait_until(
            lambda: "bookmark 1 processed" in (folder / "worker.log").read_text(), what="the log to tell"
        )
    before, *lines = (folder / "worker.log").read_text().splitlines()
    assert before == "from before"
    assert parsed("\n".join(lines))
    assert (folder / "api.log").stat().st_size < 100_000
    assert parsed((folder / "api.log").read_text())
