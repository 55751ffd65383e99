"""`fuze-bench save --file` and `up --urls` with lists of every kind, on a terminal, and interrupted."""

from __future__ import annotations

import os
import pty
import re
import signal
import subprocess
from pathlib import Path

import pytest
from conftest import wait_until
from test_cli import PROGRAM, environment, fuze_bench, up

from fuze_bench.lab.parts.origin import Origin
from fuze_bench.pipeline.redis_server import PrivateRedis
from fuze_bench.pipeline.settings import Settings
from fuze_bench.pipeline.store import Store
from fuze_bench.processes import Child

NO_WORKER = "warning    no worker listens to the queue 'low': start one with `fuze-bench worker`"
EXPORT = """<!DOCTYPE NETSCAPE-Bookmark-file-1>
<DL><p>
<DT><A HREF="https://example.org/a">A</A>
<DT><A HREF="javascript:alert(1)">A bookmarklet</A>
<DT><A HREF="https://example.org/b\x1b[2J">B</A>
<DT><A HREF="https://example.org/a#again">A again</A>
</DL>
"""


def test_a_bookmark_export_answers_entry_by_entry(
    data_dir: Path, tmp_path: Path, private_redis: PrivateRedis
) -> None:
    """Told by what is in it, whatever its name; what would steer the terminal does not reach it."""
    file = tmp_path / "bookmarks.csv"
    file.write_text(EXPORT)
    done = fuze_bench(data_dir, "save", "--file", str(file), REDIS_URL=private_redis.url)
    assert done.returncode == 1
    words = [re.sub(r"bookmark-\d+-1", "JOB", line) for line in done.stdout.splitlines()]
    assert words == [
        "saved      JOB (rq, pending) https://example.org/a",
        "saved      JOB (rq, pending) https://example.org/b\N{REPLACEMENT CHARACTER}[2J",
        "duplicate  JOB (rq, pending) https://example.org/a",
    ]
    assert done.stderr.splitlines() == [
        NO_WORKER,
        "refused    line 4: javascript:alert(1): javascript: URLs cannot be saved: only http and https",
        "2 saved, 1 duplicates, 1 refused",
    ]
    again = fuze_bench(data_dir, "save", "--file", "-", stdin=EXPORT, REDIS_URL=private_redis.url)
    assert again.stderr.splitlines()[-1] == "0 saved, 3 duplicates, 1 refused"
    with Store(Settings(data_dir=data_dir)) as store:
        assert [row["user_title"] for row in store.rows("user_title")] == ["A", "B"]


def test_a_csv_file_from_a_pipe(data_dir: Path, private_redis: PrivateRedis) -> None:
    text = "title;url\nA;https://example.org/a\n"
    done = fuze_bench(data_dir, "save", "--file", "-", stdin=text, REDIS_URL=private_redis.url)
    assert (done.returncode, done.stderr) == (0, f"{NO_WORKER}\n1 saved, 0 duplicates, 0 refused\n")


def test_pages_are_saved_for_a_user_of_the_api(data_dir: Path, private_redis: PrivateRedis) -> None:
    for options in ([], ["--user", "7"], ["--user", "7"]):
        done = fuze_bench(data_dir, "save", "https://example.org/", *options, REDIS_URL=private_redis.url)
        assert done.returncode == 0
    with Store(Settings(data_dir=data_dir)) as store:
        assert [row["user_id"] for row in store.rows("user_id")] == [1, 7]


@pytest.mark.parametrize(
    ("options", "text", "message"),
    [
        (["save", "--file", "-"], "name,age\nAnna,3\n", "is neither a list of addresses"),
        (["save", "--file", "-", "--format", "html"], "https://example.org/", "the HTML holds no bookmarks"),
        (["save", "--file", "-", "--format", "xml"], "", "'xml' is not one of 'lines', 'csv', 'html'"),
        (["save", "--format", "csv", "https://example.org/"], "", "--format goes with --file"),
        (["save", "--user", "0", "https://example.org/"], "", "0 is not in the range"),
        (["up", "--port", "0", "--urls", "-"], "<p>Hello", "looks like HTML or XML but is neither"),
    ],
)
def test_what_is_no_list_is_one_line_and_saves_nothing(
    data_dir: Path, options: list[str], text: str, message: str
) -> None:
    done = fuze_bench(data_dir, *options, stdin=text)
    assert done.returncode == 2
    assert message in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert not data_dir.exists()


def test_ctrl_c_keeps_what_is_saved_and_says_how_much(
    data_dir: Path, tmp_path: Path, private_redis: PrivateRedis
) -> None:
    file = tmp_path / "many.txt"
    file.write_text("".join(f"https://example.org/{number}\n" for number in range(20_000)))
    variables = environment(data_dir, REDIS_URL=private_redis.url)
    argv = [*PROGRAM, "save", "--file", str(file)]
    with Child("save", argv, tmp_path / "save.log", environment=variables) as child:
        child.wait_ready(lambda: "saved  " in child.log_tail(), timeout_s=60)
        child.signal(signal.SIGINT)
        assert child.wait(30) == 130
        numbers, last = [line for line in child.log_tail().splitlines() if line][-2:]
    assert last == "fuze-bench: stopped"
    saved, left = map(int, re.findall(r"^(\d+) saved, 0 duplicates, 0 refused, (\d+) not tried$", numbers)[0])
    assert saved + left == 20_000
    with Store(Settings(data_dir=data_dir)) as store:
        assert 0 < store.counts()["pending"] == saved < 20_000


def test_a_terminal_shows_the_time_left_and_a_file_gets_the_answers(
    data_dir: Path, tmp_path: Path, private_redis: PrivateRedis
) -> None:
    file, answers = tmp_path / "some.txt", tmp_path / "answers.txt"
    file.write_text("".join(f"https://example.org/{number}\n" for number in range(300)))
    ours, theirs = pty.openpty()
    shown = b""
    variables = environment(data_dir, REDIS_URL=private_redis.url, TERM="xterm", COLUMNS="80")
    with answers.open("wb") as output:
        process = subprocess.Popen(
            [*PROGRAM, "save", "--file", str(file)], env=variables, stdout=output, stderr=theirs
        )
        os.close(theirs)
        try:
            while chunk := _read(ours):
                shown += chunk
            assert process.wait(60) == 0
        finally:
            process.kill()
            process.wait()
            os.close(ours)
    assert re.search(rb"saving .*%.*\d:\d\d:\d\d", shown)
    assert len(answers.read_text().splitlines()) == 300
    assert b"300 saved, 0 duplicates, 0 refused" in shown


def _read(terminal: int) -> bytes:
    try:
        return os.read(terminal, 10_000)
    except OSError:  # nobody holds the other end any more
        return b""


def test_up_saves_what_can_be_saved_of_a_list(data_dir: Path, tmp_path: Path, origin: Origin) -> None:
    urls = tmp_path / "urls.csv"
    urls.write_text(f"url,title\n{origin.url}/page/1,One\nnonsense,Two\n{origin.url}/page/3,Three\n")
    with up(data_dir, tmp_path, "--urls", str(urls)) as (child, _, _):
        wait_until(lambda: "processed 2" in child.log_tail(), what="the list to be processed")
        assert "refused    line 3: nonsense: 'nonsense' is not a URL" in child.log_tail(50)
