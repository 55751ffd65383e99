"""Reads heavy pages in a process of its own: `python -m fuze_bench.pipeline.confined_reader FD PARENT_PID TIMEOUT_S LOG_FORMAT LOG_LEVEL`.

Started by `page_reader`, which keeps the other end of the socket FD, and kept for page after page. The system limits
its memory; it ends with its parent, and by itself soon after a page that takes longer than is allowed.
"""

from __future__ import annotations

import logging
import os
import resource
import signal
import socket
import sys
from pathlib import Path

from fuze_bench import logs
from fuze_bench.errors import one_line
from fuze_bench.pipeline import extract
from fuze_bench.pipeline.bookmarks import ProcessingError, Reason
from fuze_bench.pipeline.reader_messages import Reply, Request, receive, send
from fuze_bench.processes import die_with_parent

logger = logging.getLogger(__name__)

#: What reading a page may take beyond what the process has when it is ready.
MEMORY_BYTES = 512 * 2**20
#: So near to the limit, allocations may have failed: libraries pass over that and find less than there is.
_MARGIN_BYTES = 32 * 2**20
#: A process that has kept so much of one page leaves too little for the next.
_MOST_KEPT_BYTES = 128 * 2**20
#: Who waits for the answer gives up first and ends this process; it ends itself if nobody waits.
_GRACE_S = 5
_OUT_OF_MEMORY = Reply(reason=Reason.TOO_COMPLEX, detail=f"needs more than {MEMORY_BYTES // 2**20} MiB")


def main(fd: int, parent_pid: int, timeout_s: float, log_format: str, log_level: str) -> None:
    """Answer requests until the other end is closed."""
    die_with_parent(signal.SIGKILL)
    if os.getppid() != parent_pid:
        return
    # Whoever started this decides when it ends: a worker that is told to stop still finishes its page.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    logs.configure(log_format, log_level)
    extract.preload()
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    at_start_bytes = _taken_bytes("VmSize")
    limit_bytes = at_start_bytes + MEMORY_BYTES
    if at_start_bytes:
        resource.setrlimit(resource.RLIMIT_AS, (limit_bytes, limit_bytes))
    with socket.socket(fileno=fd) as connection:
        send(connection, Reply())
        while (request := receive(connection, Request)) is not None:
            signal.setitimer(signal.ITIMER_REAL, timeout_s + _GRACE_S)
            with logs.during(request.log_fields):
                reply = _read(request, limit_bytes - _MARGIN_BYTES)
            kept_bytes = _taken_bytes("VmSize") - at_start_bytes
            ends = reply.reason is Reason.TOO_COMPLEX or kept_bytes > _MOST_KEPT_BYTES
            signal.setitimer(signal.ITIMER_REAL, 0)
            del request
            send(connection, Reply(reply.extracted, reply.reason, reply.detail, ends))
            if ends:
                return


def _read(request: Request, enough_bytes: int) -> Reply:
    try:
        reply = Reply(extract.extract(request.body, request.content_type, request.url))
    except ProcessingError as error:
        reply = Reply(reason=error.reason, detail=error.detail)
    except MemoryError:
        return _OUT_OF_MEMORY
    except Exception as error:
        logger.warning("%s cannot be read", request.url, exc_info=_taken_bytes("VmPeak") < enough_bytes)
        reply = Reply(
            reason=Reason.INTERNAL_ERROR, detail=f"extract: {type(error).__name__}: {one_line(error)}"
        )
    return _OUT_OF_MEMORY if _taken_bytes("VmPeak") >= enough_bytes else reply


def _taken_bytes(what: str) -> int:
    """This process's address space (`VmSize`), or the most it ever was (`VmPeak`); 0 where Linux does not tell."""
    if sys.platform != "linux":
        return 0
    status = Path("/proc/self/status").read_text(encoding="ascii")
    return next(int(line.split()[1]) * 1024 for line in status.splitlines() if line.startswith(what + ":"))


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3]), *sys.argv[4:])
