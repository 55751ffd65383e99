"""`fuze-bench plan`: the answer for a recorded run, and one clear line for whatever is wrong."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from fuze_bench.cli import main
from fuze_bench.errors import LabError
from fuze_bench.lab.planning.plan_wanted import parse_bytes, parse_duration_s, parse_waits_s, read_profile

EXAMPLE_RUN = Path(__file__).parent.parent / "data" / "example-run"
RUN = ["plan", "--run", str(EXAMPLE_RUN), "--only", "kind=simple", "--only", "origin_latency_ms=300"]


def test_it_answers_in_words(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*RUN, "--rate", "4", "--wait-p95", "default=3s", "--spare", "1"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "Run 3 workers for 4 jobs a second: 2 needed and 1 spare."
    assert any(
        line.startswith("Why not one fewer: with 1 down, 1 would be left: default grows by") for line in lines
    )
    assert any(line.startswith("What would change it: +20 % rate: ") for line in lines)


def test_it_answers_in_json(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*RUN, "--rate", "4", "--backlog", "100", "--drain", "10m", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["workers"], found["needed"]) == (2, 2)
    assert found["chosen"]["drain_s"]["value"] < 600


def test_the_busiest_hour_of_a_profile_decides(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    profile = tmp_path / "hourly.csv"
    profile.write_text("hour,rate\n8,0.2\n9,4\n10,1.5\n")
    assert main([*RUN, "--profile", str(profile)]) == 0
    assert "Run 2 workers for 4 jobs a second (the busiest hour, 9)." in capsys.readouterr().out


def test_memory_that_is_too_little_is_a_reason(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*RUN, "--rate", "4", "--memory", "2G"]) == 0
    assert "memory of the workers" in capsys.readouterr().out
    assert main([*RUN, "--rate", "4", "--memory", "200M"]) == 1
    assert "there are 200 MiB" in capsys.readouterr().out


def test_where_no_number_does_it_the_exit_code_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*RUN, "--rate", "4", "--wait-p95", "default=1ms"]) == 1
    assert capsys.readouterr().out.startswith("No number of workers does it for 4 jobs a second.")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ([], "give --rate 20 or --profile hourly.csv"),
        (["--rate", "2", "--profile", "x.csv"], "give --rate 20 or --profile hourly.csv"),
        (["--rate", "0"], "rate=0"),
        (
            ["--rate", "2", "--wait-p95", "2s"],
            "'2s' names no queue: give queue=time, as in high=2s,default=60s",
        ),
        (["--rate", "2", "--wait-p95", "default=2"], "'2' is not a time: give 500ms, 2s, 10m or 1h"),
        (["--rate", "2", "--wait-p95", "hihg=2s"], "no jobs on queue 'hihg'"),
        (["--rate", "2", "--backlog", "5"], "backlog and drain belong together"),
        (["--rate", "2", "--memory", "two"], "'two' is not an amount of memory: give 800M or 2G"),
        (["--rate", "2", "--spare", "-1"], "spare=-1"),
        (["--rate", "2", "--only", "simple"], "give factor=value, as in kind=simple"),
        (["--profile", "/nowhere.csv"], "/nowhere.csv cannot be read"),
    ],
)
def test_one_clear_line(options: list[str], words: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*RUN, *options]) != 0
    output = capsys.readouterr()
    assert output.out == ""
    assert words in output.err
    assert len(output.err.strip().splitlines()) == 1


def test_a_folder_that_is_no_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", "--run", str(tmp_path), "--rate", "2"]) != 0
    assert "is not a run folder" in capsys.readouterr().err


def test_a_run_of_two_kinds_needs_a_choice(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", "--run", str(EXAMPLE_RUN), "--rate", "2"]) != 0
    assert "choose one with --only kind=fork" in capsys.readouterr().err


def test_units() -> None:
    assert [parse_duration_s(text) for text in ("500ms", "2s", "1.5m", "1h")] == [0.5, 2, 90, 3600]
    assert [parse_bytes(text) for text in ("800M", "2G", "1.5GiB", "1024")] == [
        800 * 2**20,
        2**31,
        3 * 2**29,
        1024,
    ]
    assert parse_waits_s("high=2s, default=60s") == {"high": 2, "default": 60}
    with pytest.raises(LabError, match="high stands twice"):
        parse_waits_s("high=2s,high=3s")


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("time,rate\n1,2\n", "needs the columns hour,rate"),
        ("", "needs the columns hour,rate"),
        ("hour,rate\n1,fast\n", "line 2: 1,fast is not"),
        ("hour,rate\n1,-3\n", "line 2: 1,-3 is not"),
        ("hour,rate\n1\n", "line 2"),
        ("hour,rate\n1,2\n1,3\n", "hour 1 stands twice"),
        ("hour,rate\n1,0\n", "no hour with a rate above 0"),
        ("hour,rate\n", "no hour with a rate above 0"),
    ],
)
def test_profiles_that_are_none(content: str, words: str, tmp_path: Path) -> None:
    path = tmp_path / "hourly.csv"
    path.write_text(content)
    with pytest.raises(LabError, match=words):
        read_profile(path)


def test_a_profile_may_have_more_columns_and_a_byte_order_mark(tmp_path: Path) -> None:
    path = tmp_path / "hourly.csv"
    path.write_text("hour,rate,note\n00:00,0,night\n12:00,3.5,noon\n", encoding="utf-8-sig")
    assert read_profile(path) == {"00:00": 0, "12:00": 3.5}
