"""The connections of a fetch: to an address that was checked and no other, watched by the fetch's deadline.

A name is resolved once, by us; what was checked is what is connected to. So a name that changes its answer in between
gains nothing, and TLS still asks for the certificate of the name. Proxies are not used, whatever the environment says.
"""

from __future__ import annotations

import logging
import socket
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from ipaddress import ip_address
from typing import Any

import requests.adapters
import urllib3
from urllib3.exceptions import ConnectTimeoutError, NameResolutionError, NewConnectionError
from urllib3.util.connection import allowed_gai_family

from fuze_bench.pipeline.addresses import AddressPolicy
from fuze_bench.pipeline.bookmarks import ProcessingError, Reason
from fuze_bench.pipeline.deadlines import Deadline

logger = logging.getLogger(__name__)

#: What getaddrinfo gives for one address: family, type, protocol, canonical name, socket address.
AddressInfo = tuple[int, int, int, str, Any]

#: Names that may be asked for at the same time, those included that nobody waits for any more.
_LOOKUPS_AT_ONCE = 64


class Gate:
    """Where connections may go: resolves a host and checks what comes of it."""

    def __init__(self, policy: AddressPolicy) -> None:
        self._policy = policy
        self._free = threading.BoundedSemaphore(_LOOKUPS_AT_ONCE)

    def targets(self, host: str, port: int, timeout_s: float) -> Sequence[AddressInfo]:
        """The addresses of `host`, best first. Raises TimeoutError, OSError where there are none, and
        ProcessingError (`address_refused`) unless every one of them is permitted.
        """
        found = self._looked_up(host, port, timeout_s)
        for *_, where in found:
            if not self._policy.permits(host, port, ip_address(where[0])):
                # Not in the detail, which users get to see: what a name means within is nobody's business outside.
                logger.info("%s:%d leads to %s: refused", host, port, where[0])
                raise ProcessingError(
                    Reason.ADDRESS_REFUSED,
                    f"{_shown(host)}:{port} is not on the public internet; FUZE_FETCH_ALLOW can allow it",
                )
        return found

    def _looked_up(self, host: str, port: int, timeout_s: float) -> Sequence[AddressInfo]:
        if _is_number(host):
            return _ask(host, port, socket.AI_NUMERICHOST)
        # getaddrinfo knows no limit on its time and cannot be interrupted: it gets a thread that can be left behind.
        if not self._free.acquire(timeout=timeout_s):
            raise TimeoutError("too many names are being looked up")
        answer: Future[Sequence[AddressInfo]] = Future()
        try:
            threading.Thread(
                target=self._look_up, args=(host, port, answer), name="name-look-up", daemon=True
            ).start()
        except RuntimeError:
            self._free.release()
            raise
        return answer.result(timeout_s)

    def _look_up(self, host: str, port: int, answer: Future[Sequence[AddressInfo]]) -> None:
        try:
            answer.set_result(_ask(host, port))
        except (OSError, ValueError) as error:
            answer.set_exception(error)
        finally:
            self._free.release()


def _shown(host: str) -> str:
    return f"[{host}]" if ":" in host else host[:200]


def _is_number(host: str) -> bool:
    try:
        ip_address(host)
    except ValueError:
        return False
    return True


def _ask(host: str, port: int, flags: int = 0) -> Sequence[AddressInfo]:
    if f".{host.lower()}".removesuffix(".").endswith(".localhost"):
        host = "localhost"  # names that DNS is not asked for (RFC 6761, section 6.3); browsers do the same
    try:
        return socket.getaddrinfo(host, port, allowed_gai_family(), socket.SOCK_STREAM, 0, flags)
    except UnicodeError:
        raise socket.gaierror(socket.EAI_NONAME, "a part of the name is empty or too long") from None


class _Current(threading.local):
    """What the fetch on this thread is under: urllib3 has no other way to hand it to a connection."""

    deadline: Deadline
    gate: Gate


_current = _Current()


@contextmanager
def fetching(deadline: Deadline, gate: Gate) -> Iterator[None]:
    """Connections that this thread makes go through `gate` and are watched by `deadline`; without, there are none."""
    _current.deadline, _current.gate = deadline, gate
    try:
        yield
    finally:
        del _current.deadline, _current.gate


class _Watched:
    """Mixed into urllib3's connections: goes through the gate, and tells the deadline which socket to cut."""

    def connect(self) -> None:
        _current.deadline.watch(self)
        super().connect()  # type: ignore[misc]
        _current.deadline.watch(self)

    def request(self, *args: Any, **kwargs: Any) -> None:
        _current.deadline.watch(self)
        super().request(*args, **kwargs)  # type: ignore[misc]

    def _new_conn(self: Any) -> socket.socket:
        host = self._dns_host.strip("[]")
        limit_s = min(self.timeout, _current.deadline.remaining_s())
        try:
            targets = _current.gate.targets(host, self.port, limit_s)
        except TimeoutError:
            _current.deadline.check()
            raise ProcessingError(
                Reason.TIMED_OUT, f"{host[:200]} was not resolved within {limit_s:g} s"
            ) from None
        except OSError as error:
            raise NameResolutionError(self.host, self, error) from error  # type: ignore[arg-type]
        problem: OSError = OSError("the name has no address")
        for target in targets:
            _current.deadline.check()
            limit_s = min(self.timeout, _current.deadline.remaining_s())
            try:
                return _connected(target, limit_s, self.socket_options or ())
            except OSError as error:
                problem = error
        if isinstance(problem, TimeoutError):
            raise ConnectTimeoutError(self, f"Connection to {self.host} timed out") from problem
        raise NewConnectionError(self, f"Failed to establish a new connection: {problem}") from problem


def _connected(target: AddressInfo, limit_s: float, options: Any) -> socket.socket:
    family, kind, protocol, _, where = target
    connection = socket.socket(family, kind, protocol)
    try:
        for option in options:
            connection.setsockopt(*option)
        connection.settimeout(limit_s)
        connection.connect(where)
    except BaseException:
        connection.close()
        raise
    return connection


class _WatchedHTTPConnection(_Watched, urllib3.connection.HTTPConnection):
    pass


class _WatchedHTTPSConnection(_Watched, urllib3.connection.HTTPSConnection):
    pass


class _WatchedHTTPPool(urllib3.HTTPConnectionPool):
    ConnectionCls = _WatchedHTTPConnection


class _WatchedHTTPSPool(urllib3.HTTPSConnectionPool):
    ConnectionCls = _WatchedHTTPSConnection


class WatchedAdapter(requests.adapters.HTTPAdapter):
    """requests' adapter over such connections, kept and shared by threads; nothing is tried twice here."""

    def __init__(self, pool_maxsize: int) -> None:
        super().__init__(pool_connections=64, pool_maxsize=pool_maxsize, max_retries=0)

    def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:
        super().init_poolmanager(*args, **kwargs)
        self.poolmanager.pool_classes_by_scheme = {"http": _WatchedHTTPPool, "https": _WatchedHTTPSPool}
