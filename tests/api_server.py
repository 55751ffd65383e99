"""The real API on a port of its own: in a thread of this process, or as a process that can be measured."""

from __future__ import annotations

import json
import os
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import uvicorn
from conftest import wait_until
from nursery import nursery
from rq import Queue
from rq.serializers import JSONSerializer

from fuze_bench.pipeline import process
from fuze_bench.pipeline.api import create_app
from fuze_bench.pipeline.redis_server import PrivateRedis, connect
from fuze_bench.pipeline.settings import QUEUES, Settings
from fuze_bench.pipeline.store import Store
from fuze_bench.processes import Child

QUICK_SAVE = "/api/bookmarks/quick-save"


@contextmanager
def running_api(settings: Settings) -> Iterator[str]:
    """The API in a thread; its base URL, without a slash at the end."""
    listener = socket.create_server(("127.0.0.1", 0), backlog=256)
    server = uvicorn.Server(
        uvicorn.Config(create_app(settings), log_config=None, access_log=False, timeout_graceful_shutdown=5)
    )
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, name="api")
    thread.start()
    try:
        wait_until(lambda: server.started or not thread.is_alive(), what="the API to start")
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join()
        listener.close()
        # Its fallback may have made the process's pipeline, over a store that is closed now.
        process.install_pipeline(None)


@contextmanager
def api_for_many_tests(folder: Path) -> Iterator[Client]:
    """An API with a Redis of its own, for tests that leave nothing behind."""
    with (
        PrivateRedis(folder / "redis") as server,
        running_api(Settings(data_dir=folder, redis_url=server.url, embedding_model="off")) as base_url,
    ):
        yield Client(base_url)


@contextmanager
def api_process(settings: Settings, log: Path) -> Iterator[tuple[str, Child]]:
    """The API as a process of its own: its base URL and the process."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    environment = {**os.environ, **settings.to_mapping()}
    with nursery().start("api", "nursery:serve_api", [str(port)], environment, log) as child:
        child.wait_ready(lambda: _accepts(port), timeout_s=60)
        yield f"http://127.0.0.1:{port}", child


def _accepts(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


@dataclass
class Answer:
    """What came back: status, headers in lower case, and the body as JSON says it (None if it is none)."""

    status: int
    headers: dict[str, str]
    raw: bytes
    json: Any = field(init=False)

    def __post_init__(self) -> None:
        self.json = json.loads(self.raw) if "json" in self.headers.get("content-type", "") else None


@dataclass(frozen=True)
class Client:
    """Sends requests as they are, without a library's corrections of paths, bodies and headers."""

    base_url: str

    @property
    def address(self) -> tuple[str, int]:
        host, _, port = self.base_url.removeprefix("http://").partition(":")
        return host, int(port)

    def send(self, method: str, path: str, body: Any = None, headers: dict[str, str] | None = None) -> Answer:
        connection = HTTPConnection(*self.address, timeout=120)
        try:
            connection.request(method, path, body=body, headers=headers or {})
            response = connection.getresponse()
            return Answer(response.status, {k.lower(): v for k, v in response.getheaders()}, response.read())
        finally:
            connection.close()

    def is_answered(self) -> bool:
        """Whether an API is there and lives."""
        try:
            return self.get("/healthz").status == 200
        except OSError:
            return False

    def get(self, path: str) -> Answer:
        return self.send("GET", path)

    def post(self, body: object, content_type: str | None = "application/json") -> Answer:
        """quick-save of `body`: bytes as they are, anything else as JSON."""
        sent = body if isinstance(body, bytes) else json.dumps(body).encode()
        headers = {} if content_type is None else {"Content-Type": content_type}
        return self.send("POST", QUICK_SAVE, sent, headers)

    def save(self, url: str, **more: object) -> Answer:
        return self.post({"url": url, **more})


def queued(settings: Settings) -> dict[str, list[str]]:
    """The ids of the jobs that wait on each queue in Redis."""
    with connect(settings.redis_url or "") as client:
        return {name: Queue(name, connection=client, serializer=JSONSerializer).job_ids for name in QUEUES}


def kept(settings: Settings) -> tuple[dict[str, int], dict[str, list[str]]]:
    """All that a save leaves behind: bookmarks in the database, jobs in Redis."""
    with Store(settings) as store:
        return store.counts(), queued(settings)


def assert_problem(answer: Answer, status: int, *, field: str | None = None, says: str = "") -> None:
    """`answer` is a problem of RFC 9457 with this status, for this field, and its detail contains `says`."""
    assert (answer.status, answer.headers.get("content-type")) == (status, "application/problem+json")
    assert answer.json["status"] == status
    assert answer.json["title"]
    assert answer.json.get("field") == field, answer.json
    assert says in answer.json["detail"]
    assert len(answer.json["detail"]) < 1_000
    assert b"Traceback" not in answer.raw
