"""A wall is never taken for the page, and a page that only looks like a wall is read."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from wall_pages import PAGES, WALLS

from fuze_bench.lab.parts.origin import Origin
from fuze_bench.pipeline.bookmarks import NewBookmark, ProcessingError, Reason, Status
from fuze_bench.pipeline.extract import extract
from fuze_bench.pipeline.process import Pipeline
from fuze_bench.pipeline.settings import Settings

HTML = "text/html; charset=utf-8"
URL = "https://example.org/"


@pytest.mark.parametrize("name", WALLS)
def test_walls_are_known(name: str) -> None:
    with pytest.raises(ProcessingError) as caught:
        extract(WALLS[name], HTML, URL)
    assert caught.value.reason is Reason.BLOCKED
    assert caught.value.detail


@pytest.mark.parametrize("name", PAGES)
def test_pages_that_look_like_walls_are_read(name: str) -> None:
    assert extract(PAGES[name], HTML, URL).text


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (b"<title>404 Not Found</title><center><h1>404 Not Found</h1></center><hr><center>nginx</center>", Reason.NOT_FOUND),
        (b"<title>Page not found</title><h1>Page not found</h1><p>Go <a href=/>home</a>.</p>", Reason.NOT_FOUND),
        (b"<title>500 Internal Server Error</title><h1>Internal Server Error</h1>", Reason.SERVER_ERROR),
        (b"<title>503 Service Temporarily Unavailable</title><h1>503 Service Temporarily Unavailable</h1>", Reason.SERVER_ERROR),
    ],
)  # fmt: skip
def test_error_pages_that_say_200(body: bytes, reason: Reason) -> None:
    with pytest.raises(ProcessingError) as caught:
        extract(body, HTML, URL)
    assert caught.value.reason is reason


def test_nothing_of_a_wall_is_stored_and_it_is_tried_again(data_dir: Path, origin: Origin) -> None:
    url = origin.put("/put/wall", WALLS["cloudflare"])
    settings = Settings(
        data_dir=data_dir,
        embedding_model="off",
        retry_intervals_s=(60.0,),
        fetch_allow=("127.0.0.1",),
    )
    pipeline = Pipeline(settings)
    [saved] = pipeline.store.save([NewBookmark(user_id=1, url=url, canonical_url=url, title="Mine")])
    pipeline.process([saved.bookmark.id])
    bookmark = pipeline.store.get(saved.bookmark.id)
    assert bookmark is not None
    assert (bookmark.status, bookmark.title) == (Status.PENDING, "Mine")
    assert bookmark.retry_at is not None
    pipeline.close()

    last = Pipeline(replace(settings, retry_intervals_s=()))
    [saved] = last.store.save([NewBookmark(user_id=2, url=url, canonical_url=url)])
    last.process([saved.bookmark.id])
    bookmark = last.store.get(saved.bookmark.id)
    assert bookmark is not None
    assert (bookmark.status, bookmark.reason, bookmark.http_status) == (Status.FAILED, Reason.BLOCKED, 200)
    assert bookmark.title is None
    assert last.store.content(saved.bookmark.id) == (None, None)
    last.close()
