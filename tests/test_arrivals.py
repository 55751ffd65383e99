"""Schedules of intended send times: the law asked for, exact counts, and errors that say what to do."""

from __future__ import annotations

import itertools
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from scipy import stats

from fuze_bench.errors import LabError
from fuze_bench.lab.arrivals import Arrivals, read_trace

EVERY_LAW: list[dict[str, Any]] = [
    {"law": "constant", "rate_per_s": 7, "duration_s": 10},
    {"law": "poisson", "rate_per_s": 50, "duration_s": 10},
    {"law": "step", "steps": [[10, 2], [0, 1], [40, 2.5]]},
    {"law": "burst", "burst_size": 20, "burst_every_s": 0.5, "duration_s": 3},
    {"law": "spike", "rate_per_s": 10, "duration_s": 5, "burst_size": 30},
    {"law": "backlog", "burst_size": 200},
]


def constant(rate_per_s: float, duration_s: float) -> list[float]:
    return Arrivals(law="constant", rate_per_s=rate_per_s, duration_s=duration_s).times(1)


def gaps(times: list[float]) -> list[float]:
    return [later - earlier for earlier, later in itertools.pairwise(times)]


@pytest.mark.parametrize("values", EVERY_LAW, ids=lambda values: values["law"])
def test_times_ascend_from_0_within_the_window_and_repeat(values: dict[str, Any]) -> None:
    arrivals = Arrivals.from_mapping(values)
    times = arrivals.times(3)
    assert times == arrivals.times(3) == sorted(times)
    assert all(isinstance(time_s, float) for time_s in times)
    assert all(0 <= time_s < max(arrivals.window_s, 1e-9) for time_s in times)
    assert Arrivals.from_mapping(arrivals.to_mapping()) == arrivals


@pytest.mark.parametrize(
    ("rate_per_s", "duration_s", "count"),
    [
        (30, 30, 900),
        (7, 10, 70),
        (0.1, 30, 3),
        (3, 0.1, 1),
        (1 / 3, 30, 10),
        (1_000, 0.3, 300),
        (49, 1 / 7, 7),
    ],
)
def test_a_constant_rate_has_an_exact_count(rate_per_s: float, duration_s: float, count: int) -> None:
    times = constant(rate_per_s, duration_s)
    assert len(times) == count
    assert times[0] == 0
    assert max(times) < duration_s
    assert gaps(times) == pytest.approx([1 / rate_per_s] * (count - 1))


def test_poisson_gaps_are_exponential_and_differ_by_seed() -> None:
    arrivals = Arrivals(law="poisson", rate_per_s=40, duration_s=100)
    times = arrivals.times(11)
    assert times != arrivals.times(12)
    assert stats.kstest([times[0], *gaps(times)], "expon", args=(0, 1 / 40)).pvalue > 0.001
    # The same test tells them from another rate, and from constant gaps of the right rate.
    assert stats.kstest(gaps(times), "expon", args=(0, 1 / 46)).pvalue < 0.001
    assert stats.kstest(gaps(constant(40, 100)), "expon", args=(0, 1 / 40)).pvalue < 0.001
    counts = [len(arrivals.times(seed)) for seed in range(50)]
    assert sum(counts) / 50 == pytest.approx(4_000, abs=4 * (4_000 / 50) ** 0.5)


def test_steps_follow_each_other() -> None:
    arrivals = Arrivals.from_mapping({"law": "step", "steps": [[10, 2], [0, 1], [40, 2.5]]})
    times = arrivals.times(1)
    assert arrivals.window_s == 5.5
    assert [sum(low <= time_s < high for time_s in times) for low, high in ((0, 2), (2, 3), (3, 5.5))] == [
        20,
        0,
        100,
    ]
    assert gaps(times[20:]) == pytest.approx([1 / 40] * 99)


def test_bursts_spikes_and_backlogs_come_at_once() -> None:
    times = Arrivals(law="burst", burst_size=3, burst_every_s=0.5, duration_s=1.5).times(1)
    assert times == [0.0] * 3 + [0.5] * 3 + [1.0] * 3
    spike = Arrivals(law="spike", rate_per_s=10, duration_s=4, burst_size=25).times(1)
    assert (len(spike), spike.count(2.0)) == (65, 26)
    assert Arrivals(law="backlog", burst_size=4).times(1) == [0.0] * 4


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({"law": "poison", "rate_per_s": 1, "duration_s": 1}, "did you mean 'poisson'"),
        ({"law": "constant", "rate_per_s": 1}, "need duration_s"),
        ({"rate_per_s": 1}, "need a law"),
        ({"law": "constant", "rates_per_s": 1, "duration_s": 1}, "did you mean 'rate_per_s'"),
        ({"law": "constant", "rate_per_s": 1, "duration_s": 1, "steps": [[1, 1]]}, "take no steps"),
        ({"law": "backlog", "burst_size": 5, "duration_s": 3}, "take no duration_s"),
        ({"law": "constant", "rate_per_s": 0, "duration_s": 1}, "rate_per_s=0"),
        ({"law": "constant", "rate_per_s": float("nan"), "duration_s": 1}, "rate_per_s=nan"),
        ({"law": "constant", "rate_per_s": "20", "duration_s": 1}, "'20', not a number"),
        ({"law": "constant", "rate_per_s": True, "duration_s": 1}, "True, not a number"),
        ({"law": "constant", "rate_per_s": 1, "duration_s": float("inf")}, "duration_s=inf"),
        ({"law": "constant", "rate_per_s": 600_000, "duration_s": 60}, "36,000,000 requests"),
        ({"law": "backlog", "burst_size": 1.5}, "1.5, not a whole number"),
        ({"law": "backlog", "burst_size": 0}, "burst_size=0"),
        ({"law": "step", "steps": []}, "steps is []"),
        ({"law": "step", "steps": [[10]]}, "holds [10]"),
        ({"law": "step", "steps": [[0, 5]]}, "nothing at all"),
        ({"law": "step", "steps": [[-1, 5]]}, "=-1"),
        ({"law": "trace", "trace": 5}, "not a file's name"),
        ({"law": "trace", "trace": "/nowhere.csv"}, "/nowhere.csv"),
    ],
)
def test_what_cannot_be_is_refused_in_one_line(values: dict[str, Any], says: str) -> None:
    with pytest.raises(LabError) as caught:
        Arrivals.from_mapping(values)
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)


def trace(tmp_path: Path, text: str | bytes) -> Path:
    path = tmp_path / "traffic.csv"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def test_a_trace_is_somebodys_own_traffic(tmp_path: Path) -> None:
    path = trace(
        tmp_path,
        '\ufefftime,agent,url,queue\r\n100.5,x,https://a.example/,high\r\n100,"y\nz",https://b.example/?q=1,\r\n',
    )
    first, second = read_trace(path)
    assert (first.time_s, first.url, first.queue) == (0.0, "https://b.example/?q=1", "default")
    assert (second.time_s, second.url, second.queue) == (0.5, "https://a.example/", "high")
    arrivals = Arrivals(law="trace", trace=str(path))
    assert (arrivals.times(1), arrivals.window_s) == ([0.0, 0.5], 0.5)


def test_a_trace_may_have_dates(tmp_path: Path) -> None:
    lines = "2026-03-01T09:30:00Z,https://a.example/\n2026-03-01T10:30:00.250+01:00,https://b.example/\n"
    assert [r.time_s for r in read_trace(trace(tmp_path, f"time,url\n{lines}"))] == [0.0, 0.25]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "line 1: there is no column 'time'"),
        ("when,url\n1,https://a.example/\n", "line 1: there is no column 'time'"),
        ("time,url\n", "no requests"),
        ("time,url\n1,https://a.example/\nsoon,https://b.example/\n", "line 3: 'soon' is no time"),
        ("time,url\nnan,https://a.example/\n", "line 2: 'nan' is no time"),
        ("time,url\n1,\n", "line 2: the url is empty"),
        ("time,url\n1\n", "line 2: the url is empty"),
        ("time,url\n1,https://a.example/\n2026-03-01,https://a.example/\n", "line 3: '2026-03-01' after"),
        (
            "time,url,queue\n1,https://a.example/,hihg\n",
            "line 2: there is no queue 'hihg': did you mean 'high'",
        ),
        (b"time,url\n1,\xff\n", "UTF-8"),
        ('time,url\n1,"https://a.example/\n', "is it a CSV file?"),
    ],
)
def test_a_trace_that_cannot_be_read_names_the_line(tmp_path: Path, text: str | bytes, says: str) -> None:
    with pytest.raises(LabError) as caught:
        Arrivals(law="trace", trace=str(trace(tmp_path, text)))
    assert says in str(caught.value)
    assert "traffic.csv" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_the_module_is_light() -> None:
    heavy = ("numpy", "pandas", "scipy", "sqlalchemy", "redis", "rq", "asyncio")
    check = f"import sys, fuze_bench.lab.arrivals; print([name for name in {heavy!r} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", check], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
