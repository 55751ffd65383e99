"""How much the senders can send: measured against a bare answerer on loopback, or against a server.

    python -m fuze_bench.lab.load.sender_ceiling

is the answerer: it takes any request and says at once what quick-save says.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import cast

import httptools
import uvloop

from fuze_bench.errors import LabError
from fuze_bench.lab.arrivals import Arrivals
from fuze_bench.lab.load.locust_driver import run_locust
from fuze_bench.lab.load.request_log import Sample, tally
from fuze_bench.lab.load.sender import Plan, PlannedRequest, send
from fuze_bench.processes import Child

_REQUESTS = 10_000
_LOCUST_REQUESTS = 2_000
_CONNECTIONS = 64
_DRAIN_S = 60.0
_PAGE = "http://127.0.0.1:8001/page/1"
_BODY = (
    b'{"message":"Bookmark saved","bookmark":{"id":1,"userId":1,"url":"http://127.0.0.1:8001/page/1","canonicalUrl":'
    b'"http://127.0.0.1:8001/page/1","status":"pending","queue":"default","generation":1},"processing":"background",'
    b'"wasDuplicate":false,"job":{"id":"bookmark-1-1","queue":"default","mode":"rq"}}'
)
_ANSWER = b"HTTP/1.1 201 Created\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n%s" % (
    len(_BODY),
    _BODY,
)


def measure_ceiling(folder: Path, base_url: str | None = None) -> float:
    """How many requests the lean sender sends and has answered in a second when all are due at once.

    `base_url`: a server that answers GET /healthz; None: the bare answerer, started and stopped here. What either
    side writes is in `folder`. Raises LabError if not all of them are answered.
    """
    if base_url is not None:
        return _measure(folder, base_url, PlannedRequest(intended_s=0, path="/healthz", method="GET"))
    with _answerer(folder) as url:
        return _measure(folder, url, PlannedRequest(intended_s=0, body={"url": _PAGE, "queue": "default"}))


def measure_locust_ceiling(folder: Path) -> float:
    """How many saves Locust sends and has answered in a second when all are due at once, by the bare answerer.

    What either side writes is in `folder`. Raises LabError if not all of them are answered.
    """
    backlog = Arrivals(law="backlog", burst_size=_LOCUST_REQUESTS)
    with _answerer(folder) as url:
        samples = run_locust("quick-save", url, backlog, folder, origin_url=url, drain_s=_DRAIN_S)
        return _rate_per_s(samples, _LOCUST_REQUESTS, url)


@contextmanager
def _answerer(folder: Path) -> Iterator[str]:
    """The base URL of the bare answerer."""
    folder.mkdir(parents=True, exist_ok=True)
    argv = [sys.executable, "-m", "fuze_bench.lab.load.sender_ceiling"]
    with Child("the answerer", argv, folder / "answerer.log") as child:
        child.wait_ready(lambda: child.log_tail().startswith("ready "), timeout_s=30)
        yield child.log_tail().split()[1]


def _measure(folder: Path, base_url: str, request: PlannedRequest) -> float:
    folder.mkdir(parents=True, exist_ok=True)
    plan = Plan(
        base_url=base_url,
        record=str(folder / "ceiling.jsonl"),
        requests=[request] * _REQUESTS,
        connections=_CONNECTIONS,
        drain_s=_DRAIN_S,
    )
    return _rate_per_s(send(plan, folder), _REQUESTS, base_url)


def _rate_per_s(samples: Sequence[Sample], asked: int, base_url: str) -> float:
    counts = tally(samples)
    if counts.ok < asked:
        raise LabError(f"{asked - counts.ok} of {asked} requests to {base_url} went wrong: {counts.errors}")
    begin_ns = min(sample.sent_ns or 0 for sample in samples)
    end_ns = max(sample.acknowledged_ns or 0 for sample in samples)
    return asked / (end_ns - begin_ns) * 1e9


class _Answerer(asyncio.Protocol):
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._parser = httptools.HttpRequestParser(self)

    def data_received(self, data: bytes) -> None:
        self._parser.feed_data(data)

    def on_message_complete(self) -> None:
        self._transport.write(_ANSWER)


async def _serve() -> None:
    server = await asyncio.get_running_loop().create_server(_Answerer, "127.0.0.1", 0)
    print(f"ready http://127.0.0.1:{server.sockets[0].getsockname()[1]}", flush=True)  # noqa: T201
    await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(_serve())
