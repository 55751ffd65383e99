"""What jobs record, what a file of jobs may hold, and how long synthetic jobs take."""

from __future__ import annotations

import math
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rq.job import Retry

from fuze_bench.errors import LabError
from fuze_bench.lab.experiments.service_law import ServiceLaw, sleep_for, spin_for
from fuze_bench.lab.load import jobs
from fuze_bench.lab.load.jobs import (
    JobCall,
    find_function,
    load_jobs,
    read_record,
    run_job,
)


def test_a_job_leaves_a_line_with_its_times(tmp_path: Path) -> None:
    record = tmp_path / "record.jsonl"
    before_ns = time.monotonic_ns()
    run_job(7, "their_jobs:note", [str(tmp_path / "notes")], {"text": "hello"}, str(record))
    [line] = read_record(record).to_dict("records")
    assert (tmp_path / "notes").read_text() == "hello\n"
    assert before_ns < line["started_ns"] < line["done_ns"] < time.monotonic_ns()
    assert (line["job"], line["status"]) == (7, "processed")


def test_a_job_that_fails_fails_and_leaves_a_line(tmp_path: Path) -> None:
    record = tmp_path / "record.jsonl"
    with pytest.raises(ValueError, match="no\nsuch thing"):
        run_job(1, "their_jobs:fail", ["no\nsuch thing"], {}, str(record))
    with pytest.raises(ValueError):
        run_job(2, "their_jobs:fail", ["x" * 10_000], {}, str(record))
    first, second = read_record(record).to_dict("records")
    assert (first["status"], first["reason"]) == ("failed", "ValueError: no such thing")
    assert len(second["reason"]) == 300


def test_a_job_that_is_ended_from_outside_leaves_a_line(tmp_path: Path) -> None:
    """RQ stops a job that takes too long with an exception; a job may also leave on its own."""
    record = tmp_path / "record.jsonl"
    with pytest.raises(SystemExit):
        run_job(1, "sys:exit", [3], {}, str(record))
    [line] = read_record(record).to_dict("records")
    assert (line["status"], line["reason"]) == ("failed", "SystemExit: 3")


def test_what_a_job_returns_is_dropped_but_for_a_wish_to_be_tried_again(tmp_path: Path) -> None:
    """RQ is to obey that; anything else need not be JSON."""
    record = str(tmp_path / "record.jsonl")
    again, done = (
        run_job(number, "their_jobs:try_again_once", [str(tmp_path / "tried")], {}, record)
        for number in (1, 1)
    )
    assert isinstance(again, Retry)
    assert done is None
    assert run_job(2, "builtins:set", [], {}, record) is None


def test_an_async_function_is_run_to_its_end(tmp_path: Path) -> None:
    record = tmp_path / "record.jsonl"
    run_job(1, "asyncio:sleep", [0.05], {}, str(record))
    [line] = read_record(record).to_dict("records")
    assert line["status"] == "processed"
    assert line["done_ns"] - line["started_ns"] >= 50_000_000


def test_rq_is_told_whose_job_it_is_and_how_long_it_may_take(tmp_path: Path) -> None:
    call = JobCall(7, "m:f", [1], {"a": 2}, "low")
    data = call.enqueue_data(tmp_path / "record.jsonl", timeout_s=90)
    assert (data.func, data.job_id, data.timeout) == (jobs.RUN_JOB, "job-7", 90)
    assert data.args == (7, "m:f", [1], {"a": 2}, str(tmp_path / "record.jsonl"))
    assert data.description == "m:f, job 7"
    assert call.enqueue_data(tmp_path / "r").timeout == 600, "longer than any job of an experiment"


def test_what_comes_at_the_same_time_gets_lines_of_its_own(tmp_path: Path) -> None:
    record = tmp_path / "record.jsonl"

    def run(thread: int) -> None:
        for number in range(200):
            run_job(1_000 * thread + number, "builtins:len", ["x" * number], {}, str(record))

    threads = [threading.Thread(target=run, args=(n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    found = read_record(record)
    assert sorted(found["job"]) == [1_000 * thread + number for thread in range(4) for number in range(200)]


def test_a_record_without_lines_is_empty_and_a_damaged_one_is_said_so(tmp_path: Path) -> None:
    record = tmp_path / "record.jsonl"
    assert read_record(record).empty
    record.write_text('{"job": 1, "started_ns": 1, "done_ns": 2}\n{"job": 2, "sta')
    with pytest.raises(LabError, match="line 2 is damaged"):
        read_record(record)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("their_jobs.note", "write package.module:name"),
        (":note", "write package.module:name"),
        ("their_job:note", "no module 'their_job'"),
        ("their_jobs:noet", r"no 'noet': did you mean 'note'\?"),
        ("their_jobs:Shop.whom", r"no 'whom': did you mean 'who'\?"),
        ("their_jobs:NOT_A_FUNCTION", "is int and cannot be called"),
    ],
)
def test_a_function_that_is_none_is_one_line(name: str, message: str) -> None:
    with pytest.raises(LabError, match=message):
        find_function(name)
    assert find_function("their_jobs:Shop.who")


def test_a_file_of_jobs_is_read_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "jobs.jsonl"
    path.write_text(
        '{"args": [1, "zwei\u2028drei"], "kwargs": {"a": null}, "queue": "mails", "at_s": 0}\n\n{"at_s": 1.5}\n',
        encoding="utf-8",
    )
    assert load_jobs(path, "m:f") == [
        JobCall(1, "m:f", [1, "zwei\u2028drei"], {"a": None}, "mails", 0),
        JobCall(2, "m:f", [], {}, "default", 1.5),
    ]
    path.write_text('{"at_s": 1}\n{"at_s": 1}\n')
    assert [call.at_s for call in load_jobs(path, "m:f")] == [1, 1], "two may come at once"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "holds no job"),
        ("{}\n{", "line 2 is not JSON"),
        ("[1, 2]", "line 1 is no object"),
        ('{"arg": [1]}', "line 1 has 'arg', which no job has: did you mean 'args'?"),
        ('{}\n\n{"args": "abc"}', "line 3: args is 'abc', give a list"),
        ('{"kwargs": [1]}', "line 1: kwargs is [1], give an object"),
        ('{"queue": ""}', "line 1: queue is empty"),
        ('{"queue": 5}', "line 1: queue is 5, give a queue's name"),
        ('{"at_s": true}', "line 1: at_s is True, give seconds"),
        ('{"at_s": -1}', "line 1: at_s is -1"),
        ('{"at_s": NaN}', "line 1: at_s is nan"),
        ('{"at_s": 2}\n{"at_s": 1}', "line 2: at_s=1 comes before the line above"),
        ('{"at_s": 2}\n{}', "line 2 has no at_s, and others have"),
    ],
)
def test_a_line_that_is_no_job_is_named(text: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "jobs.jsonl"
    path.write_text(text)
    with pytest.raises(LabError) as caught:
        load_jobs(path, "m:f")
    assert message in str(caught.value)


def test_a_file_of_jobs_that_is_not_there_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(LabError, match="cannot be read"):
        load_jobs(tmp_path / "none.jsonl", "m:f")


@pytest.mark.parametrize(
    ("law", "cv"),
    [
        (ServiceLaw(mean_ms=20), 0),
        (ServiceLaw(law="exponential", mean_ms=20), 1),
        (ServiceLaw(law="lognormal", mean_ms=20, cv=0.5), 0.5),
        (ServiceLaw(law="lognormal", mean_ms=20, cv=2), 2),
    ],
    ids=str,
)
def test_service_times_follow_their_law_and_their_seed(law: ServiceLaw, cv: float) -> None:
    drawn = law.draw_ms(200_000, np.random.default_rng(5))
    assert drawn.shape == (200_000,)
    assert drawn.min() > 0
    assert drawn.mean() == pytest.approx(20, rel=0.02)
    assert drawn.std() / drawn.mean() == pytest.approx(cv, rel=0.05, abs=1e-9)
    if law.law == "lognormal":
        assert np.median(drawn) == pytest.approx(20 / math.sqrt(1 + cv**2), rel=0.02)
    if law.law == "exponential":
        assert np.median(drawn) == pytest.approx(20 * math.log(2), rel=0.02)
    assert (law.draw_ms(100, np.random.default_rng(5)) == law.draw_ms(100, np.random.default_rng(5))).all()
    assert ServiceLaw.from_mapping(law.to_mapping()) == law


def test_synthetic_jobs_take_their_queues_and_times_from_the_seed() -> None:
    law = ServiceLaw(law="exponential", mean_ms=5, how="cpu")
    first, again, other = (
        jobs.synthetic_jobs(law, ["high", "low", "high"], np.random.default_rng(seed), first_number=10)
        for seed in (1, 1, 2)
    )
    assert first == again != other
    assert [(call.number, call.queue) for call in first] == [(10, "high"), (11, "low"), (12, "high")]
    assert find_function(first[0].function) is spin_for
    assert jobs.synthetic_jobs(law, ["high"], np.random.default_rng(1))[0].number == 1


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({}, "needs mean_ms"),
        ({"mean": 5}, "no 'mean': did you mean 'mean_ms'?"),
        ({"mean_ms": 0}, "mean_ms=0 is out of range"),
        ({"mean_ms": float("nan")}, "mean_ms=nan is out of range"),
        ({"mean_ms": "5"}, "mean_ms is '5', not a number"),
        ({"mean_ms": 5, "law": "exponentail"}, "did you mean 'exponential'?"),
        ({"mean_ms": 5, "how": "spin"}, "how='spin'"),
        ({"mean_ms": 5, "law": "lognormal"}, "needs its cv"),
        ({"mean_ms": 5, "law": "lognormal", "cv": 0}, "cv=0 is out of range"),
        ({"mean_ms": 5, "cv": 1}, "cv=1 is for the lognormal law alone"),
    ],
)
def test_a_law_that_cannot_be_is_refused(values: dict[str, Any], message: str) -> None:
    with pytest.raises(LabError) as caught:
        ServiceLaw.from_mapping(values)
    assert message in str(caught.value)


def test_sleeping_takes_time_and_spinning_takes_the_processor() -> None:
    cpu_ns, wall_ns = time.thread_time_ns(), time.monotonic_ns()
    sleep_for(100)
    assert time.monotonic_ns() - wall_ns >= 100e6
    assert time.thread_time_ns() - cpu_ns < 50e6
    cpu_ns = time.thread_time_ns()
    spin_for(100)
    assert 100e6 <= time.thread_time_ns() - cpu_ns < 150e6
