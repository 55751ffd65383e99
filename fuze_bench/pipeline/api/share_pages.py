"""The small pages that say what became of a share. Whatever was shared goes into them as text, each in a box of its
own, so that neither markup nor a change of direction in it reaches what is around it.
"""

from __future__ import annotations

from collections.abc import Mapping
from html import escape

from starlette.responses import Response

from fuze_bench.pipeline.api.pages import page_headers
from fuze_bench.pipeline.bookmarks import NewBookmark
from fuze_bench.pipeline.service import SaveResult

#: Where they are.
PATH = "/share"
# With `no-referrer`, as on the other pages, our own form would come from the origin `null`, like a stranger's.
_HEADERS = page_headers(form_action="'self'") | {
    "Referrer-Policy": "same-origin",
    "Cache-Control": "no-store",
}

_PAGE = """<!doctype html>
<html lang="en">
<head>
  <meta charset="utf-8">
  <meta name="viewport" content="width=device-width, initial-scale=1">
  <meta name="color-scheme" content="light dark">
  <title>{heading} – Bookmarks</title>
  <link rel="icon" href="/icon.svg" type="image/svg+xml">
  <link rel="manifest" href="/manifest.webmanifest">
  <link rel="stylesheet" href="/page.css">
</head>
<body>
  <main class="share">
    <h1>{heading}</h1>
{content}
    <p class="way-on"><a href="/">Show all bookmarks</a></p>
  </main>
</body>
</html>
"""


def question(new: NewBookmark) -> Response:
    """The page that asks whether to save, with a form that does."""
    title = "" if new.title is None else f'<input type="hidden" name="title" value="{escape(new.title)}">'
    form = f"""
    <form method="post" action="{PATH}">
      <input type="hidden" name="url" value="{escape(new.url)}">{title}
      <button type="submit" autofocus>Save</button>
    </form>"""
    return _page("Save this page?", _shown(new.title, new.url) + form, 200)


def saved(result: SaveResult) -> Response:
    """The page for what is saved, now or before."""
    heading = "Saved before" if result.was_duplicate else "Saved"
    note = (
        "This page is among your bookmarks already."
        if result.was_duplicate
        else "It is fetched and read in the background."
    )
    warning = "" if result.warning is None else f'\n    <p id="warning">{escape(result.warning)}</p>'
    shown = _shown(result.bookmark.title, result.bookmark.url)
    status = 200 if result.was_duplicate else 201
    return _page(heading, f'{shown}\n    <p class="quiet">{note}</p>{warning}', status)


def refused(reason: str, status: int, headers: Mapping[str, str] | None = None) -> Response:
    """The page for what is not saved, with the reason."""
    return _page("Not saved", f'    <p class="why" role="alert">{escape(reason)}</p>', status, headers)


def _page(heading: str, content: str, status: int, headers: Mapping[str, str] | None = None) -> Response:
    page = _PAGE.format(heading=heading, content=content)
    return Response(page, status, media_type="text/html", headers={**_HEADERS, **(headers or {})})


def _shown(title: str | None, url: str) -> str:
    name = "" if title is None else f'<p class="name"><bdi>{escape(title)}</bdi></p>'
    return f'    <article>{name}<p class="address"><bdi>{escape(url)}</bdi></p></article>'
