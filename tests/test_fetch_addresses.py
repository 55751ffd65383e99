"""Fetching leads nowhere it must not: whatever the spelling, the name, the redirect, and whenever the answer changes."""

from __future__ import annotations

import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import requests.adapters
from conftest import wait_until

from fuze_bench.lab.parts.origin import Origin
from fuze_bench.pipeline import connections
from fuze_bench.pipeline.bookmarks import ProcessingError, Reason
from fuze_bench.pipeline.fetch import Fetcher
from fuze_bench.pipeline.settings import Settings

CERTIFICATE = Path(__file__).parent / "cases" / "shop.example.pem"
PAGE = b"<html><body><p>A page.</p></body></html>"
#: Public, and never connected to: each comes with one that is refused.
PUBLIC = "93.184.215.14"
SPELLINGS = """
    127.0.0.1 127.1 127.0.0.1. 2130706433 017700000001 0x7f000001 0x7F.1 0177.0.0.1 127.8.9.10 0 0.0.0.0 [::] [::1]
    [0:0:0:0:0:0:0:1] [::ffff:127.0.0.1] [::ffff:7f00:1] [::127.0.0.1] [64:ff9b::127.0.0.1] [64:ff9b:1::7f00:1]
    [2002:7f00:1::] [2001:0:7f00:1::80ff:fffe] localhost LocalHost. a.b.localhost 169.254.169.254 [fd00:ec2::254]
    10.0.0.1 100.64.0.1 192.168.0.1 172.16.0.1 224.0.0.1 255.255.255.255 [fe80::1] [ff02::1]
    １２７.0.0.1 127。0。0。1 ⓛocalhost
""".split()


class Inner:
    """What must not be reached: it counts connections, not only requests."""

    def __init__(self, listener: socket.socket) -> None:
        self._listener = listener
        self.port: int = listener.getsockname()[1]

    def was_reached(self) -> bool:
        try:
            self._listener.accept()[0].close()
        except BlockingIOError:
            return False
        return True


@pytest.fixture
def inner() -> Iterator[Inner]:
    with socket.create_server(("", 0)) as listener:
        listener.setblocking(False)
        yield Inner(listener)


@contextmanager
def fetcher(*allow: str, **more: Any) -> Iterator[Fetcher]:
    opened = Fetcher(Settings(fetch_allow=allow, **{"fetch_total_s": 10.0, "fetch_idle_s": 5.0, **more}))
    try:
        yield opened
    finally:
        opened.close()


def reason(opened: Fetcher, url: str) -> Reason:
    with pytest.raises(ProcessingError) as caught:
        opened.fetch(url)
    return caught.value.reason


@pytest.fixture
def names(monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[str]]:
    """`names(shop=["127.0.0.1"])` makes shop.example be there, and gives the list of what was asked for.

    Of several lists, each look-up takes the next one and the last one stays.
    """
    real = socket.getaddrinfo
    asked: list[str] = []
    known: dict[str, list[list[str]]] = {}

    def answer(host: str, port: int, *rest: Any) -> list[Any]:
        if host not in known:
            return real(host, port, *rest)
        asked.append(host)
        answers = known[host]
        addresses = answers.pop(0) if len(answers) > 1 else answers[0]
        return [info for each in addresses for info in real(each, port, 0, socket.SOCK_STREAM)]

    def name(**hosts: list[str] | list[list[str]]) -> list[str]:
        for host, answers in hosts.items():
            known[f"{host}.example"] = [answers] if isinstance(answers[0], str) else answers  # type: ignore[list-item]
        return asked

    monkeypatch.setattr(socket, "getaddrinfo", answer)
    return name


@contextmanager
def site(
    answer: Callable[[BaseHTTPRequestHandler], None],
    address: tuple[str, int] = ("127.0.0.1", 0),
    tls: ssl.SSLContext | None = None,
) -> Iterator[int]:
    """A server that answers GET as told; its port."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            answer(self)

        def log_message(self, *_: object) -> None:
            pass

    class Server(ThreadingHTTPServer):
        def handle_error(self, *_: object) -> None:
            pass  # a client that does not trust the certificate goes away

    with Server(address, Handler) as server:
        if tls is not None:
            server.socket = tls.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield server.server_port
        finally:
            server.shutdown()
            thread.join()


def page(handler: BaseHTTPRequestHandler) -> None:
    handler.send_response(200)
    handler.send_header("Content-Type", "text/html")
    handler.end_headers()
    handler.wfile.write(PAGE)


@pytest.mark.parametrize("host", SPELLINGS)
def test_no_spelling_leads_inside(host: str, inner: Inner) -> None:
    with fetcher() as opened:
        assert reason(opened, f"http://{host}:{inner.port}/secret") is Reason.ADDRESS_REFUSED
        assert reason(opened, f"https://{host}:{inner.port}/secret") is Reason.ADDRESS_REFUSED
    assert not inner.was_reached()


@pytest.mark.parametrize("host", SPELLINGS)
def test_no_redirect_leads_inside(host: str, inner: Inner, origin: Origin) -> None:
    target = f"//{host}:{inner.port}/secret".encode().decode("latin-1")
    origin.put("/put/out", b"", headers={"Location": target}, status=302)
    with fetcher(urlsplit(origin.url).netloc) as opened:
        assert reason(opened, f"{origin.url}/put/out") is Reason.ADDRESS_REFUSED
    assert origin.hits("/put/out") == 1
    assert not inner.was_reached()


@pytest.mark.parametrize(
    "url",
    ["file:///etc/passwd", "ftp://127.0.0.1/", "http://[fe80::1%25eth0]/", "http://a b/", "http://", "/x"],
)
def test_what_is_no_address_of_the_web_is_refused(url: str) -> None:
    with fetcher("127.0.0.1", "fe80::/10") as opened:
        assert reason(opened, url) is Reason.ADDRESS_REFUSED


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_redirect_from_a_site_that_is_allowed_opens_no_other_port(
    status: int, origin: Origin, inner: Inner
) -> None:
    origin.put("/put/out", b"", headers={"Location": f"http://127.0.0.1:{inner.port}/"}, status=status)
    origin.put("/put/hop", b"", headers={"Location": "/put/out"}, status=status)
    with fetcher(urlsplit(origin.url).netloc) as opened:
        assert reason(opened, f"{origin.url}/put/hop") is Reason.ADDRESS_REFUSED
    assert not inner.was_reached()


@pytest.mark.parametrize(
    "addresses",
    [
        ["127.0.0.1"],
        [PUBLIC, "127.0.0.1"],
        ["127.0.0.1", PUBLIC],
        [PUBLIC, "169.254.169.254"],
        ["::1"],
        ["::ffff:127.0.0.1"],
        ["64:ff9b::127.0.0.1"],
        ["2002:7f00:1::"],
        ["fe80::1%1"],
        [PUBLIC, "fd00::1"],
    ],
)
def test_a_name_of_which_one_address_is_inside_is_refused(
    addresses: list[str], inner: Inner, names: Callable[..., list[str]]
) -> None:
    names(shop=addresses)
    with fetcher() as opened:
        assert reason(opened, f"http://shop.example:{inner.port}/") is Reason.ADDRESS_REFUSED
    assert not inner.was_reached()


def test_what_a_name_means_within_is_not_told(inner: Inner, names: Callable[..., list[str]]) -> None:
    names(shop=["127.8.9.10"])
    with fetcher() as opened, pytest.raises(ProcessingError) as caught:
        opened.fetch(f"http://shop.example:{inner.port}/")
    assert str(caught.value).startswith(Reason.ADDRESS_REFUSED.sentence)
    assert f"shop.example:{inner.port}" in caught.value.detail
    assert "FUZE_FETCH_ALLOW" in caught.value.detail
    assert "127.8" not in str(caught.value)


def test_a_name_that_changes_its_answer_gains_nothing(
    names: Callable[..., list[str]], origin: Origin
) -> None:
    """127.0.0.2 stands in for the outside: it is allowed, and 127.0.0.1 with the same port is not."""
    port = urlsplit(origin.url).port or 0
    asked = names(shop=[["127.0.0.2"], ["127.0.0.1"]])
    with fetcher("127.0.0.2") as opened:
        with site(page, ("127.0.0.2", port)):
            assert opened.fetch(f"http://shop.example:{port}/page/1").body == PAGE
        assert asked == ["shop.example"], "looked up more than once"
        assert reason(opened, f"http://shop.example:{port}/page/1") is Reason.ADDRESS_REFUSED
        assert asked == ["shop.example"] * 2
    assert origin.total_hits() == 0


def test_the_next_address_is_tried(names: Callable[..., list[str]]) -> None:
    names(shop=["127.0.0.3", "127.0.0.1"])
    with site(page) as port, fetcher("shop.example") as opened:
        assert opened.fetch(f"http://shop.example:{port}/").body == PAGE


def test_proxies_of_the_environment_are_not_used(
    origin: Origin, inner: Inner, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, f"http://127.0.0.1:{inner.port}")
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.delenv("NO_PROXY", raising=False)
    with fetcher("127.0.0.1") as opened:
        opened.fetch(f"{origin.url}/page/1")
        reason(opened, "https://127.0.0.1:1/")
    assert not inner.was_reached()


def test_tls_asks_for_the_certificate_of_the_name(
    names: Callable[..., list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked_for: list[str | None] = []
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(CERTIFICATE)
    context.sni_callback = lambda _socket, name, _context: asked_for.append(name)
    names(shop=["127.0.0.1"], other=["127.0.0.1"])
    with site(page, tls=context) as port, fetcher("127.0.0.1") as opened:
        assert reason(opened, f"https://shop.example:{port}/") is Reason.TLS_FAILED  # nobody vouches for it
        monkeypatch.setattr(requests.adapters, "DEFAULT_CA_BUNDLE_PATH", str(CERTIFICATE))
        assert opened.fetch(f"https://shop.example:{port}/").body == PAGE
        assert reason(opened, f"https://other.example:{port}/") is Reason.TLS_FAILED
        assert reason(opened, f"https://127.0.0.1:{port}/") is Reason.TLS_FAILED
    assert asked_for[:3] == ["shop.example", "shop.example", "other.example"]


@pytest.fixture
def stuck(monkeypatch: pytest.MonkeyPatch) -> Iterator[threading.Event]:
    """Names below stuck.example are not answered until the event is set."""
    real = socket.getaddrinfo
    answer = threading.Event()

    def wait(host: str, port: int, *rest: Any) -> list[Any]:
        if not host.endswith(".stuck.example"):
            return real(host, port, *rest)
        assert answer.wait(60)
        raise socket.gaierror(socket.EAI_NONAME, "no such name")

    monkeypatch.setattr(socket, "getaddrinfo", wait)
    yield answer
    answer.set()
    wait_until(lambda: not look_ups(), what="the look-ups to end")


def look_ups() -> list[threading.Thread]:
    return [each for each in threading.enumerate() if each.name == "name-look-up"]


@pytest.mark.parametrize("limits", [{"fetch_idle_s": 0.4}, {"fetch_total_s": 0.4}])
def test_a_name_that_is_not_answered_ends_in_time(
    limits: dict[str, float], stuck: threading.Event, origin: Origin
) -> None:
    with fetcher("127.0.0.1", "localhost", **limits) as opened:
        start = time.monotonic()
        assert reason(opened, "http://a.stuck.example/") is Reason.TIMED_OUT
        assert 0.3 < time.monotonic() - start < 4
        port = urlsplit(origin.url).port
        assert opened.fetch(f"http://localhost:{port}/page/1").http_status == 200, "one holds up the others"


def test_no_more_than_so_many_names_are_left_behind(stuck: threading.Event, origin: Origin) -> None:
    most = connections._LOOKUPS_AT_ONCE
    with fetcher("127.0.0.1", "localhost", fetch_idle_s=0.3) as opened:
        with ThreadPoolExecutor(most + 20) as pool:
            urls = [f"http://n{n}.stuck.example/" for n in range(most + 20)]
            assert set(pool.map(lambda url: reason(opened, url), urls)) == {Reason.TIMED_OUT}
        assert len(look_ups()) == most
        assert opened.fetch(f"{origin.url}/page/1").http_status == 200, "a number needs no look-up"
        stuck.set()
        wait_until(lambda: not look_ups(), what="the look-ups to end")
        port = urlsplit(origin.url).port
        assert opened.fetch(f"http://localhost:{port}/page/1").http_status == 200


def test_a_host_name_with_an_underscore_is_fetched(origin: Origin) -> None:
    port = urlsplit(origin.url).port
    with fetcher("127.0.0.1") as opened:
        assert opened.fetch(f"http://my_shop.localhost:{port}/page/1").http_status == 200
    assert origin.hits("/page/1") == 1


def test_blanks_in_a_path_are_sent_as_browsers_do(origin: Origin) -> None:
    origin.put("/put/a%20b%20c%20https://x.org/", PAGE)
    with fetcher("127.0.0.1") as opened:
        assert opened.fetch(f"{origin.url}/put/a b c https://x.org/").body == PAGE


def test_nothing_is_asked_for_with_head() -> None:
    """HEAD would be answered by 501 here, and by nothing at all elsewhere."""
    seen: list[str] = []

    def answer(handler: BaseHTTPRequestHandler) -> None:
        seen.append(handler.command)
        page(handler)

    with site(answer) as port, fetcher("127.0.0.1") as opened:
        assert opened.fetch(f"http://127.0.0.1:{port}/").body == PAGE
    assert seen == ["GET"]


def test_a_redirect_to_itself_that_sets_a_cookie_is_followed_with_it() -> None:
    seen: list[str | None] = []

    def answer(handler: BaseHTTPRequestHandler) -> None:
        seen.append(handler.headers["Cookie"])
        if handler.headers["Cookie"] == "seen=1":
            page(handler)
            return
        handler.send_response(302)
        handler.send_header("Location", handler.path)
        handler.send_header("Set-Cookie", "seen=1; Path=/")
        handler.end_headers()

    with site(answer) as port, fetcher("127.0.0.1") as opened:
        assert opened.fetch(f"http://127.0.0.1:{port}/a").body == PAGE
        assert seen == [None, "seen=1"]
        opened.fetch(f"http://127.0.0.1:{port}/b")
    assert seen == [None, "seen=1"] * 2, "a cookie went from one page to another"


def test_an_endless_redirect_is_asked_for_six_times(origin: Origin) -> None:
    with fetcher("127.0.0.1") as opened:
        assert reason(opened, f"{origin.url}/redirect-loop") is Reason.TOO_MANY_REDIRECTS
    assert origin.hits("/redirect-loop") == 6
