"""The files in deploy/: what starts under them works and stops whole; what cannot be started here is checked."""

from __future__ import annotations

import configparser
import os
import re
import shutil
import signal
import subprocess
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
import redis
import yaml
from api_server import Client
from conftest import wait_until

from fuze_bench.lab.parts.origin import Origin
from fuze_bench.pipeline.redis_server import find_binary
from fuze_bench.pipeline.settings import Settings
from fuze_bench.pipeline.store import Store
from fuze_bench.processes import Child, free_port

DEPLOY = Path(__file__).parent.parent / "deploy"
BIN = Path(sys.executable).parent
STARTERS = {
    "honcho": ["honcho", "-f", "deploy/Procfile", "start"],
    "supervisord": ["supervisord", "-c", "deploy/supervisord.conf"],
}


@pytest.mark.parametrize("starter", STARTERS)
def test_a_supervisor_runs_it_and_leaves_nothing_behind(starter: str, tmp_path: Path, origin: Origin) -> None:
    """In a folder with blanks and umlauts in its path; the job in hand at the end is finished."""
    folder = tmp_path / "büro kopie"
    shutil.copytree(DEPLOY, folder / "deploy")
    port, mark = free_port(), uuid.uuid4().hex
    environment = {
        **os.environ,
        "PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}",
        "PORT": str(port),
        "WORKERS": "1",
        "FUZE_EMBEDDING_MODEL": "off",
        "FUZE_FETCH_ALLOW": "127.0.0.1",
        "DEPLOY_TEST": mark,
    }
    argv = ["sh", "-c", 'cd "$0" && exec "$@"', str(folder), *STARTERS[starter]]
    with Child(starter, argv, tmp_path / "log", environment=environment, stop_timeout_s=30) as child:
        child.wait_ready(lambda: "Listening on" in child.log_tail(100) and answers(port), timeout_s=60)
        api = Client(f"http://127.0.0.1:{port}")
        saved = api.save(f"{origin.url}/page/1").json["bookmark"]["id"]
        bookmark = f"/api/bookmarks/{saved}"
        wait_until(lambda: api.get(bookmark).json["status"] == "processed", what="the page to be processed")
        slow = api.save(f"{origin.url}/slow/2000/2").json["bookmark"]["id"]
        bookmark = f"/api/bookmarks/{slow}"
        wait_until(lambda: api.get(bookmark).json["status"] == "processing", what="the slow page's job")
        assert len(list(marked(mark))) >= 4
        child.signal(signal.SIGTERM)
        child.wait(30)
        wait_until(lambda: not list(marked(mark)), what="everything to end")
    with Store(Settings(data_dir=folder / ".fuze")) as store:
        assert store.counts()["processed"] == 2


def answers(port: int) -> bool:
    try:
        return Client(f"http://127.0.0.1:{port}").get("/readyz").status == 200
    except OSError:
        return False


def marked(mark: str) -> Iterator[psutil.Process]:
    """The processes that descend from a test's own."""
    for process in psutil.process_iter():
        try:
            if process.environ().get("DEPLOY_TEST") == mark:
                yield process
        except psutil.Error:
            continue


def test_compose_yaml_is_valid() -> None:
    argv = [str(BIN / "check-jsonschema"), "--builtin-schema", "vendor.compose-spec", str(DEPLOY / "compose.yaml")]  # fmt: skip
    done = subprocess.run(argv, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stdout


def compose() -> dict[str, dict[str, dict[str, object]]]:
    return yaml.safe_load((DEPLOY / "compose.yaml").read_text())  # type: ignore[no-any-return]


def test_compose_yaml_holds_no_secret_and_forgets_no_variable() -> None:
    """What it fills in stands in env.example; every setting that it gives is one; passwords are never written out."""
    text = (DEPLOY / "compose.yaml").read_text()
    example = set(re.findall(r"^(?:# )?([A-Z_]+)=", (DEPLOY / "env.example").read_text(), re.MULTILINE))
    assert set(re.findall(r"(?<!\$)\$\{([A-Z_]+)", text)) <= example
    values = {"PGPASSWORD": "secret", "REDIS_PASSWORD": "p@ss"}
    for name in ("api", "worker"):
        given = compose()["services"][name]["environment"]
        assert isinstance(given, dict)
        filled = {k: re.sub(r"\$\{(\w+)[^}]*\}", lambda m: values.get(m[1], ""), v) for k, v in given.items()}
        settings = Settings.from_mapping(filled)
        assert settings.redis_url == "redis://:p%40ss@redis:6379/0"
        assert "fuze@postgres" in settings.sqlalchemy_url
    assert not re.search(r"PASSWORD: (?!\$\{)", text)


def test_the_redis_of_compose_yaml_wants_its_password(tmp_path: Path) -> None:
    """Its command, run as it stands there but for port and folder, is one process that stops on SIGTERM."""
    shell, option, script = compose()["services"]["redis"]["command"]
    script = script.replace("$$", "$").replace("redis-server", find_binary())
    port = free_port()
    script = script.replace("dir /data", f"dir {tmp_path}\nport {port}")
    environment = {**os.environ, "REDIS_PASSWORD": "p@ss word"}
    with Child("redis", [shell, option, script], tmp_path / "log", environment=environment) as child:
        child.wait_ready(lambda: "Ready to accept connections" in child.log_tail(50), timeout_s=30)
        assert not psutil.Process(child.pid).children()
        assert "p@ss" not in " ".join(psutil.Process(child.pid).cmdline())
        with (
            redis.Redis(port=port) as stranger,
            pytest.raises(redis.AuthenticationError),
        ):
            stranger.ping()
        with redis.Redis(port=port, password="p@ss word") as client:
            assert client.ping()
            assert client.config_get("appendonly")["appendonly"] == "yes"
        child.signal(signal.SIGTERM)
        assert child.wait(10) == 0


@pytest.fixture(params=["fuze-api.service", "fuze-worker@.service"])
def unit(request: pytest.FixtureRequest) -> Path:
    return DEPLOY / "systemd" / request.param


def test_the_units_start_what_there_is(unit: Path) -> None:
    parser = configparser.ConfigParser(strict=False, interpolation=None)
    parser.optionxform = str  # type: ignore[assignment,method-assign]
    parser.read(unit)
    service = parser["Service"]
    program, *arguments = service["ExecStart"].split()
    assert Path(program).name == "fuze-bench"
    done = subprocess.run([str(BIN / "fuze-bench"), *arguments, "--help"], capture_output=True, check=False)
    assert done.returncode == 0
    assert service["Restart"] == "always"
    stop_s = int(service["TimeoutStopSec"])
    assert stop_s > (10 if "api" in unit.name else Settings().job_timeout_s)


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd-analyze is not installed")
def test_systemd_finds_nothing_wrong_with_the_units(unit: Path, tmp_path: Path) -> None:
    copy = tmp_path / unit.name.replace("@.", "@1.")
    copy.write_text(unit.read_text().replace("/opt/fuze-bench/bin/fuze-bench", shutil.which("true") or ""))
    for command in (["verify"], ["security", "--offline=true", "--threshold=25"]):
        done = subprocess.run(
            ["systemd-analyze", *command, str(copy)], capture_output=True, text=True, check=False, timeout=60
        )
        assert done.returncode == 0, done.stdout + done.stderr
        assert "Unknown" not in done.stderr, done.stderr
