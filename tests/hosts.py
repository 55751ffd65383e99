"""Two more "hosts" on this machine: Linux network namespaces with addresses of their own, joined by a bridge."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import socketserver
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest


def need_namespaces() -> None:
    """Skip the test where there can be no namespaces."""
    if sys.platform != "linux" or shutil.which("ip") is None:
        pytest.skip("network namespaces need Linux and iproute2")
    if os.geteuid() != 0:
        pytest.skip("network namespaces need root")
    probe = subprocess.run(["ip", "netns", "add", _name("p")], capture_output=True, text=True, check=False)
    if probe.returncode:
        pytest.skip(f"no network namespace can be made here: {probe.stderr.strip()}")
    _ip("netns", "del", _name("p"))


class Network:
    """The bridge, at `address`, and the hosts on it; `cut` and `mend` are a pulled plug and its end."""

    def __init__(self) -> None:
        self._subnet = f"10.213.{os.getpid() % 250}"
        self.address = f"{self._subnet}.1"
        self._stack = ExitStack()

    def add_host(self, number: int) -> list[str]:
        """Join another host; what comes before a command that is to run on it."""
        host, ours, theirs = _name(f"h{number}"), _name(f"a{number}"), _name(f"b{number}")
        _ip("netns", "add", host)
        self._stack.callback(_ip, "netns", "del", host)
        _ip("link", "add", ours, "type", "veth", "peer", "name", theirs, "netns", host)
        _ip("link", "set", ours, "master", _name("br"), "up")
        for words in (
            ("addr", "add", f"{self._subnet}.{number + 1}/24", "dev", theirs),
            ("link", "set", theirs, "up"),
            ("link", "set", "lo", "up"),
        ):
            _ip("-n", host, *words)
        return ["ip", "netns", "exec", host]

    def cut(self, number: int) -> None:
        _ip("link", "set", _name(f"a{number}"), "down")

    def mend(self, number: int) -> None:
        _ip("link", "set", _name(f"a{number}"), "up")

    def __enter__(self) -> Network:
        bridge = _name("br")
        _ip("link", "add", bridge, "type", "bridge")
        self._stack.callback(_ip, "link", "del", bridge)
        _ip("addr", "add", f"{self.address}/24", "dev", bridge)
        _ip("link", "set", bridge, "up")
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._stack.close()


@contextmanager
def forwarded(address: str, target: Path | tuple[str, int]) -> Iterator[int]:
    """The port on `address` from which connections are passed on to a socket file or to loopback."""
    with _Forwarder((address, 0), target) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        try:
            yield server.server_address[1]
        finally:
            server.shutdown()
            thread.join()
            server.end_connections()


class _Forwarder(socketserver.ThreadingTCPServer):
    def __init__(self, address: tuple[str, int], target: Path | tuple[str, int]) -> None:
        super().__init__(address, _Forward)
        self.target = target
        self._connections: list[socket.socket] = []

    def finish_request(self, request: Any, client_address: Any) -> None:
        self._connections.append(request)
        super().finish_request(request, client_address)

    def end_connections(self) -> None:
        """A host that is gone says no good-bye: whoever waits for its next word would wait for ever."""
        for connection in self._connections:
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)


class _Forward(socketserver.BaseRequestHandler):
    def handle(self) -> None:
        target = self.server.target  # type: ignore[attr-defined]
        family = socket.AF_UNIX if isinstance(target, Path) else socket.AF_INET
        with socket.socket(family) as far:
            far.connect(str(target) if isinstance(target, Path) else target)
            back = threading.Thread(target=_pump, args=(far, self.request))
            back.start()
            _pump(self.request, far)
            back.join()


def _pump(source: socket.socket, sink: socket.socket) -> None:
    """Pass on until one of the two ends is gone; then the other one goes, too."""
    with contextlib.suppress(OSError):
        while chunk := source.recv(65_536):
            sink.sendall(chunk)
    for each in (source, sink):
        with contextlib.suppress(OSError):
            each.shutdown(socket.SHUT_RDWR)


def _name(part: str) -> str:
    """A name of this process's own, short enough for a network device."""
    return f"fz{os.getpid()}{part}"


def _ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True, capture_output=True, timeout=30)
