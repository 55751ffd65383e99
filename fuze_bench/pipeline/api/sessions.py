"""Sign-in for browsers: a token is exchanged for a cookie that no script can read."""

from __future__ import annotations

import secrets
from collections.abc import Iterator

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from fuze_bench.errors import InputError, one_line
from fuze_bench.pipeline.api import messages
from fuze_bench.pipeline.api.problems import unauthorized
from fuze_bench.pipeline.api.requests import USER_KEY, json_answer, read_body, require_json
from fuze_bench.pipeline.api.tokens import Tokens, digest_of
from fuze_bench.timing import Clock

COOKIE = "fuze_session"
PATH = "/api/session"
SESSION_S = 30 * 24 * 3600
#: Sessions of one token; a further sign-in ends the oldest.
_MOST_PER_TOKEN = 20
_BODY_MAX_BYTES = 4_096


class Sessions:
    """Who is signed in, in the memory of this process: a restart signs everybody out, and so does striking a token."""

    def __init__(self, tokens: Tokens, clock: Clock) -> None:
        self._tokens = tokens
        self._clock = clock
        # By the session's digest: its token's digest, and when it ends.
        self._open: dict[bytes, tuple[bytes, int]] = {}

    def begin(self, token: bytes) -> tuple[int, str] | None:
        """The token's user and the secret of a new session; None for a token that is not known."""
        found = self._tokens.find(token)
        if found is None:
            return None
        digest, user = found
        now_ns = self._clock.monotonic_ns()
        still = {
            session: (owner, ends_ns)
            for session, (owner, ends_ns) in self._open.items()
            if ends_ns > now_ns and self._tokens.user_of(owner) is not None
        }
        for session in [each for each, (owner, _) in still.items() if owner == digest][: 1 - _MOST_PER_TOKEN]:
            del still[session]
        secret = secrets.token_urlsafe(32)
        self._open = {**still, digest_of(secret.encode()): (digest, now_ns + SESSION_S * 1_000_000_000)}
        return user, secret

    def user_of(self, cookies: bytes) -> int | None:
        """Whose session one of the cookies of a Cookie header is."""
        for secret in _secrets_in(cookies):
            owner, ends_ns = self._open.get(digest_of(secret), (b"", 0))
            if ends_ns > self._clock.monotonic_ns():
                return self._tokens.user_of(owner)
        return None

    def end(self, cookies: bytes) -> None:
        """End the sessions of a Cookie header."""
        for secret in _secrets_in(cookies):
            self._open.pop(digest_of(secret), None)


def _secrets_in(cookies: bytes) -> Iterator[bytes]:
    for each in cookies.split(b";"):
        name, _, value = each.strip().partition(b"=")
        if name == COOKIE.encode():
            yield value


def routes() -> list[Route]:
    """The sign-in, which is there only where tokens are."""
    return [Route(PATH, _session, methods=["GET", "POST", "DELETE"])]


_decode = msgspec.json.Decoder(messages.SignIn).decode


async def _session(request: Request) -> Response:
    if request.method == "POST":
        return await _sign_in(request)
    if request.method == "DELETE":
        return _sign_out(request)
    return json_answer(messages.SignedIn(request.scope.get(USER_KEY)))


async def _sign_in(request: Request) -> Response:
    body = await read_body(request, _BODY_MAX_BYTES)
    require_json(request)
    try:
        sent = _decode(body)
    except msgspec.ValidationError as error:
        raise InputError(f"the body: {one_line(error)[:300]}", field="token") from None
    except (msgspec.DecodeError, UnicodeDecodeError):
        raise InputError("the body is not JSON", status=400) from None
    begun = request.app.state.sessions.begin(sent.token.encode("utf-8", "surrogatepass"))
    if begun is None:
        return unauthorized(request.scope, "this token is not known: look for missing characters")
    user, secret = begun
    answer = json_answer(messages.SignedIn(user))
    answer.set_cookie(
        COOKIE, secret, max_age=SESSION_S, httponly=True, samesite="strict", secure=_is_encrypted(request)
    )
    return answer


def _is_encrypted(request: Request) -> bool:
    """Whether the browser speaks https, if only with a proxy: its Origin, which the guard has compared, says so."""
    return request.url.scheme == "https" or request.headers.get("origin", "").startswith("https://")


def _sign_out(request: Request) -> Response:
    request.app.state.sessions.end(request.headers.get("cookie", "").encode("latin-1"))
    answer = Response(status_code=204)
    answer.delete_cookie(COOKIE, httponly=True, samesite="strict", secure=_is_encrypted(request))
    return answer
