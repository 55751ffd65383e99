"""The Web Share Target: a browser's share dialog saves through `/share`, and a page says what became of it.

A GET only asks, and so does a form of another site: nothing is saved because somebody showed a picture or a link.
"""

from __future__ import annotations

from urllib.parse import urlencode

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from fuze_bench.errors import InputError, InvalidUrlError
from fuze_bench.pipeline.api import share_pages
from fuze_bench.pipeline.api.forms import read_form, read_urlencoded
from fuze_bench.pipeline.api.group_commit import GroupCommit
from fuze_bench.pipeline.api.hosts import strangers_page
from fuze_bench.pipeline.api.problems import sign_in_first
from fuze_bench.pipeline.api.requests import counting_refusals, known_user, read_body, service_of
from fuze_bench.pipeline.bookmarks import NewBookmark
from fuze_bench.pipeline.shared_text import shared_addresses, shared_title

#: Asking needs to know no user; another site's link does not bring the session's cookie.
_NOBODY = 0


def routes() -> list[Route]:
    """`/share`, as the manifest names it."""
    return [Route(share_pages.PATH, share, methods=["GET", "POST"])]


async def share(request: Request) -> Response:
    """Save what is shared, or ask first; the answer is a page for people."""
    if request.method != "POST":
        return share_pages.question(_checked(request, read_urlencoded(request.scope["query_string"])))
    with counting_refusals(request):
        body = await read_body(request, service_of(request).settings.body_max_bytes)
        new = _checked(request, read_form(body, request.headers.get("content-type", "")))
    if not _is_ours(request):
        return share_pages.question(new)
    user = known_user(request)
    if user is None:
        again = {"url": new.url, **({} if new.title is None else {"title": new.title})}
        return sign_in_first(f"{share_pages.PATH}?{urlencode(again)}")
    saver: GroupCommit = request.app.state.saver
    return share_pages.saved(await saver.save(msgspec.structs.replace(new, user_id=user)))


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
    # Browsers leave Sec-Fetch-Site out where there is no TLS, and a share has no origin.
    headers = request.headers
    site = headers.get("sec-fetch-site")
    return site == "none" or strangers_page(site, headers.get("origin"), headers.get("host", "")) is None
