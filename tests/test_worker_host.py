"""Workers that the lab's host forks: on the queues and in the order that they are told."""

from __future__ import annotations

from pathlib import Path

from conftest import wait_until

from fuze_bench.lab.parts.origin import Origin
from fuze_bench.lab.parts.worker_host import WorkerHost
from fuze_bench.pipeline.service import BookmarkService
from fuze_bench.pipeline.settings import Settings


def test_forked_workers_take_queues_in_the_order_they_are_told(
    service: BookmarkService, settings: Settings, origin: Origin, tmp_path: Path
) -> None:
    new = [
        service.check(user_id=1, url=f"{origin.url}/page/{n}?{queue}", queue=queue)
        for queue in ("high", "default", "low")
        for n in range(3)
    ]
    ids = [result.bookmark.id for result in service.save(new)]
    with (
        WorkerHost(settings, tmp_path / "host.log") as host,
        host.start(
            "workers",
            settings,
            "simple",
            1,
            tmp_path / "workers.log",
            queues=["low", "high"],
            strategy="round_robin",
        ),
    ):
        wait_until(lambda: service.store.counts()["processed"] == 6, what="two queues to be drained")
    rows = [row for row in service.store.rows("id", "started_ns") if row["started_ns"]]
    order = [row["id"] for row in sorted(rows, key=lambda row: row["started_ns"])]
    assert order == [i for pair in zip(ids[6:], ids[:3], strict=True) for i in pair]
