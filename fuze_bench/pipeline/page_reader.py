"""Reads pages within limits of time and memory: ordinary ones here, heavy ones in a confined process.

Libraries swallow the exception by which RQ ends a job that takes too long, and nothing in a process can end a pattern
or a parser that runs away. So a page that could do so is read by `confined_reader`, which can be killed.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
from concurrent.futures import Future

from fuze_bench import logs
from fuze_bench.errors import ServiceError
from fuze_bench.pipeline.bookmarks import ProcessingError, Reason
from fuze_bench.pipeline.extract import Extracted, extract_light
from fuze_bench.pipeline.reader_messages import Reply, Request, receive, send
from fuze_bench.processes import is_running

_START_TIMEOUT_S = 60.0
#: What an interpreter needs of the environment. The rest stays here, passwords and tokens with it: what reads hostile
#: pages has no use for them.
_NEEDED = ("PATH", "HOME", "TMPDIR", "TZ", "LANG", "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH")
_NEEDED_PREFIXES = ("LC_", "PYTHON")


class PageReader:
    """`extract` with limits; its threads share one confined process, started for the first heavy page and kept.

    A forked child starts one of its own. `close` ends it; it also ends with this process, however that ends.
    """

    def __init__(self, timeout_s: float) -> None:
        self._timeout_s = timeout_s
        self._confined: _Confined | None = None
        self._turn = threading.Lock()
        self._pid = os.getpid()
        self._pid_lock = threading.Lock()

    def read(self, body: bytes, content_type: str, url: str) -> Extracted:
        """What `extract` finds on the page. Raises ProcessingError, `too_complex` for a page beyond the limits."""
        found = extract_light(body, content_type, url)
        return (
            self._read_confined(Request(body, content_type, url, logs.present_fields()))
            if found is None
            else found
        )

    def close(self) -> None:
        """End the confined process. Safe to call twice."""
        with self._my_turn():
            self._end()

    def _my_turn(self) -> threading.Lock:
        with self._pid_lock:
            if self._pid != os.getpid():
                # What was forked along belongs to the parent, and the lock may be held for ever.
                if self._confined is not None:
                    self._confined.forget()
                self._pid, self._turn, self._confined = os.getpid(), threading.Lock(), None
            return self._turn

    def _read_confined(self, request: Request) -> Extracted:
        with self._my_turn():
            if self._confined is None or not self._confined.is_alive():
                self._end()
                self._confined = _Confined(self._timeout_s)
            try:
                reply = self._confined.ask(request, self._timeout_s)
            except BaseException:
                # Whatever it was, also RQ's timeout: an answer to this page must not be taken for the next one's.
                self._end()
                raise
            if reply.ends:
                self._end()
        if reply.extracted is None:
            raise ProcessingError(reply.reason or Reason.INTERNAL_ERROR, reply.detail)
        return reply.extracted

    def _end(self) -> None:
        if self._confined is not None:
            self._confined.end()
            self._confined = None


class _Confined:
    """The confined process, ready to read. Raises ServiceError if it cannot be started."""

    def __init__(self, timeout_s: float) -> None:
        self._connection, theirs = socket.socketpair()
        started: Future[subprocess.Popen[bytes]] = Future()
        self._keeper = threading.Thread(
            target=_keep, args=(theirs, timeout_s, started), name="confined-reader", daemon=True
        )
        self._keeper.start()
        try:
            self._process = started.result()
        except BaseException:
            self._connection.close()
            raise
        try:
            ready = receive(self._connection, Reply, _START_TIMEOUT_S)
        except BaseException:
            self.end()
            raise
        if ready is None:
            raise ServiceError(f"the confined reader did not start ({self.end()}): its log is above")

    def is_alive(self) -> bool:
        """Whether it can be asked. `poll` tells nothing while the keeper waits for its end."""
        return is_running(self._process.pid)

    def ask(self, request: Request, timeout_s: float) -> Reply:
        """Its answer. Raises ProcessingError (`too_complex`) if there is none in time, or it dies over the page."""
        try:
            send(self._connection, request, timeout_s)
            reply = receive(self._connection, Reply, timeout_s)
        except TimeoutError:
            raise ProcessingError(Reason.TOO_COMPLEX, f"takes longer than {timeout_s:g} s") from None
        except ConnectionError:
            reply = None
        if reply is None:
            raise ProcessingError(Reason.TOO_COMPLEX, f"the process that read it died: {self.end()}")
        return reply

    def end(self) -> str:
        """Kill and reap it, if that is still to be done; how it ended."""
        self._process.kill()
        self._keeper.join()
        self._connection.close()
        code = self._process.returncode
        return f"signal {-code}" if code < 0 else f"exit code {code}"

    def forget(self) -> None:
        """In a forked child: let go of what is the parent's."""
        self._connection.close()


def _keep(theirs: socket.socket, timeout_s: float, started: Future[subprocess.Popen[bytes]]) -> None:
    """Start the process and stay until it ends: on Linux it is ended with the thread that started it."""
    argv = [sys.executable, "-m", "fuze_bench.pipeline.confined_reader"]
    options = [str(theirs.fileno()), str(os.getpid()), str(timeout_s), *logs.present_setup()]
    environment = {k: v for k, v in os.environ.items() if k in _NEEDED or k.startswith(_NEEDED_PREFIXES)}
    with theirs:
        try:
            process = subprocess.Popen(
                [*argv, *options], pass_fds=[theirs.fileno()], stdin=subprocess.DEVNULL, env=environment
            )
        except OSError as error:
            started.set_exception(ServiceError(f"the confined reader cannot be started: {error}"))
            return
    started.set_result(process)
    process.wait()
