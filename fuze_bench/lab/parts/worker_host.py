"""A process that loads the model once and forks the workers of one trial after another.

Loading it takes longer than most trials last. The host never runs the model, so that its forks may (see
`pipeline.embed`); each trial's workers are new processes with connections, names and memory of their own.

The protocol is a JSON object a line, on the host's standard input and output: `{"start": …}` is answered with
`{"pid": …}`, `{"poll": pid}` with `{"exit_code": …}` (null while it runs).
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from fuze_bench.errors import ServiceError
from fuze_bench.pipeline.settings import QUEUES, Kind, Settings, Strategy
from fuze_bench.processes import Child, die_with_parent

_POLL_S = 0.02


class WorkerHost:
    """The host as its user sees it. A context manager: leaving it ends the host, and with it what it still runs.

    `settings` decide which model is loaded; it is ready when the first workers are. Start it from a thread that
    lives as long as it should.
    """

    def __init__(self, settings: Settings, log_path: Path) -> None:
        log_path.parent.mkdir(parents=True, exist_ok=True)
        self._log_path = log_path
        self._lock = threading.Lock()
        with log_path.open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "fuze_bench.lab.parts.worker_host"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                env=settings.environment(os.environ),
                start_new_session=True,
                preexec_fn=die_with_parent,
                text=True,
            )

    def start(
        self,
        name: str,
        settings: Settings,
        kind: str,
        count: int,
        log_path: Path,
        *,
        queues: Sequence[str] = QUEUES,
        strategy: str = Strategy.STRICT,
    ) -> Child:
        """Fork workers as `fuze-bench worker` with these options would run them, logging to `log_path`.

        Waits for the host to have loaded the model. Raises ServiceError if the host is gone.
        """
        log_path.parent.mkdir(parents=True, exist_ok=True)
        log_path.touch()
        request = {
            "settings": settings.to_mapping(),
            "kind": kind,
            "count": count,
            "queues": list(queues),
            "strategy": strategy,
            "log": str(log_path.absolute()),
        }
        pid = self._ask({"start": request})["pid"]
        return Child.around(name, _Hosted(self, pid), log_path)

    def exit_code(self, pid: int) -> int | None:
        """Of a process that the host started; None while it runs, -9 if the host is gone and took it along."""
        try:
            code: int | None = self._ask({"poll": pid})["exit_code"]
        except ServiceError:
            return -signal.SIGKILL
        return code

    def _ask(self, request: dict[str, Any]) -> dict[str, Any]:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        with self._lock:
            try:
                self._process.stdin.write(json.dumps(request) + "\n")
                self._process.stdin.flush()
                line = self._process.stdout.readline()
            except (BrokenPipeError, ValueError):
                line = ""
        if not line:
            raise ServiceError(f"the process that holds the model has ended: see {self._log_path}")
        answer: dict[str, Any] = json.loads(line)
        return answer

    def is_running(self) -> bool:
        """Whether the host itself has not ended."""
        return self._process.poll() is None

    def close(self) -> None:
        """End the host. Safe to call twice."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.terminate()
        self._process.wait()
        with contextlib.suppress(BrokenPipeError):  # of a request that it did not live to read
            self._process.stdin.close()
        self._process.stdout.close()

    def __enter__(self) -> WorkerHost:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()


class _Hosted:
    """A forked process of the host, with as much of Popen as a Child needs."""

    def __init__(self, host: WorkerHost, pid: int) -> None:
        self._host = host
        self.pid = pid
        self.returncode: int | None = None

    def poll(self) -> int | None:
        if self.returncode is None:
            self.returncode = self._host.exit_code(self.pid)
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        deadline = None if timeout is None else time.monotonic() + timeout
        while (code := self.poll()) is None:
            if deadline is not None and time.monotonic() > deadline:
                raise subprocess.TimeoutExpired("workers", timeout or 0.0)
            time.sleep(_POLL_S)
        return code

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)


def main() -> int:
    """The host itself: load, then answer until the standard input ends."""
    from fuze_bench.pipeline import extract
    from fuze_bench.pipeline.embed import load_embedder

    # What is printed must not get among the answers; the forks redirect both to logs of their own.
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    extract.preload()
    embedder = load_embedder(Settings.from_mapping(os.environ))
    embedder.settle()
    exit_codes: dict[int, int | None] = {}
    for line in sys.stdin:
        request = json.loads(line)
        if "start" in request:
            pid = _fork(request["start"], embedder)
            exit_codes[pid] = None
            answer: dict[str, Any] = {"pid": pid}
        else:
            pid = request["poll"]
            if exit_codes[pid] is None:
                ended, status = os.waitpid(pid, os.WNOHANG)
                exit_codes[pid] = os.waitstatus_to_exitcode(status) if ended else None
            answer = {"exit_code": exit_codes[pid]}
        answers.write(json.dumps(answer) + "\n")
        answers.flush()
    return 0


def _fork(request: dict[str, Any], embedder: Any) -> int:
    pid = os.fork()
    if pid:
        return pid
    code = 1
    try:
        os.setsid()
        die_with_parent()
        log = os.open(request["log"], os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        null = os.open(os.devnull, os.O_RDONLY)
        for source, target in ((null, 0), (log, 1), (log, 2)):
            os.dup2(source, target)
        code = _run(request, embedder)
    except BaseException:
        logging.getLogger(__name__).exception("the workers ended")
    finally:
        logging.shutdown()
        os._exit(code)


def _run(request: dict[str, Any], embedder: Any) -> int:
    from fuze_bench import logs
    from fuze_bench.pipeline.worker import run_workers

    settings = Settings.from_mapping(request["settings"])
    logs.configure(settings.log_format)
    return run_workers(
        settings,
        queues=request["queues"],
        count=request["count"],
        kind=Kind(request["kind"]),
        strategy=Strategy(request["strategy"]),
        embedder=embedder,
    )


if __name__ == "__main__":
    sys.exit(main())
