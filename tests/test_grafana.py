"""deploy/: the dashboard asks for what /metrics exports and leaves out nothing; Prometheus's configuration can be read."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from api_server import Client, running_api
from prometheus_client.parser import text_string_to_metric_families

from fuze_bench.pipeline.settings import Settings

DEPLOY = Path(__file__).parent.parent / "deploy"
DASHBOARD: dict[str, Any] = json.loads((DEPLOY / "grafana-dashboard.json").read_text(encoding="utf-8"))
PANELS = [panel for panel in DASHBOARD["panels"] if panel["type"] != "row"]
SOURCE = {"type": "prometheus", "uid": "${DS_PROMETHEUS}"}


def expressions() -> Iterator[str]:
    for panel in PANELS:
        yield from (target["expr"] for target in panel["targets"])
    yield from (variable["definition"] for variable in DASHBOARD["templating"]["list"])


@pytest.fixture
def exported(settings: Settings) -> dict[str, set[str]]:
    """The names of all samples, each with the labels that it has."""
    with running_api(settings) as base_url:
        text = Client(base_url).get("/metrics").raw.decode()
    found: dict[str, set[str]] = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            found.setdefault(sample.name, set()).update(sample.labels)
    return found


def test_it_asks_for_what_is_exported_and_for_all_of_it(exported: dict[str, set[str]]) -> None:
    asked = {name for expression in expressions() for name in re.findall(r"\bfuze_\w+", expression)}
    assert asked == set(exported)


def test_it_asks_for_labels_that_are_there(exported: dict[str, set[str]]) -> None:
    for expression in expressions():
        labels = {label for name in re.findall(r"\bfuze_\w+", expression) for label in exported[name]}
        used = {
            word.strip() for group in re.findall(r"by \(([^)]*)\)", expression) for word in group.split(",")
        }
        used |= set(re.findall(r"[{,](\w+)=~", expression)) - {"job"}
        assert used <= labels, expression
    for panel in PANELS:
        for target in panel["targets"]:
            legend = set(re.findall(r"{{(\w+)}}", target["legendFormat"]))
            assert all(re.search(rf"by \([^)]*\b{name}\b", target["expr"]) for name in legend), target


def test_expressions_are_balanced() -> None:
    for expression in expressions():
        for opening, closing in ("()", "{}", "[]"):
            assert expression.count(opening) == expression.count(closing), expression


def test_it_can_be_imported() -> None:
    assert DASHBOARD["id"] is None
    assert DASHBOARD["schemaVersion"] >= 36
    [source] = DASHBOARD["__inputs"]
    assert (source["name"], source["type"], source["pluginId"]) == (
        "DS_PROMETHEUS",
        "datasource",
        "prometheus",
    )
    ids = [panel["id"] for panel in DASHBOARD["panels"]]
    assert len(ids) == len(set(ids))
    for panel in PANELS:
        assert panel["datasource"] == SOURCE
        assert all(target["datasource"] == SOURCE for target in panel["targets"])
    known = {variable["name"] for variable in DASHBOARD["templating"]["list"]} | {"__rate_interval"}
    assert {name for text in expressions() for name in re.findall(r"\$(\w+)", text)} <= known


def test_no_panel_lies_over_another() -> None:
    taken: set[tuple[int, int]] = set()
    for panel in DASHBOARD["panels"]:
        at = panel["gridPos"]
        cells = {(x, y) for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])}
        assert at["x"] + at["w"] <= 24
        assert not cells & taken, panel["title"]
        taken |= cells


def test_prometheus_is_told_where_the_metrics_are() -> None:
    [job] = yaml.safe_load((DEPLOY / "prometheus.yml").read_text())["scrape_configs"]
    assert job.get("metrics_path", "/metrics") == "/metrics"
    assert job["static_configs"] == [{"targets": ["127.0.0.1:8000"]}]
