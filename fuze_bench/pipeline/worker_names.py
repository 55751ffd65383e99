"""The name of a worker that was killed, which Redis still knows, is free for the one that is started in its place."""

from __future__ import annotations

import logging
import os
import socket
from datetime import UTC, datetime, timedelta
from typing import Any

from rq.worker import WorkerStatus

from fuze_bench.processes import is_running

logger = logging.getLogger(__name__)

#: A worker is registered well after its process was started; the kernel tells the latter to a second or so.
_CLOCK_TOLERANCE = timedelta(seconds=2)


def take_over_name(worker: Any) -> None:
    """Strike `worker`'s namesake out of Redis if it is dead; RQ refuses a name that is taken.

    Raises redis.RedisError.
    """
    namesake = type(worker).find_by_key(
        worker.key, connection=worker.connection, serializer=worker.serializer
    )
    if namesake is not None and _is_dead(namesake, worker.worker_ttl):
        logger.warning(
            "worker %s: takes the place of one that was killed (process %s)", worker.name, namesake.pid
        )
        namesake.register_death()


def _is_dead(namesake: Any, silent_s: float) -> bool:
    """Its process is gone; on another host: it idled, and has not been heard of for `silent_s` seconds."""
    if namesake.hostname == socket.gethostname() and namesake.pid and namesake.birth_date:
        # A container that is started again gives its processes the numbers of the last time.
        return namesake.pid == os.getpid() or not is_running(
            namesake.pid, since=namesake.birth_date + _CLOCK_TOLERANCE
        )
    if namesake.get_state() == WorkerStatus.BUSY or namesake.last_heartbeat is None:
        return False
    return bool((datetime.now(UTC) - namesake.last_heartbeat).total_seconds() > silent_s)
