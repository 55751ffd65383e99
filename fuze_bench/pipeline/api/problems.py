"""Errors as RFC 9457 describes them (application/problem+json), or on a page; no traceback reaches a client."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from urllib.parse import quote

import msgspec
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import RedirectResponse, Response
from starlette.types import Scope

from fuze_bench.errors import InputError, StoreError
from fuze_bench.pipeline.api import messages, share_pages

logger = logging.getLogger(__name__)

_encode = msgspec.json.Encoder().encode

_TITLES = {400: "Bad request", 401: "Not signed in", 403: "Not from here", 404: "Not found",
           405: "Method not allowed", 413: "Too large", 415: "Unsupported media type", 421: "Another host",
           422: "Not acceptable", 429: "Too many requests", 503: "Unavailable"}  # fmt: skip

#: On every answer: it is what its type says, for our own pages only, in no frame, and no opener has a hold on it.
SAFE_HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
}


def problem(
    scope: Scope,
    status: int,
    detail: str,
    field: str | None = None,
    headers: dict[str, str] | None = None,
) -> Response:
    """The answer that says what is wrong: a page where people share, else for programs."""
    if scope["path"] == share_pages.PATH:
        return share_pages.refused(detail, status, headers)
    body = messages.Problem(title=_TITLES.get(status, "Error"), status=status, detail=detail, field=field)
    return Response(_encode(body), status, headers=headers, media_type="application/problem+json")


def unauthorized(
    scope: Scope, detail: str = "send Authorization: Bearer and a token that is known here", accept: str = ""
) -> Response:
    """The answer to whoever did not say who they are, or not right; people in a browser are asked to sign in."""
    if "text/html" in accept:
        query = scope["query_string"].decode("latin-1")
        return sign_in_first(scope["path"] + (f"?{query}" if query else ""))
    return problem(scope, 401, detail, headers={"WWW-Authenticate": "Bearer"})


def sign_in_first(back_to: str) -> Response:
    """The answer that has people sign in, and leads them to this path of ours afterwards."""
    return RedirectResponse(f"/sign-in?next={quote(back_to, safe='')}", 303)


def _on_input_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, InputError)
    # The rest of a body that is too large is not read: the connection cannot be used again.
    headers = {"Connection": "close"} if error.status == 413 else None
    return problem(request.scope, error.status, str(error), error.field, headers)


def database_fails(error: Exception) -> str:
    """What clients are told of it. What it says itself, with hosts and users, is for the log only."""
    logger.error("%s", error)
    return "the database cannot be used at the moment"


def _on_store_error(request: Request, error: Exception) -> Response:
    return problem(request.scope, 503, f"{database_fails(error)}; nothing was saved: try again later")


def _on_http_exception(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    if error.status_code == 404:
        return problem(request.scope, 404, f"there is nothing at {request.url.path[:200]!r}")
    if error.status_code == 401:
        return unauthorized(request.scope, error.detail, request.headers.get("accept", ""))
    allowed = (error.headers or {}).get("Allow")
    detail = f"{request.method[:20]} is not possible here: use {allowed}" if allowed else error.detail
    return problem(request.scope, error.status_code, detail, headers=dict(error.headers or {}))


def _on_disconnect(request: Request, _error: Exception) -> Response:
    # Nobody is there to read it.
    return problem(request.scope, 400, "the body ended before it was complete")


def _on_bug(request: Request, error: Exception) -> Response:
    logger.error("unexpected error in a request", exc_info=error)
    # This answer does not pass the guard, which puts them on all others.
    return problem(
        request.scope, 500, "something went wrong here; it has been logged", headers=dict(SAFE_HEADERS)
    )


def answer(request: Request, error: Exception) -> Response:
    """What HANDLERS say to an error."""
    kind = next(kind for kind in type(error).__mro__ if kind in HANDLERS)
    return HANDLERS[kind](request, error)


HANDLERS: Mapping[type[Exception], Callable[[Request, Exception], Response]] = {
    InputError: _on_input_error,
    StoreError: _on_store_error,
    HTTPException: _on_http_exception,
    ClientDisconnect: _on_disconnect,
    Exception: _on_bug,
}
