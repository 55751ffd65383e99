"""What every request to the API passes first: the name it asks for, the page that sent it, and what every answer says."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import json
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
from api_server import QUICK_SAVE, Client, assert_problem, kept, running_api
from starlette.applications import Starlette
from starlette.routing import Route
from starlette.types import Message

from fuze_bench.cli import main
from fuze_bench.errors import SettingsError
from fuze_bench.pipeline.api import create_app
from fuze_bench.pipeline.api.hosts import Hosts
from fuze_bench.pipeline.redis_server import PrivateRedis
from fuze_bench.pipeline.settings import Settings

_SAVE = json.dumps({"url": "https://example.org/"}).encode()
_JSON = {"Content-Type": "application/json"}
_EVERYWHERE = {
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
}


@pytest.fixture(scope="module")
def shared_settings(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Settings]:
    folder = tmp_path_factory.mktemp("guard")
    with PrivateRedis(folder / "redis") as server:
        yield Settings(
            data_dir=folder, redis_url=server.url, embedding_model="off", api_hosts=("Bookmarks.example",)
        )


@pytest.fixture(scope="module")
def api(shared_settings: Settings) -> Iterator[Client]:
    with running_api(shared_settings) as base_url:
        yield Client(base_url)


@pytest.mark.parametrize(
    "host",
    ["127.0.0.1", "127.0.0.1:1", "127.8.9.10", "localhost", "LocalHost:80", "[::1]", "[::1]:8000", "bookmarks.example",
     "BOOKMARKS.EXAMPLE:443"],
)  # fmt: skip
def test_it_answers_under_its_own_names(api: Client, host: str) -> None:
    assert api.send("GET", "/api/bookmarks", headers={"Host": host}).status == 200


@pytest.mark.parametrize(
    "host",
    ["evil.example", "evil.example:8000", "127.0.0.1.evil.example", "127.evil.example", "localhost.evil.example",
     "evil-localhost", "notbookmarks.example", "0.0.0.0", "10.0.0.1", "[2001:db8::1]", "[::]", "127.0.0.1.", "0x7f000001"],
)  # fmt: skip
@pytest.mark.parametrize("path", ["/api/bookmarks", "/", "/healthz"])
def test_a_name_that_dns_was_made_to_lead_here_gets_nothing(api: Client, path: str, host: str) -> None:
    answer = api.send("GET", path, headers={"Host": host})
    assert_problem(answer, 421, says="FUZE_API_HOSTS")
    assert repr(host) in answer.json["detail"]


@pytest.mark.parametrize(
    "lines",
    [b"", b"Host:\r\n", b"Host: localhost\r\nHost: localhost\r\n", b"Host: localhost\r\nHost: evil.example\r\n",
     b"Host: a b\r\n", b"Host: http://localhost\r\n", b"Host: localhost:x\r\n", b"Host: user@localhost\r\n",
     b"Host: localhost,localhost\r\n", b"Host: \xe9\r\n", b"Host: [::1\r\n"],
)  # fmt: skip
def test_a_host_that_is_none(api: Client, lines: bytes) -> None:
    with socket.create_connection(api.address, timeout=10) as connection:
        connection.sendall(b"GET /api/bookmarks HTTP/1.1\r\nConnection: close\r\n" + lines + b"\r\n")
        answer = connection.makefile("rb").read()
    assert answer.split()[1] == b"400"
    assert b"bookmarks" not in answer


def test_where_it_listens_to_others_it_answers_to_addresses_and_to_listed_names() -> None:
    hosts = Hosts("0.0.0.0", ["bookmarks.example"])
    for host in (b"192.0.2.7:8000", b"[2001:db8::1]:80", b"localhost", b"127.0.0.1", b"bookmarks.example"):
        assert hosts.serves(host) is True, host
    for host in (b"evil.example", b"192.0.2.7.evil.example", b"bookmarks.example.evil.example"):
        assert hosts.serves(host) is False, host
    assert Hosts("box.example", []).serves(b"box.example:8000") is True
    assert Hosts("box.example", []).serves(b"other.example") is False


def test_how_many_hosts_are_remembered_is_limited() -> None:
    hosts = Hosts("127.0.0.1", [])
    for number in range(2_000):
        assert hosts.serves(f"evil{number}.example".encode()) is False
    assert len(hosts._known) < 1_000


@pytest.mark.parametrize(
    "headers",
    [
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
        {"Sec-Fetch-Site": "cross-site", "Origin": "{own}"},
        {"Sec-Fetch-Site": ""},
        {"Origin": "https://evil.example"},
        {"Origin": "null"},
        {"Origin": ""},
        {"Origin": "http://127.0.0.1:1"},
        {"Origin": "http://127.0.0.1"},
        {"Origin": "{own}.evil.example"},
        {"Origin": "https://evil.example", "Sec-Fetch-Site": "same-origin"},
        {"Origin": "chrome-extension://abcdefghijklmnop", "Sec-Fetch-Site": "none"},
    ],
)
@pytest.mark.parametrize("method", ["POST", "DELETE", "PUT", "PATCH"])
def test_what_the_page_of_another_site_sends_changes_nothing(
    api: Client, shared_settings: Settings, method: str, headers: dict[str, str]
) -> None:
    before = kept(shared_settings)
    sent = {name: value.format(own=api.base_url) for name, value in headers.items()}
    assert_problem(api.send(method, QUICK_SAVE, _SAVE, {**_JSON, **sent}), 403, says="sent this")
    assert kept(shared_settings) == before


@pytest.mark.parametrize(
    "headers",
    [{}, {"Sec-Fetch-Site": "same-origin", "Origin": "{own}"}, {"Sec-Fetch-Site": "none"}, {"Origin": "{own}"},
     {"Origin": "https://bookmarks.example", "Host": "bookmarks.example"}],
)  # fmt: skip
def test_its_own_pages_and_what_is_no_browser_can_save(api: Client, headers: dict[str, str]) -> None:
    sent = {name: value.format(own=api.base_url) for name, value in headers.items()}
    assert api.send("POST", QUICK_SAVE, _SAVE, {**_JSON, **sent}).status in (200, 201)


def test_reading_is_refused_to_nobody_and_readable_by_no_other_site(api: Client) -> None:
    stranger = {"Origin": "https://evil.example", "Sec-Fetch-Site": "cross-site"}
    preflight = {**stranger, "Access-Control-Request-Method": "POST"}
    for method, path, status in (
        ("GET", "/api/bookmarks", 200), ("GET", "/", 200), ("HEAD", "/", 200), ("OPTIONS", QUICK_SAVE, 405),
    ):  # fmt: skip
        answer = api.send(method, path, headers=preflight if method == "OPTIONS" else stranger)
        assert answer.status == status
        assert not [name for name in answer.headers if name.startswith("access-control-")]


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/", 200),
        ("GET", "/page.js", 200),
        ("GET", "/healthz", 200),
        ("GET", "/openapi.json", 200),
        ("GET", "/nothing", 404),
        ("GET", "/api/bookmarks", 200),
        ("GET", "/api/bookmarks?limit=x", 422),
        ("GET", "/api/bookmarks/999", 404),
        ("GET", "/api/nothing", 404),
        ("DELETE", QUICK_SAVE, 405),
        ("POST", QUICK_SAVE, 415),
    ],
)
def test_every_answer_is_for_its_own_pages_only(api: Client, method: str, path: str, status: int) -> None:
    answer = api.send(method, path, b"x")
    assert answer.status == status
    assert {name: answer.headers[name] for name in _EVERYWHERE} == _EVERYWHERE
    assert path.startswith("/api/") == (answer.headers.get("cache-control") == "no-store")


def test_so_are_refusals_and_what_a_bug_leads_to(settings: Settings) -> None:
    app = create_app(settings)

    async def fail(_request: object) -> None:
        raise ZeroDivisionError

    app.router.routes.append(Route("/api/bug", fail))
    for path, host, status in (("/api/bug", b"localhost", 500), ("/", b"evil.example", 421)):
        [start, _] = _answer_in_process(app, path, host)
        assert start["status"] == status
        headers = {name.decode(): value.decode() for name, value in start["headers"]}
        assert {name: headers.get(name) for name in _EVERYWHERE} == _EVERYWHERE


def _answer_in_process(app: Starlette, path: str, host: bytes) -> list[Message]:
    sent: list[Message] = []

    async def receive() -> Message:
        return {"type": "http.disconnect"}

    async def send(message: Message) -> None:
        sent.append(message)

    scope = {
        "type": "http", "method": "GET", "path": path, "query_string": b"", "headers": [(b"host", host)],
        "http_version": "1.1", "scheme": "http", "server": ("127.0.0.1", 80), "client": ("127.0.0.1", 1),
    }  # fmt: skip
    with contextlib.suppress(ZeroDivisionError):  # is raised again for the server's log
        asyncio.run(app(scope, receive, send))
    return sent


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "", "192.0.2.7", "box.example", "localhost.example"])
def test_without_tokens_it_listens_to_nobody_else(settings: Settings, host: str) -> None:
    with pytest.raises(SettingsError, match="FUZE_API_TOKENS") as caught:
        create_app(settings, host)
    assert repr(host) in str(caught.value)


@pytest.mark.parametrize("host", ["127.0.0.1", "127.0.0.2", "::1", "localhost"])
def test_on_loopback_it_needs_no_tokens(settings: Settings, host: str) -> None:
    create_app(settings, host)


def test_the_command_says_so_and_starts_nothing(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["api", "--host", "0.0.0.0", "--port", "18999"]) == 2
    said = capsys.readouterr().err
    assert said.startswith("fuze-bench: '0.0.0.0' can be reached from elsewhere")
    assert len(said.splitlines()) == 1


@pytest.mark.parametrize("name", ["http://x.example", "x.example:80", "*", "*.example", "a b", "x/y", ""])
def test_a_listed_name_is_a_name(name: str) -> None:
    with pytest.raises(SettingsError, match="FUZE_API_HOSTS="):
        Settings(api_hosts=(name,))


def test_its_settings_come_back_from_the_environment() -> None:
    settings = Settings.from_mapping(
        {"FUZE_API_HOSTS": "a.example, ::1", "FUZE_API_TOKENS": "t", "FUZE_RATE_LIMIT_PER_MIN": "0"}
    )
    assert (settings.api_hosts, settings.api_tokens) == (("a.example", "::1"), Path("t"))
    assert Settings.from_mapping(settings.to_mapping()) == settings
    empty = dataclasses.replace(settings, api_hosts=(), api_tokens=None)
    assert Settings.from_mapping(empty.to_mapping()) == empty
