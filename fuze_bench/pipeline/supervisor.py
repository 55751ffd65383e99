"""Several workers as forks of one process that loaded the model: start, pass signals on, replace, reap."""

from __future__ import annotations

import logging
import os
import signal
import sys
import time
import uuid
from collections.abc import Callable
from types import FrameType

from fuze_bench.errors import FuzeError
from fuze_bench.processes import STOP_SIGNALS, die_with_parent

logger = logging.getLogger(__name__)


class Supervisor:
    """The process that the workers are forks of."""

    def __init__(self, work: Callable[[str], int], base: str) -> None:
        """`work` is one worker's life, called in its process with its name, which begins with `base`; an exit code."""
        self._work = work
        self._base = base
        self._names: dict[int, str] = {}
        self._stopping = False
        self._exit_code = 0

    def run(self, count: int) -> int:
        """Keep `count` workers running until they are told to stop or have nothing left to do; an exit code."""
        for number in STOP_SIGNALS:
            signal.signal(number, self._pass_on)
        for index in range(count):
            if not self._stopping:
                self._start(f"{self._base}-{index + 1}")
        while self._names:
            try:
                pid, status = os.wait()
            except InterruptedError:
                continue
            self._ended(pid, os.waitstatus_to_exitcode(status))
        return self._exit_code

    def _ended(self, pid: int, code: int) -> None:
        name = self._names.pop(pid, None)
        if name is None:
            return
        if code == 0:
            return  # told to stop, or with nothing left to do
        if self._stopping:
            self._exit_code = 1
            return
        # A worker that was killed is replaced, under a new name: Redis still knows the old one for a while.
        logger.error("worker %s ended with code %d: starting another", name, code)
        time.sleep(1)
        if not self._stopping:
            self._start(f"{self._base}-{uuid.uuid4().hex[:6]}")

    def _start(self, name: str) -> None:
        sys.stdout.flush()
        sys.stderr.flush()
        # A signal that arrives in the middle of this is held back until parent and child know what to do with it.
        signal.pthread_sigmask(signal.SIG_BLOCK, STOP_SIGNALS)
        supervisor, pid = os.getpid(), os.fork()
        if pid:
            self._names[pid] = name
            signal.pthread_sigmask(signal.SIG_UNBLOCK, STOP_SIGNALS)
            return
        code = 1
        try:
            for number in STOP_SIGNALS:
                signal.signal(number, _end_quietly)
            signal.pthread_sigmask(signal.SIG_UNBLOCK, STOP_SIGNALS)
            die_with_parent(parent=supervisor)
            code = self._work(name)
        except SystemExit as stop:  # told twice to stop
            code = stop.code if isinstance(stop.code, int) else 0
        except FuzeError as error:
            logger.error("worker %s ended: %s", name, error)
        except Exception:
            logger.exception("worker %s ended", name)
        finally:
            logging.shutdown()
            os._exit(code)

    def _pass_on(self, number: int, _frame: FrameType | None) -> None:
        self._stopping = True
        for pid in list(self._names):
            try:
                os.kill(pid, number)
            except ProcessLookupError:
                continue


def _end_quietly(_number: int, _frame: FrameType | None) -> None:
    """A worker that has not registered itself yet has nothing to finish; an exception could be lost in a finaliser."""
    os._exit(0)
