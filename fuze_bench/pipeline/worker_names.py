"""The name of a worker that was killed, which Redis still knows, is free for the one that is started in its place."""

from __future__ import annotations

import logging
import os
import re
import socket
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from rq.worker import WorkerStatus

logger = logging.getLogger(__name__)

#: A worker is registered well after its process was started; the kernel tells the latter to a second or so.
_CLOCK_TOLERANCE = timedelta(seconds=2)
#: Where `starttime` stands in /proc/PID/stat, counted from behind the name of the program (proc(5)).
_START_TIME = 19


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
        return namesake.pid == os.getpid() or not _runs_since(namesake.pid, namesake.birth_date)
    if namesake.get_state() == WorkerStatus.BUSY or namesake.last_heartbeat is None:
        return False
    return bool((datetime.now(UTC) - namesake.last_heartbeat).total_seconds() > silent_s)


def _runs_since(pid: int, moment: datetime) -> bool:
    """Whether this host has a process of that number which is not younger than that, as far as can be told."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass  # somebody else's, and there
    started = _started(pid)
    return started is None or started <= moment + _CLOCK_TOLERANCE


def _started(pid: int) -> datetime | None:
    """When the process was started; None where there is no /proc."""
    try:
        after_name = Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2]
        [boot] = re.findall(r"^btime (\d+)$", Path("/proc/stat").read_text(), re.MULTILINE)
    except (OSError, ValueError):
        return None
    since_boot_s = int(after_name.split()[_START_TIME]) / os.sysconf("SC_CLK_TCK")
    return datetime.fromtimestamp(int(boot) + since_boot_s, UTC)
