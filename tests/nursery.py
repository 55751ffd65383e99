"""A process that has imported everything once, and forks the workers and commands that tests start.

An interpreter of its own needs two seconds of processor time before a worker listens, a fork of this one a tenth of it.
Whatever runs in a fork is a process of its own all the same: with a session, an environment, a log, and signals.

The protocol is a JSON object a line: `{"start": …}` is answered with a process number, `{"poll": pid}` with its exit
code (null while it runs).
"""

from __future__ import annotations

import atexit
import functools
import importlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from fuze_bench.pipeline import extract
from fuze_bench.processes import STOP_SIGNALS, Child, die_with_parent

_POLL_S = 0.01
_IMPORTED = (
    "fuze_bench.cli",
    "fuze_bench.pipeline.worker",
    "fuze_bench.pipeline.process",
    "fuze_bench.pipeline.api",
)


class Nursery:
    """Ends with the process that made it, and so does what it still runs."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._process = subprocess.Popen(
            [sys.executable, __file__],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            start_new_session=True,
            preexec_fn=die_with_parent,
            text=True,
        )

    def start(
        self, name: str, main: str, arguments: Iterable[str], environment: Mapping[str, str], log_path: Path
    ) -> Child:
        """Fork a process that calls `main`, a `package.module:function`, as a program's with these arguments."""
        log = str(log_path.absolute())
        log_path.touch()
        return Child.around(name, self._fork(main, arguments, environment, os.devnull, log, log), log_path)

    def run(
        self,
        main: str,
        arguments: Iterable[str],
        environment: Mapping[str, str],
        *,
        stdin: str = "",
        timeout_s: float = 90.0,
    ) -> subprocess.CompletedProcess[str]:
        """As `subprocess.run` would, in a fork: call `main` as a program's with these arguments, and wait for its end."""
        with tempfile.TemporaryDirectory() as folder:
            given, out, err = (Path(folder) / name for name in ("in", "out", "err"))
            for path, text in ((given, stdin), (out, ""), (err, "")):
                path.write_text(text)
            forked = self._fork(main, arguments, environment, str(given), str(out), str(err))
            try:
                code = forked.wait(timeout_s)
            finally:
                forked.send_signal(signal.SIGKILL)
            return subprocess.CompletedProcess(list(arguments), code, out.read_text(), err.read_text())

    def _fork(
        self, main: str, arguments: Iterable[str], environment: Mapping[str, str], *files: str
    ) -> _Forked:
        request = {
            "main": main,
            "arguments": list(arguments),
            "environment": dict(environment),
            "files": files,
            "folder": os.getcwd(),
        }
        return _Forked(self, self.ask({"start": request}))

    def ask(self, request: dict[str, Any]) -> Any:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        with self._lock:
            self._process.stdin.write(json.dumps(request) + "\n")
            self._process.stdin.flush()
            return json.loads(self._process.stdout.readline())

    def close(self) -> None:
        with self._process:
            self._process.terminate()


@functools.cache
def nursery() -> Nursery:
    """The one of this process, started when it is needed: from the main thread, since it ends with its thread."""
    assert threading.current_thread() is threading.main_thread()
    started = Nursery()
    atexit.register(started.close)
    return started


class _Forked:
    """A process of the nursery, with as much of Popen as a Child needs."""

    def __init__(self, nursery: Nursery, pid: int) -> None:
        self._nursery = nursery
        self._code: int | None = None
        self.pid = pid

    def poll(self) -> int | None:
        if self._code is None:
            self._code = self._nursery.ask({"poll": self.pid})
        return self._code

    def wait(self, timeout: float | None = None) -> int:
        deadline_s = None if timeout is None else time.monotonic() + timeout
        while (code := self.poll()) is None:
            if deadline_s is not None and time.monotonic() > deadline_s:
                raise subprocess.TimeoutExpired(str(self.pid), timeout or 0.0)
            time.sleep(_POLL_S)
        return code

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)


def _become(request: dict[str, Any]) -> Any:
    """In the fork: what a new interpreter would find when `main` is called; its exit code."""
    os.setsid()
    die_with_parent()
    for number in STOP_SIGNALS:
        signal.signal(number, signal.SIG_DFL if number == signal.SIGTERM else signal.default_int_handler)
    for target, path in enumerate(request["files"]):
        opened = os.open(path, os.O_WRONLY | os.O_APPEND if target else os.O_RDONLY)
        os.dup2(opened, target)
        os.close(opened)
    sys.stdin = open(0, encoding="utf-8", closefd=False)  # noqa: SIM115 - the old one has read ahead
    os.chdir(request["folder"])
    os.environ.clear()
    os.environ.update(request["environment"])
    sys.argv[1:] = request["arguments"]
    module, _, function = request["main"].partition(":")
    return getattr(importlib.import_module(module), function)()


def serve_api() -> None:
    """The API on the port of the command line."""
    from fuze_bench.pipeline.api import serve
    from fuze_bench.pipeline.settings import Settings

    serve(Settings.from_mapping(os.environ), "127.0.0.1", int(sys.argv[1]))


def _main() -> Any:
    for module in _IMPORTED:
        importlib.import_module(module)
    extract.preload()
    # What is printed must not get among the answers.
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    codes: dict[int, int] = {}
    for line in sys.stdin:
        request = json.loads(line)
        if "start" in request:
            answer: int | None = os.fork()
            if not answer:
                answers.close()
                return _become(request["start"])
        else:
            pid = request["poll"]
            if pid not in codes:
                ended, status = os.waitpid(pid, os.WNOHANG)
                if ended:
                    codes[pid] = os.waitstatus_to_exitcode(status)
            answer = codes.get(pid)
        answers.write(json.dumps(answer) + "\n")
        answers.flush()
    return 0


if __name__ == "__main__":
    sys.exit(_main())
