"""The origin's end: connections that are left, closing, and the process."""

import contextlib
import gc
import os
import re
import signal
import socket
import subprocess
import sys
import threading
from urllib.parse import urlsplit

import psutil
import pytest
import requests
from origin_client import PAGES, connected, get, open_connections, pending_answers, wait_until

from fuze_bench.errors import LabError, ServiceError
from fuze_bench.lab.parts.origin import Origin


@pytest.fixture
def origin():
    with Origin(PAGES) as running:
        yield running


@pytest.fixture
def client():
    with requests.Session() as session:
        session.trust_env = False
        yield session


@pytest.mark.parametrize(
    "path", ["/hostile/hang", "/hostile/endless", "/hostile/huge", "/hostile/drip-headers", "/slow/60000/1"]
)
def test_a_client_that_leaves_frees_the_server(origin, path):
    with connected(origin.url) as connection:
        connection.sendall(get(path))
        wait_until(lambda: origin.hits(path) == 1)
        assert (open_connections(origin), pending_answers()) == (1, 1)
    wait_until(lambda: (open_connections(origin), pending_answers()) == (0, 0))


def test_a_client_that_does_not_read_costs_no_memory(origin, client):
    with connected(origin.url) as idle:
        idle.sendall(get("/hostile/huge"))
        wait_until(lambda: origin.hits("/hostile/huge") == 1)
        before = psutil.Process().memory_info().rss
        for _ in range(500):  # as many turns for the stream, whose pieces are 50 KB
            client.get(origin.url + "/page/0")
        assert psutil.Process().memory_info().rss - before < 10_000_000


def test_closing_ends_every_connection_and_the_thread(client):
    threads = set(threading.enumerate())
    with contextlib.ExitStack() as stack:
        origin = stack.enter_context(Origin(PAGES))
        paths = ["/hostile/hang", "/hostile/endless", "/hostile/drip-body", "/slow/60000/1"]
        connections = [stack.enter_context(connected(origin.url)) for _ in paths]
        for connection, path in zip(connections, paths, strict=True):
            connection.sendall(get(path))
        wait_until(lambda: origin.total_hits() == 4)
        origin.close()
        origin.close()
        assert set(threading.enumerate()) == threads
        with pytest.raises(ConnectionRefusedError):
            connected(origin.url)


def test_an_origin_that_was_not_started_says_so():
    origin = Origin(PAGES)
    origin.close()
    with pytest.raises(LabError, match="not started"):
        _ = origin.url


def test_a_taken_port_is_named(origin):
    port = urlsplit(origin.url).port
    with pytest.raises(ServiceError, match=str(port)), Origin(PAGES, port=port):
        pass


@contextlib.contextmanager
def process(*arguments: str):
    command = [sys.executable, "-m", "fuze_bench.lab.parts.origin", *arguments]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as running:
        try:
            yield running
        finally:
            running.kill()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_the_process_says_ready_once_and_ends_on_a_signal(client, number):
    with process("--page-bytes", "1234", "--seed", "1") as running:
        line = running.stdout.readline()
        url = re.fullmatch(r"ready (http://127\.0\.0\.1:\d+)\n", line)[1]
        assert len(client.get(url + "/page/3").content) == 1234
        with connected(url) as hanging:
            hanging.sendall(get("/hostile/hang"))
            wait_until(lambda: client.get(url + "/hits?path=/hostile/hang").json()["/hostile/hang"] == 1)
            running.send_signal(number)
            assert running.communicate(timeout=10) == ("", "")
        assert running.returncode == 0


def test_the_process_serves_a_folder(client, tmp_path):
    (tmp_path / "only.html").write_bytes(b"<p>only</p>")
    with process("--pages", str(tmp_path), "--failure-rate", "0", "--latency-ms", "1") as running:
        url = running.stdout.readline().split()[1]
        assert client.get(url + "/page/77").content == b"<p>only</p>"


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["--pages", os.devnull + "/none"], os.devnull + "/none"),
        (["--page-bytes", "5"], "page_bytes is 5"),
        (["--page-bytes", "5000", "--pages", "x"], "exclude each other"),
        (["--page-bytes", "5000", "--failure-rate", "2"], "failure_rate is 2"),
        (["--page-bytes", "5000", "--port", "99999"], "99999"),
    ],
)
def test_a_wrong_option_is_one_line_and_status_2(arguments, named):
    with process(*arguments) as running:
        output, errors = running.communicate(timeout=20)
    assert (running.returncode, output) == (2, "")
    assert named in errors
    assert errors.count("\n") == 1


def test_closing_ends_connections_that_are_just_being_accepted(monkeypatch):
    """Clients that connect while the origin closes: nothing of them is left for the garbage collector to complain of."""
    left: list[object] = []
    monkeypatch.setattr(sys, "unraisablehook", left.append)
    gc.freeze()  # what is there already is not looked through thirty times
    try:
        for _ in range(30):
            with Origin() as running:
                port = urlsplit(running.url).port
                clients: list[socket.socket] = []
                knocking = threading.Thread(target=_knock, args=(port, clients))
                knocking.start()
            knocking.join()
            for client in clients:
                client.close()
            gc.collect()
    finally:
        gc.unfreeze()
    assert left == []


def _knock(port, clients):
    with contextlib.suppress(OSError):
        for _ in range(20):
            clients.append(socket.create_connection(("127.0.0.1", port), timeout=5))
