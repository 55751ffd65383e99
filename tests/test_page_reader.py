"""A page that runs away is stopped, whatever it does, and takes nothing with it."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from conftest import wait_until
from heavy_pages import BIG_TREE, ENDLESS, HEAVY

from fuze_bench.lab.parts.corpus import load_corpus
from fuze_bench.pipeline import confined_reader
from fuze_bench.pipeline.bookmarks import ProcessingError, Reason
from fuze_bench.pipeline.extract import extract_light
from fuze_bench.pipeline.page_reader import PageReader
from fuze_bench.processes import is_running

HTML = "text/html; charset=utf-8"
URL = "https://example.org/"
#: So much of nothing that the reader says so in the log.
EMPTY_PARAGRAPHS = b"<p>\0</p>" * 50_000
HEAVY_PAGE = b"<html><head><title>T</title></head><body>" + b"<p>Some words that can be read.</p>" * 3_000


@pytest.fixture
def reader() -> Iterator[PageReader]:
    opened = PageReader(60.0)
    yield opened
    opened.close()
    assert confined_pids() == []


def confined_pids(parent_pid: int | None = None) -> list[int]:
    """The confined readers that a process (this one by default) has started and not reaped."""
    found = []
    for folder in Path("/proc").iterdir():
        if not folder.name.isdigit():
            continue
        try:
            command = (folder / "cmdline").read_bytes()
            status = (folder / "stat").read_text()
        except (FileNotFoundError, ProcessLookupError):
            continue
        if confined_reader.__name__.encode() in command and int(status.rpartition(")")[2].split()[1]) == (
            parent_pid or os.getpid()
        ):
            found.append(int(folder.name))
    return found


def reason_of(reader: PageReader, body: bytes) -> tuple[Reason, str]:
    with pytest.raises(ProcessingError) as caught:
        reader.read(body, HTML, URL)
    return caught.value.reason, caught.value.detail


def test_the_corpus_is_read_here_and_no_page_of_it_is_a_wall(reader: PageReader) -> None:
    for page in load_corpus():
        reader.read(page.body, page.content_type, URL)
    assert confined_pids() == []


@pytest.mark.parametrize("pages", [ENDLESS, HEAVY], ids=["endless", "heavy"])
def test_what_could_take_long_is_told_at_once(pages: dict[str, bytes]) -> None:
    """Otherwise this test does not end."""
    assert [name for name, body in pages.items() if extract_light(body, HTML, URL) is not None] == []


def test_a_heavy_page_is_read_elsewhere_by_one_process(reader: PageReader) -> None:
    for _ in range(2):
        for name, body in HEAVY.items():
            assert "Some words that can be read" in reader.read(body, HTML, URL).text, name
    assert len(confined_pids()) == 1


def test_what_is_secret_stays_out_of_it(reader: PageReader, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("REDIS_URL", "DATABASE_URL", "PGPASSWORD", "FUZE_API_TOKENS", "HF_TOKEN"):
        monkeypatch.setenv(name, "very-secret")
    reader.read(HEAVY_PAGE, HTML, URL)
    [pid] = confined_pids()
    assert b"very-secret" not in Path(f"/proc/{pid}/environ").read_bytes()


def test_its_lines_are_as_those_of_its_process() -> None:
    code = f"""
from fuze_bench import logs
from fuze_bench.pipeline.bookmarks import ProcessingError
from fuze_bench.pipeline.page_reader import PageReader
from test_page_reader import EMPTY_PARAGRAPHS
logs.configure("json")
logs.name_worker("w")
with logs.during({{"job": "bookmark-7-1", "bookmark": 7}}):
    try:
        PageReader(60.0).read(EMPTY_PARAGRAPHS, "{HTML}", "{URL}")
    except ProcessingError:
        pass
"""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True
    )
    lines = [json.loads(line) for line in done.stderr.splitlines()]
    assert lines
    assert {(line["worker"], line["job"], line["bookmark"]) for line in lines} == {("w", "bookmark-7-1", 7)}


def test_too_long_is_a_reason_and_the_next_page_is_read() -> None:
    with closing(PageReader(2.0)) as reader:
        for body in (ENDLESS["nested-tables"], ENDLESS["keys-without-end"]):
            assert reason_of(reader, body) == (Reason.TOO_COMPLEX, "takes longer than 2 s")
            assert confined_pids() == []
        assert reader.read(b"<p>A page that is short and good.</p>", HTML, URL).text


def test_too_much_memory_is_a_reason_and_the_next_page_is_read(reader: PageReader) -> None:
    assert reason_of(reader, BIG_TREE) == (Reason.TOO_COMPLEX, "needs more than 512 MiB")
    assert reader.read(HEAVY_PAGE, HTML, URL).text


def test_killed_over_a_page(reader: PageReader) -> None:
    outcome: list[tuple[Reason, str]] = []
    reading = threading.Thread(target=lambda: outcome.append(reason_of(reader, ENDLESS["nested-tables"])))
    reader.read(HEAVY_PAGE, HTML, URL)
    [pid] = confined_pids()
    before_s = cpu_s(pid)
    reading.start()
    wait_until(lambda: cpu_s(pid) > before_s, what="the page to be read")
    os.kill(pid, signal.SIGKILL)
    reading.join()
    assert outcome == [(Reason.TOO_COMPLEX, "the process that read it died: signal 9")]
    assert reader.read(HEAVY_PAGE, HTML, URL).text


def cpu_s(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def test_killed_between_pages(reader: PageReader) -> None:
    reader.read(HEAVY_PAGE, HTML, URL)
    [pid] = confined_pids()
    os.kill(pid, signal.SIGKILL)
    wait_until(lambda: not is_running(pid), what="the process to be gone")
    assert reader.read(HEAVY_PAGE, HTML, URL).text


def test_a_job_that_is_ended_in_the_middle_leaves_nothing_for_the_next(reader: PageReader) -> None:
    class Ended(BaseException):
        pass

    def ring(_number: int, _frame: object) -> None:
        raise Ended

    reader.read(HEAVY_PAGE, HTML, URL)
    before = signal.signal(signal.SIGALRM, ring)
    signal.setitimer(signal.ITIMER_REAL, 0.3)
    with pytest.raises(Ended):
        reader.read(ENDLESS["nested-tables"], HTML, URL)
    signal.signal(signal.SIGALRM, before)
    assert confined_pids() == []
    assert "Some words" in reader.read(HEAVY_PAGE, HTML, URL).text


def test_threads_share_it_and_a_thread_that_ends_does_not_end_it(reader: PageReader) -> None:
    found: list[str] = []
    pages = [HEAVY_PAGE.replace(b"words", b"words%d" % number) for number in range(3)]
    threads = [
        threading.Thread(target=lambda page=page: found.append(reader.read(page, HTML, URL).text))
        for page in pages
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(text.split()[1] for text in found) == ["words0", "words1", "words2"]
    [pid] = confined_pids()
    reader.read(HEAVY_PAGE, HTML, URL)
    assert confined_pids() == [pid]


def test_a_fork_starts_its_own(reader: PageReader) -> None:
    reader.read(HEAVY_PAGE, HTML, URL)
    [pid] = confined_pids()
    child = multiprocessing.get_context("fork").Process(target=_read_in_fork, args=(reader, pid))
    child.start()
    child.join(120)
    assert child.exitcode == 0
    assert reader.read(HEAVY_PAGE, HTML, URL).text
    assert confined_pids() == [pid]


def _read_in_fork(reader: PageReader, pid_of_parents: int) -> None:
    assert reader.read(HEAVY_PAGE, HTML, URL).text
    [pid] = confined_pids()
    assert pid != pid_of_parents
    reader.close()
    assert confined_pids() == []


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere it ends a few seconds later")
def test_it_ends_with_its_process_in_the_middle_of_a_page() -> None:
    code = (
        "from fuze_bench.pipeline.page_reader import PageReader\n"
        "from heavy_pages import ENDLESS\n"
        "PageReader(600.0).read(ENDLESS['nested-tables'], 'text/html', 'https://example.org/')"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    parent = subprocess.Popen([sys.executable, "-c", code], env=environment)
    try:
        wait_until(lambda: confined_pids(parent.pid), what="the confined reader")
        [pid] = confined_pids(parent.pid)
        wait_until(lambda: _is_limited(pid), what="it to be ready")
        before_s = cpu_s(pid)
        wait_until(lambda: cpu_s(pid) > before_s + 0.1, what="the page to be read")
    finally:
        parent.kill()
        parent.wait()
    wait_until(lambda: not Path(f"/proc/{pid}").exists(), what="the confined reader to end")


def _is_limited(pid: int) -> bool:
    """The last thing that it does before it takes pages."""
    limits = Path(f"/proc/{pid}/limits").read_text().splitlines()
    return any(line.startswith("Max address space") and "unlimited" not in line for line in limits)


def test_a_reader_that_cannot_start_is_no_fault_of_the_page(
    reader: PageReader, monkeypatch: pytest.MonkeyPatch
) -> None:
    from fuze_bench.errors import ServiceError

    monkeypatch.setattr(sys, "executable", "/no/such/python")
    with pytest.raises(ServiceError, match="cannot be started"):
        reader.read(HEAVY_PAGE, HTML, URL)
    monkeypatch.setattr(sys, "executable", "/bin/false")
    with pytest.raises(ServiceError, match="exit code 1"):
        reader.read(HEAVY_PAGE, HTML, URL)
