"""`locust -f loadtests` as people type it, and as the lab drives it: nothing stalled, failed or in flight is lost."""

from __future__ import annotations

import csv
import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.parse
import urllib.request
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest
from api_server import Client, api_process, running_api
from conftest import StartWorker, wait_until
from offered_load import p99, progress, record, saves

from fuze_bench.errors import LabError
from fuze_bench.lab.arrivals import Arrivals
from fuze_bench.lab.load.locust_driver import run_locust, start_locust
from fuze_bench.lab.load.request_log import Sample, read_request_log, request_table, tally
from fuze_bench.lab.load.sender import Plan, start_sender
from fuze_bench.lab.parts.origin import Origin
from fuze_bench.pipeline.settings import Settings
from fuze_bench.processes import Child, free_port

ROOT = Path(__file__).parent.parent
NOWHERE = "http://127.0.0.1:9"


def locust(host: str, *options: str, python: tuple[str, ...] = ()) -> tuple[list[str], dict[str, str]]:
    argv = [sys.executable, *python, "-m", "locust", "-f", str(ROOT / "loadtests"), *options]
    return argv, {**os.environ, "LOCUST_HOST": host, "ORIGIN_URL": NOWHERE}


def run(
    cwd: Path, host: str, *options: str, python: tuple[str, ...] = ()
) -> subprocess.CompletedProcess[str]:
    argv, environment = locust(host, "--headless", *options, python=python)
    return subprocess.run(
        argv, env=environment, cwd=cwd, capture_output=True, text=True, timeout=120, check=False
    )


def is_open(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


@dataclass(frozen=True)
class Stalled:
    """What was recorded in the same ten seconds: by both load generators of one API, and of another by the sender."""

    locust: list[Sample]
    sender: list[Sample]
    summary: str
    for_one_second: list[Sample]


@pytest.fixture(scope="module")
def stalled(tmp_path_factory: pytest.TempPathFactory, shared_settings: Settings) -> Stalled:
    """An API stands still for two seconds while both offer it 50 requests a second; another one for one second."""
    root = tmp_path_factory.mktemp("stalled")
    folders = [root / name for name in ("locust", "sender", "other")]
    for folder in folders:
        folder.mkdir()
    arrivals = Arrivals(law="constant", rate_per_s=50, duration_s=10)

    def plan(base_url: str, folder: Path) -> Plan:
        return Plan(base_url=base_url, record=record(folder), requests=saves(arrivals, folder.name))

    with (
        api_process(shared_settings, root / "api.log") as (url, api),
        api_process(shared_settings, root / "other-api.log") as (other_url, other_api),
        start_locust("quick-save", url, arrivals, folders[0], seed=1, origin_url=NOWHERE, drain_s=10) as one,
        start_sender(plan(url, folders[1]), folders[1]) as two,
        start_sender(plan(other_url, folders[2]), folders[2]) as three,
    ):
        wait_until(lambda: min(map(progress, folders)) >= 50, what="a second of each")
        for each in (api, other_api):
            each.signal(signal.SIGSTOP)
        for each in (other_api, api):
            time.sleep(1)
            each.signal(signal.SIGCONT)
        assert [child.wait(60) for child in (one, two, three)] == [0, 0, 0]
    records = [read_request_log(folder / "requests.jsonl") for folder in folders]
    return Stalled(records[0], records[1], (folders[0] / "locust.log").read_text(), records[2])


@pytest.mark.parametrize("which", ["locust", "sender"])
def test_a_stalled_server_is_charged_for_everybody_it_kept_waiting(stalled: Stalled, which: str) -> None:
    samples = getattr(stalled, which)
    table = request_table(samples)
    assert (table.outcome == "ok").sum() == 500
    assert p99(table.ack_ms.tolist()) >= 1_800
    # Requests went on being sent, each at its own time.
    assert ((table.intended_ns - table.intended_ns.min()) / 20_000_000).round().tolist() == list(range(500))
    assert table.late_ms.median() < 20
    assert table.late_ms.max() < 1_000
    assert (table.ack_ms + 1e-6 >= table.ack_service_ms).all()


def test_a_second_of_standstill_is_seen_by_those_who_came_in_it(stalled: Stalled) -> None:
    table = request_table(stalled.for_one_second)
    assert (table.outcome == "ok").sum() == 500
    assert p99(table.ack_ms.tolist()) >= 850


def test_locust_shows_the_latency_and_beside_it_the_service_time(stalled: Stalled) -> None:
    counts, percentiles = (
        {line[9:].split("  ")[0].strip(): line.replace("|", " ").split() for line in part.splitlines()}
        for part in stalled.summary.split("Response time percentiles")
    )
    assert {"quick-save", "quick-save (service time)"} <= set(counts)
    # It is no second request.
    assert counts["Aggregated"][1] == "500"
    assert percentiles["quick-save"][-1] == percentiles["quick-save (service time)"][-1] == "500"
    assert int(percentiles["quick-save"][-5]) >= 1_800


def test_locust_knows_a_law_and_its_seed_by_its_options(shared_api: str, tmp_path: Path) -> None:
    """That it then does what the lean sender does is seen in whole trials, see `test_saves_sent.py`."""
    arrivals = Arrivals(law="poisson", rate_per_s=20, duration_s=1)
    samples = run_locust("quick-save", shared_api, arrivals, tmp_path, seed=7, origin_url=NOWHERE)
    expected_ns = [round(time_s * 1e9) for time_s in arrivals.times(7)]
    start_ns = samples[0].intended_ns - expected_ns[0]
    assert [sample.intended_ns - start_ns for sample in samples] == expected_ns
    assert {(sample.outcome, sample.mode, sample.was_duplicate) for sample in samples} == {
        ("ok", "rq", False)
    }
    assert all(sample.bookmark_id and sample.job_id for sample in samples)


def test_failures_have_a_line_of_their_own(shared_settings: Settings, tmp_path: Path) -> None:
    """The API is killed in the middle: what was refused is no fast answer, neither for Locust nor in our log."""
    arrivals = Arrivals(law="constant", rate_per_s=40, duration_s=4)
    with (
        api_process(shared_settings, tmp_path / "api.log") as (base_url, api),
        start_locust(
            "quick-save", base_url, arrivals, tmp_path, seed=1, origin_url=NOWHERE, drain_s=2
        ) as child,
    ):
        wait_until(lambda: progress(tmp_path) >= 60, what="the first answers")
        api.signal(signal.SIGKILL)
        assert child.wait(60) == 1
    counts = tally(read_request_log(tmp_path / "requests.jsonl"))
    assert counts.offered == counts.sent == 160
    assert counts.sent == counts.ok + counts.failed
    assert set(counts.errors) <= {"refused", "reset", "closed"}
    assert counts.errors["refused"] >= 20
    log = (tmp_path / "locust.log").read_text()
    [ok, failed] = [
        next(line for line in log.splitlines() if line.startswith(f"POST     quick-save{end}"))
        for end in ("  ", " (failed)")
    ]
    assert ok.split()[2:4] == [str(counts.ok), "0(0.00%)"]
    assert failed.split()[3] == str(counts.failed)


def test_what_is_in_flight_when_locust_ends_is_recorded(shared_settings: Settings, tmp_path: Path) -> None:
    """An API that stops answering half a second before the end of the schedule, and stays so."""
    arrivals = Arrivals(law="constant", rate_per_s=40, duration_s=3)
    with api_process(shared_settings, tmp_path / "api.log") as (base_url, api):
        try:
            with start_locust(
                "quick-save", base_url, arrivals, tmp_path, seed=1, origin_url=NOWHERE, drain_s=0.5
            ) as child:
                wait_until(lambda: progress(tmp_path) >= 90, what="most answers")
                api.signal(signal.SIGSTOP)
                assert child.wait(60) == 0
        finally:
            api.signal(signal.SIGCONT)
    counts = tally(read_request_log(tmp_path / "requests.jsonl"))
    assert counts.sent == counts.ok + counts.unfinished == 120
    assert 10 <= counts.unfinished <= 30
    log = (tmp_path / "locust.log").read_text()
    assert f"{counts.unfinished} requests had no answer when the time was up" in log
    assert "quick-save (unfinished)" in log


def test_all_reports_of_several_processes(shared_api: str, tmp_path: Path) -> None:
    options = "--processes 2 --csv x --csv-full-history --json --html r.html --request-log log -u 4 -r 4 -t 4s --stop-timeout 20s"
    done = run(tmp_path, shared_api, *options.split(), "QuickSaves")
    assert done.returncode == 0, done.stderr[-2_000:]
    [entry] = [row for row in json.loads(done.stdout) if row["name"] == "quick-save"]
    counts = tally(read_request_log(tmp_path / "log"))
    assert entry["num_requests"] == counts.ok > 10
    assert counts.failed == 0
    assert ",Aggregated," in (tmp_path / "x_stats.csv").read_text()
    assert "quick-save" in (tmp_path / "x_stats_history.csv").read_text()
    assert "quick-save" in (tmp_path / "r.html").read_text()


def test_a_master_and_a_worker_apart(shared_api: str, tmp_path: Path) -> None:
    port = str(free_port())
    master = "--headless --master --expect-workers 1 --json -t 5s OpenLoopPriorities --rate 40 --window 1"
    argv, environment = locust(shared_api, "--worker", "--master-port", port)
    with Child("the worker", argv, tmp_path / "worker.log", environment=environment) as worker:
        done = run(
            tmp_path,
            shared_api,
            *master.split(),
            "--master-bind-port",
            port,
            "--request-log",
            str(tmp_path / "log"),
        )
        assert worker.wait(30) == 0
    assert done.returncode == 0, done.stderr[-2_000:]
    rows = {row["name"]: row for row in json.loads(done.stdout)}
    table = request_table(read_request_log(tmp_path / "log"))
    for queue, count in (("high", 4), ("default", 12), ("low", 24)):
        name = f"quick-save, {queue}"
        ours, latency, service = table[table["name"] == name], rows[name], rows[f"{name} (service time)"]
        assert len(ours) == latency["num_requests"] == service["num_requests"] == count
        # What Locust was told counts from the intended times.
        assert latency["total_response_time"] == pytest.approx(ours.ack_ms.sum())
        assert service["total_response_time"] == pytest.approx(ours.ack_service_ms.sum())
        assert ours.late_ms.min() > 0


def test_a_run_that_lost_its_worker_is_not_ok(shared_api: str, tmp_path: Path) -> None:
    argv, environment = locust(shared_api, *"--headless --processes 1 -t 2m QuickSaves".split())
    argv += ["--request-log", record(tmp_path)]
    log = tmp_path / "locust.log"
    with Child("locust", argv, log, environment=environment) as child:
        wait_until(lambda: progress(tmp_path) > 0, what="the worker to send")
        [worker] = psutil.Process(child.pid).children()
        worker.kill()
        wait_until(lambda: "failed to send heartbeat" in log.read_text(), what="the master to notice")
        child.signal(signal.SIGTERM)
        assert child.wait(60) == 1
    assert "1 worker(s) went missing" in log.read_text()


def test_a_run_that_sent_nothing_is_not_ok(shared_api: str, tmp_path: Path) -> None:
    done = run(tmp_path, shared_api, *"-t 1s OpenLoopShares --arrivals step --steps 0x5,1x1".split())
    assert done.returncode == 1
    assert "no request was answered" in done.stderr


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ("--arrivals poison", "did you mean 'poisson'?"),
        ("--rate fast", "--rate 'fast' is not a number"),
        ("--steps 10x5", "constant arrivals take no steps"),
        ("--tags hostil", "use some of duplicates, hostile"),
        ("--request-log no/where", "no/where"),
        ("--begin-file no/where", "'no/where' is in no folder that there is"),
    ],
)
def test_what_cannot_be_said_is_refused_in_one_line(tmp_path: Path, options: str, says: str) -> None:
    done = run(tmp_path, NOWHERE, *options.split(), "-t", "1s")
    assert done.returncode != 0
    [line] = [line for line in done.stderr.splitlines() if line.startswith("locust: ")]
    assert says in line
    assert "Traceback" not in done.stderr


def test_gevent_comes_first_and_nothing_warns(shared_api: str, tmp_path: Path) -> None:
    done = run(tmp_path, shared_api, "-t", "2s", "--stop-timeout", "20s", python=("-W", "error"))
    assert done.returncode == 0, done.stderr[-2_000:]
    assert "MonkeyPatchWarning" not in done.stderr
    assert "Traceback" not in done.stderr
    assert "0(0.00%)" in done.stderr


def test_the_lab_is_never_patched() -> None:
    """What notebooks import, and what drives Locust, run in processes whose sockets and threads are Python's own."""
    code = """
import socket, sys, threading
import fuze_bench.lab.questions.notebook, fuze_bench.lab.load.locust_driver, fuze_bench.lab.load.sender_ceiling
print([name for name in sys.modules if name.split(".")[0] in ("gevent", "locust")])
print(socket.socket.__module__, threading.Thread.__module__)
"""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, check=True
    )
    assert done.stdout == "[]\nsocket threading\n"


def test_every_scenario_gets_the_answers_it_should(shared_api: str, tmp_path: Path) -> None:
    """What must be refused is, all else is accepted; an import is at work while single pages are saved."""
    users = "QuickSaves Shares Duplicates Priorities ImportsBesideSaves Hostile"
    options = f"{users} -u 6 -r 6 -t 8s --stop-timeout 60s --equal-weights --json --request-log log"
    done = run(tmp_path, shared_api, *options.split())
    assert done.returncode == 0, done.stderr[-3_000:]
    rows = {row["name"]: row for row in json.loads(done.stdout)}
    assert sum(row["num_failures"] for row in rows.values()) == 0
    expected = {"quick-save", "share", "quick-save, high", "quick-save beside an import", "import"}
    assert expected <= set(rows)
    assert sum(name.startswith("hostile: ") for name in rows) >= 30
    repeated = rows["quick-save, repeated"]["num_requests"]
    assert 0.1 < repeated / (repeated + rows["quick-save, new"]["num_requests"]) <= 0.2
    samples = [s for s in read_request_log(tmp_path / "log") if s.name.startswith("quick-save, ")]
    assert {s.was_duplicate for s in samples if s.name == "quick-save, repeated"} == {True}
    assert {s.was_duplicate for s in samples if s.name == "quick-save, new"} == {False}
    assert {s.queue for s in samples} == {"high", "default", "low"}


def test_readers_look_until_their_page_is_processed(
    settings: Settings, origin: Origin, start_worker: StartWorker, tmp_path: Path
) -> None:
    options = f"StatusReaders -t 3s --stop-timeout 60s --json --origin {origin.url}"
    with start_worker(settings), running_api(settings) as base_url:
        done = run(tmp_path, base_url, *options.split())
        bookmarks = Client(base_url).get("/api/bookmarks").json["bookmarks"]
    assert done.returncode == 0, done.stderr[-3_000:]
    rows = {row["name"]: row["num_requests"] for row in json.loads(done.stdout)}
    assert {bookmark["status"] for bookmark in bookmarks} == {"processed"}
    assert rows["quick-save"] == rows["saved until processed"] == len(bookmarks)
    assert rows["read status"] >= len(bookmarks)


def test_one_scenario_by_its_tag(shared_api: str, tmp_path: Path) -> None:
    options = "--tags duplicates -u 2 -r 2 -t 3s --stop-timeout 20s --json --csv x"
    done = run(tmp_path, shared_api, *options.split())
    assert done.returncode == 0, done.stderr[-2_000:]
    requests = {row["name"]: row["num_requests"] for row in json.loads(done.stdout)}
    assert set(requests) == {"quick-save, new", "quick-save, repeated"}
    rows = csv.DictReader((tmp_path / "x_stats.csv").read_text().splitlines())
    written = {row["Name"]: int(row["Request Count"]) for row in rows}
    assert written == requests | {"Aggregated": sum(requests.values())}, "with those of the last second"


def test_the_web_page_starts_it_with_other_arrivals(shared_api: str, tmp_path: Path) -> None:
    port = free_port()
    argv, environment = locust(
        shared_api, "--web-host", "127.0.0.1", "--web-port", str(port), "OpenLoopQuickSaves"
    )
    page = f"http://127.0.0.1:{port}"
    with Child("locust", argv, tmp_path / "locust.log", environment=environment) as child:
        child.wait_ready(lambda: is_open(port), timeout_s=60)
        form = {"user_count": 1, "spawn_rate": 1, "host": shared_api, "arrivals": "backlog", "burst_size": 30}
        with urllib.request.urlopen(f"{page}/swarm", urllib.parse.urlencode(form).encode()) as answer:
            assert json.load(answer)["success"] is True

        def counted() -> dict[str, int]:
            with urllib.request.urlopen(f"{page}/stats/requests") as answer:
                return {row["name"]: row["num_requests"] for row in json.load(answer)["stats"]}

        wait_until(lambda: counted().get("quick-save") == 30, what="thirty saves")
        child.signal(signal.SIGTERM)
        assert child.wait(30) == 0


def test_an_unknown_scenario_names_the_nearest(tmp_path: Path) -> None:
    arrivals = Arrivals(law="backlog", burst_size=1)
    with pytest.raises(LabError, match="did you mean 'share'"):
        run_locust("shares", NOWHERE, arrivals, tmp_path, origin_url=NOWHERE)
