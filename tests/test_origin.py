"""The origin: routes, counts, faults, hostile answers and a clean end, over real sockets."""

import asyncio
import contextlib
import gc
import gzip
import io
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from urllib.parse import urlsplit

import psutil
import pytest
import requests

from fuze_bench.errors import LabError, ServiceError, SettingsError
from fuze_bench.lab.corpus import Page, load_corpus, sized_pages
from fuze_bench.lab.origin import Origin
from fuze_bench.lab.origin_hostile import BOMB_BYTES, HUGE_BYTES, bomb_bytes

PAGES = [
    Page("a.html", "text/html; charset=utf-8", b"<title>A</title><p>first</p>", "A & B"),
    Page("b.html", "text/html", b"\xff\xfe<\0p\0>\0"),
    Page("c.html", "text/html; charset=koi8-r", b"<p>\xc1</p>"),
]


@pytest.fixture
def origin():
    with Origin(PAGES) as running:
        yield running


@pytest.fixture
def client():
    with requests.Session() as session:
        session.trust_env = False
        yield session


def exchange(url: str, request: bytes, *, stop_after: int = 1 << 20, timeout_s: float = 5) -> bytes:
    """What the server sends for these raw bytes, until it closes or `stop_after` bytes came."""
    received = b""
    with connected(url) as connection:
        connection.settimeout(timeout_s)
        connection.sendall(request)
        while len(received) < stop_after and (data := connection.recv(65536)):
            received += data
    return received


def connected(url: str) -> socket.socket:
    parts = urlsplit(url)
    return socket.create_connection((parts.hostname, parts.port), timeout=5)


def get(path: str) -> bytes:
    return f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode()


def wait_until(condition, timeout_s: float = 5) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, "the condition did not come true"
        time.sleep(0.005)


def open_connections(origin: Origin) -> int:
    """Connections that the server's side still holds, as the kernel sees them."""
    port = urlsplit(origin.url).port
    sockets = psutil.Process().net_connections("tcp")
    return sum(found.laddr.port == port and found.status != psutil.CONN_LISTEN for found in sockets)


def pending_answers() -> int:
    """Streams and delayed replies that still run somewhere in this process.

    Looks at types, not with isinstance: that asks objects of other libraries, and some answer with a warning.
    """
    tasks = [
        found for found in gc.get_objects() if issubclass(type(found), asyncio.Task) and not found.done()
    ]
    timers = [
        found
        for found in gc.get_objects()
        if issubclass(type(found), asyncio.TimerHandle) and not found.cancelled()
    ]
    streams = sum("Connection._stream" in repr(task.get_coro()) for task in tasks)
    return streams + sum("Connection._send_late" in repr(timer) for timer in timers)


# Routes


@pytest.mark.parametrize("number", [0, 1, 2, 4])
def test_a_page_comes_with_its_own_content_type(origin, client, number):
    answer = client.get(f"{origin.url}/page/{number}")
    page = PAGES[number % 3]
    assert (answer.status_code, answer.content, answer.headers["Content-Type"]) == (
        200,
        page.body,
        page.content_type,
    )


def test_the_shipped_corpus_is_the_default(client):
    with Origin() as origin:
        assert client.get(origin.url + "/page/5").content == load_corpus()[5].body


def test_the_index_links_to_every_page(origin, client):
    text = client.get(origin.url).text
    assert re.findall(r'href="(/page/\d+)"', text) == ["/page/0", "/page/1", "/page/2"]
    assert "A &amp; B" in text


def test_head_has_the_length_and_no_body(origin):
    request = b"HEAD /page/0 HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
    head, _, body = exchange(origin.url, request).partition(b"\r\n\r\n")
    assert b"Content-Length: 28" in head
    assert body == b""


def test_a_connection_serves_many_requests(origin):
    with connected(origin.url) as connection:
        for _ in range(3):
            connection.sendall(get("/page/0"))
            received = b""
            while not received.endswith(PAGES[0].body):
                received += connection.recv(65536)
    assert origin.total_hits() == 3


def test_requests_in_one_packet_are_answered_in_order(origin):
    received = exchange(
        origin.url,
        get("/slow/30/0") + get("/page/2") + b"GET /status/404 HTTP/1.1\r\nConnection: close\r\n\r\n",
    )
    places = [received.index(part) for part in (PAGES[0].body, PAGES[2].body, b"404 Not Found")]
    assert places == sorted(places)


def test_a_request_may_arrive_in_pieces(origin):
    with connected(origin.url) as connection:
        for byte in b"GET /page/2 HTTP/1.1\r\nConnection: close\r\n\r\n":
            connection.sendall(bytes((byte,)))
        received = b""
        while data := connection.recv(65536):
            received += data
    assert received.endswith(PAGES[2].body)


@pytest.mark.parametrize("code", [200, 204, 301, 304, 404, 410, 429, 500, 503, 599])
def test_a_status_is_answered(origin, client, code):
    answer = client.get(f"{origin.url}/status/{code}", allow_redirects=False)
    assert answer.status_code == code
    assert (f"<h1>{code}" in answer.text) is (code not in (204, 304))


@pytest.mark.parametrize(
    "path",
    ["/nowhere", "/page/", "/page/x", "/page/-1", "/page/²", "/page/1/2", "/status/100", "/status/9999"],
)
def test_an_unknown_path_is_not_found(origin, client, path):
    assert client.get(origin.url + path).status_code == 404


def test_redirects_lead_to_a_page(origin, client):
    answer = client.get(origin.url + "/redirect/3")
    assert [step.status_code for step in answer.history] == [302, 302, 302]
    assert answer.content == PAGES[0].body


def test_a_redirect_loop_never_ends(origin, client):
    with pytest.raises(requests.TooManyRedirects):
        client.get(origin.url + "/redirect-loop")


def test_a_flaky_path_recovers_on_its_own_count(origin, client):
    first = [client.get(origin.url + "/flaky/2/1?a").status_code for _ in range(4)]
    other = client.get(origin.url + "/flaky/2/1?b").status_code
    assert (first, other) == ([503, 503, 200, 200], 503)


def test_a_slow_page_takes_its_time(origin, client):
    began = time.monotonic()
    assert client.get(origin.url + "/slow/150/1").content == PAGES[1].body
    assert time.monotonic() - began >= 0.149


def test_what_was_put_is_served(origin, client):
    url = origin.put("/put/a", b"\xe4", content_type="text/plain", headers={"X-Kind": "test"}, status=202)
    answer = client.get(url + "?any=query")
    assert (answer.status_code, answer.content, answer.headers["X-Kind"]) == (202, b"\xe4", "test")
    assert client.get(origin.url + "/put/b").status_code == 404


def test_a_put_with_a_query_string_counts_for_it_alone(origin, client):
    origin.put("/put/a", b"any")
    origin.put("/put/a?v=2", b"two")
    assert [client.get(f"{origin.url}/put/a{query}").text for query in ("", "?v=1", "?v=2")] == [
        "any",
        "any",
        "two",
    ]


def test_only_paths_below_put_can_be_put(origin):
    with pytest.raises(LabError, match="'/page/1'"):
        origin.put("/page/1", b"")


@pytest.mark.parametrize("method", ["POST", "DELETE", "OPTIONS"])
def test_other_methods_are_refused(origin, client, method):
    answer = client.request(method, origin.url + "/page/1", data=b"x")
    assert (answer.status_code, answer.headers["Allow"]) == (405, "GET, HEAD")
    assert origin.total_hits() == 0


@pytest.mark.parametrize("request_line", [b"nonsense", b"GET page HTTP/1.1", b"GET / SPDY/3", b""])
def test_nonsense_is_a_bad_request(origin, request_line):
    assert exchange(origin.url, request_line + b"\r\n\r\n").startswith(b"HTTP/1.1 400 ")


def test_an_endless_request_is_refused(origin):
    assert exchange(origin.url, b"GET /" + b"x" * 65600).startswith(b"HTTP/1.1 431 ")


# Counts and faults


def test_hits_are_counted_per_full_path(origin, client):
    for path in ("/page/1", "/page/1?a=1", "/page/1", "/nowhere"):
        client.get(origin.url + path)
    assert (origin.hits("/page/1"), origin.hits("/page/1?a=1"), origin.hits("/page/2")) == (2, 1, 0)
    assert origin.total_hits() == 4
    assert client.get(origin.url + "/hits").json() == {"/page/1": 2, "/page/1?a=1": 1, "/nowhere": 1}
    asked = client.get(origin.url + "/hits", params={"path": ["/page/1?a=1", "/none"]})
    assert asked.json() == {"/page/1?a=1": 1, "/none": 0}


def test_latency_delays_pages_alone(client):
    with Origin(PAGES, latency_ms=120) as origin:
        began = time.monotonic()
        client.get(origin.url + "/page/1")
        assert time.monotonic() - began >= 0.119
        began = time.monotonic()
        client.get(origin.url + "/redirect/0")
        assert time.monotonic() - began < 0.1


def test_failures_come_at_their_rate_and_by_their_seed(client):
    def statuses(seed: int, path: str) -> list[int]:
        with Origin(PAGES, failure_rate=0.3, seed=seed) as origin:
            return [client.get(origin.url + path).status_code for _ in range(200)]

    first = statuses(7, "/page/1")
    assert set(first) == {200, 503}
    assert 35 <= first.count(503) <= 85
    assert statuses(7, "/page/1") == first
    assert statuses(8, "/page/1") != first
    assert set(statuses(7, "/redirect/0")) == {200}


def test_hundreds_of_slow_requests_run_side_by_side(origin):
    with contextlib.ExitStack() as stack:
        connections = [stack.enter_context(connected(origin.url)) for _ in range(400)]
        began = time.monotonic()
        for connection in connections:
            connection.sendall(get("/slow/500/0"))
        for connection in connections:
            assert connection.recv(65536).startswith(b"HTTP/1.1 200 ")
        assert time.monotonic() - began < 5


@pytest.mark.parametrize(
    ("settings", "value"),
    [
        ({"latency_ms": -1}, "-1"),
        ({"failure_rate": 1.5}, "1.5"),
        ({"failure_rate": float("nan")}, "nan"),
        ({"pages": []}, "no pages"),
    ],
)
def test_wrong_settings_are_named(settings, value):
    with pytest.raises(SettingsError, match=value):
        Origin(**({"pages": PAGES} | settings))


@pytest.mark.parametrize("page_bytes", [300, 301, 5_000, 100_003])
def test_sized_pages_have_their_size(page_bytes):
    pages = sized_pages(page_bytes)
    assert {len(page.body) for page in pages} == {page_bytes}
    assert len({page.body for page in pages}) == len(pages) == 100


def test_a_page_too_small_is_refused():
    with pytest.raises(SettingsError, match="299"):
        sized_pages(299)


# Hostile answers


@pytest.mark.parametrize(
    ("name", "content_type", "beginning"),
    [
        ("empty", "text/html; charset=utf-8", b""),
        ("blank", "text/html; charset=utf-8", b"\n"),
        ("pdf", "application/pdf;charset=UTF-8", b"%PDF-"),
        ("misdeclared", "text/html; charset=utf-8", b"\x89PNG\r\n\x1a\n"),
    ],
)
def test_what_is_no_page(origin, client, name, content_type, beginning):
    answer = client.get(f"{origin.url}/hostile/{name}")
    assert (answer.status_code, answer.headers["Content-Type"]) == (200, content_type)
    assert answer.content.startswith(beginning)
    assert len(answer.content) == len(beginning) or name in ("pdf", "misdeclared")


def test_binary_is_no_text_and_always_the_same(origin, client):
    bodies = {client.get(origin.url + "/hostile/binary").content for _ in range(2)}
    assert len(bodies) == 1
    with pytest.raises(UnicodeDecodeError):
        bodies.pop().decode()


def test_the_bomb_is_small_on_the_wire_and_valid(origin, client):
    answer = client.get(origin.url + "/hostile/bomb", stream=True)
    assert answer.headers["Content-Encoding"] == "gzip"
    raw = answer.raw.read(decode_content=False)
    assert len(raw) == int(answer.headers["Content-Length"]) < 500_000
    assert raw == bomb_bytes()
    with gzip.open(io.BytesIO(raw)) as unpacked:
        beginning, size = unpacked.read(15), 15
        while block := unpacked.read(1 << 20):
            size += len(block)
    assert (beginning, size) == (b"<!DOCTYPE html>", BOMB_BYTES)


def test_endless_goes_on_in_valid_chunks(origin, client):
    with client.get(origin.url + "/hostile/endless", stream=True) as answer:
        read = sum(len(answer.raw.read(65536)) for _ in range(40))
    assert read == 40 * 65536
    wait_until(lambda: open_connections(origin) == 0)


def test_huge_is_as_long_as_it_says_and_the_connection_lives_on(origin, client):
    with client.get(origin.url + "/hostile/huge", stream=True) as answer:
        assert answer.headers["Content-Length"] == str(HUGE_BYTES)
        assert sum(map(len, answer.iter_content(1 << 20))) == HUGE_BYTES
    assert client.get(origin.url + "/page/0").content == PAGES[0].body


def test_head_of_a_stream_is_its_head(origin, client):
    assert client.head(origin.url + "/hostile/huge").headers["Content-Length"] == str(HUGE_BYTES)
    assert client.get(origin.url + "/page/0").content == PAGES[0].body


@pytest.mark.parametrize(("name", "wanted"), [("drip-body", b"\r\n\r\n<p>"), ("drip-headers", b"HTT")])
def test_a_drip_comes_byte_by_byte(origin, name, wanted):
    with connected(origin.url) as connection:
        began, received = time.monotonic(), b""
        connection.sendall(get(f"/hostile/{name}"))
        while not received.endswith(wanted):
            received += connection.recv(65536)
        assert 0.38 <= time.monotonic() - began < 3


def test_hang_never_answers(origin, client):
    with pytest.raises(requests.ReadTimeout):
        client.get(origin.url + "/hostile/hang", timeout=0.3)
    assert origin.hits("/hostile/hang") == 1


def test_reset_breaks_off_within_the_head(origin):
    with connected(origin.url) as connection:
        connection.sendall(get("/hostile/reset"))
        wait_until(lambda: open_connections(origin) == 0)
        assert connection.recv(65536).startswith(b"HTTP/1.1 200 OK\r\nContent-Type: t")
        with pytest.raises(ConnectionResetError):
            connection.recv(65536)


def test_short_closes_before_its_length(origin, client):
    with pytest.raises(requests.exceptions.ChunkedEncodingError, match="IncompleteRead"):
        client.get(origin.url + "/hostile/short")


# The end


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


# The process


@contextlib.contextmanager
def process(*arguments: str):
    command = [sys.executable, "-m", "fuze_bench.lab.origin", *arguments]
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
    assert left == []


def _knock(port, clients):
    with contextlib.suppress(OSError):
        for _ in range(20):
            clients.append(socket.create_connection(("127.0.0.1", port), timeout=5))
