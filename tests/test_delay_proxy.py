"""The delaying proxy in front of a real Redis: how long, in which order, and what happens when one end goes away."""

from __future__ import annotations

import contextlib
import os
import resource
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import quantiles

import psutil
import pytest
import redis
from conftest import wait_until

from fuze_bench.errors import LabError, ServiceError
from fuze_bench.lab.parts.delay_proxy import running_delay_proxy
from fuze_bench.pipeline.redis_server import PrivateRedis, connect, find_binary
from fuze_bench.processes import Child, free_port, is_running


@contextmanager
def delayed(server: PrivateRedis, folder: Path, rtt_ms: float) -> Iterator[redis.Redis]:
    with running_delay_proxy(folder, server.url, rtt_ms) as url, connect(url, timeout_s=20) as client:
        yield client


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PrivateRedis]:
    """One for all tests that leave it as it is."""
    with PrivateRedis(tmp_path_factory.mktemp("redis")) as running:
        yield running


@pytest.fixture(scope="module")
def far_url(server: PrivateRedis, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """20 ms away."""
    with running_delay_proxy(tmp_path_factory.mktemp("proxy"), server.url, 20) as url:
        yield url


@pytest.fixture
def far(far_url: str) -> Iterator[redis.Redis]:
    with connect(far_url, timeout_s=30) as client:
        yield client
        client.flushdb()
        client.connection_pool.disconnect()


def ping_ms(client: redis.Redis, asleep_ms: float = 0) -> float:
    time.sleep(asleep_ms / 1000)
    start_ns = time.perf_counter_ns()
    client.ping()
    return (time.perf_counter_ns() - start_ns) / 1e6


def proxies() -> list[psutil.Process]:
    return [
        p for p in psutil.Process().children() if "fuze_bench.lab.parts.delay_proxy" in " ".join(p.cmdline())
    ]


@pytest.mark.parametrize("rtt_ms", [1.0, 5.0, 20.0])
def test_a_round_trip_takes_longer_by_the_set_time(
    rtt_ms: float, server: PrivateRedis, tmp_path: Path
) -> None:
    """To 0.2 ms, beside a client that slept as long, as whoever waits for a Redis far away does.

    Other processes' use of the cores only ever adds, so that the quiet one of several moments counts.
    """
    errors_ms = []
    rounds = max(15, int(150 / rtt_ms))
    with connect(server.url) as direct:
        for _ in range(8):
            with delayed(server, tmp_path, rtt_ms) as through:
                for _ in range(3):
                    with_ms, without_ms = zip(
                        *((ping_ms(through), ping_ms(direct, rtt_ms)) for _ in range(rounds)), strict=True
                    )
                    errors_ms += [
                        far_ms - near_ms - rtt_ms
                        for far_ms, near_ms in zip(quantiles(with_ms), quantiles(without_ms), strict=True)
                    ]
            if min(map(abs, errors_ms)) <= 0.2:
                return
    pytest.fail(f"never within 0.2 ms of {rtt_ms} ms, but off by {[round(e, 2) for e in errors_ms]} ms")


def test_nothing_is_faster_than_set(far: redis.Redis) -> None:
    assert min(ping_ms(far) for _ in range(20)) > 19


def test_a_pipeline_is_delayed_once_and_keeps_its_order(far: redis.Redis) -> None:
    started_s = time.monotonic()
    with far.pipeline(transaction=False) as pipeline:
        for number in range(500):
            pipeline.rpush("list", number)
            pipeline.lindex("list", -1)
        answers = pipeline.execute()
    assert time.monotonic() - started_s < 5, "1,000 commands at 20 ms each would take 20 s"
    assert [int(value) for value in answers[1::2]] == list(range(500))


def test_connections_do_not_wait_for_each_other(far_url: str) -> None:
    clients = [connect(far_url) for _ in range(40)]
    for client in clients:
        client.ping()

    def ping_often(client: redis.Redis) -> None:
        for _ in range(5):
            client.ping()

    threads = [threading.Thread(target=ping_often, args=(client,)) for client in clients]
    started_s = time.monotonic()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert time.monotonic() - started_s < 2, "one after the other would take 4 s"
    for client in clients:
        client.connection_pool.disconnect()


def test_large_values_arrive_whole(far: redis.Redis) -> None:
    value = os.urandom(24 * 1024 * 1024)
    far.set("large", value)
    assert far.get("large") == value


def test_a_blocking_command_waits_and_is_answered(far: redis.Redis, server: PrivateRedis) -> None:
    assert far.blpop(["empty"], timeout=1) is None
    popped: list[object] = []
    thread = threading.Thread(target=lambda: popped.append(far.blpop(["high", "low"], timeout=20)))
    thread.start()
    with connect(server.url) as direct:
        wait_until(lambda: direct.info("clients")["blocked_clients"] == 1, what="the client to block")
        direct.rpush("low", "job")
    thread.join()
    assert popped == [(b"low", b"job")]


def test_it_rests_while_nothing_happens(far: redis.Redis) -> None:
    far.ping()
    [proxy] = [p for p in proxies() if far.connection_pool.connection_kwargs["path"] in p.cmdline()]
    before_s = sum(proxy.cpu_times()[:2])
    assert far.blpop(["empty"], timeout=1) is None
    assert sum(proxy.cpu_times()[:2]) - before_s < 0.1


def test_more_connections_than_a_process_may_usually_open(server: PrivateRedis, tmp_path: Path) -> None:
    """The limit of 1,024 open files is that of a login shell; this one starts with it."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.ExitStack() as stack:
        resource.setrlimit(resource.RLIMIT_NOFILE, (1024, hard))
        stack.callback(resource.setrlimit, resource.RLIMIT_NOFILE, (soft, hard))
        url = stack.enter_context(running_delay_proxy(tmp_path, server.url, 1))
        connections = []
        for _ in range(600):
            connection = stack.enter_context(socket.socket(socket.AF_UNIX))
            connection.settimeout(20)
            connection.connect(url.removeprefix("unix://"))
            connections.append(connection)
        for connection in connections:
            connection.sendall(b"PING\r\n")
        assert {connection.recv(100) for connection in connections} == {b"+PONG\r\n"}


def test_a_redis_that_ends_hangs_up_and_is_reached_again(private_redis: PrivateRedis, tmp_path: Path) -> None:
    with delayed(private_redis, tmp_path, 1) as through:
        through.set("k", "v")
        private_redis.stop()
        with pytest.raises(redis.ConnectionError):
            through.ping()
        private_redis.start()
        assert through.get("k") == b"v"


def test_a_client_that_hangs_up_is_gone_from_the_redis_too(
    private_redis: PrivateRedis, tmp_path: Path
) -> None:
    with connect(private_redis.url) as direct, delayed(private_redis, tmp_path, 1) as through:
        through.ping()
        assert direct.info("clients")["connected_clients"] == 2
        through.connection_pool.disconnect()
        wait_until(lambda: direct.info("clients")["connected_clients"] == 1, what="the connection to close")


def test_password_and_database_stay_and_are_in_no_command_line(
    private_redis: PrivateRedis, tmp_path: Path
) -> None:
    with connect(private_redis.url) as direct:
        direct.config_set("requirepass", "very-secret")
    url = private_redis.url.replace("unix://", "unix://:very-secret@") + "?db=3"
    with running_delay_proxy(tmp_path, url, 1) as through, connect(through) as client, connect(url) as direct:
        client.set("k", "v")
        assert direct.get("k") == b"v"
        assert "very-secret" not in " ".join(" ".join(proxy.cmdline()) for proxy in proxies())


def test_a_redis_on_a_port_is_delayed_as_well(tmp_path: Path) -> None:
    port = free_port()
    argv = [find_binary(), "--port", str(port), "--bind", "127.0.0.1", "--dir", str(tmp_path), "--save", ""]
    with Child("redis-server", argv, tmp_path / "redis.log") as server:
        server.wait_ready(lambda: "Ready to accept" in server.log_tail(), 20)
        with running_delay_proxy(tmp_path, f"redis://127.0.0.1:{port}/2", 5) as url:
            assert url.startswith("unix://")
            with connect(url) as through, connect(f"redis://127.0.0.1:{port}/2") as direct:
                through.set("k", "v")
                assert direct.get("k") == b"v"
                assert ping_ms(through) > 4


def test_nothing_is_left_of_it(server: PrivateRedis, tmp_path: Path) -> None:
    before = set(proxies())
    with contextlib.suppress(RuntimeError), delayed(server, tmp_path, 1) as through:
        folder = Path(through.connection_pool.connection_kwargs["path"]).parent
        assert folder.stat().st_mode & 0o777 == 0o700
        raise RuntimeError
    assert not folder.exists()
    assert set(proxies()) == before


@pytest.mark.skipif(sys.platform != "linux", reason="the kernel ends orphans on Linux only")
def test_it_dies_with_an_owner_that_is_killed(server: PrivateRedis, tmp_path: Path) -> None:
    code = (
        "import psutil, time; from pathlib import Path; from fuze_bench.lab.parts.delay_proxy import running_delay_proxy\n"
        f"with running_delay_proxy(Path({str(tmp_path)!r}), {server.url!r}, 1):\n"
        "    print(psutil.Process().children()[0].pid, flush=True); time.sleep(600)"
    )
    owner = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert owner.stdout is not None
    with owner.stdout:
        proxy = psutil.Process(int(owner.stdout.readline()))
    argv = proxy.cmdline()
    os.kill(owner.pid, signal.SIGKILL)
    owner.wait()
    wait_until(lambda: not is_running(proxy.pid), what="the proxy to end")
    folder = Path(argv[argv.index("fuze_bench.lab.parts.delay_proxy") + 1]).parent
    with delayed(server, tmp_path, 1):
        assert not folder.exists(), "whoever comes next clears what it left"


def test_no_delay_is_no_proxy(server: PrivateRedis, tmp_path: Path) -> None:
    before = set(proxies())
    with running_delay_proxy(tmp_path, server.url, 0) as url:
        assert url == server.url
        assert set(proxies()) == before


@pytest.mark.parametrize("rtt_ms", [-1.0, 0.1, 10_001.0, float("nan")])
def test_a_delay_that_cannot_be_kept_is_refused(rtt_ms: float, tmp_path: Path) -> None:
    with (
        pytest.raises(LabError, match=r"redis_rtt_ms=.*give 0, or 0.5 to 10,000"),
        running_delay_proxy(tmp_path, "unix:///nowhere", rtt_ms),
    ):
        pass


@pytest.mark.parametrize("url", ["rediss://:very-secret@h/0", "redis://:very-secret@h:port/0", "http://h"])
def test_a_redis_that_cannot_be_delayed_is_refused(url: str, tmp_path: Path) -> None:
    with pytest.raises(LabError, match="Redis") as caught, running_delay_proxy(tmp_path, url, 1):
        pass
    assert "very-secret" not in str(caught.value)


def test_without_a_redis_it_says_so(tmp_path: Path) -> None:
    with (
        pytest.raises(ServiceError, match=r"the Redis to delay does not answer: .*No such file"),
        running_delay_proxy(tmp_path, f"unix://{tmp_path}/none.sock", 1),
    ):
        pass
