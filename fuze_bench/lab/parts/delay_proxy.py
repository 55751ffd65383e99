"""A Redis that is further away: a proxy on a unix socket, as a process, that adds a set time to every round trip.

Half of it is added on the way there and half on the way back, as on a network, to whatever arrives together: a
pipeline is delayed once, and an answer that comes unasked (a blocking command's) by half. One thread waits with
`select`, whose time limit counts microseconds where those of asyncio and epoll count milliseconds; what the proxy
itself costs is measured at its start and taken off.
"""

from __future__ import annotations

import argparse
import contextlib
import errno
import os
import resource
import secrets
import select
import selectors
import signal
import socket
import statistics
import sys
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import parse_qsl, quote, unquote, urlencode, urlsplit

from fuze_bench.errors import LabError, one_line
from fuze_bench.pipeline.socket_folders import SocketFolder
from fuze_bench.processes import Child, die_with_parent

LONGEST_RTT_MS = 10_000.0
#: Passing something on takes about half of this, on a busy machine.
SHORTEST_RTT_MS = 0.5

_READY_S = 20.0
_CHUNK_BYTES = 256 * 1024
#: What may be on its way in one direction of one connection; beyond, the sender has to wait.
_MOST_BYTES = 16 * 1024 * 1024
_BACKLOG = 1024
_OPEN_FILES = 65_536
#: The kernel may stretch a wait by a thousandth: only the last millisecond must be exact.
_LAST_STEP_NS = 1_000_000
#: How long the trial at the start may take, in all.
_TRIAL_MS = 500.0
_TRIAL_LONGEST_RTT_MS = 25.0
_ANSWER_TIMEOUT_S = 5.0


@contextmanager
def running_delay_proxy(folder: Path, upstream_url: str, rtt_ms: float) -> Iterator[str]:
    """The proxy in front of the Redis at `upstream_url`, with its output in `folder`; the URL to use instead.

    User, password and database of the URL stay as they are, and show in no command line. Only this user gets at the
    socket. While the Redis is away, whoever connects is hung up on at once. With 0 ms there is no proxy. Raises LabError
    for a delay or URL that cannot be used, ServiceError if the proxy does not start.
    """
    upstream = _address_of(upstream_url)
    if rtt_ms == 0:
        yield upstream_url
        return
    if not SHORTEST_RTT_MS <= rtt_ms <= LONGEST_RTT_MS:
        raise LabError(
            f"redis_rtt_ms={rtt_ms:g} cannot be used: give 0, or {SHORTEST_RTT_MS:g} to {LONGEST_RTT_MS:,.0f}"
        )
    sockets = SocketFolder(f"delay-{secrets.token_hex(8)}")
    path = sockets.path / "redis.sock"
    argv = [
        sys.executable,
        "-m",
        "fuze_bench.lab.parts.delay_proxy",
        str(path),
        upstream,
        "--rtt-ms",
        f"{rtt_ms!r}",
    ]
    try:
        with Child("the delay proxy", argv, folder / "delay-proxy.log") as child:
            child.wait_ready(lambda: "ready" in child.log_tail().splitlines(), _READY_S)
            yield _url_at(upstream_url, path)
    finally:
        sockets.close()


def _address_of(url: str) -> str:
    """A socket's path or HOST:PORT. Raises LabError if the URL leads to neither."""
    parts = urlsplit(url)
    if parts.scheme == "unix" and parts.path:
        return unquote(parts.path)
    if parts.scheme == "redis":
        try:
            return f"{parts.hostname or 'localhost'}:{parts.port or 6379}"
        except ValueError:
            raise LabError("the URL of the Redis to delay has no port that can be used") from None
    raise LabError(
        f"a Redis at {parts.scheme[:20]}:// cannot be delayed: use redis:// or unix://, without TLS"
    )


def _url_at(url: str, path: Path) -> str:
    """The same user, password, database and options at the socket `path`."""
    parts = urlsplit(url)
    login = f"{parts.netloc.rpartition('@')[0]}@" if "@" in parts.netloc else ""
    query = dict(parse_qsl(parts.query))
    if parts.scheme == "redis" and parts.path.strip("/"):
        query["db"] = parts.path.strip("/")
    return f"unix://{login}{quote(str(path))}" + (f"?{urlencode(query)}" if query else "")


class _Way:
    """One direction of a connection: what is read from `source` goes to `target`, later."""

    def __init__(self, proxy: _Proxy, source: socket.socket, target: socket.socket) -> None:
        self._proxy = proxy
        self.source, self.target = source, target
        self.back: _Way
        #: What is due and did not fit into the target's buffer.
        self._unsent = bytearray()
        self._on_its_way_bytes = 0
        self._has_ended = False
        self.has_passed_on_end = False

    @property
    def may_read(self) -> bool:
        return not self._has_ended and self._on_its_way_bytes + len(self._unsent) < _MOST_BYTES

    @property
    def has_unsent(self) -> bool:
        return bool(self._unsent)

    def read(self) -> None:
        """Take what is there, and have it sent when it is due. Raises OSError."""
        try:
            chunk = self.source.recv(_CHUNK_BYTES)
        except BlockingIOError:
            return
        self._has_ended = not chunk
        self._on_its_way_bytes += len(chunk)
        self._proxy.send_later(self, chunk)

    def arrive(self, chunk: bytes) -> None:
        """`chunk` is due; an empty one says that nothing follows. Raises OSError."""
        self._on_its_way_bytes -= len(chunk)
        self._unsent += chunk
        self.send()

    def send(self) -> None:
        """Send what is due, as far as the target takes it. Raises OSError."""
        if self._unsent:
            try:
                del self._unsent[: self.target.send(self._unsent)]
            except BlockingIOError:
                return
        if self._has_ended and not self._on_its_way_bytes and not self._unsent:
            self.target.shutdown(socket.SHUT_WR)
            self.has_passed_on_end = True


class _Proxy:
    """All connections, and everything that is on its way, in the order in which it is due."""

    def __init__(self, listener: socket.socket, upstream: str, rtt_ms: float) -> None:
        self._listener = listener
        self._upstream = upstream
        self._one_way_ns = int(rtt_ms * 1e6 / 2)
        self._due: deque[tuple[int, _Way, bytes]] = deque()
        self._selector = selectors.DefaultSelector()
        self._selector.register(listener, selectors.EVENT_READ)
        #: What each open socket is the source of.
        self._ways: dict[object, _Way] = {}

    def run(self) -> None:
        """Pass on until an exception ends it."""
        waiting = self._selector.fileno()
        while True:
            select.select([waiting], [], [], self._wait_s())
            for key, events in self._selector.select(0):
                if key.fileobj is self._listener:
                    self._accept()
                elif way := self._ways.get(key.fileobj):
                    self._serve(way, events)
            while self._due and self._due[0][0] <= time.monotonic_ns():
                _, way, chunk = self._due.popleft()
                if way.source in self._ways:
                    with self._closing_if_broken(way):
                        way.arrive(chunk)

    def _wait_s(self) -> float | None:
        if not self._due:
            return None
        left_ns = self._due[0][0] - time.monotonic_ns()
        return max(0, left_ns if left_ns <= 2 * _LAST_STEP_NS else left_ns - _LAST_STEP_NS) / 1e9

    def send_later(self, way: _Way, chunk: bytes) -> None:
        self._due.append((time.monotonic_ns() + self._one_way_ns, way, chunk))

    def _accept(self) -> None:
        with contextlib.suppress(BlockingIOError, ConnectionAbortedError):
            client, _ = self._listener.accept()
            try:
                server = _connected(self._upstream)
            except OSError as error:
                _say(f"the Redis is away: {one_line(error)}")
                client.close()
                return
            client.setblocking(False)
            there, back = _Way(self, client, server), _Way(self, server, client)
            there.back, back.back = back, there
            self._ways |= {client: there, server: back}
            for each in (client, server):
                self._selector.register(each, selectors.EVENT_READ)

    def _serve(self, way: _Way, events: int) -> None:
        with self._closing_if_broken(way):
            if events & selectors.EVENT_WRITE:
                way.back.send()
            if events & selectors.EVENT_READ and way.may_read:
                way.read()

    @contextmanager
    def _closing_if_broken(self, way: _Way) -> Iterator[None]:
        """Whatever happens to one end of a connection happens to the other."""
        try:
            yield
        except OSError:
            self._close(way)
            return
        if way.has_passed_on_end and way.back.has_passed_on_end:
            self._close(way)
            return
        for each in (way, way.back):
            reads = selectors.EVENT_READ if each.may_read else 0
            writes = selectors.EVENT_WRITE if each.back.has_unsent else 0
            self._watch(each.source, reads | writes)

    def _watch(self, connection: socket.socket, events: int) -> None:
        known = self._selector.get_map().get(connection)
        if not events:
            if known is not None:
                self._selector.unregister(connection)
        elif known is None:
            self._selector.register(connection, events)
        elif known.events != events:
            self._selector.modify(connection, events)

    def _close(self, way: _Way) -> None:
        for each in (way.source, way.target):
            self._watch(each, 0)
            del self._ways[each]
            each.close()


def _connected(upstream: str) -> socket.socket:
    """A connection that is there, or on its way there. Raises OSError."""
    if upstream.startswith("/"):
        server = socket.socket(socket.AF_UNIX)
        address: str | tuple[str, int] = upstream
    else:
        host, _, port = upstream.rpartition(":")
        family, _, _, _, found = socket.getaddrinfo(host, int(port), type=socket.SOCK_STREAM)[0]
        server, address = socket.socket(family), (str(found[0]), int(found[1]))
        server.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    server.setblocking(False)
    try:
        server.connect(address)
    except BlockingIOError as error:
        if error.errno != errno.EINPROGRESS:  # a unix socket on which too many wait already
            server.close()
            raise
    except OSError:
        server.close()
        raise
    return server


def _own_cost_ms(folder: Path, upstream: str, rtt_ms: float) -> float:
    """What a round trip through the proxy takes beyond what it is told to add, now and here, in milliseconds.

    It grows with `rtt_ms`: who sleeps longer finds less of what they need in the processor's caches.

    Raises OSError if the Redis does not answer.
    """
    path = str(folder / "trial.sock")
    rtt_ms = min(rtt_ms, _TRIAL_LONGEST_RTT_MS)
    rounds = int(_TRIAL_MS / (2 * rtt_ms + 0.5))
    with _listening(path) as listener:
        pid = os.fork()
        if pid == 0:
            try:
                signal.signal(signal.SIGTERM, signal.SIG_DFL)
                die_with_parent(signal.SIGKILL)
                _Proxy(listener, upstream, rtt_ms).run()
            finally:
                os._exit(1)
        try:
            with _connected(path) as through, _connected(upstream) as direct:
                both = (through, direct)
                for each in both:
                    each.settimeout(_ANSWER_TIMEOUT_S)
                taken = [(_round_trip_ms(through), _round_trip_ms(direct, rtt_ms)) for _ in range(rounds)]
        finally:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
    # What else the machine does only ever adds: the faster half says what is ours.
    through_ms, direct_ms = (statistics.quantiles(column)[0] for column in zip(*taken, strict=True))
    return float(through_ms - direct_ms - rtt_ms)


def _round_trip_ms(connection: socket.socket, asleep_ms: float = 0) -> float:
    """After a sleep as long as that of whoever waits for a Redis far away: what waking costs is not the proxy's."""
    time.sleep(asleep_ms / 1000)
    start_ns = time.perf_counter_ns()
    connection.sendall(b"PING\r\n")
    # Whoever has not signed in is answered too, with an error.
    if not connection.recv(4096):
        raise ConnectionResetError("it hung up")
    return (time.perf_counter_ns() - start_ns) / 1e6


def _listening(path: str) -> socket.socket:
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(path)
    listener.listen(_BACKLOG)
    listener.setblocking(False)
    return listener


def _say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def main() -> int:
    """The proxy itself: until SIGTERM."""
    parser = argparse.ArgumentParser(prog="fuze_bench.lab.parts.delay_proxy", description="Delays a Redis.")
    parser.add_argument("socket", help="where to listen")
    parser.add_argument("upstream", help="the socket of the Redis, or HOST:PORT")
    parser.add_argument("--rtt-ms", type=float, required=True, help="added to every round trip")
    chosen = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda _number, _frame: sys.exit(0))
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(_OPEN_FILES, hard) if hard > 0 else soft, hard))
    try:
        own_cost_ms = _own_cost_ms(Path(chosen.socket).parent, chosen.upstream, chosen.rtt_ms)
    except OSError as error:
        _say(f"the Redis to delay does not answer: {one_line(error)}")
        return 1
    _say(f"a round trip through here costs {own_cost_ms:.3f} ms beyond what is added")
    with _listening(chosen.socket) as listener:
        _say("ready")
        _Proxy(listener, chosen.upstream, max(0.0, chosen.rtt_ms - own_cost_ms)).run()
    return 0


if __name__ == "__main__":
    sys.exit(main())
