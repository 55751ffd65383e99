"""Workers on two other hosts, with one Redis and one PostgreSQL over the network; one of them is cut off."""

from __future__ import annotations

import os
import sys
import uuid
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from conftest import wait_until
from hosts import Network, forwarded, need_namespaces
from psycopg.conninfo import conninfo_to_dict

from fuze_bench.lab.parts.origin import Origin
from fuze_bench.pipeline.redis_server import find_binary
from fuze_bench.pipeline.service import BookmarkService
from fuze_bench.pipeline.settings import Settings
from fuze_bench.processes import Child, free_port


@pytest.fixture
def network() -> Iterator[Network]:
    need_namespaces()
    with Network() as running:
        yield running


@pytest.fixture
def shared(
    network: Network, tmp_path: Path, postgresql_database: str, data_dir: Path, origin: Origin
) -> Iterator[tuple[Settings, str]]:
    """What all hosts are given: Redis with a user and a password, PostgreSQL by TCP; and the address of a site."""
    port = free_port(network.address)
    config = tmp_path / "redis.conf"
    config.write_text(
        f"bind {network.address}\nport {port}\nuser default off\nuser fuze on >pass@word ~* &* +@all\nsave ''\n"
    )
    database = conninfo_to_dict(postgresql_database)
    socket_file = Path(str(database["host"])) / f".s.PGSQL.{database.get('port', 5432)}"
    site = origin.url.rpartition(":")[2]
    with (
        Child("redis", [find_binary(), str(config)], tmp_path / "redis.log") as server,
        forwarded(network.address, socket_file) as database_port,
        forwarded(network.address, ("127.0.0.1", int(site))) as site_port,
    ):
        server.wait_ready(lambda: "Ready to accept" in server.log_tail(), timeout_s=30)
        settings = Settings(
            data_dir=data_dir,
            redis_url=f"redis://fuze:pass%40word@{network.address}:{port}/0",
            database_url=f"postgresql://postgres@{network.address}:{database_port}/{database['dbname']}",
            embedding_model="off",
            host_fetches=0,
            host_interval_s=0.0,
            fetch_allow=(network.address,),
            lease_s=3,
            lease_check_s=0.5,
        )
        yield settings, f"http://{network.address}:{site_port}"


def test_two_hosts_share_the_work_and_one_that_is_cut_off_loses_nothing(
    network: Network, shared: tuple[Settings, str], tmp_path: Path
) -> None:
    settings, site = shared

    def worker(number: int) -> Child:
        # One job at a time, so that each host has its share of two.
        argv = [
            *network.add_host(number), sys.executable, "-m", "fuze_bench.pipeline.worker", "--kind", "simple"
        ]  # fmt: skip
        own = replace(settings, data_dir=tmp_path / f"host-{number}")
        log = tmp_path / f"worker-{number}.log"
        return Child(f"worker-{number}", argv, log, environment=own.environment(os.environ))

    def jobs_of(child: Child) -> int:
        return child.log_path.read_text().count(" processed in ")

    with worker(1) as near, worker(2) as far, BookmarkService(settings) as service:
        for child in (near, far):
            child.wait_ready(lambda child=child: "Listening on" in child.log_tail(), timeout_s=60)

        def save(path: str, count: int) -> list[int]:
            pages = [service.check(user_id=1, url=f"{site}{path}{number}") for number in range(count)]
            return [result.bookmark.id for result in service.save(pages)]

        def all_processed() -> bool:
            return not any(n for status, n in service.store.counts().items() if status != "processed")

        def save_one_more() -> None:
            """Another page, as soon as none waits."""
            if all_processed():
                save(f"/page/1?{uuid.uuid4()}", 1)

        save("/slow/200/", 20)
        wait_until(lambda: jobs_of(near) + jobs_of(far) == 20, what="the first pages")
        assert jobs_of(near) > 2
        assert jobs_of(far) > 2

        save("/slow/1500/1", 2)
        wait_until(lambda: len(_claims(service)) == 2, what="a job in hand on each host")
        [cut_off] = [bookmark for bookmark, owner in _claims(service).items() if owner == far.pid]
        network.cut(2)
        wait_until(all_processed, what="the other host to do what the lost one had")
        again = service.store.get(cut_off)
        assert again
        assert again.attempts == 2
        save("/page/", 10)
        wait_until(all_processed, what="the work to go on")

        network.mend(2)
        before = jobs_of(far)
        # One is the job it had: what it found comes too late and counts for nothing.
        wait_until(lambda: save_one_more() or jobs_of(far) > before + 1, what="it to work again")
        wait_until(all_processed, what="the last pages")
        late = service.store.get(cut_off)
        assert late
        assert (late.attempts, late.done_at) == (2, again.done_at)


def _claims(service: BookmarkService) -> dict[int, int]:
    """The pid of who holds each claim; both hosts have this machine's name, so that pids are what tells them apart."""
    rows = service.store.rows("id", "claimed_by")
    return {row["id"]: int(row["claimed_by"].split("@")[0]) for row in rows if row["claimed_by"]}
