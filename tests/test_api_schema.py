"""The API against its own description: schemathesis sends what the description allows and what it forbids."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from api_server import Client, running_api

from fuze_bench.pipeline.settings import Settings

# The limit on the body, 413, counts bytes: no schema can say it; nor what makes a text a CSV file or an export.
_CONFIG = """
[generation]
deterministic = true
max-examples = 40
[checks.negative_data_rejection]
expected-statuses = ["400", "404", "405", "413", "415", "422"]
[checks.positive_data_acceptance]
expected-statuses = ["200", "201", "202", "204", "404", "413"]
[[operations]]
include-path = "/api/bookmarks/import"
[operations.checks.positive_data_acceptance]
expected-statuses = ["200", "413", "422"]
"""


def test_the_api_keeps_to_its_description(settings: Settings, tmp_path: Path) -> None:
    """All of its checks: statuses, content types, schemas, methods, forbidden data refused, allowed data accepted."""
    report, config = tmp_path / "report.json", tmp_path / "schemathesis.toml"
    config.write_text(_CONFIG)
    with running_api(settings) as base_url:
        Client(base_url).save("https://example.org/")  # so that some of the ids it tries are found
        argv = [
            str(Path(sys.executable).with_name("schemathesis")), "--config-file", str(config), "run",
            f"{base_url}/openapi.json", "--checks", "all", "--continue-on-failure", "--no-color",
            "--report", "json", "--report-json-path", str(report),
        ]  # fmt: skip
        done = subprocess.run(argv, cwd=tmp_path, capture_output=True, text=True, check=False, timeout=240)
        assert done.returncode == 0, done.stdout[-4_000:] + done.stderr[-1_000:]
        ran = json.loads(report.read_text())
        described = Client(base_url).get("/openapi.json").json["paths"]
        assert ran["operations"]["tested"] == sum(map(len, described.values())) >= 8
        assert ran["test_cases"]["generated"] > 200
        assert ran["test_cases"]["without_checks"] == 0
        assert Client(base_url).get("/healthz").status == 200
