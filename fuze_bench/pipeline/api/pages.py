"""The files of the pages that people see, with headers that keep strangers' scripts out."""

from __future__ import annotations

from importlib.resources import files

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

#: The page has its style and script from this server, talks to nobody else, and never turns a text into markup.
PAGE_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; style-src 'self'; script-src 'self'; connect-src 'self'; "
    "img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; "
    "require-trusted-types-for 'script'; trusted-types 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-cache",
}


def _file(path: str, name: str, media_type: str) -> Route:
    """A route to one of the page's files, read once, here."""
    content = (files("fuze_bench.pipeline.api") / "pages" / name).read_bytes()

    async def answer(_request: Request) -> Response:
        return Response(content, media_type=media_type, headers=PAGE_HEADERS)

    return Route(path, answer, methods=["GET"])


def routes() -> list[Route]:
    """The page at `/` and what belongs to it."""
    return [
        _file("/", "index.html", "text/html"),
        _file("/page.css", "page.css", "text/css"),
        _file("/page.js", "page.js", "text/javascript"),
    ]
