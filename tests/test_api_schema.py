"""The API against its own description: schemathesis sends what the description allows and what it forbids."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from api_server import QUICK_SAVE, Client, running_api

from fuze_bench.pipeline.settings import Settings

# No schema can say the limit on the body, 413, which counts bytes, which tokens are known, 401, nor what makes a
# text a CSV file or an export.
_CONFIG = """
[generation]
deterministic = true
max-examples = {examples}
[checks.negative_data_rejection]
expected-statuses = ["400", "404", "405", "413", "415", "422"]
[checks.positive_data_acceptance]
expected-statuses = ["200", "201", "202", "204", "401", "404", "413"]
[[operations]]
include-path = "/api/bookmarks/import"
[operations.checks.positive_data_acceptance]
expected-statuses = ["200", "401", "413", "422"]
"""


@pytest.mark.parametrize(("token", "examples"), [(None, 20), ("schema-0123456789abcdef", 5)])
def test_the_api_keeps_to_its_description(
    settings: Settings, tmp_path: Path, token: str | None, examples: int
) -> None:
    """All of its checks: statuses, content types, schemas, methods, forbidden data refused, allowed data accepted."""
    report, config = tmp_path / "report.json", tmp_path / "schemathesis.toml"
    config.write_text(_CONFIG.format(examples=examples))
    headers = {"Content-Type": "application/json"}
    if token is not None:
        (tmp_path / "tokens").write_text(f"{token} 5\n")
        settings = replace(settings, api_tokens=tmp_path / "tokens", rate_limit_per_min=0)
        headers["Authorization"] = f"Bearer {token}"
    with running_api(settings) as base_url:
        # So that some of the ids it tries are found.
        api = Client(base_url)
        assert api.send("POST", QUICK_SAVE, b'{"url": "https://example.org/"}', headers).status == 201
        argv = [
            str(Path(sys.executable).with_name("schemathesis")), "--config-file", str(config), "run",
            f"{base_url}/openapi.json", "--checks", "all", "--continue-on-failure", "--no-color",
            "--report", "json", "--report-json-path", str(report),
            *([] if token is None else ["--header", f"Authorization: Bearer {token}"]),
        ]  # fmt: skip
        done = subprocess.run(argv, cwd=tmp_path, capture_output=True, text=True, check=False, timeout=240)
        assert done.returncode == 0, done.stdout[-4_000:] + done.stderr[-1_000:]
        ran = json.loads(report.read_text())
        described = api.get("/openapi.json").json["paths"]
        assert ran["operations"]["tested"] == sum(map(len, described.values())) >= 8
        assert ran["test_cases"]["generated"] > 5 * examples
        if token is None:  # else it counts its own attempts to get in without one
            assert ran["test_cases"]["without_checks"] == 0
        assert api.get("/healthz").status == 200
