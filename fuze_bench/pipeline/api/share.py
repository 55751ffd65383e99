"""The Web Share Target: a browser's share dialog saves through `/share`, and a page says what became of it.

A GET only asks, and so does a form of another site: nothing is saved because somebody showed a picture or a link.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from urllib.parse import urlencode

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from fuze_bench.errors import InputError, InvalidUrlError, StoreError
from fuze_bench.pipeline.api import share_pages
from fuze_bench.pipeline.api.forms import read_form, read_urlencoded
from fuze_bench.pipeline.api.group_commit import GroupCommit
from fuze_bench.pipeline.api.pages import page_headers
from fuze_bench.pipeline.api.problems import sign_in_first
from fuze_bench.pipeline.api.requests import counting_refusals, known_user, read_body, service_of
from fuze_bench.pipeline.bookmarks import NewBookmark
from fuze_bench.pipeline.shared_text import shared_addresses, shared_title

logger = logging.getLogger(__name__)

# With `no-referrer`, as on the other pages, our own form would come from the origin `null`, like a stranger's.
_HEADERS = page_headers(form_action="'self'") | {
    "Referrer-Policy": "same-origin",
    "Cache-Control": "no-store",
}
#: Asking needs to know no user; another site's link does not bring the session's cookie.
_NOBODY = 0


def routes() -> list[Route]:
    """`/share`, as the manifest names it."""
    return [Route("/share", share, methods=["GET", "POST"])]


async def share(request: Request) -> Response:
    """Save what is shared, or ask first; the answer is a page for people, also where it is refused."""
    try:
        if request.method != "POST":
            return await _answer(request)
        with counting_refusals(request):
            return await _answer(request)
    except InputError as error:
        # The rest of a body that is too large is not read: the connection cannot be used again.
        more = {"Connection": "close"} if error.status == 413 else {}
        return _page(share_pages.refused(str(error)), error.status, more)
    except StoreError as error:
        logger.error("%s", error)
        return _page(share_pages.refused("The database cannot be used at the moment: try again later."), 503)


async def _answer(request: Request) -> Response:
    if request.method == "POST":
        body = await read_body(request, service_of(request).settings.body_max_bytes)
        fields = read_form(body, request.headers.get("content-type", ""))
    else:
        fields = read_urlencoded(request.scope["query_string"])
    new = _checked(request, fields)
    if request.method != "POST" or not _is_ours(request):
        return _page(share_pages.question(new), 200)
    user = known_user(request)
    if user is None:
        again = {"url": new.url, **({} if new.title is None else {"title": new.title})}
        return sign_in_first(f"/share?{urlencode(again)}")
    saver: GroupCommit = request.app.state.saver
    result = await saver.save(msgspec.structs.replace(new, user_id=user))
    return _page(share_pages.saved(result), 200 if result.was_duplicate else 201)


def _checked(request: Request, fields: dict[str, str]) -> NewBookmark:
    """The first address that can be saved, checked as quick-save does, for nobody yet. Raises InputError: why the
    first cannot.
    """
    service = service_of(request)
    url, text, title = (fields.get(name, "") for name in ("url", "text", "title"))
    own_title = shared_title(title, text, service.settings.title_max_chars)
    refusal: InvalidUrlError | None = None
    for address in list(shared_addresses(url, text, title)) or [url]:
        if not address.strip():
            raise InputError(
                "there is no address in what was shared: share a page, or a text with a link", field="url"
            )
        try:
            return service.check(user_id=_NOBODY, url=address, title=own_title)
        except InvalidUrlError as error:
            refusal = refusal or error
    assert refusal is not None
    raise refusal


def _is_ours(request: Request) -> bool:
    """Whether a form comes from our own page, or from the browser itself, as a share does, and from no other site."""
    site = request.headers.get("sec-fetch-site")
    if site is not None:
        return site in ("same-origin", "none")
    # Browsers leave that header out where there is no TLS, and say the origin of every form.
    origin = request.headers.get("origin")
    host = request.headers.get("host", "")
    return origin is None or origin in (f"http://{host}", f"https://{host}")


def _page(content: str, status: int, more: Mapping[str, str] | None = None) -> Response:
    return Response(content, status, media_type="text/html", headers={**_HEADERS, **(more or {})})
