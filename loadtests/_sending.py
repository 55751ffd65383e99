"""Sending one request: what Locust is told of it, and the line in our own log, which is not rounded.

A log line is one that `fuze_bench.lab.load.request_log` reads: the same as our lean sender writes.
"""

from locust import FastHttpUser  # isort: skip  # first: gevent patches what comes after

import json
import os
import time
from typing import Any

import gevent
from _requests import Request
from locust.contrib.fasthttp import FastResponse

_KINDS = (
    (ConnectionRefusedError, "refused"),
    (TimeoutError, "timeout"),
    ((ConnectionResetError, BrokenPipeError), "reset"),
)


class RequestLog:
    """JSON lines, added by every process of a run to one file; nothing is written before it is opened."""

    def __init__(self) -> None:
        self._file: int | None = None

    def open(self, path: str, *, anew: bool) -> None:
        """Raises OSError."""
        if self._file is not None:
            os.close(self._file)
        self._file = os.open(
            path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | (os.O_TRUNC if anew else 0), 0o644
        )

    def write(self, **values: Any) -> None:
        """One line, in one piece."""
        if self._file is not None:
            os.write(self._file, json.dumps(values).encode() + b"\n")


log = RequestLog()


class ApiUser(FastHttpUser):
    """Somebody who uses the API, by default the one that `fuze-bench up` starts."""

    abstract = True
    host = "http://127.0.0.1:8000"
    network_timeout = connection_timeout = 30.0

    def on_start(self) -> None:
        # An answer that leads elsewhere is an answer.
        self.client.client.redirect_response_codes = frozenset()
        self._sent = 0

    def send(
        self,
        request: Request,
        *,
        job: int | None = None,
        intended_ns: int | None = None,
        limited: bool = False,
    ) -> FastResponse:
        """Send it, and have its latency from the intended time (default: now) counted.

        What went right is counted under the request's name, so that its quantiles hold nothing else; failures are
        counted beside it, as is the time from sending to the answer where sending was intended earlier.
        """
        self._sent += 1
        sent_ns = time.monotonic_ns()
        known = {
            "job": job or self._sent,
            "name": request.name,
            "intended_ns": intended_ns or sent_ns,
            "sent_ns": sent_ns,
            "limited": limited,
        }
        try:
            response = self.client.request(
                request.method,
                request.path,
                name=request.name,
                data=request.body,
                headers=_headers(request),
                catch_response=True,
            )
        except gevent.GreenletExit:
            log.write(**known, acknowledged_ns=None, outcome="unfinished")
            age_ms = (time.monotonic_ns() - known["intended_ns"]) / 1e6
            self._beside(request, "unfinished").log(age_ms, 0)
            raise
        acknowledged_ns = time.monotonic_ns()
        is_right = response.status_code in request.right
        with response:
            response.request_meta["response_time"] = (acknowledged_ns - known["intended_ns"]) / 1e6
            if is_right:
                response.success()
            else:
                response.request_meta["name"] = f"{request.name} (failed)"
                response.failure(_what_is_wrong(response))
        if is_right and intended_ns is not None:
            self._beside(request, "service time").log((acknowledged_ns - sent_ns) / 1e6, 0)
        log.write(
            **known,
            acknowledged_ns=acknowledged_ns,
            outcome="ok" if is_right else "failed",
            http_status=response.status_code or None,
            error=None if is_right else _error(response),
            **(_saved(response) if is_right else {}),
        )
        return response

    def _beside(self, request: Request, what: str) -> Any:
        """A line of Locust's statistics that is not part of the total."""
        return self.environment.stats.get(f"{request.name} ({what})", request.method)


def _headers(request: Request) -> dict[str, str]:
    typed = {} if request.body is None or not request.content_type else {"Content-Type": request.content_type}
    return {**typed, **request.headers}


def _error(response: FastResponse) -> str:
    """Why it failed, in the words of the log."""
    if response.status_code:
        return f"http_{response.status_code}"
    for kinds, word in _KINDS:
        if isinstance(response.error, kinds):
            return word
    return {"HTTPConnectionClosed": "closed", "HTTPParseError": "broken"}.get(
        type(response.error).__name__, "unreachable"
    )


def _what_is_wrong(response: FastResponse) -> str:
    if not response.status_code:
        return f"{_error(response)}: {response.error}"
    return f"{response.status_code}: {(response.text or '')[:200]}"


def _saved(response: FastResponse) -> dict[str, Any]:
    """What the answer to a save says."""
    if "json" not in (response.headers.get("content-type") or ""):
        return {}
    answer = response.json()
    if not isinstance(answer, dict) or "job" not in answer or "bookmark" not in answer:
        return {}
    bookmark, job = answer["bookmark"], answer["job"]
    return {
        "queue": bookmark["queue"],
        "bookmark_id": bookmark["id"],
        "job_id": job["id"],
        "mode": job["mode"],
        "was_duplicate": answer["wasDuplicate"],
    }
