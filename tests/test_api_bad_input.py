"""What quick-save refuses: a clear answer, nothing saved, nothing enqueued, and no memory spent on it."""

from __future__ import annotations

import select
import socket
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from api_server import QUICK_SAVE, Client, api_process, assert_problem, kept, running_api

from fuze_bench.pipeline.redis_server import PrivateRedis
from fuze_bench.pipeline.settings import Settings

GOOD = "https://example.org/"
MIB = 1024 * 1024


@pytest.fixture(scope="module")
def shared_settings(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Settings]:
    folder = tmp_path_factory.mktemp("bad-input")
    with PrivateRedis(folder / "redis") as server:
        yield Settings(data_dir=folder, redis_url=server.url, embedding_model="off")


@pytest.fixture(scope="module")
def shared_api(shared_settings: Settings) -> Iterator[Client]:
    with running_api(shared_settings) as base_url:
        yield Client(base_url)


@pytest.fixture
def api(shared_api: Client, shared_settings: Settings) -> Iterator[Client]:
    """One API for all of this file: after each test there is still nothing in the database and in Redis."""
    yield shared_api
    counts, jobs = kept(shared_settings)
    assert sum(counts.values()) == 0
    assert not any(jobs.values())


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("not a url", "'not a url' is not a URL"),
        ("example.org/page", "is not a URL"),
        ("//example.org/page", "is not a URL"),
        ("", "length >= 1"),
        ("   ", "is not a URL"),
        ("https://", "is not a URL"),
        ("https://a b/", "is not a URL"),
        ("https://example.org:99999/", "is not a URL"),
        ("https://[::1/", "is not a URL"),
        ("file:///etc/passwd", "file: URLs cannot be saved"),
        ("ftp://example.org/x", "ftp: URLs cannot be saved"),
        ("javascript:alert(1)", "javascript: URLs cannot be saved"),
        ("java\nscript:alert(1)", "javascript: URLs cannot be saved"),
        ("data:text/html,<b>x", "data: URLs cannot be saved"),
        ("https://user@example.org/", "user name or password"),
        ("https://user:secret@example.org/", "user name or password"),
        ("https://:secret@example.org/", "user name or password"),
        ("https://example.org/\0", "NUL"),
        (GOOD + "x" * 8_000, "8,020 characters: the limit is 8,000"),
    ],
)
def test_a_url_that_cannot_be_saved(api: Client, url: str, says: str) -> None:
    answer = api.save(url)
    assert_problem(answer, 422, field="url", says=says)
    assert "secret" not in answer.json["detail"]


@pytest.mark.parametrize(
    ("body", "status", "says"),
    [
        (b"[]", 422, "got `array`"),
        (b'"https://example.org/"', 422, "got `str`"),
        (b"1", 422, "got `int`"),
        (b"null", 422, "got `null`"),
        (b"true", 422, "got `bool`"),
        (b"", 400, "not JSON"),
        (b"{", 400, "not JSON"),
        (b"url=https://example.org/", 400, "not JSON"),
        (b'{"url": "https://example.org/",}', 400, "not JSON"),
        (b'{"url": "https://example.org/"} {}', 400, "not JSON"),
        (b'\xef\xbb\xbf{"url": "https://example.org/"}', 400, "not JSON"),
        ('{"url": "https://example.org/"}'.encode("utf-16"), 400, "not JSON"),
        (b'{"url": "https://example.org/", "title": NaN}', 400, "not JSON"),
        (b"{}", 422, "required field `url`"),
        (b"[" * 60_000, 422, "got `array`"),
        (b'{"x":' * 10_000, 422, "unknown field `x`"),
        (b'{"url": "https://example.org/", "tags": []}', 422, "unknown field `tags`"),
        (b'{"url": "https://example.org/", "user_id": 2}', 422, "unknown field `user_id`"),
        (b'{"url": "https://example.org/", "%s": 1}' % (b"x" * 60_000), 422, "unknown field `xxx"),
    ],
)
def test_a_body_that_is_not_a_save(api: Client, body: bytes, status: int, says: str) -> None:
    assert_problem(api.post(body), status, says=says)


@pytest.mark.parametrize("field", ["url", "title", "description", "queue"])
@pytest.mark.parametrize(
    "value",
    [
        "1",
        "-0",
        "1.5",
        "1e999",
        "-1e999",
        "9" * 4_000,
        "true",
        "[]",
        '{"a": 1}',
        "[" * 20_000,
        '{"a":' * 5_000,
    ],
    ids=lambda value: value[:10],
)
def test_a_value_of_another_type(api: Client, field: str, value: str) -> None:
    url = "" if field == "url" else f'"url": "{GOOD}", '
    answer = api.post(f'{{{url}"{field}": {value}}}'.encode())
    assert_problem(answer, 422, field=field, says=f"{field}: ")


@pytest.mark.parametrize("field", ["url", "title", "description"])
@pytest.mark.parametrize(
    "text", [rb"\u0000", rb"\ud800", rb"\udc00 x", b"\xff", b"\xed\xa0\x80", b"\xc0\x80", b"\xf5\x80\x80\x80"]
)
def test_text_that_is_not_text(api: Client, field: str, text: bytes) -> None:
    fields = {b"url": b"https://example.org/", field.encode(): b"https://example.org/" + text}
    body = b", ".join(b'"%s": "%s"' % item for item in fields.items())
    assert_problem(
        api.post(b"{%s}" % body),
        422,
        field=field,
        says="URL" if text == rb"\u0000" and field == "url" else field,
    )


@pytest.mark.parametrize("text", [rb"high\u0000", rb"\ud800", b"\xff", b"urgent", b""])
def test_a_queue_that_there_is_not(api: Client, text: bytes) -> None:
    answer = api.post(b'{"url": "https://example.org/", "queue": "%s"}' % text)
    assert_problem(answer, 422, field="queue", says="queue")


@pytest.mark.parametrize("field", ["url", "title", "description", "queue"])
def test_a_name_that_is_there_twice(api: Client, field: str) -> None:
    value = {"url": GOOD, "queue": "low"}.get(field, "x")
    spelled = f"\\u{ord(field[0]):04x}{field[1:]}"
    for name in (field, spelled):
        rest = "" if field == "url" else f', "url": "{GOOD}"'
        answer = api.post(f'{{"{field}": "{value}", "{name}": "{value}"{rest}}}'.encode())
        assert_problem(answer, 422, field=field, says="twice")


@pytest.mark.parametrize(("field", "limit"), [("title", 1_000), ("description", 10_000)])
def test_a_text_past_its_limit(api: Client, field: str, limit: int) -> None:
    answer = api.save(GOOD, **{field: "x" * (limit + 1)})
    assert_problem(answer, 422, field=field, says=f"the limit is {limit:,}")


def test_a_url_of_a_hundred_kilobytes(api: Client) -> None:
    assert_problem(api.save(GOOD + "x" * 100_000), 422, field="url", says="the limit is 8,000")


@pytest.mark.parametrize("body", [{"url": GOOD + "x" * 300_000}, {"url": GOOD, "title": "x" * MIB}])
def test_a_body_past_the_limit(api: Client, body: dict[str, str]) -> None:
    assert_problem(api.post(body), 413, says="the limit is 262,144")


@pytest.mark.parametrize(
    "content_type",
    [
        None,
        "",
        "text/plain",
        "application/x-www-form-urlencoded",
        "multipart/form-data; boundary=x",
        "text/json",
    ],
)
def test_another_content_type(api: Client, content_type: str | None) -> None:
    assert_problem(api.post({"url": GOOD}, content_type), 415, says="send application/json")


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        *[(method, QUICK_SAVE, "POST") for method in ("GET", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE")],
        ("POST", "/api/bookmarks", "GET"),
        ("PUT", "/api/bookmarks/1", "GET"),
        ("POST", "/api/jobs/bookmark-1-1", "GET"),
        ("POST", "/healthz", "GET"),
        ("POST", "/", "GET"),
    ],
)
def test_another_method(api: Client, method: str, path: str, allowed: str) -> None:
    answer = api.send(method, path)
    assert_problem(answer, 405, says="is not possible here: use")
    assert allowed in answer.headers["allow"].split(", ")


@pytest.mark.parametrize(
    "path",
    ["/nothing", "/api", "/api/bookmarks/", "/api/bookmarks/quick-save/", "/page.css.map", "/%2e%2e/x", "//"],
)
def test_an_unknown_path(api: Client, path: str) -> None:
    assert_problem(api.get(path), 404, says="there is nothing at")


@pytest.mark.parametrize("rest", [MIB // 2, 0], ids=["sends the rest", "falls silent"])
def test_a_body_not_much_too_large_is_heard_out_for_a_while(api: Client, rest: int) -> None:
    """A client that looks for the answer only after its whole body gets to see it, not a broken connection."""
    head = f"POST {QUICK_SAVE} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: {MIB}\r\n\r\n"
    with socket.create_connection(api.address, timeout=20) as connection:
        connection.sendall(head.encode() + b" " * (MIB // 2))
        assert select.select([connection], [], [], 0.3)[0] == []
        connection.sendall(b" " * rest)
        assert b" 413 " in connection.makefile("rb").readline()


@pytest.mark.parametrize("declared", [True, False], ids=["content-length", "chunked"])
def test_a_huge_body_is_refused_early_and_costs_no_memory(
    shared_settings: Settings, tmp_path: Path, declared: bool
) -> None:
    with api_process(shared_settings, tmp_path / "api.log") as (base_url, child):
        api = Client(base_url)
        assert_problem(api.post(b"x" * 300_000), 413)  # what the first such request loads is loaded
        assert_problem(api.post([]), 422)
        before = psutil.Process(child.pid).memory_info().rss
        size = 10 * MIB if declared else 50 * MIB
        sent, answer = _send_body(api, size, declared=declared)
        assert b" 413 " in answer.splitlines()[0]
        assert b"application/problem+json" in answer
        assert b"the limit is 262,144" in answer
        assert sent < 10 * MIB
        grown = psutil.Process(child.pid).memory_info().rss - before
        assert grown < 10 * MIB
        assert api.get("/healthz").status == 200
    assert "Traceback" not in child.log_tail(1_000)
    assert sum(kept(shared_settings)[0].values()) == 0


def _send_body(api: Client, size: int, *, declared: bool) -> tuple[int, bytes]:
    """Send a body until the server will have no more of it; (bytes sent, the answer)."""
    framing = f"Content-Length: {size}" if declared else "Transfer-Encoding: chunked"
    head = f"POST {QUICK_SAVE} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n{framing}\r\n\r\n"
    block = b" " * 65_536
    sent = 0
    with socket.create_connection(api.address, timeout=20) as connection:
        connection.sendall(head.encode())
        try:
            while sent < size:
                connection.sendall(block if declared else b"10000\r\n" + block + b"\r\n")
                sent += len(block)
        except OSError:
            pass  # it has hung up
        answer = b""
        try:
            while received := connection.recv(65_536):
                answer += received
        except OSError:
            pass  # the same, after its answer
    return sent, answer
