"""The files of the pages that people see, with headers that keep strangers' scripts out."""

from __future__ import annotations

from html import escape
from importlib.resources import files

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from fuze_bench.pipeline.bookmarks import Reason

_FILES = {
    "page.css": "text/css",
    "page.js": "text/javascript",
    "server.js": "text/javascript",
    "cards.js": "text/javascript",
    "manifest.webmanifest": "application/manifest+json",
    "icon.svg": "image/svg+xml",
    "icon-192.png": "image/png",
    "icon-512.png": "image/png",
    "icon-maskable-512.png": "image/png",
}


def page_headers(*, form_action: str = "'none'") -> dict[str, str]:
    """The page has its style and script from this server, talks to nobody else, and never turns a text into markup.

    `form_action`: where its forms may be sent.
    """
    return {
        "Content-Security-Policy": "default-src 'none'; style-src 'self'; script-src 'self'; connect-src 'self'; "
        f"img-src 'self'; manifest-src 'self'; base-uri 'none'; form-action {form_action}; "
        "frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types 'none'",
        "X-Content-Type-Options": "nosniff",
        "Referrer-Policy": "no-referrer",
        "Cache-Control": "no-cache",
    }


PAGE_HEADERS = page_headers()


def _file(path: str, name: str, media_type: str) -> Route:
    """A route to one of the page's files, read once, here."""
    return _route(path, _content(name), media_type)


def _content(name: str) -> bytes:
    return (files("fuze_bench.pipeline.api") / "pages" / name).read_bytes()


def _route(path: str, content: bytes, media_type: str) -> Route:
    async def answer(_request: Request) -> Response:
        return Response(content, media_type=media_type, headers=PAGE_HEADERS)

    return Route(path, answer, methods=["GET"])


def _index() -> bytes:
    """The page at `/`, with every reason to choose from."""
    reasons = "".join(
        f'<option value="{reason}">{escape(reason.sentence.removesuffix("."))}</option>' for reason in Reason
    )
    return _content("index.html").replace(b"<!-- reasons -->", reasons.encode())


def sign_in_routes() -> list[Route]:
    """The page at `/sign-in`, which is there only where tokens are."""
    return [
        _file("/sign-in", "sign-in.html", "text/html"),
        _file("/sign-in.js", "sign-in.js", "text/javascript"),
    ]


def routes() -> list[Route]:
    """The page at `/` and what belongs to it."""
    return [
        _route("/", _index(), "text/html"),
        *(_file(f"/{name}", name, media_type) for name, media_type in _FILES.items()),
    ]
