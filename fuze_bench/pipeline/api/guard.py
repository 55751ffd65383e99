"""What every request passes first: is it meant for us, does a stranger's page send it, whose is it, is it too much."""

from __future__ import annotations

import math

from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from fuze_bench.errors import SettingsError
from fuze_bench.pipeline.api import sessions, share_pages
from fuze_bench.pipeline.api.hosts import Hosts, strangers_page
from fuze_bench.pipeline.api.problems import SAFE_HEADERS, problem, unauthorized
from fuze_bench.pipeline.api.rate_limit import RateLimit
from fuze_bench.pipeline.api.requests import ONLY_USER, USER_KEY
from fuze_bench.pipeline.api.sessions import Sessions
from fuze_bench.pipeline.api.tokens import Tokens

#: Paths that other sites may lead to, with a form, too: what is there asks before it changes anything.
ASKS_ITSELF = frozenset({share_pages.PATH})
#: Paths that tell by themselves who may use them.
_OPEN = ASKS_ITSELF | {sessions.PATH}

_READ_ONLY = frozenset({"GET", "HEAD", "OPTIONS"})
_LOOKED_AT = frozenset({b"host", b"origin", b"sec-fetch-site", b"authorization", b"cookie", b"accept"})
_SAFE = [(name.lower().encode(), value.encode()) for name, value in SAFE_HEADERS.items()]
_SAFE_AND_FRESH = [*_SAFE, (b"cache-control", b"no-store")]


class Guard:
    """ASGI middleware. It works on what is in the scope, without a Request: quick-save goes through it, too."""

    def __init__(
        self,
        app: ASGIApp,
        *,
        hosts: Hosts,
        tokens: Tokens | None,
        sessions: Sessions | None,
        rate_limit: RateLimit,
    ) -> None:
        self._app = app
        self._hosts = hosts
        self._tokens = tokens
        self._sessions = sessions
        self._rate_limit = rate_limit

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        is_api = scope["path"].startswith("/api/")

        async def send_safely(message: Message) -> None:
            if message["type"] == "http.response.start":
                if is_api:  # nobody there sets any of them
                    message["headers"] = message["headers"] + _SAFE_AND_FRESH
                else:
                    there = {name for name, _ in message["headers"]}
                    message["headers"] = message["headers"] + [each for each in _SAFE if each[0] not in there]
            await send(message)

        await (self._refusal(scope) or self._app)(scope, receive, send_safely)

    def _refusal(self, scope: Scope) -> Response | None:
        """Why the request is not served, None if it is; then the scope says whose it is, where that is known."""
        headers: dict[bytes, bytes] = {}
        for name, value in scope["headers"]:
            if name in _LOOKED_AT:
                # What is there twice is joined, as HTTP has it, and is then nothing that passes.
                headers[name] = headers[name] + b"," + value if name in headers else value
        refusal = self._wrong_host(scope, headers.get(b"host"))
        if refusal is None and _is_checked(scope):
            refusal = _from_elsewhere(scope, headers)
        if refusal is None and self._tokens is not None:
            refusal = self._unknown_user(scope, headers)
        elif refusal is None:
            scope[USER_KEY] = ONLY_USER
        return refusal

    def _wrong_host(self, scope: Scope, host: bytes | None) -> Response | None:
        served = None if host is None else self._hosts.serves(host)
        if served:
            return None
        if host is None or served is None:
            return problem(
                scope, 400, "the Host header is missing, is there twice, or names no host: send one host"
            )
        shown = host.decode("ascii")[:200]
        return problem(
            scope,
            421,
            f"this API does not answer as {shown!r}: if that is its name, add it to FUZE_API_HOSTS",
        )

    def _unknown_user(self, scope: Scope, headers: dict[bytes, bytes]) -> Response | None:
        """Notes whose request it is; the refusal where that has to be known and is not, or where it is too much."""
        try:
            user = self._user_of(scope, headers)
        except SettingsError:  # logged when the file was read
            return problem(scope, 503, "who may use the API cannot be told at the moment: its log says why")
        if user is None:
            if scope["path"] in _OPEN or not (scope["path"].startswith("/api/") or _changes(scope)):
                return None
            return unauthorized(scope, accept=headers.get(b"accept", b"").decode("latin-1"))
        scope[USER_KEY] = user
        # Signing out has to be possible at any time, and whoever signs in is nobody yet.
        counts = _changes(scope) and scope["path"] != sessions.PATH
        wait_s = self._rate_limit.wait_s(user) if counts else 0
        if not wait_s:
            return None
        after = str(math.ceil(wait_s))
        return problem(
            scope, 429, f"too many requests: try again in {after} s", headers={"Retry-After": after}
        )

    def _user_of(self, scope: Scope, headers: dict[bytes, bytes]) -> int | None:
        """The user of the token, or else of the session. Raises SettingsError if the tokens cannot be read."""
        assert self._tokens is not None
        assert self._sessions is not None
        given = headers.get(b"authorization")
        if given is not None:
            scheme, _, token = given.partition(b" ")
            found = self._tokens.find(token.strip()) if scheme.lower() == b"bearer" else None
            return None if found is None else found[1]
        cookies = headers.get(b"cookie")
        # Browsers send a cookie whoever made the page; to change something, they have to say that it was us.
        is_proven = b"origin" in headers or b"sec-fetch-site" in headers or not _is_checked(scope)
        return self._sessions.user_of(cookies) if cookies is not None and is_proven else None


def _changes(scope: Scope) -> bool:
    return scope["method"] not in _READ_ONLY


def _is_checked(scope: Scope) -> bool:
    """Whether it has to be from our own pages if it is from a page."""
    return _changes(scope) and scope["path"] not in ASKS_ITSELF


def _from_elsewhere(scope: Scope, headers: dict[bytes, bytes]) -> Response | None:
    """The refusal of what a page of another site, or of another port, sends; what is no browser says nothing of it."""
    site, origin, host = (
        None if value is None else value.decode("latin-1")
        for value in map(headers.get, (b"sec-fetch-site", b"origin", b"host"))
    )
    stranger = strangers_page(site, origin, host or "")
    if stranger is None:
        return None
    return problem(
        scope, 403, f"a page of {stranger} sent this: use the API's own page, and let a proxy pass on Host"
    )
