"""The origin's hostile answers, byte by byte."""

import gzip
import io
import time

import pytest
import requests
from origin_client import PAGES, connected, get, open_connections, wait_until

from fuze_bench.lab.parts.origin import Origin
from fuze_bench.lab.parts.origin_hostile import BOMB_BYTES, HUGE_BYTES, bomb_bytes


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
