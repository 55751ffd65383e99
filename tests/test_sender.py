"""The lean sender: intended times kept whatever the server does, and nothing vanishes from its record."""

from __future__ import annotations

import itertools
import json
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from api_server import Client, api_process
from conftest import wait_until
from offered_load import progress, record, saves

from fuze_bench.errors import LabError
from fuze_bench.lab.arrivals import Arrivals
from fuze_bench.lab.load.request_log import read_request_log, request_table, tally
from fuze_bench.lab.load.sender import Plan, PlannedRequest, send, start_sender
from fuze_bench.lab.load.sender_ceiling import measure_ceiling
from fuze_bench.lab.parts.origin import Origin
from fuze_bench.pipeline.settings import Settings

CONSTANT = Arrivals(law="constant", rate_per_s=50, duration_s=4)


def test_every_save_is_sent_at_its_time_and_its_answer_is_recorded(shared_api: str, tmp_path: Path) -> None:
    arrivals = Arrivals(law="poisson", rate_per_s=40, duration_s=2)
    requests = saves(arrivals, "recorded", seed=5)
    samples = send(Plan(base_url=shared_api, record=record(tmp_path), requests=requests), tmp_path)
    start_ns = samples[0].intended_ns - round(requests[0].intended_s * 1e9)
    assert [s.intended_ns - start_ns for s in samples] == [round(r.intended_s * 1e9) for r in requests]
    assert [s.job for s in samples] == list(range(1, len(requests) + 1))
    for sample, request in zip(samples, requests, strict=True):
        assert (sample.outcome, sample.http_status, sample.error) == ("ok", 201, None)
        assert (sample.queue, sample.mode, sample.was_duplicate) == (request.body["queue"], "rq", False)
        assert sample.job_id == f"bookmark-{sample.bookmark_id}-1"
        assert sample.sent_ns is not None
        assert sample.acknowledged_ns is not None
        assert sample.intended_ns <= sample.sent_ns < sample.acknowledged_ns
    bookmark = Client(shared_api).get(f"/api/bookmarks/{samples[7].bookmark_id}").json
    assert bookmark["url"] == requests[7].body["url"]
    table = request_table(samples)
    assert (table.ack_ms - table.ack_service_ms - table.late_ms).abs().max() < 1e-6
    assert table.sent_ns.tolist() == [s.sent_ns for s in samples]
    assert (table.late_ms >= 0).all()


def test_a_schedule_may_begin_at_a_given_moment(shared_api: str, tmp_path: Path) -> None:
    start_ns = time.monotonic_ns() + 3_000_000_000
    requests = saves(Arrivals(law="backlog", burst_size=20), "moment")
    plan = Plan(base_url=shared_api, record=record(tmp_path), requests=requests, start_ns=start_ns)
    samples = send(plan, tmp_path)
    assert {sample.intended_ns for sample in samples} == {start_ns}
    assert min(sample.sent_ns or 0 for sample in samples) >= start_ns


def test_the_limit_on_connections_is_kept_and_said(origin: Origin, tmp_path: Path) -> None:
    """Four connections, answers after 0.2 s: the last of 20 is sent after four rounds, and is known to have waited."""
    requests = [
        PlannedRequest(intended_s=0, path=f"/slow/200/{number}", method="GET") for number in range(20)
    ]
    plan = Plan(base_url=origin.url, record=record(tmp_path), requests=requests, connections=4)
    samples = send(plan, tmp_path)
    counts = tally(samples)
    assert (counts.ok, counts.limited) == (20, 16)
    assert max((s.sent_ns or 0) - s.intended_ns for s in samples) >= 0.75e9
    edges = [(s.sent_ns, 1) for s in samples] + [(s.acknowledged_ns, -1) for s in samples]
    assert max(itertools.accumulate(step for _, step in sorted(edges))) == 4  # type: ignore[type-var]


def test_failures_are_counted_apart(settings: Settings, origin: Origin, tmp_path: Path) -> None:
    """The API stops answering for a second, goes on, and is killed: nothing vanishes, and no failure is fast."""
    (tmp_path / "errors").mkdir()
    with api_process(settings, tmp_path / "api.log") as (base_url, api):
        plan = Plan(
            base_url=base_url, record=record(tmp_path), requests=saves(CONSTANT, "failures"), timeout_s=0.4
        )
        with start_sender(plan, tmp_path) as child:
            wait_until(lambda: progress(tmp_path) >= 25, what="the first answers")
            api.signal(signal.SIGSTOP)
            wait_until(lambda: progress(tmp_path, b'"timeout"') >= 20, what="timeouts")
            api.signal(signal.SIGCONT)
            before = progress(tmp_path)
            wait_until(lambda: progress(tmp_path) >= before + 40, what="answers again")
            api.signal(signal.SIGKILL)
            assert child.wait(60) == 0
    samples = read_request_log(tmp_path / "requests.jsonl")
    counts = tally(samples)
    assert counts.offered == counts.sent == 200
    assert counts.sent == counts.ok + counts.failed + counts.unfinished
    assert counts.unfinished == 0
    assert set(counts.errors) <= {"timeout", "refused", "reset", "closed"}
    assert min(counts.errors["timeout"], counts.errors["refused"], counts.ok) >= 10
    assert sum(counts.errors.values()) == counts.failed
    assert counts.quantiles_are_lower_bounds
    table = request_table(samples)
    assert len(table.loc[table.outcome == "ok", "ack_ms"].dropna()) == counts.ok
    # Refusals are fast: counted as answers they would flatter the server.
    assert table.loc[table.error == "refused", "ack_service_ms"].median() < 400


def test_an_error_is_no_answer_however_fast(origin: Origin, tmp_path: Path) -> None:
    paths = ["/page/1", "/status/500", "/status/503", "/status/404", "/hostile/reset", "/hostile/short"] * 5
    requests = [PlannedRequest(intended_s=0.02 * n, path=path, method="GET") for n, path in enumerate(paths)]
    samples = send(Plan(base_url=origin.url, record=record(tmp_path), requests=requests, drain_s=2), tmp_path)
    counts = tally(samples)
    assert (counts.offered, counts.sent) == (30, 30)
    assert {s.outcome for s in samples if s.http_status == 200} == {"ok"}
    assert counts.errors.pop("reset") + counts.errors.pop("closed") == 10
    assert counts.errors == {"http_500": 5, "http_503": 5, "http_404": 5}


def test_what_is_in_flight_at_the_end_is_shown(origin: Origin, tmp_path: Path) -> None:
    """The last 20 answers of a run take longer than anybody waits."""
    quick = [PlannedRequest(intended_s=n / 50, path="/page/1", method="GET") for n in range(80)]
    slow = [PlannedRequest(intended_s=1.6 + n / 50, path="/slow/5000/1", method="GET") for n in range(20)]
    plan = Plan(base_url=origin.url, record=record(tmp_path), requests=[*quick, *slow], drain_s=0.5)
    samples = send(plan, tmp_path)
    counts = tally(samples)
    assert (counts.sent, counts.ok, counts.failed, counts.unfinished) == (100, 80, 0, 20)
    assert counts.quantiles_are_lower_bounds
    assert [s.acknowledged_ns for s in samples[80:]] == [None] * 20
    table = request_table(samples)
    assert table.ack_ms.isna().sum() == table.acknowledged_ns.isna().sum() == 20


def test_told_to_stop_it_records_how_things_stand(origin: Origin, tmp_path: Path) -> None:
    requests = [PlannedRequest(intended_s=n / 20, path="/slow/60000/1", method="GET") for n in range(2_000)]
    start_ns = time.monotonic_ns() + 2_000_000_000
    plan = Plan(
        base_url=origin.url, record=record(tmp_path), requests=requests, connections=5, start_ns=start_ns
    )
    with start_sender(plan, tmp_path) as child:
        wait_until(lambda: time.monotonic_ns() > start_ns + 600_000_000, what="more than five to be due")
        wait_until(lambda: origin.total_hits() == 5, what="requests")
        child.signal(signal.SIGTERM)
        assert child.wait(20) == 0
    counts = tally(read_request_log(tmp_path / "requests.jsonl"))
    assert (counts.sent, counts.unfinished) == (5, 5)
    assert 1 <= counts.unsent < 200


def test_it_knows_its_own_ceiling(shared_api: str, tmp_path: Path) -> None:
    bare = measure_ceiling(tmp_path / "bare")
    against_the_api = measure_ceiling(tmp_path / "api", shared_api)
    assert bare > 500
    assert against_the_api < bare


EARLY = b"HTTP/1.1 103 Early Hints\r\nLink: </a.css>\r\n\r\n"
CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
LATE_S = 0.2


def answer_after_hints(listener: socket.socket) -> None:
    """A server that says a few things before its answer, some in one piece with it; two answers on each connection."""
    connection, _ = listener.accept()
    with connection:
        for number in range(2):
            request = b""
            while not request.endswith(b"\r\n\r\n"):
                request += connection.recv(65536)
            connection.sendall(CONTINUE + EARLY)
            time.sleep(LATE_S)
            body = b"answer %d" % number
            connection.sendall(
                EARLY + b"HTTP/1.1 201 Created\r\nContent-Length: %d\r\n\r\n" % len(body) + body
            )


def test_what_comes_before_the_answer_is_no_answer(tmp_path: Path) -> None:
    """100 Continue and 103 Early Hints: the request is over, and timed, when its answer is there."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=answer_after_hints, args=(listener,))
        thread.start()
        requests = [PlannedRequest(intended_s=n, path=f"/{n}", method="GET") for n in (0.0, 0.05)]
        base_url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        plan = Plan(base_url=base_url, record=record(tmp_path), requests=requests, connections=1, drain_s=5)
        samples = send(plan, tmp_path)
        thread.join(10)
        assert not thread.is_alive()
    assert [(s.outcome, s.http_status, s.error) for s in samples] == [("ok", 201, None)] * 2
    assert all((s.acknowledged_ns or 0) - (s.sent_ns or 0) >= LATE_S * 1e9 for s in samples)
    assert samples[1].limited
    assert (samples[1].sent_ns or 0) >= (samples[0].acknowledged_ns or 0), (
        "the connection was not free before"
    )


@pytest.mark.parametrize(
    ("plan", "says"),
    [
        (None, "name one plan"),
        ("{", "cannot read the plan"),
        ('{"base_url": "http://127.0.0.1:1", "record": "x", "request": []}', "unknown field `request`"),
        ('{"base_url": "https://example.org", "record": "x", "requests": []}', "use http://host:port"),
        ('{"base_url": "http://127.0.0.1:99999", "record": "x", "requests": []}', "use http://host:port"),
    ],
)
def test_a_plan_that_cannot_be_is_refused_in_one_line(tmp_path: Path, plan: str | None, says: str) -> None:
    path = tmp_path / "plan.json"
    path.write_text(plan or "")
    arguments = [] if plan is None else [str(path)]
    done = subprocess.run(
        [sys.executable, "-m", "fuze_bench.lab.load.sender", *arguments],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        check=False,
    )
    assert done.returncode == 2
    assert says in done.stderr
    assert done.stderr.count("\n") == 1


def test_a_record_that_is_cut_off_or_garbled(tmp_path: Path) -> None:
    line = '{"job":1,"name":"x","intended_ns":1,"sent_ns":2,"acknowledged_ns":3,"outcome":"ok"}'
    path = tmp_path / "requests.jsonl"
    path.write_text(f'{line}\n{{"job":2,"na')
    assert [sample.job for sample in read_request_log(path)] == [1]
    for bad in ("{}", json.dumps({**json.loads(line), "outcome": "fine"}), "x"):
        path.write_text(f"{line}\n{bad}\n{line}\n")
        with pytest.raises(LabError, match="line 2 is no request"):
            read_request_log(path)
    with pytest.raises(LabError, match="cannot read"):
        read_request_log(tmp_path / "nowhere")
    assert len(request_table([])) == 0
