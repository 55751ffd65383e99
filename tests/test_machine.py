"""What a run folder says of the machine."""

from __future__ import annotations

from pathlib import Path

import pytest

from fuze_bench.lab.parts import machine


def test_the_machine_is_described_with_its_governor_where_there_is_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(machine, "_GOVERNOR", tmp_path / "scaling_governor")
    without = machine.describe_machine()
    assert without["governor"] is None
    for name in ("cpu_model", "usable_cores", "kernel", "memory_bytes", "redis_server", "python"):
        assert without[name], name
    assert without["packages"]["rq"]
    assert without["load_1min_before"] >= 0
    (tmp_path / "scaling_governor").write_text("powersave\n")
    assert machine.describe_machine()["governor"] == "powersave"
