"""The private Redis: real, found by other processes of the same data folder, and gone with its owner."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

import psutil
import psycopg
import pytest
import redis
from conftest import wait_until
from postgresql import running_postgresql

from fuze_bench.errors import ServiceError, SettingsError
from fuze_bench.pipeline.redis_server import (
    PrivateRedis,
    connect,
    find_binary,
    redis_for,
    running_private_url,
)
from fuze_bench.pipeline.settings import Settings


def test_data_is_there_after_a_restart(data_dir: Path) -> None:
    with PrivateRedis(data_dir) as server:
        connect(server.url).set("k", "v")
        server.stop()
        server.start()
        assert connect(server.url).get("k") == b"v"


def test_nobody_else_on_the_machine_gets_at_it(data_dir: Path) -> None:
    """Who can write to a queue has workers run code of theirs."""
    data_dir.mkdir(mode=0o755)
    (data_dir / "redis").mkdir(mode=0o755)
    with redis_for(Settings(data_dir=data_dir)) as settings, connect(settings.redis_url or "") as client:
        assert psutil.Process(client.info()["process_id"]).net_connections("inet") == []
        folder = Path(client.config_get("unixsocket")["unixsocket"]).parent
        assert folder.stat().st_mode & 0o777 == 0o700


def test_a_second_process_finds_the_running_one(data_dir: Path) -> None:
    settings = Settings(data_dir=data_dir)
    assert running_private_url(data_dir) is None
    with redis_for(settings) as owner, redis_for(settings) as guest:
        assert guest.redis_url == owner.redis_url == running_private_url(data_dir)
    assert running_private_url(data_dir) is None


def test_two_that_start_at_the_same_moment_share_one_server(data_dir: Path) -> None:
    servers: list[str] = []
    barrier, leave = threading.Barrier(4), threading.Barrier(4)

    def run() -> None:
        barrier.wait(30)
        with redis_for(Settings(data_dir=data_dir)) as settings:
            servers.append(connect(settings.redis_url or "").info()["run_id"])
            leave.wait(30)

    threads = [threading.Thread(target=run) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(servers) == 4
    assert len(set(servers)) == 1


@pytest.mark.parametrize("text", ["", "{", "[]", '{"url": 5}', '{"url": "nonsense"}'])
def test_a_broken_note_is_none(data_dir: Path, text: str) -> None:
    (data_dir / "redis").mkdir(parents=True)
    (data_dir / "redis" / "running.json").write_text(text)
    assert running_private_url(data_dir) is None


def test_an_own_redis_is_used_as_it_is(data_dir: Path, private_redis: PrivateRedis) -> None:
    with redis_for(Settings(data_dir=data_dir / "other", redis_url=private_redis.url)) as settings:
        assert settings.redis_url == private_redis.url
    assert not (data_dir / "other").exists()


@pytest.mark.skipif(sys.platform != "linux", reason="the kernel ends orphans on Linux only")
def test_it_dies_with_an_owner_that_is_killed(data_dir: Path) -> None:
    code = (
        "import sys, time; from pathlib import Path; from fuze_bench.pipeline.redis_server import PrivateRedis\n"
        f"server = PrivateRedis(Path({str(data_dir)!r})); print(server.pid, flush=True); time.sleep(600)"
    )
    owner = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert owner.stdout is not None
    with owner.stdout:
        pid = int(owner.stdout.readline())
    assert psutil.pid_exists(pid)
    os.kill(owner.pid, signal.SIGKILL)
    owner.wait()
    wait_until(lambda: not psutil.pid_exists(pid), what="redis-server to end")


def test_a_deep_folder_does_not_break_the_socket(tmp_path: Path) -> None:
    deep = tmp_path / ("d" * 70) / ("e" * 70)
    with PrivateRedis(deep) as server:
        assert connect(server.url).ping()
        folder = server.socket_path.parent
    assert not folder.exists()


def test_it_comes_back_where_it_was(tmp_path: Path) -> None:
    """Whatever the folder: who was told its address does not look for another."""
    for name in ("short", "d" * 120, "büro kopie"):
        urls = set()
        for _ in range(2):
            with PrivateRedis(tmp_path / name) as server:
                urls.add(server.url)
        assert len(urls) == 1


def test_a_folder_of_somebody_else_is_no_place_for_the_socket(tmp_path: Path) -> None:
    with PrivateRedis(tmp_path / "a b") as server:
        folder = server.socket_path.parent
    folder.mkdir(mode=0o777)
    folder.chmod(0o777)
    try:
        with pytest.raises(ServiceError, match="of this user alone"):
            PrivateRedis(tmp_path / "a b")
    finally:
        folder.rmdir()


def test_a_deep_temporary_folder_does_not_break_private_servers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    deep = tmp_path / ("d" * 70) / ("e" * 70)
    deep.mkdir(parents=True)
    monkeypatch.setenv("TMPDIR", str(deep))
    monkeypatch.setattr(tempfile, "tempdir", None)  # what it has found before
    assert tempfile.gettempdir() == str(deep)
    with (
        PrivateRedis(deep / "redis") as server,
        running_postgresql() as url,
        psycopg.connect(url) as database,
    ):
        assert connect(server.url).ping()
        assert database.execute("SELECT 1").fetchone() == (1,)


def test_a_blank_in_the_folder_does_not_break_a_stock_worker(tmp_path: Path) -> None:
    with PrivateRedis(tmp_path / "büro kopie") as server, redis.Redis.from_url(server.url) as client:
        assert client.client_info()["addr"].startswith(str(server.socket_path))


def test_decode_responses_in_the_url_does_not_break_job_data(private_redis: PrivateRedis) -> None:
    client = connect(private_redis.url + "?decode_responses=True")
    client.set("k", b"\xff\x00")
    assert client.get("k") == b"\xff\x00"


def test_the_binary_is_new_enough() -> None:
    printed = subprocess.run([find_binary(), "--version"], capture_output=True, text=True, check=True).stdout
    major, minor = printed.split("v=")[1].split(".")[:2]
    assert (int(major), int(minor)) >= (6, 2)


def test_an_old_binary_on_path_is_passed_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    old = tmp_path / "redis-server"
    old.write_text("#!/bin/sh\necho 'Redis server v=5.0.7 sha=0'\n")
    old.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    assert find_binary() != str(old)


def test_a_url_that_cannot_be_read_is_said_so() -> None:
    with pytest.raises(SettingsError, match="REDIS_URL cannot be read"):
        connect("redis://h:port/0")
