"""`start_here` in a real JupyterLab: opened in Chromium, all cells run; bar, tables, plots and answers are there."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import nbformat
import pytest
from lab_server import running_lab
from playwright.sync_api import Browser, Page, expect
from report_runs import papermill

from fuze_bench.errors import LabError
from fuze_bench.lab.experiments.spec import Experiment
from fuze_bench.lab.judgement.checks import CONCLUSION_MIME_TYPE
from fuze_bench.lab.questions.notebook import EXAMPLE_RUN, earlier_run
from fuze_bench.lab.report.report_command import known_notebooks, reported_notebooks
from fuze_bench.lab.report.report_levels import defaults
from fuze_bench.lab.runs.results import RUN_MIME_TYPE, Run, load_run

pytest_plugins = ["browser"]

DATA = Path(__file__).parents[1] / "data"
NOTEBOOK = known_notebooks()["start_here"]
_WAIT_MS = 100_000
#: Lower than this and JupyterLab puts aside the cells that are out of sight.
_WINDOW = {"width": 1280, "height": 6000}
#: Every state that the bar is seen in, as «value max».
_WATCH_THE_BAR = """
window.bar = [];
new MutationObserver(() => {
    for (const bar of document.querySelectorAll('.fuze-progress progress')) {
        const state = `${bar.value} ${bar.max}`;
        if (window.bar.at(-1) !== state) window.bar.push(state);
    }
}).observe(document.body, {subtree: true, childList: true, attributes: true});
"""


@dataclass(frozen=True)
class Shown:
    """The notebook after all cells were run by the menu, the run that it made, and what went wrong in the page."""

    page: Page
    bar: list[tuple[float, float]]
    run: Run
    errors: list[str]
    hosts: set[str]


@pytest.fixture(scope="module")
def shown(tmp_path_factory: pytest.TempPathFactory, browser: Browser) -> Iterator[Shown]:
    """Of one block, which takes seconds; the page stays open, and a picture of it lies in the folder."""
    folder = tmp_path_factory.mktemp("lab")
    with running_lab(folder, NOTEBOOK, {"blocks": 1}) as lab:
        page = browser.new_page(viewport=_WINDOW)
        page.set_default_timeout(_WAIT_MS)
        errors: list[str] = []
        hosts: set[str] = set()
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.on("request", lambda request: hosts.add(request.url.partition("//")[2].partition(":")[0]))
        page.goto(lab.address)
        expect(page.locator(".jp-Notebook .jp-CodeCell").first).to_be_visible(timeout=_WAIT_MS)
        # What is run before there is a kernel is not run at all.
        expect(page.get_by_text("Python 3 (ipykernel) | Idle")).to_be_visible(timeout=_WAIT_MS)
        page.evaluate(_WATCH_THE_BAR)
        page.get_by_role("menuitem", name="Run", exact=True).click()
        page.get_by_role("menuitem", name="Run All Cells", exact=True).click()
        running = page.locator(".jp-CodeCell .jp-InputPrompt").filter(has_text="[*]:")
        expect(running).not_to_have_count(0, timeout=_WAIT_MS)
        expect(running).to_have_count(0, timeout=_WAIT_MS)
        page.screenshot(path=folder / "start_here.png")
        states = [tuple(map(float, state.split())) for state in page.evaluate("window.bar")]
        [run] = lab.runs.iterdir()
        yield Shown(page, states, load_run(run), errors, hosts - {""})
        page.close()


@pytest.mark.browser
def test_the_bar_moves_with_the_jobs_and_is_full_at_the_end(shown: Shown) -> None:
    values = [value / most for value, most in shown.bar]
    assert values[0] == 0
    assert values[-1] == 1
    assert len({value for value in values if 0 < value < 1 and value * 3 % 1}) >= 3, "it stands still"
    bar = shown.page.locator(".fuze-progress")
    expect(bar).to_have_count(1)
    expect(bar).to_be_visible()
    expect(bar).to_contain_text("3 of 3 trials · done")


@pytest.mark.browser
def test_tables_plots_and_answers_of_both_runs_are_there_and_no_error(shown: Shown) -> None:
    output = shown.page.locator(".jp-OutputArea-output")
    tables = output.locator("table.figures")
    expect(tables).to_have_count(3)
    for number, label in enumerate(
        ("2 simple workers", "trend inside the window", "4 fork workers, origin latency 300 ms")
    ):
        expect(tables.nth(number)).to_be_visible()
        expect(tables.nth(number).get_by_role("row").filter(has_text=label)).to_have_count(1)
    plots = output.locator("img")
    expect(plots).to_have_count(2)
    for plot in plots.all():
        assert plot.evaluate("image => image.complete && image.naturalWidth") > 300
    expect(output.locator(".conclusion")).to_contain_text(
        ["Exploratory: ", "had the highest median throughput"]
    )
    expect(output.locator("table.facts")).to_contain_text(["3 good of 3 made", "bookmarks"])
    for wrong in (".jp-RenderedText[data-mime-type*=error]", "[data-mime-type*=stderr]"):
        expect(shown.page.locator(wrong)).to_have_count(0)
    assert shown.errors == []
    assert shown.hosts == {"127.0.0.1"}, "it asked somebody outside"


@pytest.mark.browser
def test_it_measures_what_its_file_says_and_keeps_it_where_it_says(shown: Shown) -> None:
    spec = Experiment.from_yaml(DATA / "experiments" / "start_here.yaml")
    assert shown.run.experiment.to_mapping() == replace(spec, blocks=1).to_mapping()
    assert spec.blocks == defaults(NOTEBOOK)["blocks"]
    expect(shown.page.get_by_text(f"'{shown.run.folder}'")).to_be_visible()


def test_somebodys_own_task_and_an_earlier_run_under_papermill(tmp_path: Path) -> None:
    own = {"kind": "yours", "function": "statistics:stdev", "jobs": str(DATA / "experiments/your_jobs.jsonl")}
    old = tmp_path / "old run"
    old.symlink_to(EXAMPLE_RUN)
    given = {"workload": own, "worker_counts": [1], "jobs": 5, "blocks": 1, "old_run_dir": str(old)}
    done = papermill(tmp_path, NOTEBOOK, "-y", json.dumps(given))
    assert done.returncode == 0, done.stderr[-2000:]
    outputs = [
        output.data
        for cell in nbformat.read(tmp_path / "out.ipynb", as_version=4).cells
        for output in cell.get("outputs", [])
        if "data" in output
    ]
    first, second = (data[RUN_MIME_TYPE]["folder"] for data in outputs if RUN_MIME_TYPE in data)
    assert str(load_run(first).experiment.workload) == "calls of statistics:stdev"
    assert second == str(old)
    assert len([data for data in outputs if CONCLUSION_MIME_TYPE in data]) == 2


@pytest.mark.parametrize("folder", ["", 3, ["a"]])
def test_what_is_no_folder_is_named(folder) -> None:
    with pytest.raises(LabError, match=f"^old_run_dir is {re.escape(repr(folder))}, not a folder: .* None"):
        earlier_run(folder)


def test_it_takes_half_a_minute_leads_to_every_other_notebook_and_is_in_no_report() -> None:
    assert 0 < defaults(NOTEBOOK)["budget_s"] <= 30
    cells = nbformat.read(NOTEBOOK, as_version=4).cells
    links = re.findall(r"\]\((\w+)\.ipynb\)", cells[-1].source)
    assert sorted([*links, "start_here"]) == list(known_notebooks())
    assert [path.stem for path in reported_notebooks()] == sorted(links)
    readme = re.findall(r"^\| \[`(\w+)`\]\(notebooks/", (DATA.parent / "README.md").read_text(), re.MULTILINE)
    assert readme == ["start_here", *links]
