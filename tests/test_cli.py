"""The command line as a person uses it: up, save, status, and the wrong thing typed."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest
from conftest import wait_until
from nursery import nursery

from fuze_bench.lab.parts.origin import Origin
from fuze_bench.pipeline.redis_server import running_private_url
from fuze_bench.pipeline.settings import Settings
from fuze_bench.pipeline.store import Store
from fuze_bench.processes import Child

PROGRAM = [sys.executable, "-m", "fuze_bench.cli"]


def environment(data_dir: Path, **more: str) -> dict[str, str]:
    ours = {
        "FUZE_DATA_DIR": str(data_dir),
        "FUZE_EMBEDDING_MODEL": "off",
        "FUZE_FETCH_ALLOW": "127.0.0.1",
    }
    return {**os.environ, **ours, **more}


def fuze_bench(
    data_dir: Path, *arguments: str, stdin: str = "", **more: str
) -> subprocess.CompletedProcess[str]:
    return nursery().run("fuze_bench.cli:main", arguments, environment(data_dir, **more), stdin=stdin)


@contextmanager
def up(data_dir: Path, tmp_path: Path, *options: str, **more: str) -> Iterator[tuple[Child, str, str]]:
    """`fuze-bench up` on a free port: the process, its API and its origin."""
    argv = [*PROGRAM, "up", "--port", "0", "--workers", "1", *options]
    with Child(
        "up", argv, tmp_path / "up.log", environment=environment(data_dir, **more), stop_timeout_s=30
    ) as child:
        child.wait_ready(lambda: "workers: 1" in child.log_tail(), timeout_s=60)
        api = re.search(r"API and page\s+(http://\S+)/", child.log_tail(50))
        site = re.search(r"some pages\s+(http://[^/]+)/", child.log_tail(50))
        assert api
        assert site
        yield child, api[1], site[1]


def test_up_runs_everything_and_ctrl_c_stops_all_of_it(data_dir: Path, tmp_path: Path) -> None:
    with up(data_dir, tmp_path) as (child, api, site):
        family = psutil.Process(child.pid).children(recursive=True)
        body = json.dumps({"url": f"{site}/page/7"}).encode()
        request = urllib.request.Request(
            f"{api}/api/bookmarks/quick-save", body, {"Content-Type": "application/json"}
        )
        with urllib.request.urlopen(request, timeout=10) as answer:
            saved = json.load(answer)
        assert saved["job"]["mode"] == "rq"
        wait_until(lambda: "processed 1" in child.log_tail(), what="the bookmark to be processed")
        status = fuze_bench(data_dir, "status", saved["job"]["id"], "--json")
        assert json.loads(status.stdout)["status"] == "finished"
        second = fuze_bench(data_dir, "save", f"{site}/page/7", f"{site}/page/8")
        assert re.search(r"^duplicate +bookmark-1-1 \(rq, processed\)", second.stdout, re.MULTILINE)
        assert re.search(r"^saved +bookmark-\d-1 \(rq, ", second.stdout, re.MULTILINE)
        fuze_bench(data_dir, "save", f"{site}/status/500")
        wait_until(
            lambda: re.search(
                r"^again_at +2\d\d\d-", fuze_bench(data_dir, "status", "bookmark-4-1").stdout, re.M
            ),
            what="the failed fetch to be due again",
        )
        wait_until(lambda: "low 0, later 1 " in child.log_tail(), what="the screen to count it")
        [redis] = [p for p in psutil.Process(child.pid).children() if p.name() == "redis-server"]
        redis.kill()
        wait_until(lambda: "starting it again" in child.log_tail(), what="its death to be seen")
        wait_until(lambda: running_private_url(data_dir), what="another to run")
        third = fuze_bench(data_dir, "save", f"{site}/page/9")
        assert re.search(r"^saved +bookmark-\d-1 \(rq, ", third.stdout, re.MULTILINE)
        assert fuze_bench(data_dir, "drain").returncode == 0
        wait_until(lambda: "workers: 0 (drained)" in child.log_tail(), what="the workers to end")
        child.signal(signal.SIGINT)
        assert child.wait(30) == 0
        assert len(family) >= 4
        assert not [p for p in family if p.is_running() and p.status() != psutil.STATUS_ZOMBIE]
    assert running_private_url(data_dir) is None
    assert len(child.log_path.read_text().splitlines()) < 20


def test_up_says_when_one_of_its_parts_is_gone(data_dir: Path, tmp_path: Path) -> None:
    with up(data_dir, tmp_path) as (child, _, _):
        [origin] = [
            p for p in psutil.Process(child.pid).children() if "fuze_bench.lab.parts.origin" in p.cmdline()
        ]
        origin.kill()
        assert child.wait(30) == 1
        assert "origin ended with code -9" in child.log_tail()


def test_up_serves_a_folder_of_ones_own_and_saves_a_list(
    data_dir: Path, tmp_path: Path, origin: Origin
) -> None:
    folder = tmp_path / "mine"
    folder.mkdir()
    (folder / "a.html").write_text(
        "<title>My own page</title><p>Some words that I wrote on a page of mine.</p>"
    )
    urls = tmp_path / "urls.txt"
    urls.write_text(f"# some\n{origin.url}/page/1\n\n{origin.url}/page/2\n")
    with up(data_dir, tmp_path, "--pages", str(folder), "--urls", str(urls)) as (child, _, site):
        wait_until(lambda: "processed 2" in child.log_tail(), what="the list to be processed")
        with urllib.request.urlopen(f"{site}/page/0", timeout=10) as answer:
            assert b"My own page" in answer.read()


def test_up_opens_its_own_site_and_no_other_that_is_not_public(
    data_dir: Path, tmp_path: Path, origin: Origin
) -> None:
    with up(data_dir, tmp_path, FUZE_FETCH_ALLOW="") as (child, _, site):
        fuze_bench(data_dir, "save", f"{site}/page/1", f"{origin.url}/page/1")
        wait_until(lambda: "processed 1, failed 1" in child.log_tail(), what="both to be done")
        status = fuze_bench(data_dir, "status", "bookmark-2-1")
    assert re.search(r"^error +The address is not one that may be fetched", status.stdout, re.MULTILINE)
    assert origin.total_hits() == 0


def test_without_redis_save_does_the_work_itself(data_dir: Path, origin: Origin) -> None:
    done = fuze_bench(data_dir, "save", f"{origin.url}/page/1", f"{origin.url}/status/404")
    assert done.returncode == 0, done.stderr
    assert "falling back to threading" in done.stderr
    assert "(thread, pending)" in done.stdout
    assert "bookmarks now: processed 1, failed 1" in done.stderr
    with Store(Settings(data_dir=data_dir)) as store:
        assert store.counts() == {"pending": 0, "processing": 0, "processed": 1, "failed": 1}
    failed = fuze_bench(data_dir, "status", "bookmark-2-1")
    assert re.search(r"^status +failed$", failed.stdout, re.MULTILINE)
    assert re.search(r"^error +The page does not exist", failed.stdout, re.MULTILINE)


def test_a_file_answers_line_by_line(data_dir: Path, origin: Origin) -> None:
    lines = (
        f"# my list\n{origin.url}/page/1  # the first\n\nnot a url\n{origin.url}/page/1#top\nftp://a.org/x\n"
    )
    done = fuze_bench(data_dir, "save", "--file", "-", "--queue", "high", stdin=lines)
    assert done.returncode == 1
    assert [line.split()[0] for line in done.stdout.splitlines()] == ["saved", "duplicate"]
    refused = [line for line in done.stderr.splitlines() if line.startswith("refused")]
    assert "'not a url' is not a URL" in refused[0]
    assert "ftp: URLs cannot be saved" in refused[1]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["sve"], "No such command 'sve'"),
        (["save"], "Nothing to save: give URLs or --file."),
        (["save", "--file", "/no/such/file"], "'/no/such/file': No such file or directory"),
        (["save", "--title", "T", "http://a.org/", "http://b.org/"], "--title goes with exactly one URL"),
        (["save", "--queue", "urgent", "http://a.org/"], "'urgent' is not one of 'high', 'default', 'low'"),
        (["up", "--port", "99999"], "99999 is not in the range"),
        (["up", "--workers", "0"], "0 is not in the range"),
        (["up", "--pages", "/no/such/folder"], "'/no/such/folder' does not exist"),
        (["status", "bookmark-9-9"], "there is no job 'bookmark-9-9'"),
        (["api", "--port", "x"], "'x' is not a valid integer"),
    ],
)
def test_the_wrong_thing_typed_is_one_line_and_code_2(
    data_dir: Path, arguments: list[str], message: str
) -> None:
    done = fuze_bench(data_dir, *arguments)
    assert done.returncode == 2
    assert message in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert done.stdout == ""


def test_a_port_that_is_taken_is_said_so(data_dir: Path, origin: Origin) -> None:
    port = origin.url.rsplit(":", 1)[1]
    for command in ("up", "api"):
        done = fuze_bench(data_dir, command, "--port", port)
        assert done.returncode == 2
        assert f"port {port} cannot be used on 127.0.0.1" in done.stderr
        assert len(done.stderr.splitlines()) == 1


def test_a_database_that_is_not_there_is_one_line(data_dir: Path) -> None:
    done = fuze_bench(
        data_dir, "status", "bookmark-1-1", DATABASE_URL="postgresql://127.0.0.1:1/x?connect_timeout=2"
    )
    assert done.returncode == 1
    assert "the database refused" in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_help_is_everywhere(data_dir: Path) -> None:
    overview = fuze_bench(data_dir, "--help")
    commands = re.findall(r"^  ([a-z-]+)  ", overview.stdout.split("Commands:")[1], re.MULTILINE)
    assert {"api", "recover", "report", "save", "status", "up", "worker"} <= set(commands)
    for command in commands:
        done = fuze_bench(data_dir, command, "--help")
        assert done.returncode == 0
        assert done.stdout.startswith(f"Usage: fuze-bench {command}")


def test_recover_says_that_it_can_do_nothing_without_redis(data_dir: Path) -> None:
    done = fuze_bench(data_dir, "recover", REDIS_URL="redis://127.0.0.1:1/0")
    assert done.returncode == 1
    assert "Redis cannot be used" in done.stderr
    assert not done.stdout
