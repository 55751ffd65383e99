"""Load that does not wait for answers: every request has its intended time, and its latency counts from there.

    locust -f loadtests OpenLoopQuickSaves --headless --arrivals poisson --rate 50 --window 30

A closed loop asks a stalled server nothing and so never learns how long it would have taken. One user sends the whole
schedule of its class, whatever --users says. Beside each name stands its service time (from sending to the answer);
what is in flight at the end is shown as unfinished, and then the quantiles are lower bounds. Without other users
the run ends by itself when the last answer is there, or --drain seconds after the last request.
"""

from locust import tag, task  # isort: skip  # first: gevent patches what comes after

import logging
import secrets
import time
from collections import deque
from collections.abc import Callable, Iterator
from pathlib import Path

import _requests
import gevent
from _options import arrivals_of
from _requests import Request
from _sending import ApiUser, log
from gevent.pool import Pool
from locust.exception import StopUser
from locust.runners import STATE_RUNNING, STATE_SPAWNING, LocalRunner

from fuze_bench.lab.arrivals import read_trace

logger = logging.getLogger(__name__)

_CONNECTIONS = 1_000
_START_S = 0.2
_SLICE_S = 0.1


class _OpenLoop(ApiUser):
    abstract = True
    is_open_loop = True
    concurrency = _CONNECTIONS

    def offer(self, scenario: Callable[[Iterator[str]], Iterator[Request]]) -> None:
        """Send the scenario's requests at the times that the options ask for, then stop."""
        options = self.environment.parsed_options
        try:
            arrivals = arrivals_of(options)
            times_s = arrivals.times(int(options.seed))
        except Exception as error:  # noqa: BLE001  # the web page may have brought in anything
            logger.error("nothing is sent: %s", error)
            raise StopUser from None
        requests = scenario(_requests.pages(options.origin.rstrip("/"), secrets.token_hex(6)))
        if arrivals.trace is not None:
            requests = (
                _requests.quick_save(each.url, each.queue) for each in read_trace(Path(arrivals.trace))
            )
        # Made before the clock starts: of many requests this takes a while.
        planned = list(zip(times_s, requests, strict=False))
        start_ns = time.monotonic_ns() + int(_START_S * 1e9)
        schedule = deque(
            (job, start_ns + round(time_s * 1e9), request)
            for job, (time_s, request) in enumerate(planned, start=1)
        )
        if options.begin_file:
            _write_at_once(Path(options.begin_file), str(start_ns))
        pool = Pool(_CONNECTIONS)
        try:
            self._send_all(pool, schedule)
            pool.join(timeout=float(options.drain))
        finally:
            self._give_up(pool, schedule)
        self._end_run()
        raise StopUser

    def _send_all(self, pool: Pool, schedule: deque[tuple[int, int, Request]]) -> None:
        while schedule:
            job, intended_ns, request = schedule[0]
            is_limited = False
            while (wait_ns := intended_ns - time.monotonic_ns()) > 0 or pool.full():
                if not self._goes_on():
                    return
                if wait_ns > 0:
                    gevent.sleep(min(_SLICE_S, wait_ns / 1e9))
                else:
                    is_limited = True
                    pool.wait_available(timeout=_SLICE_S)
            schedule.popleft()
            pool.spawn(self.send, request, job=job, intended_ns=intended_ns, limited=is_limited)

    def _give_up(self, pool: Pool, schedule: deque[tuple[int, int, Request]]) -> None:
        """What is in flight becomes unfinished, what was due unsent."""
        unanswered = len(pool)
        pool.kill()
        for job, intended_ns, request in schedule:
            if intended_ns <= time.monotonic_ns():
                unanswered += 1
                log.write(
                    job=job,
                    name=request.name,
                    intended_ns=intended_ns,
                    sent_ns=None,
                    acknowledged_ns=None,
                    outcome="unsent",
                )
        if unanswered:
            logger.warning(
                "%d requests had no answer when the time was up: quantiles are lower bounds", unanswered
            )

    def _goes_on(self) -> bool:
        return self.environment.runner.state in (STATE_SPAWNING, STATE_RUNNING)

    def _end_run(self) -> None:
        runner = self.environment.runner
        is_alone = all(getattr(user, "is_open_loop", False) for user in self.environment.user_classes)
        others = runner.user_count - 1
        if is_alone and others == 0 and isinstance(runner, LocalRunner):
            gevent.spawn(runner.stop if self.environment.web_ui else runner.quit)


def _write_at_once(path: Path, text: str) -> None:
    """Whoever waits for the file finds all of it."""
    unfinished = path.with_suffix(".tmp")
    unfinished.write_text(text)
    unfinished.replace(path)


class OpenLoopQuickSaves(_OpenLoop):
    """New pages."""

    @tag("quick-save")
    @task
    def save(self) -> None:
        self.offer(_requests.quick_saves)


class OpenLoopShares(_OpenLoop):
    """Shared pages."""

    @tag("share")
    @task
    def share(self) -> None:
        self.offer(_requests.shares)


class OpenLoopDuplicates(_OpenLoop):
    """A fifth of the pages again."""

    @tag("duplicates")
    @task
    def save(self) -> None:
        self.offer(_requests.duplicates)


class OpenLoopPriorities(_OpenLoop):
    """All three queues."""

    @tag("priorities")
    @task
    def save(self) -> None:
        self.offer(_requests.priorities)
