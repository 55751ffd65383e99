"""The API with tokens: who gets in, who sees what, how much of it, and that no token shows anywhere."""

from __future__ import annotations

import dataclasses
import json
import logging
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from api_server import QUICK_SAVE, Answer, Client, assert_problem, running_api

from fuze_bench.errors import SettingsError
from fuze_bench.pipeline.api.rate_limit import RateLimit
from fuze_bench.pipeline.api.sessions import SESSION_S, Sessions
from fuze_bench.pipeline.api.tokens import Tokens
from fuze_bench.pipeline.redis_server import PrivateRedis
from fuze_bench.pipeline.settings import Settings
from fuze_bench.processes import Child, free_port
from fuze_bench.timing import FakeClock

FIVE, SIX = "five-0123456789abcdef.~+/-_==", "six-00000000000000000000"
WRONG = "wrong-0123456789abcdef"
_USERS = f"# who may save\n\n{FIVE} 5\n  {SIX}\t6  \r\n"
_JSON = {"Content-Type": "application/json"}


def bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


def save(api: Client, token: str | None, url: str = "https://example.org/", **headers: str) -> Answer:
    sent = {**_JSON, **({} if token is None else bearer(token)), **headers}
    return api.send("POST", QUICK_SAVE, json.dumps({"url": url}).encode(), sent)


def sign_in(api: Client, token: str, **headers: str) -> Answer:
    return api.send("POST", "/api/session", json.dumps({"token": token}).encode(), {**_JSON, **headers})


def cookie_of(answer: Answer) -> dict[str, str]:
    assert answer.status == 200, answer.raw
    return {"Cookie": answer.headers["set-cookie"].partition(";")[0]}


def write(path: Path, text: str) -> Path:
    """As an editor does: another file of the same name."""
    new = path.with_suffix(".new")
    new.write_text(text)
    new.chmod(0o600)
    return new.replace(path)


@pytest.fixture
def tokens(tmp_path: Path) -> Path:
    return write(tmp_path / "tokens", _USERS)


@pytest.fixture(scope="module")
def shared_settings(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Settings]:
    folder = tmp_path_factory.mktemp("users")
    with PrivateRedis(folder / "redis") as server:
        yield Settings(
            data_dir=folder,
            redis_url=server.url,
            embedding_model="off",
            api_tokens=write(folder / "tokens", _USERS),
            rate_limit_per_min=0,
        )


@pytest.fixture(scope="module")
def api(shared_settings: Settings) -> Iterator[Client]:
    """One API for all tests that change neither its settings nor its tokens."""
    with running_api(shared_settings) as base_url:
        yield Client(base_url)


@pytest.mark.parametrize(
    "authorization",
    [
        None, "", "Bearer", "Bearer ", f"Bearer {WRONG}", f"Bearer {FIVE[:-1]}", f"Bearer {FIVE}x", FIVE, f"Basic {FIVE}",
        f"Token {FIVE}", f"Bearer {FIVE} {FIVE}", f"Bearer {FIVE},Bearer {FIVE}", "Bearer \xe9", f"Bearer {FIVE.upper()}",
        "Bearer #", "Bearer 5", f"Bearer {'x' * 30_000}",
    ],
)  # fmt: skip
def test_without_a_known_token_nobody_gets_in(api: Client, authorization: str | None) -> None:
    headers = {} if authorization is None else {"Authorization": authorization}
    for method, path in (
        ("GET", "/api/bookmarks"),
        ("POST", QUICK_SAVE),
        ("GET", "/api/nothing"),
        ("POST", "/"),
    ):
        answer = api.send(method, path, headers=headers)
        assert_problem(answer, 401)
        assert answer.headers["www-authenticate"] == "Bearer"


def test_every_route_of_the_description_asks_for_one(api: Client) -> None:
    asked = 0
    for path, operations in api.get("/openapi.json").json["paths"].items():
        for method, operation in operations.items():
            if path.startswith("/api/") and path != "/api/session":
                answer = api.send(method.upper(), path.replace("{id}", "1"))
                assert_problem(answer, 401)
                assert {"401", "421"} <= operation["responses"].keys()
                assert operation["security"]
                asked += 1
    assert asked >= 4


@pytest.mark.parametrize("path", ["/", "/page.css", "/page.js", "/sign-in", "/sign-in.js", "/healthz", "/readyz", "/openapi.json"])  # fmt: skip
def test_pages_and_health_are_open(api: Client, path: str) -> None:
    assert api.get(path).status == 200


def test_a_known_token_gets_in_as_its_user(api: Client) -> None:
    assert save(api, FIVE).json["bookmark"]["userId"] == 5
    assert save(api, SIX).json["bookmark"]["userId"] == 6
    assert api.send("GET", "/api/bookmarks", headers={"Authorization": f"bEARER {FIVE}"}).status == 200


def test_nobody_sees_or_touches_what_is_another_users(api: Client) -> None:
    saved = save(api, FIVE, "https://example.org/private").json
    number, job = str(saved["bookmark"]["id"]), saved["job"]["id"]
    again = save(api, SIX, "https://example.org/private").json
    assert not again["wasDuplicate"]
    listed = api.send("GET", "/api/bookmarks", headers=bearer(SIX)).json["bookmarks"]
    assert {each["userId"] for each in listed} == {6}
    with_id = [
        (method.upper(), path.replace("{id}", job if "/jobs/" in path else number))
        for path, operations in api.get("/openapi.json").json["paths"].items() if "{id}" in path
        for method in operations
    ]  # fmt: skip
    for method, path in with_id:
        assert_problem(api.send(method, path, headers=bearer(SIX)), 404, says="there is no")
    for path in (f"/api/bookmarks/{number}", f"/api/jobs/{job}"):
        assert api.send("GET", path, headers=bearer(FIVE)).status == 200


def test_people_are_led_to_the_sign_in_and_back(api: Client) -> None:
    answer = api.send("GET", "/api/bookmarks?limit=2", headers={"Accept": "text/html,*/*;q=0.8"})
    assert (answer.status, answer.headers["location"]) == (
        303,
        "/sign-in?next=%2Fapi%2Fbookmarks%3Flimit%3D2",
    )


def test_a_session_stands_for_the_token(api: Client) -> None:
    answer = sign_in(api, FIVE, Origin=api.base_url)
    assert answer.json == {"userId": 5}
    attributes = answer.headers["set-cookie"].split("; ")[1:]
    assert set(attributes) == {"HttpOnly", "Path=/", "SameSite=strict", f"Max-Age={SESSION_S}"}
    cookie = cookie_of(answer)
    assert FIVE not in cookie["Cookie"]
    assert save(api, None, **cookie, Origin=api.base_url).json["bookmark"]["userId"] == 5
    assert save(api, None, **cookie, **{"Sec-Fetch-Site": "same-origin"}).status == 200
    assert api.send("GET", "/api/session", headers=cookie).json == {"userId": 5}
    mixed = {"Cookie": f"a=b; fuze_session=x; {cookie['Cookie']}; c"}
    assert api.send("GET", "/api/bookmarks", headers=mixed).status == 200


def test_a_session_needs_a_page_of_ours_to_change_something(api: Client) -> None:
    cookie = cookie_of(sign_in(api, FIVE))
    assert_problem(save(api, None, **cookie), 401)
    assert_problem(save(api, None, **cookie, Origin="https://evil.example"), 403)
    assert_problem(save(api, None, **cookie, **{"Sec-Fetch-Site": "same-site"}), 403)


def test_a_wrong_token_is_not_saved_by_a_session(api: Client) -> None:
    cookie = cookie_of(sign_in(api, FIVE))
    assert_problem(api.send("GET", "/api/bookmarks", headers={**cookie, **bearer(WRONG)}), 401)


def test_signing_out_ends_the_session_and_no_other(api: Client) -> None:
    first, second = (cookie_of(sign_in(api, FIVE)) for _ in range(2))
    assert first != second
    answer = api.send("DELETE", "/api/session", headers=first)
    assert answer.status == 204
    assert "Max-Age=0" in answer.headers["set-cookie"]
    assert_problem(api.send("GET", "/api/bookmarks", headers=first), 401)
    assert api.send("GET", "/api/bookmarks", headers=second).status == 200
    assert api.send("GET", "/api/session", headers=first).json == {"userId": None}


def test_the_cookie_is_for_https_where_the_browser_speaks_it(api: Client) -> None:
    host = api.base_url.removeprefix("http://")
    assert "; Secure" in sign_in(api, FIVE, Origin=f"https://{host}").headers["set-cookie"]
    assert "; Secure" not in sign_in(api, FIVE, Origin=api.base_url).headers["set-cookie"]


@pytest.mark.parametrize(
    ("body", "content_type", "status"),
    [
        (json.dumps({"token": WRONG}), "application/json", 401),
        ('{"token": "\\ud800"}', "application/json", 400),
        ("{}", "application/json", 422),
        ('{"token": 5}', "application/json", 422),
        ("{", "application/json", 400),
        (json.dumps({"token": FIVE}), "text/plain", 415),
        (json.dumps({"token": "x" * 5_000}), "application/json", 413),
    ],
)
def test_a_sign_in_that_is_refused(api: Client, body: str, content_type: str, status: int) -> None:
    answer = api.send("POST", "/api/session", body.encode(), {"Content-Type": content_type})
    assert_problem(answer, status, field="token" if status == 422 else None)
    assert "set-cookie" not in answer.headers


def test_a_stranger_cannot_sign_a_browser_in(api: Client) -> None:
    assert_problem(sign_in(api, FIVE, Origin="https://evil.example"), 403)


def test_without_tokens_there_is_no_sign_in(shared_settings: Settings) -> None:
    with running_api(dataclasses.replace(shared_settings, api_tokens=None)) as base_url:
        api = Client(base_url)
        for path in ("/sign-in", "/api/session"):
            assert_problem(api.get(path), 404)
        assert save(api, None).json["bookmark"]["userId"] == 1
        assert "securitySchemes" not in api.get("/openapi.json").json["components"]


def test_the_file_is_obeyed_as_soon_as_it_changes(
    shared_settings: Settings, tokens: Path, caplog: pytest.LogCaptureFixture
) -> None:
    def status(headers: dict[str, str]) -> int:
        return api.send("GET", "/api/bookmarks", headers=headers).status

    with running_api(dataclasses.replace(shared_settings, api_tokens=tokens)) as base_url:
        api = Client(base_url)
        cookie = cookie_of(sign_in(api, FIVE))
        assert [status(bearer(FIVE)), status(bearer(SIX)), status(cookie)] == [200, 200, 200]
        write(tokens, f"{SIX} 6\n{WRONG} 7\n")
        assert [status(bearer(FIVE)), status(bearer(SIX)), status(cookie)] == [401, 200, 401]
        assert save(api, WRONG).json["bookmark"]["userId"] == 7
        write(tokens, f"{SIX} 6\n{WRONG} seven\n")
        assert_problem(save(api, SIX), 503, says="its log says why")
        assert status(bearer(SIX)) == 503
        assert api.get("/healthz").status == 200
        [said] = [record.getMessage() for record in caplog.records if record.levelno == logging.ERROR]
        assert "line 2" in said
        tokens.unlink()
        assert status(bearer(SIX)) == 503
        write(tokens, _USERS)
        assert [status(bearer(FIVE)), status(bearer(WRONG)), status(cookie)] == [200, 401, 200]
    assert not any(token in caplog.text for token in (FIVE, SIX, WRONG))


@pytest.mark.parametrize(
    ("line", "says"),
    [
        (f"{WRONG}", "write a token, a blank"),
        (f"{WRONG} 1 2", "write a token, a blank"),
        (f"{WRONG},1", "write a token, a blank"),
        ("secret-short 1", "less than 16 characters"),
        (f"{WRONG}! 1", "characters that no token can have"),
        (f"{WRONG}ä 1", "characters that no token can have"),
        (f"{WRONG} 0", "not a number from 1"),
        (f"{WRONG} -1", "not a number from 1"),
        (f"{WRONG} 1.5", "not a number from 1"),
        (f"{WRONG} ²", "not a number from 1"),
        (f"{WRONG} 9007199254740992", "not a number from 1"),
        (f"123456789012345678 {WRONG}", "not a number from 1"),
        (f"{FIVE} 7", "there twice"),
    ],
)
def test_a_broken_line_is_named_and_not_shown(tokens: Path, line: str, says: str) -> None:
    write(tokens, f"{_USERS}{line}\n")
    with pytest.raises(SettingsError, match=rf", line 5: .*{says}") as caught:
        Tokens(tokens)
    for part in line.replace(",", " ").split():
        assert len(part) < 3 or part not in str(caught.value)


@pytest.mark.parametrize("content", ["", "# nobody yet\n", None])
def test_a_file_without_tokens_is_refused(tmp_path: Path, content: str | None) -> None:
    path = tmp_path / "tokens"
    if content is not None:
        write(path, content)
    with pytest.raises(SettingsError, match=f"FUZE_API_TOKENS={path} (holds no token|cannot be read)"):
        Tokens(path)


@pytest.mark.parametrize(("mode", "warns"), [(0o600, False), (0o400, False), (0o640, True), (0o604, True)])
def test_a_file_that_others_can_read_is_warned_of(
    tokens: Path, caplog: pytest.LogCaptureFixture, mode: int, warns: bool
) -> None:
    tokens.chmod(mode)
    Tokens(tokens)
    assert ("can be read by others: chmod 600" in caplog.text) is warns


def test_a_session_ends_by_itself_and_when_there_are_too_many(tokens: Path) -> None:
    clock = FakeClock()
    sessions = Sessions(Tokens(tokens), clock)

    def begin(token: str) -> bytes:
        begun = sessions.begin(token.encode())
        assert begun is not None
        return b"fuze_session=" + begun[1].encode()

    other = begin(SIX)
    mine = [begin(FIVE) for _ in range(25)]
    assert [sessions.user_of(each) for each in mine] == [None] * 5 + [5] * 20
    assert sessions.user_of(other) == 6
    clock.advance(SESSION_S - 1)
    assert sessions.user_of(mine[-1]) == 5
    clock.advance(1)
    assert sessions.user_of(mine[-1]) is None
    begin(FIVE)
    assert len(sessions._open) == 1


def test_a_user_can_change_a_tenth_at_once_and_then_as_much_as_the_limit() -> None:
    clock = FakeClock()
    limit = RateLimit(600, clock)
    assert [limit.wait_s(5) for _ in range(60)] == [0] * 60
    assert limit.wait_s(5) == pytest.approx(0.1)
    assert limit.wait_s(6) == 0
    clock.advance(0.1)
    assert limit.wait_s(5) == 0
    assert limit.wait_s(5) > 0
    served = 0
    for _ in range(600):
        clock.advance(0.05)
        served += limit.wait_s(5) == 0
    assert served == 300
    clock.advance(3_600)
    assert sum(limit.wait_s(5) == 0 for _ in range(100)) == 60


def test_what_the_limit_remembers_is_limited() -> None:
    clock = FakeClock()
    limit = RateLimit(60, clock)
    for user in range(20_000):
        limit.wait_s(user)
        clock.advance(1)
    assert len(limit._full_at_ns) < 5_000
    unlimited = RateLimit(0, clock)
    assert not any(unlimited.wait_s(1) for _ in range(1_000))


def test_too_many_saves_are_put_off(shared_settings: Settings) -> None:
    with running_api(dataclasses.replace(shared_settings, rate_limit_per_min=10)) as base_url:
        api = Client(base_url)
        assert save(api, FIVE).status in (200, 201)
        answer = save(api, FIVE)
        assert_problem(answer, 429, says="try again in")
        assert 1 <= int(answer.headers["retry-after"]) <= 6
        assert save(api, SIX).status in (200, 201)
        for _ in range(5):
            assert api.send("GET", "/api/bookmarks", headers=bearer(FIVE)).status == 200


def test_signing_out_is_not_put_off(shared_settings: Settings) -> None:
    with running_api(dataclasses.replace(shared_settings, rate_limit_per_min=10)) as base_url:
        api = Client(base_url)
        session = cookie_of(sign_in(api, FIVE)) | {"Sec-Fetch-Site": "same-origin"}
        assert api.send("POST", QUICK_SAVE, b"{}", {**_JSON, **session}).status == 422
        assert api.send("POST", QUICK_SAVE, b"{}", {**_JSON, **session}).status == 429
        assert api.send("DELETE", "/api/session", headers=session).status == 204
        assert api.send("GET", "/api/bookmarks", headers=session).status == 401


def test_no_token_shows_in_the_log_or_in_the_process_list(
    shared_settings: Settings, tokens: Path, tmp_path: Path
) -> None:
    """The real command, which listens to everybody here."""
    tokens.chmod(0o644)
    settings = dataclasses.replace(shared_settings, api_tokens=tokens)
    port, log = free_port(), tmp_path / "api.log"
    argv = [sys.executable, "-m", "fuze_bench.cli", "api", "--host", "0.0.0.0", "--port", str(port)]
    api = Client(f"http://127.0.0.1:{port}")
    with Child("api", argv, log, environment=settings.environment(os.environ)) as child:
        child.wait_ready(api.is_answered, timeout_s=60)
        assert save(api, FIVE).status in (200, 201)
        assert save(api, WRONG).status == 401
        assert api.send("GET", f"/api/bookmarks?token={FIVE}", headers=bearer(FIVE)).status == 422
        cookie = cookie_of(sign_in(api, SIX))
        assert sign_in(api, WRONG).status == 401
        secure = sign_in(api, SIX, **{"X-Forwarded-Proto": "https", "X-Forwarded-For": "192.0.2.1"})
        assert "Secure" not in secure.headers["set-cookie"]
        assert api.send("GET", "/api/bookmarks", headers={**cookie, "Host": "192.0.2.7"}).status == 200
        assert api.send("GET", "/api/bookmarks", headers={**cookie, "Host": "evil.example"}).status == 421
        tokens.write_text(f"{FIVE} 5\n{SIX} six\n")
        assert save(api, FIVE).status == 503
        process = psutil.Process(child.pid)
        shown = " ".join(process.cmdline()) + repr(process.environ())
    logged = log.read_text()
    assert child.returncode() == 0
    assert "can be read by others" in logged
    assert "line 2" in logged
    assert "Traceback" not in logged
    session = cookie["Cookie"].partition("=")[2]
    assert not any(secret in text for secret in (FIVE, SIX, WRONG, session) for text in (logged, shown))
