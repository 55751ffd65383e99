"""A relay in front of a server: it speaks TLS for one that cannot, or loses what comes back, as networks do."""

from __future__ import annotations

import contextlib
import socket
import ssl
import threading
from collections.abc import Callable
from pathlib import Path


class Relay:
    """Passes bytes between clients and a server on 127.0.0.1 (its port) or a unix socket (its path). Context manager: leaving it closes every connection.

    `loses(reply)` says whether bytes that come back are lost, and the connection with them.
    """

    def __init__(
        self,
        target: int | Path,
        *,
        tls: ssl.SSLContext | None = None,
        loses: Callable[[bytes, bytes], bool] = lambda _sent, _reply: False,
    ) -> None:
        self._target = target
        self._tls = tls
        self._loses = loses
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listener.getsockname()[1])
        self._open: list[socket.socket] = [self._listener]
        self._threads = [threading.Thread(target=self._accept, name="relay")]
        self._threads[0].start()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            thread = threading.Thread(target=self._serve, args=(client,), name="relay-connection")
            self._threads.append(thread)
            thread.start()

    def _serve(self, client: socket.socket) -> None:
        self._open.append(client)
        with contextlib.suppress(OSError), contextlib.ExitStack() as stack:
            # A client that does not trust us hangs up in the middle of this; unwrapped sockets are closed below.
            inner = self._tls.wrap_socket(client, server_side=True) if self._tls else client
            stack.enter_context(inner)
            self._open.append(inner)
            server = stack.enter_context(self._connect())
            self._open.append(server)
            sent: list[bytes] = [b""]
            back = threading.Thread(target=self._pass_back, args=(server, inner, sent), name="relay-back")
            back.start()
            try:
                while data := inner.recv(65_536):
                    sent[0] = data
                    server.sendall(data)
            finally:
                _shut(server)
                back.join()
        client.close()

    def _connect(self) -> socket.socket:
        if isinstance(self._target, int):
            return socket.create_connection(("127.0.0.1", self._target))
        server = socket.socket(socket.AF_UNIX)
        server.connect(str(self._target))
        return server

    def _pass_back(self, server: socket.socket, client: socket.socket, sent: list[bytes]) -> None:
        with contextlib.suppress(OSError):
            while data := server.recv(65_536):
                if self._loses(sent[0], data):
                    break
                client.sendall(data)
        _shut(client)

    def __enter__(self) -> Relay:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def close(self) -> None:
        """Close every connection; the server cannot be reached any more. Safe to call twice."""
        for each in self._open:
            _shut(each)
            each.close()
        for thread in self._threads:
            thread.join()


def _shut(connection: socket.socket) -> None:
    with contextlib.suppress(OSError):
        connection.shutdown(socket.SHUT_RDWR)
