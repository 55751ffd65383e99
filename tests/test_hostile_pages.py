"""What one worker process makes of every page that means ill, one after another, and of a good one after them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from conftest import StartWorker, wait_until
from heavy_pages import BIG_TREE, ENDLESS

from fuze_bench.lab.parts.origin import Origin
from fuze_bench.lab.parts.origin_hostile import HOSTILE
from fuze_bench.pipeline.bookmarks import Bookmark, Reason, Status
from fuze_bench.pipeline.service import BookmarkService
from fuze_bench.pipeline.settings import Settings

REASONS = {
    "empty": {Reason.EMPTY_PAGE},
    "blank": {Reason.EMPTY_PAGE},
    "binary": {Reason.NOT_HTML},
    "pdf": {Reason.NOT_HTML},
    "misdeclared": {Reason.NOT_HTML},
    "bomb": {Reason.TOO_LARGE},
    "endless": {Reason.TOO_LARGE, Reason.TIMED_OUT},
    "long-chunk-line": {Reason.BROKEN_ANSWER},
    "many-headers": {Reason.BROKEN_ANSWER},
    "long-header": {Reason.BROKEN_ANSWER},
    "many-continues": {Reason.TIMED_OUT},
    "huge": {Reason.TOO_LARGE},
    "drip-body": {Reason.TIMED_OUT},
    "drip-headers": {Reason.TIMED_OUT},
    "hang": {Reason.TIMED_OUT},
    "reset": {Reason.BROKEN_ANSWER},
    "short": {Reason.BROKEN_ANSWER},
}
PAGES = Path(__file__).parent / "pages"
PARAGRAPH = b"<p>One more paragraph of a page that goes on and on.</p>\n"
LONG_PAGE = PARAGRAPH * (9_900_000 // len(PARAGRAPH))
#: A worker with all that loads itself at first use, but no model.
LIBRARIES_BYTES = 300 * 2**20
#: Some copies of the largest page that is fetched; not a tree made of it.
MOST_GROWTH_BYTES = 100 * 2**20


def test_a_worker_outlives_them_all_in_bounded_memory(
    service: BookmarkService, settings: Settings, origin: Origin, start_worker: StartWorker
) -> None:
    short = replace(
        settings, fetch_total_s=2.0, fetch_idle_s=1.0, extract_timeout_s=60.0, retry_intervals_s=()
    )
    long_page = origin.put("/put/long", LONG_PAGE)
    urls = [*(f"{origin.url}/hostile/{name}" for name in HOSTILE), long_page, f"{origin.url}/page/1"]
    ids: list[int] = []
    found: list[Bookmark] = []

    def save(url: str) -> None:
        [saved] = service.save([service.check(user_id=1, url=url)])
        ids.append(saved.bookmark.id)

    def are_done() -> bool:
        found[:] = [b for b in map(service.store.get, ids) if b is not None and b.done_at is not None]
        return len(found) == len(ids)

    with start_worker(short, "--kind", "simple") as worker:
        save(f"{origin.url}/page/0")
        wait_until(are_done, what="a first page, for all that loads itself at first use")
        before_bytes = peak_bytes(worker.pid)
        save(origin.put("/put/absurd-colspan", (PAGES / "absurd-colspan.html").read_bytes()))
        wait_until(are_done, what="a table that claims to be wider than memory")
        assert found[-1].status is Status.PROCESSED
        assert len(service.store.content(found[-1].id)[0] or "") <= 1_000
        assert peak_bytes(worker.pid) - before_bytes < 20 * 2**20
        for url in urls:
            save(url)
        wait_until(are_done, timeout_s=120, what="all pages to be done")
        grown_bytes = peak_bytes(worker.pid) - before_bytes
        assert worker.is_alive()
        log = worker.log_tail(1_000)
    reasons = dict(zip(HOSTILE, (b.reason for b in found[2:]), strict=False))
    assert {name: reason for name, reason in reasons.items() if reason not in REASONS[name]} == {}
    assert [b.status for b in found[2:-2]] == [Status.FAILED] * len(HOSTILE)
    assert [b.status for b in found[-2:]] == [Status.PROCESSED] * 2
    assert f"{long_page}: the first 15001 of" in log, "the cut is not told"
    assert grown_bytes < MOST_GROWTH_BYTES


@pytest.mark.parametrize(
    ("kind", "names"),
    [
        ("simple", ["nested-tables", "attributes", "keys-without-end"]),
        ("fork", ["nested-tables"]),
        ("batch", ["nested-tables"]),
    ],
    ids=["simple", "fork", "batch"],
)
def test_a_worker_outlives_pages_that_no_parser_comes_to_an_end_with(
    kind: str,
    names: list[str],
    service: BookmarkService,
    settings: Settings,
    origin: Origin,
    start_worker: StartWorker,
) -> None:
    urls = [origin.put(f"/put/{name}", ENDLESS[name]) for name in names]
    urls += [origin.put("/put/big", BIG_TREE), f"{origin.url}/page/1"]
    short = replace(settings, extract_timeout_s=1.0, retry_intervals_s=())
    saved = service.save([service.check(user_id=1, url=url) for url in urls])
    found: list[Bookmark] = []

    def are_done() -> bool:
        found[:] = [b for s in saved if (b := service.store.get(s.bookmark.id)) and b.done_at is not None]
        return len(found) == len(urls)

    with start_worker(short, "--kind", kind) as worker:
        wait_until(are_done, timeout_s=120, what="all pages to be done")
        assert worker.is_alive()
        assert peak_bytes(worker.pid) < LIBRARIES_BYTES + MOST_GROWTH_BYTES
    assert [b.reason for b in found] == [Reason.TOO_COMPLEX] * (len(names) + 1) + [None]
    assert found[0].error == "The page is too complicated to read. (takes longer than 1 s)"
    assert found[-1].status is Status.PROCESSED


def peak_bytes(pid: int) -> int:
    """The most memory that the process ever had resident (Linux), which a look now and then could miss."""
    status = Path(f"/proc/{pid}/status").read_text(encoding="ascii")
    [line] = [line for line in status.splitlines() if line.startswith("VmHWM:")]
    return int(line.split()[1]) * 1024
