"""Many processes on one SQLite file: nobody is told that it is locked, and no worker looks for a row that is not there yet."""

from __future__ import annotations

import sqlite3
import threading
import time
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

from api_server import Client, api_process
from conftest import StartWorker, wait_until

from fuze_bench.lab.parts.origin import Origin
from fuze_bench.pipeline.bookmarks import Reason, Status
from fuze_bench.pipeline.service import BookmarkService
from fuze_bench.pipeline.settings import Settings
from fuze_bench.pipeline.store import Store

_SAVES = 150
_GROUP = 25


def test_a_job_never_comes_before_its_row(
    settings: Settings, origin: Origin, start_worker: StartWorker
) -> None:
    """Workers idle, eager for jobs, while saves wait for somebody who holds the write lock for half a second at a time.

    A job that found no row would leave its bookmark pending: nobody looks for those that wait this soon.
    """
    patient = replace(settings, recover_after_s=3_600.0)
    stop = threading.Event()

    def hold_the_lock() -> None:
        connection = sqlite3.connect(patient.data_dir / "bookmarks.sqlite", isolation_level=None, timeout=30)
        while not stop.is_set():
            connection.execute("BEGIN IMMEDIATE")
            time.sleep(0.5)
            connection.execute("COMMIT")
            stop.wait(0.05)
        connection.close()

    with (
        BookmarkService(patient) as service,
        start_worker(patient),
        start_worker(patient),
    ):
        new = [service.check(user_id=1, url=f"{origin.url}/status/404?n={n}") for n in range(_SAVES)]
        holder = threading.Thread(target=hold_the_lock)
        holder.start()
        try:
            for start in range(0, _SAVES, _GROUP):
                service.save(new[start : start + _GROUP])
        finally:
            stop.set()
            holder.join()
        wait_until(
            lambda: service.store.counts()["failed"] == _SAVES, timeout_s=120, what="everything to be done"
        )
        rows = service.store.rows("reason", "attempts")
    assert {(row["reason"], row["attempts"]) for row in rows} == {(Reason.NOT_FOUND, 1)}


def test_nobody_is_told_that_the_database_is_locked(
    settings: Settings, origin: Origin, tmp_path: Path, start_worker: StartWorker
) -> None:
    """Four workers and two API processes, all of which read and then write; bounded in work, not in time."""
    rounds, wrong = 10, []

    def use(client: Client, who: int) -> None:
        for n in range(rounds):
            url = f"{origin.url}/page/{n}?who={who}"
            saved = client.save(url)
            again = client.save(f"{url}#top", title=f"Mine {who} {n}")
            if (saved.status, again.status // 100) != (201, 2):
                wrong.append((saved.raw, again.raw))
                return
            read = client.get(f"/api/bookmarks/{saved.json['bookmark']['id']}")
            if read.status != 200 or read.json["title"] != f"Mine {who} {n}":
                wrong.append(read.raw)
                return

    with ExitStack() as stack:
        apis = [stack.enter_context(api_process(settings, tmp_path / f"api-{n}.log")) for n in range(2)]
        workers = stack.enter_context(start_worker(settings, "--count", "4"))
        store = stack.enter_context(Store(settings))
        users = [
            threading.Thread(target=use, args=(Client(apis[who % 2][0]), who), name=f"user-{who}")
            for who in range(4)
        ]
        for user in users:
            user.start()
        for user in users:
            user.join()
        assert wrong == []
        total = 4 * rounds
        wait_until(
            lambda: store.counts()["pending"] + store.counts()["processing"] == 0,
            timeout_s=120,
            what="everything to be done",
        )
        rows = store.rows("status", "reason", "error")
        assert [row for row in rows if row["status"] != Status.PROCESSED] == []
        assert len(rows) == total
        logs = "".join(child.log_tail(10_000) for child in (workers, *(api for _, api in apis)))
    assert "locked" not in logs
    assert "Traceback" not in logs
