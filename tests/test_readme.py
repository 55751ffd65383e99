"""Every command and every piece of code in the README runs as it stands there."""

from __future__ import annotations

import importlib.util
import io
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import matplotlib.image
import psycopg
import pytest
from api_server import Client
from conftest import wait_until

from fuze_bench.lab.parts.origin import Origin
from fuze_bench.pipeline.bookmarks import Reason
from fuze_bench.pipeline.redis_server import PrivateRedis
from fuze_bench.pipeline.retries import RETRIED
from fuze_bench.processes import Child, free_port

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
#: Where this environment's programs are, as a shell wants it: the checkout may lie in a folder with blanks.
BIN = shlex.quote(str(Path(sys.executable).parent))


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", README, re.MULTILINE | re.DOTALL)


QUICK_SAVE = "curl -s http://127.0.0.1:8000/api/bookmarks/quick-save"
IMPORT = "curl -s http://127.0.0.1:8000/api/bookmarks/import"
COMMANDS = [line for block in blocks("sh") for line in block.splitlines()]


@dataclass
class Running:
    """A system that runs, and how the README's commands reach it."""

    port: int
    environment: dict[str, str]

    def here(self, command: str) -> str:
        return command.replace("127.0.0.1:8000", f"127.0.0.1:{self.port}").replace(".venv/bin/", f"{BIN}/")

    def run(self, command: str, cwd: Path) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["bash", "-c", self.here(command)],
            env=self.environment,
            cwd=cwd,
            capture_output=True,
            text=True,
            timeout=240,
            check=False,
        )


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """What `make up` starts (its recipe, on a free port and in a folder of the tests' own)."""
    tmp_path = tmp_path_factory.mktemp("up")
    [recipe] = make("--dry-run", "up").stdout.splitlines()[-1:]
    port = free_port()
    environment = {**os.environ, "FUZE_DATA_DIR": str(tmp_path / "data"), "FUZE_EMBEDDING_MODEL": "off"}
    argv = [*shlex.split(recipe.replace(".venv/bin/", f"{BIN}/")), "--port", str(port), "--origin-port", "0"]
    with Child("up", argv, tmp_path / "up.log", environment=environment, stop_timeout_s=30) as child:
        child.wait_ready(lambda: "workers: 2" in child.log_tail(), timeout_s=60)
        site = re.search(r"some pages +(http://[^/]+)/", child.log_tail(50))
        assert site
        yield Running(port, {**environment, "ORIGIN_URL": site[1]})


def make(*arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("MAKE")}
    return subprocess.run(
        ["make", *arguments],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )


def test_every_command_is_run_by_a_test_here() -> None:
    known = (
        "make report", "make test", "make up", QUICK_SAVE, IMPORT, ".venv/bin/fuze-bench status",
        ".venv/bin/fuze-bench save https", ".venv/bin/fuze-bench save --file",
        ".venv/bin/fuze-bench up --help", "REDIS_URL=", ".venv/bin/fuze-bench api", ".venv/bin/fuze-bench worker",
        ".venv/bin/rq worker --url", ".venv/bin/rq worker --burst", ".venv/bin/fuze-bench retry", ".venv/bin/fuze-bench cancel",
        ".venv/bin/fuze-bench doctor", ".venv/bin/fuze-bench pause", ".venv/bin/fuze-bench resume", ".venv/bin/fuze-bench drain", ".venv/bin/fuze-bench recover", ".venv/bin/papermill ", ".venv/bin/locust ",
        ".venv/bin/fuze-bench plan", ".venv/bin/fuze-bench run data/experiments/worker",
        ".venv/bin/fuze-bench run data/experiments/your_jobs.yaml --out my-run --budget",
        ".venv/bin/fuze-bench run data/experiments/your_jobs.yaml --out my-run --resume",
        ".venv/bin/python -c", "FUZE_API_TOKENS=", ".venv/bin/fuze-bench bench ",
    )  # fmt: skip
    for command in COMMANDS:
        assert any(command.startswith(each) for each in known), f"no test here runs: {command}"
    for each in known:
        assert the(each)


def the(start: str) -> str:
    [command] = [command for command in COMMANDS if command.startswith(start)]
    return command


def at(origin: Origin, command: str) -> str:
    """The command with pages of this machine for those of example.org: a test asks nobody outside."""
    return re.sub(r"https://example\.org/(\w*)", rf"{origin.url}/page/1?as=\1", command)


def test_the_make_targets_are_there() -> None:
    """`make report` and `make test` are what CI runs: here only that they are targets with the right recipe."""
    assert "fuze-bench report" in make("--dry-run", "report").stdout
    assert "pytest" in make("--dry-run", "test").stdout
    listed = make("help").stdout
    for target in ("report", "test", "lint", "lab", "up", "help"):
        assert f"make {target} " in listed
    assert "--notebook-dir=notebooks" in make("--dry-run", "lab").stdout


@pytest.mark.parametrize(
    ("callers", "expected"),
    [(None, ROOT / ".fuze"), ("my data", ROOT / "my data"), ("/else where", Path("/else where"))],
)
def test_lab_runs_land_where_those_of_report_do(callers: str | None, expected: Path, tmp_path: Path) -> None:
    """JupyterLab runs notebooks in their own folder; here a program that says its data folder stands in for it."""
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "jupyter").symlink_to(shutil.which("printenv") or "")
    recipe = make("--dry-run", "lab").stdout.partition("data=")[2]
    assert ("--allow-root" in recipe) == (
        os.getuid() == 0
    )  # as root, JupyterLab starts only if told that it is meant
    recipe = re.sub(r"\.venv/bin/jupyter lab .*", f"{tmp_path}/bin/jupyter FUZE_DATA_DIR", recipe)
    environment = {name: value for name, value in os.environ.items() if name != "FUZE_DATA_DIR"}
    if callers is not None:
        environment["FUZE_DATA_DIR"] = callers
    done = subprocess.run(
        ["sh", "-c", "data=" + recipe], cwd=ROOT, env=environment, capture_output=True, text=True, check=True
    )
    assert Path(done.stdout.strip()) == expected


def test_playing_with_it(running: Running, tmp_path: Path, origin: Origin) -> None:
    answer = json.loads(running.run(at(origin, the(QUICK_SAVE)), tmp_path).stdout)
    assert answer["job"] == {"id": "bookmark-1-1", "queue": "default", "mode": "rq"}
    assert running.run(the(".venv/bin/fuze-bench retry"), tmp_path).stdout == "0 would be processed again\n"
    assert "bookmark 13 is not known" in running.run(the(".venv/bin/fuze-bench cancel"), tmp_path).stdout
    status = running.run(the(".venv/bin/fuze-bench status"), tmp_path)
    assert status.stdout.startswith("id           bookmark-1-1\n")
    saved = running.run(at(origin, the(".venv/bin/fuze-bench save https")), tmp_path)
    assert saved.returncode == 0
    assert len(re.findall(r"^saved .*\(rq", saved.stdout, re.MULTILINE)) == 2
    assert "--pages" in running.run(the(".venv/bin/fuze-bench up --help"), tmp_path).stdout
    with urllib.request.urlopen(f"http://127.0.0.1:{running.port}/", timeout=10) as page:
        assert b"<html" in page.read().lower()


def test_bringing_bookmarks_along(running: Running, tmp_path: Path, origin: Origin) -> None:
    (tmp_path / "bookmarks.html").write_text(
        f"<!DOCTYPE NETSCAPE-Bookmark-file-1>\n<DT><A HREF='{origin.url}/page/1'>One</A>\n"
    )
    saved = running.run(the(".venv/bin/fuze-bench save --file"), tmp_path)
    assert saved.stderr == "1 saved, 0 duplicates, 0 refused\n"
    answer = json.loads(running.run(the(IMPORT), tmp_path).stdout)
    assert (answer["saved"], answer["duplicates"], answer["refused"]) == (0, 1, 0)


def test_locust_loads_the_running_system(running: Running) -> None:
    environment = {**running.environment, "LOCUST_HOST": f"http://127.0.0.1:{running.port}"}
    done = Running(running.port, environment).run(the(".venv/bin/locust "), ROOT)
    assert done.returncode == 0, done.stderr[-2_000:]
    assert "0(0.00%)" in done.stderr + done.stdout


def test_with_ones_own_redis_and_postgresql(
    data_dir: Path, tmp_path: Path, private_redis: PrivateRedis, postgresql_database: str, origin: Origin
) -> None:
    command = the("REDIS_URL=")
    command = command.replace("redis://127.0.0.1:6379/0", private_redis.url)
    command = re.sub(r"DATABASE_URL=\S+", f"DATABASE_URL={shlex.quote(postgresql_database)}", command)
    command = command.replace(".venv/bin/", f"{BIN}/") + " --port 0 --origin-port 0"
    environment = {**os.environ, "FUZE_DATA_DIR": str(data_dir / "up"), "FUZE_EMBEDDING_MODEL": "off"}
    argv = ["bash", "-c", f"exec env {command}"]
    with Child("up", argv, tmp_path / "up.log", environment=environment, stop_timeout_s=30) as child:
        child.wait_ready(lambda: "workers: 2" in child.log_tail(), timeout_s=60)
        api = re.search(r"(http://127.0.0.1:\d+)/", child.log_tail(50))
        assert api
        run = Running(int(api[1].rsplit(":", 1)[1]), environment)
        assert json.loads(run.run(at(origin, the(QUICK_SAVE)), tmp_path).stdout)["job"]["mode"] == "rq"
    with psycopg.connect(postgresql_database) as connection:
        assert connection.execute("SELECT count(*) FROM fuze_bookmarks").fetchone() == (1,)
    assert not (data_dir / "up" / "bookmarks.sqlite").exists()


def test_the_parts_alone(data_dir: Path, tmp_path: Path, private_redis: PrivateRedis, origin: Origin) -> None:
    """API, workers and a stock RQ worker, each with its README command, over one Redis: all three are there."""
    environment = {
        **os.environ,
        "FUZE_DATA_DIR": str(data_dir),
        "FUZE_EMBEDDING_MODEL": "off",
        "FUZE_FETCH_ALLOW": "127.0.0.1",
        "REDIS_URL": private_redis.url,
    }
    port = free_port()
    run = Running(port, environment)
    starts = {
        "api": the(".venv/bin/fuze-bench api").replace("8000", str(port)),
        "worker": the(".venv/bin/fuze-bench worker"),
        "rq": the(".venv/bin/rq worker --url").replace("redis://127.0.0.1:6379/0", private_redis.url),
    }
    children = []
    try:
        for name, command in starts.items():
            argv = shlex.split(run.here(command))
            children.append(Child(name, argv, tmp_path / f"{name}.log", environment=environment))
        api, worker, rq = children
        worker.wait_ready(lambda: worker.log_tail(100).count("Listening on") == 2, timeout_s=60)
        rq.wait_ready(lambda: "Listening on" in rq.log_tail(100), timeout_s=60)
        save = at(origin, the(QUICK_SAVE))
        wait_until(lambda: run.run(save, tmp_path).returncode == 0, what="the API")
        status = the(".venv/bin/fuze-bench status") + " --json"
        wait_until(lambda: '"processed"' in run.run(status, tmp_path).stdout, what="the page to be processed")
        batch = the(".venv/bin/rq worker --burst").replace("redis://127.0.0.1:6379/0", private_redis.url)
        assert "done, quitting" in run.run(batch, tmp_path).stdout
        for command, says in (
            ("doctor", "ok    workers"),
            ("pause", "low is paused"),
            ("resume", "low goes on"),
            ("recover", "0 bookmarks of dead workers"),
            ("drain", "workers ended: 3"),
        ):
            assert says in run.run(the(f".venv/bin/fuze-bench {command}"), tmp_path).stdout
        api.signal(signal.SIGTERM)
        assert [child.wait(30) for child in (rq, worker, api)] == [0, 0, 0]
    finally:
        for child in children:
            child.stop()


def test_who_may_use_it(data_dir: Path, tmp_path: Path, private_redis: PrivateRedis) -> None:
    environment = {**os.environ, "FUZE_DATA_DIR": str(data_dir), "REDIS_URL": private_redis.url}
    port = free_port()
    run = Running(port, environment)
    assert run.run(the(".venv/bin/python -c"), tmp_path).returncode == 0
    tokens = tmp_path / "tokens"
    assert tokens.stat().st_mode & 0o777 == 0o600
    token, user = tokens.read_text().split()
    started = the("FUZE_API_TOKENS=").replace("=tokens", f"={shlex.quote(str(tokens))}")
    argv = ["bash", "-c", f"exec env {run.here(started)} --port {port}"]
    with Child("api", argv, tmp_path / "api.log", environment=environment) as api:
        client = Client(f"http://127.0.0.1:{port}")
        api.wait_ready(client.is_answered, timeout_s=60)
        assert client.get("/api/bookmarks").status == 401
        answer = client.send("GET", "/api/bookmarks", headers={"Authorization": f"Bearer {token}"})
        assert (answer.status, user) == (200, "1")


def test_the_code_runs(data_dir: Path, tmp_path: Path, private_redis: PrivateRedis) -> None:
    [code] = blocks("python")
    environment = {**os.environ, "FUZE_DATA_DIR": str(data_dir), "REDIS_URL": private_redis.url}
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=environment,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == "bookmark-1-1 rq False\n"


def test_measuring_something(data_dir: Path, tmp_path: Path) -> None:
    environment = {**os.environ, "FUZE_DATA_DIR": str(data_dir), "FUZE_EMBEDDING_MODEL": "off"}
    run = Running(0, environment)
    command = the(".venv/bin/papermill ").replace("worker_counts.out.ipynb", str(tmp_path / "out.ipynb"))
    done = run.run(command, ROOT)
    assert done.returncode == 0, done.stderr[-2_000:]
    [folder] = (data_dir / "runs").iterdir()
    assert (folder / "events.parquet").is_file()


def test_measuring_somebodys_own_jobs(data_dir: Path, tmp_path: Path) -> None:
    environment = {**os.environ, "FUZE_DATA_DIR": str(data_dir)}
    run = Running(0, environment)
    dry, first, again = (c for c in COMMANDS if c.startswith(".venv/bin/fuze-bench run "))
    planned = run.run(dry, ROOT)
    assert planned.returncode == 0, planned.stderr
    assert "trials, about" in planned.stdout
    begun = run.run(first.replace("my-run", str(tmp_path / "my-run")).replace("30s", "4s"), ROOT)
    assert begun.returncode == 0, begun.stderr
    gone_on = run.run(again.replace("my-run", str(tmp_path / "my-run")).replace("30s", "4s"), ROOT)
    assert gone_on.returncode == 0, gone_on.stderr
    trials = [
        int(line.split()[1].split("/")[0])
        for line in (begun.stdout + gone_on.stdout).splitlines()
        if line.startswith("trial ")
    ]
    assert trials == list(range(1, len(trials) + 1)), "it did not go on where it had stopped"


def test_how_fast_it_is(data_dir: Path) -> None:
    command = the(".venv/bin/fuze-bench bench ").replace("--blocks 2 --scale 0.05", "--blocks 1 --scale 0.02")
    done = Running(0, {**os.environ, "FUZE_DATA_DIR": str(data_dir)}).run(command, ROOT)
    assert done.returncode == 0, done.stderr
    assert "batch against rq worker: " in done.stdout


def test_planning(data_dir: Path) -> None:
    done = Running(0, {**os.environ, "FUZE_DATA_DIR": str(data_dir)}).run(
        the(".venv/bin/fuze-bench plan"), ROOT
    )
    assert done.returncode == 0, done.stderr[-2_000:]
    assert "Why not one fewer: default grows by" in done.stdout


def test_what_it_links_to_is_there() -> None:
    for target in re.findall(r"\]\(([^)#]+)\)|src=\"([^\"]+)\"", README):
        path = target[0] or target[1]
        assert path.startswith("https://") or (ROOT / path).exists(), path


def test_the_picture_is_the_one_of_the_recorded_run() -> None:
    """Pixel for pixel, with the fonts that matplotlib brings along."""
    spec = importlib.util.spec_from_file_location("draw_example", ROOT / "data" / "draw_example.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    drawn = matplotlib.image.imread(io.BytesIO(module.picture()))
    kept = matplotlib.image.imread(ROOT / "data" / "example-run" / "worker-counts.png")
    assert drawn.shape == kept.shape
    assert abs(drawn - kept).max() < 0.02


def test_the_reasons_are_those_of_the_code() -> None:
    for reason in Reason:
        assert f"| `{reason}`: {reason.sentence} | {'yes' if reason in RETRIED else 'no'} |" in README
