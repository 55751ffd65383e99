"""Redis as people run it: TLS, users, odd passwords, sockets, IPv6, replicas, full ones, clusters; and no secret told."""

from __future__ import annotations

import json
import os
import shutil
import socket
import ssl
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import quote

import psutil
import pytest
import redis
from api_server import Client, api_process, running_api
from conftest import StartWorker, wait_until
from nursery import nursery
from relay import Relay

from fuze_bench.errors import QueueUnavailableError, ServiceError, SettingsError
from fuze_bench.lab.parts.origin import Origin
from fuze_bench.pipeline.bookmarks import Status
from fuze_bench.pipeline.diagnosis import diagnose
from fuze_bench.pipeline.redis_server import (
    PrivateRedis,
    check_usable,
    connect,
    find_binary,
    masked_url,
    why_away,
)
from fuze_bench.pipeline.service import BookmarkService
from fuze_bench.pipeline.settings import Settings
from fuze_bench.pipeline.store import Store
from fuze_bench.pipeline.worker import run_workers
from fuze_bench.processes import Child, free_port

PASSWORD = "p/a#s?s@w:o%r[d]+ü"
ENCODED = quote(PASSWORD, safe="")


@contextmanager
def redis_server(folder: Path, url: str, *lines: str, binary: str | None = None) -> Iterator[Child]:
    """A redis-server with these lines in its configuration (a file: a command line is for all to read)."""
    folder.mkdir(parents=True, exist_ok=True)
    configuration = folder / "redis.conf"
    configuration.write_text("\n".join([f"dir {folder}", 'save ""', *lines, ""]), encoding="utf-8")
    argv = [binary or find_binary(), str(configuration)]
    with Child("redis-server", argv, folder / "redis.log") as child:
        child.wait_ready(lambda: _answers(url), timeout_s=30)
        yield child


def _answers(url: str) -> bool:
    try:
        with connect(url, connect_timeout_s=1, timeout_s=1) as client:
            return bool(client.ping())
    except redis.ResponseError:
        return True
    except redis.RedisError:
        return False


@pytest.fixture(scope="session")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A certificate for 127.0.0.1 that is its own CA, and its key."""
    openssl = shutil.which("openssl")
    if openssl is None:
        pytest.skip("no openssl on PATH to make a certificate with")
    folder = tmp_path_factory.mktemp("tls")
    made, key = folder / "own-ca.pem", folder / "key.pem"
    options = ["-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=localhost"]
    names = ["-addext", "subjectAltName=IP:127.0.0.1,DNS:localhost"]
    subprocess.run(
        [openssl, "req", *options, *names, "-keyout", str(key), "-out", str(made)],
        check=True,
        capture_output=True,
        timeout=60,
    )
    return made, key


@contextmanager
def tls_port(folder: Path, certificate: tuple[Path, Path], *lines: str) -> Iterator[int]:
    """A port where Redis speaks TLS: its own, where one on PATH was built with it, else behind a relay."""
    made, key = certificate
    port = free_port()
    own = [f"port 0\ntls-port {port}\ntls-cert-file {made}\ntls-key-file {key}\ntls-auth-clients no"]
    trusting = f"rediss://127.0.0.1:{port}?ssl_cert_reqs=none"
    folders = os.environ.get("PATH", "").split(os.pathsep)
    for each in filter(None, (shutil.which("redis-server", path=each) for each in folders)):
        with ExitStack() as stack:
            try:
                stack.enter_context(redis_server(folder, trusting, *own, *lines, binary=each))
            except ServiceError:
                continue  # built without TLS
            yield port
            return
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(made, key)
    plain = f"redis://127.0.0.1:{port}"
    with redis_server(folder, plain, f"port {port}", *lines), Relay(port, tls=context) as relay:
        yield relay.port


@pytest.fixture(params=["tls-own-ca", "tls-unverified", "user", "password", "socket", "ipv6"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """The URL of a Redis of each kind."""
    folder, port = tmp_path / "server", free_port()
    match request.param:
        case "tls-own-ca" | "tls-unverified":
            certificate = request.getfixturevalue("certificate")
            with tls_port(folder, certificate) as tls:
                options = {
                    "tls-own-ca": f"ssl_ca_certs={quote(str(certificate[0]))}",
                    "tls-unverified": "ssl_cert_reqs=none",
                }
                yield f"rediss://127.0.0.1:{tls}/0?{options[request.param]}"
        case "user":
            # The smallest rights that the pipeline and RQ get along with.
            rules = "resetchannels ~rq:* ~fuze:* &rq:* +@all -@admin -@dangerous +info"
            lines = [f"port {port}", "user default off", f'user fuze on ">{PASSWORD}" {rules}']
            url = f"redis://fuze:{ENCODED}@127.0.0.1:{port}/0"
            with redis_server(folder, url, *lines):
                yield url
        case "password":
            url = f"redis://:{ENCODED}@127.0.0.1:{port}/0?decode_responses=True"
            with redis_server(folder, url, f"port {port}", f'requirepass "{PASSWORD}"'):
                yield url
        case "socket":
            path = folder / "a b.sock"
            url = f"unix://{quote(str(path))}?db=0"
            with redis_server(folder, url, "port 0", f'unixsocket "{path}"'):
                yield url
        case "ipv6":
            if not _has_ipv6():
                pytest.skip("this machine has no IPv6 on loopback")
            url = f"redis://[::1]:{port}/0"
            with redis_server(folder, url, f"port {port}", "bind ::1"):
                yield url


def _has_ipv6() -> bool:
    try:
        with socket.create_server(("::1", 0), family=socket.AF_INET6):
            return True
    except OSError:
        return False


def cli(settings: Settings, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    return nursery().run("fuze_bench.cli:main", arguments, {**settings.environment(os.environ), **variables})


def status(settings: Settings, bookmark_id: int) -> Status:
    with Store(settings) as store:
        found = store.get(bookmark_id)
    assert found is not None
    return found.status


def assert_secret_kept(*roots: Path, texts: str) -> None:
    """Neither in what was printed and logged, nor in a file, nor in any command line or title of a process."""
    for process in psutil.process_iter(["cmdline"]):
        texts += " ".join(process.info["cmdline"] or [])
    for root in roots:
        texts += "".join(
            path.read_bytes().decode("utf-8", "replace")
            for path in root.rglob("*")
            if path.is_file() and path.name != "redis.conf"
        )
    assert PASSWORD not in texts
    assert ENCODED not in texts
    assert PASSWORD.encode().hex() not in texts


def test_every_process_works(
    url: str, data_dir: Path, tmp_path: Path, origin: Origin, start_worker: StartWorker
) -> None:
    """API, each kind of worker, the scheduler, the commands, the dashboard; what is secret stays so."""
    settings = Settings(
        data_dir=data_dir,
        redis_url=url,
        embedding_model="off",
        retry_intervals_s=(1.0,),
        redis_timeout_s=5.0,
        fetch_allow=("127.0.0.1",),
    )
    with ExitStack() as stack:
        base_url, api = stack.enter_context(api_process(settings, tmp_path / "api.log"))
        client = Client(base_url)
        assert client.get("/readyz").json["status"] == "ok"
        paths = {"default": "/flaky/1/1", "high": "/slow/300/1", "low": "/slow/300/2"}
        saved = {q: client.save(origin.url + path, queue=q).json for q, path in paths.items()}
        assert {answer["job"]["mode"] for answer in saved.values()} == {"rq"}
        workers = [
            stack.enter_context(start_worker(settings, "--kind", kind, "--queue", queue, wait=False))
            for kind, queue in (("simple", "default"), ("fork", "high"), ("spawn", "low"))
        ]
        for answer in saved.values():
            wait_until(
                lambda answer=answer: status(settings, answer["bookmark"]["id"]) is Status.PROCESSED,
                timeout_s=60,
                what=f"{answer['bookmark']['url']} to be done",
            )
        assert origin.hits("/flaky/1/1") == 2
        told = cli(settings, "status", saved["default"]["job"]["id"])
        recovered = cli(settings, "recover")
        assert (told.returncode, recovered.returncode) == (0, 0), told.stderr + recovered.stderr
        assert "finished" in told.stdout
        assert "0 without a job" in recovered.stdout
        # Says what else is wrong, too: a scheduler may not have begun yet.
        doctor = cli(settings, "doctor", "--json")
        found = {each["name"]: each for each in json.loads(doctor.stdout)["findings"]}
        assert found["redis"]["ok"], found
        assert found["workers"]["data"]["by_queue"] == {"high": 1, "default": 1, "low": 1}
        dashboard, shown = stack.enter_context(running_dashboard(settings, tmp_path / "dashboard.log"))
        assert {each["name"] for each in shown["queues"]} >= set(paths)
        logs = "".join(child.log_tail(10_000) for child in (*workers, api, dashboard))
        assert "Traceback" not in logs
        printed = "".join(done.stdout + done.stderr for done in (told, recovered, doctor))
        assert_secret_kept(data_dir, texts=logs + printed + json.dumps(shown))


@contextmanager
def running_dashboard(settings: Settings, log: Path) -> Iterator[tuple[Child, dict[str, Any]]]:
    """`fuze-bench dashboard`, and what it shows of the queues."""
    port = free_port()
    environment = settings.environment(os.environ)
    with nursery().start(
        "dashboard", "fuze_bench.cli:main", ["dashboard", "--port", str(port)], environment, log
    ) as child:
        client = Client(f"http://127.0.0.1:{port}")
        child.wait_ready(lambda: "RQ dashboard at" in child.log_tail(), timeout_s=60)
        wait_until(lambda: has_a_listener(port), what="the dashboard to listen")
        answer = client.get("/0/data/queues.json")
        assert answer.status == 200, child.log_tail()
        yield child, answer.json


def has_a_listener(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def test_a_plain_password_in_a_variable_of_its_own(tmp_path: Path, data_dir: Path, origin: Origin) -> None:
    port = free_port()
    variables = {"REDIS_PORT": str(port), "REDIS_PASSWORD": PASSWORD}
    url = Settings.from_mapping(variables).redis_url or ""
    assert url == f"redis://:{ENCODED}@127.0.0.1:{port}/0"
    settings = Settings(data_dir=data_dir, embedding_model="off", fetch_allow=("127.0.0.1",))
    with redis_server(tmp_path, url, f"port {port}", f'requirepass "{PASSWORD}"'):
        saved = cli(settings, "save", f"{origin.url}/page/1", **variables)
        worked = cli(settings, "worker", "--burst", "--kind", "spawn", **variables)
        assert (saved.returncode, worked.returncode) == (0, 0), saved.stderr + worked.stderr
        assert status(settings, 1) is Status.PROCESSED
        assert "(rq, pending)" in saved.stdout
        assert_secret_kept(data_dir, texts=saved.stdout + saved.stderr + worked.stdout + worked.stderr)


def test_a_certificate_that_nobody_vouches_for(
    certificate: tuple[Path, Path], data_dir: Path, tmp_path: Path, origin: Origin
) -> None:
    with tls_port(tmp_path / "server", certificate) as port:
        url = f"rediss://127.0.0.1:{port}/0"
        unverified = Settings(
            data_dir=data_dir, redis_url=url, embedding_model="off", fetch_allow=("127.0.0.1",)
        )
        assert_falls_back(unverified, origin, "its certificate cannot be verified: name its CA")
        missing = replace(unverified, redis_url=f"{url}?ssl_ca_certs=/nowhere/ca.pem")
        with pytest.raises(QueueUnavailableError, match="Redis cannot be used"):
            run_workers(missing)
        tcp = replace(unverified, redis_url=url.replace("rediss", "redis"))
        with pytest.raises(QueueUnavailableError, match="Redis cannot be used"):
            run_workers(tcp)


def test_tls_to_a_redis_that_speaks_none(private_redis: PrivateRedis, settings: Settings) -> None:
    with Relay(private_redis.socket_path) as relay:
        wrong = replace(settings, redis_url=f"rediss://127.0.0.1:{relay.port}/0")
        with pytest.raises(QueueUnavailableError, match="Redis cannot be used"):
            run_workers(wrong)


def assert_falls_back(settings: Settings, origin: Origin, why: str) -> None:
    """A worker refuses to start and says why, as `doctor` does; saves go to threads, and the API says why."""
    with pytest.raises(QueueUnavailableError, match=why):
        run_workers(settings)
    found = {finding.name: finding for finding in diagnose(settings)}
    assert (found["redis"].ok, why in found["redis"].detail) == (False, True), found["redis"]
    with running_api(settings) as base_url:
        client = Client(base_url)
        answers = [client.save(f"{origin.url}/page/{n}") for n in range(5)]
        assert [(a.status, a.json["job"]["mode"]) for a in answers] == [(201, "thread")] * 5
        ready = client.get("/readyz")
        assert ready.json["status"] == "degraded"
        assert why in ready.json["queue"]
        ids = [answer.json["bookmark"]["id"] for answer in answers]
        wait_until(
            lambda: {status(settings, i) for i in ids} == {Status.PROCESSED}, what="threads to do them"
        )


def test_a_cluster_is_refused(
    data_dir: Path, tmp_path: Path, origin: Origin, caplog: pytest.LogCaptureFixture
) -> None:
    """One node that has all slots answers, and takes one key at a time; RQ needs several."""
    port = free_port()
    url = f"redis://127.0.0.1:{port}/0"
    with redis_server(tmp_path / "server", url, f"port {port}", "cluster-enabled yes"):
        with connect(url) as client:
            client.execute_command("CLUSTER", "ADDSLOTS", *range(16_384))
            wait_until(lambda: b"cluster_state:ok" in _info(client), what="the cluster to be up")
            client.set("one", "1")
        hasty = Settings(
            data_dir=data_dir,
            redis_url=url,
            embedding_model="off",
            redis_retry_s=0.1,
            fetch_allow=("127.0.0.1",),
        )
        assert_falls_back(hasty, origin, "it runs in cluster mode, which RQ cannot use")
    lines = [r.getMessage() for r in caplog.records if "Redis is" in r.getMessage()]
    assert len(lines) == 1, lines
    assert "cluster mode" in lines[0]
    assert not any(record.exc_info for record in caplog.records)


def _info(client: redis.Redis) -> bytes:
    answer = client.execute_command("CLUSTER", "INFO")
    return answer if isinstance(answer, bytes) else str(answer).encode()


def test_a_replica_is_refused(
    settings: Settings, private_redis: PrivateRedis, tmp_path: Path, origin: Origin
) -> None:
    port = free_port()
    url = f"redis://127.0.0.1:{port}/0"
    with (
        Relay(private_redis.socket_path) as primary,
        redis_server(tmp_path / "server", url, f"port {port}", f"replicaof 127.0.0.1 {primary.port}"),
    ):
        replica = replace(settings, redis_url=url)
        with connect(url) as client, BookmarkService(replica) as service:
            assert client.ping()
            assert not service.queue.is_available()
        assert_falls_back(replica, origin, "it is a replica that takes no writes")


def test_a_full_one_is_refused(settings: Settings, origin: Origin) -> None:
    with connect(settings.redis_url or "") as client:
        client.config_set("maxmemory", "1")
    assert_falls_back(settings, origin, "its memory is full")


@pytest.mark.parametrize(
    "url",
    [
        f"redis://:{PASSWORD}@127.0.0.1:6379/0",
        "redis://:12/secret@127.0.0.1:6379/0",
        "redis://:12#secret@127.0.0.1:6379/0",
        "redis://:12?secret@127.0.0.1:6379/0",
        "redis://user:secret@127.0.0.1:port/0",
        "redis://user:secret@[::1:6379/0",
        "redis://user:secret@127.0.0.1/0?no_such_option=1",
        "rediss://user:secret@127.0.0.1/0?ssl_cert_reqs=perhaps",
        "secret@127.0.0.1:6379",
    ],
)
def test_a_url_that_is_wrong_is_said_so_without_the_password(url: str) -> None:
    with pytest.raises(SettingsError, match="REDIS_URL") as caught:
        connect(Settings(redis_url=url).redis_url or "")
    message = str(caught.value)
    assert not any(part in message for part in ("secret", "12", "p/a", PASSWORD))
    assert "\n" not in message


def test_what_people_see_of_a_url() -> None:
    assert masked_url(f"redis://fuze:{ENCODED}@h:1/0?x=y") == "redis://fuze:***@h:1/0"
    assert masked_url("redis://h:1/0") == "redis://h:1/0"
    assert masked_url("unix:///tmp/redis.sock?db=0&password=p") == "unix:///tmp/redis.sock"


def test_a_wrong_password_is_one_line_without_it(private_redis: PrivateRedis, settings: Settings) -> None:
    connect(settings.redis_url or "").config_set("requirepass", "right")
    with connect(private_redis.url.replace("unix://", "unix://:wrong-one@")) as client:
        with pytest.raises(redis.RedisError) as caught:
            check_usable(client)
        assert "wrong-one" not in why_away(caught.value)
