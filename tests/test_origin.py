"""The origin: routes, counts and faults, over real sockets."""

import contextlib
import re
import time

import pytest
import requests
from origin_client import PAGES, connected, exchange, get

from fuze_bench.errors import LabError, SettingsError
from fuze_bench.lab.parts.corpus import load_corpus, sized_pages
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
