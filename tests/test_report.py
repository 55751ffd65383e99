"""The report: the decision first, self-contained pages on any screen, and failures that are owned up to."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import jsonschema
import psutil
import pyarrow.parquet as pq
import pytest
from benchmark_results import found
from conftest import wait_until
from playwright.sync_api import Browser, Page
from report_runs import SYNTHETIC, command, environment, run_report, write_notebook

from fuze_bench.lab.benchmarks import result
from fuze_bench.lab.benchmarks.side_by_side import BenchmarkRatio
from fuze_bench.lab.report import report_levels, report_summary
from fuze_bench.lab.report.report_command import known_notebooks

pytest_plugins = ["browser"]
pytestmark = pytest.mark.xdist_group("report")

PHONE = {"width": 360, "height": 740}
DESKTOP = {"width": 1280, "height": 900}
PAGES = ("index.html", "notebooks/worker_counts.html", "notebooks/broken.html", "speed.html")


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of a notebook that breaks, and then the real pipeline, measured for as short as can be."""
    folder = tmp_path_factory.mktemp("report")
    result.record(
        found(BenchmarkRatio("ours", "theirs", 2.5, 2.4, 2.6, 2.0, True)), folder / "data" / "benchmarks"
    )
    broken = write_notebook(
        folder / "broken.ipynb", "import os; print('so far', os.getcwd())", "1 / 0", "print('never')"
    )
    done = run_report(
        folder,
        *("--tiny", "--rate", "0.01", "--wait-p95", "60s"),
        *("--notebook", str(broken), "--notebook", "worker_counts"),
    )
    assert done.returncode == 1, done.stdout + done.stderr
    assert "broken failed: see" in done.stderr
    assert "worker_counts" not in done.stderr
    assert re.search(r"trial 7/7 · .* jobs/s · done in", done.stdout), done.stdout
    return folder / "reports"


@pytest.fixture(scope="module")
def summary(report: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((report / "summary.json").read_text())
    return found


class _Links(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.loaded: list[str] = []
        self.targets: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = dict(attrs)
        assert tag not in ("iframe", "object", "embed", "audio", "video")
        if values.get("src"):
            self.loaded.append(values["src"] or "")
        if values.get("href"):
            (self.loaded if tag == "link" else self.targets).append(values["href"] or "")


@pytest.mark.parametrize("page", PAGES)
def test_a_page_holds_all_it_needs_and_its_links_lead_somewhere(report: Path, page: str) -> None:
    text = (report / page).read_text()
    links = _Links()
    links.feed(text)
    assert all(link.startswith("data:") for link in links.loaded)
    assert "@import" not in text
    assert "url(" not in text
    for target in links.targets:
        assert target.startswith("#") or ((report / page).parent / target).is_file(), target
        assert not target.startswith("#") or f'id="{target[1:]}"' in text, target


def test_nothing_in_it_says_where_it_was_made(report: Path) -> None:
    """Neither pages nor notebooks nor data: the whole folder is there to be published."""
    places = [str(report.parent), str(Path(report_levels.__file__).parents[2]), str(Path.home()) + "/"]
    files = [path for path in report.rglob("*") if path.is_file()]
    assert {path.suffix for path in files} == {".ipynb", ".json", ".html", ".parquet"}
    for path in files:
        if path.suffix == ".parquet":
            text = json.dumps(pq.read_table(path).to_pylist(), default=str)
        else:
            text = path.read_text()
        assert not [place for place in places if place in text], path
    [run] = (report / "data").iterdir()
    assert f'"folder": "../data/{run.name}"' in (report / "notebooks" / "worker_counts.ipynb").read_text()
    assert "so far ." in (report / "notebooks" / "broken.html").read_text()


def test_the_index_says_the_decision_first(report: Path) -> None:
    text = (report / "index.html").read_text()
    main = text[text.index("<main") :]
    places = [
        main.index(words)
        for words in (
            "The decision",
            "Which workers keep up with 0.01 jobs a second, so that",
            "Exploratory: Run 1 ",
            "<table",
            "There is no fewer than one worker.",
            "How sure",
            "Failed: ",
            "This notebook failed",
            "had the highest median throughput",
            "<img",
            "1 of 11 benchmarks is recorded; 1 of 1 targets hold.",
            'href="speed.html"',
            ">The machine<",
            "All trials",
            "trials.parquet",
            "summary.json",
        )
    ]
    assert places == sorted(places)


def test_pages_show_no_code(report: Path) -> None:
    text = (report / PAGES[1]).read_text()
    assert "ParameterWatch" not in text
    assert "Where the service time goes" in text
    assert "<img" in text
    assert "print(" not in (report / PAGES[2]).read_text()


def test_a_failing_notebook_leaves_what_it_had_done(report: Path) -> None:
    page = (report / PAGES[2]).read_text()
    for words in ("This notebook failed", "ZeroDivisionError", "so far"):
        assert words in page
    assert "never" not in page
    assert "so far" in (report / "notebooks" / "broken.ipynb").read_text()


def test_the_summary_is_as_its_schema_says(summary: dict[str, Any]) -> None:
    schema = jsonschema.Draft202012Validator(json.loads(report_summary.SCHEMA.read_text()))
    schema.check_schema(schema.schema)
    assert list(schema.iter_errors(summary)) == []
    assert not schema.is_valid(summary | {"notebooks": [{"name": "x"}]})
    assert not schema.is_valid(summary | {"more": 1})
    assert [(each["name"], each["ok"]) for each in summary["notebooks"]] == [
        ("broken", False),
        ("worker_counts", True),
    ]
    decision = summary["decision"]
    assert (decision["rate_per_s"], decision["wait_p95_target_s"]) == (0.01, 60)
    assert decision["pick"] in [option["label"] for option in decision["options"]]
    assert decision["run"] in [run["name"] for run in summary["runs"]]
    assert {verdict["answer"] for verdict in summary["runs"][0]["verdicts"]} <= {"yes", "no", "unknown"}
    assert summary["level"] == "tiny"


@pytest.fixture
def tab(report: Path, browser: Browser, request: pytest.FixtureRequest) -> Iterator[Page]:
    """The index with the network off, light, on a desktop, if not said otherwise."""
    context = browser.new_context(**{"viewport": DESKTOP, **getattr(request, "param", {})})
    context.set_offline(True)
    page = context.new_page()
    page.goto((report / "index.html").as_uri())
    yield page
    context.close()


@pytest.mark.browser
@pytest.mark.parametrize("viewport", [PHONE, DESKTOP], ids=["phone", "desktop"])
@pytest.mark.parametrize("page", PAGES)
def test_a_browser_needs_no_network_and_nothing_overflows(report: Path, browser: Browser, page, viewport):
    context = browser.new_context(viewport=viewport)
    context.set_offline(True)
    tab = context.new_page()
    requests: list[str] = []
    problems: list[str] = []
    tab.on("request", lambda request: requests.append(request.url))
    tab.on("console", lambda message: problems.append(message.text))
    tab.on("pageerror", lambda error: problems.append(str(error)))
    address = (report / page).as_uri()
    tab.goto(address)
    assert [url for url in requests if not url.startswith("data:")] == [address]
    assert problems == []
    assert tab.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
    assert tab.evaluate("[...document.images].every(i => i.complete && i.naturalWidth > 0 && i.alt)")
    # Beside the first column of a table, which stays, what is said in words still has room on a phone.
    assert tab.evaluate(
        "[...document.querySelectorAll('.words, td.text')].every(e => e.offsetWidth <= innerWidth / 2)"
    )
    if viewport == DESKTOP:
        boxes = "[...document.querySelectorAll('.scroll')]"
        assert tab.evaluate(f"{boxes}.every(e => e.scrollWidth <= e.clientWidth)"), "a table is cut off"
    if "broken" not in page:
        assert tab.evaluate("document.images.length") > 0
        assert tab.evaluate("document.querySelectorAll('.words, td.text').length") > 0
    context.close()


@pytest.mark.browser
def test_the_trials_are_sorted_by_keyboard(tab: Page) -> None:
    def column() -> list[float]:
        cells = tab.locator("table.sortable tbody tr td:nth-child(2)").all_text_contents()
        return [float(text) for text in cells]

    head = tab.locator("table.sortable th", has_text="jobs/s")
    assert head.get_attribute("aria-sort") is None
    head.locator("button").focus()
    tab.keyboard.press("Enter")
    assert head.get_attribute("aria-sort") == "ascending"
    assert column() == sorted(column())
    tab.keyboard.press("Space")
    assert head.get_attribute("aria-sort") == "descending"
    assert column() == sorted(column(), reverse=True)
    arrow = "e => getComputedStyle(e.querySelector('button'), '::after').content"
    assert "↓" in head.evaluate(arrow)
    assert len(set(column())) > 1
    tab.locator("table.sortable th", has_text="configuration").locator("button").press("Enter")
    assert head.get_attribute("aria-sort") is None
    labels = tab.locator("table.sortable tbody tr td:nth-child(1)").all_text_contents()
    assert labels == sorted(labels)


#: Of every element with text of its own, the contrast to what lies behind it (WCAG 2.2, 1.4.3), the lowest first.
CONTRASTS = """() => {
  const rgb = text => text.match(/[\\d.]+/g).map(Number);
  const light = ([r, g, b]) => [r, g, b].map(c => c / 255)
    .map(c => c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4)
    .reduce((sum, c, i) => sum + c * [0.2126, 0.7152, 0.0722][i], 0);
  const behind = e => { for (; e; e = e.parentElement) {
    const c = rgb(getComputedStyle(e).backgroundColor); if (c.length < 4 || c[3] > 0) return c; } };
  return [...document.querySelectorAll("body *")]
    .filter(e => e.offsetParent && [...e.childNodes].some(n => n.nodeType === 3 && n.textContent.trim()))
    .map(e => { const [a, b] = [light(rgb(getComputedStyle(e).color)), light(behind(e))];
      return [(Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05), e.textContent.trim().slice(0, 40)]; })
    .sort((x, y) => x[0] - y[0]);
}"""


@pytest.mark.browser
@pytest.mark.parametrize(
    ("tab", "is_dark"),
    [({"color_scheme": "light"}, False), ({"color_scheme": "dark"}, True)],
    ids=["light", "dark"],
    indirect=["tab"],
)
def test_text_has_contrast_in_light_and_dark(tab: Page, is_dark: bool) -> None:
    contrasts = tab.evaluate(CONTRASTS)
    assert len(contrasts) > 50
    assert contrasts[0][0] >= 4.5, contrasts[:3]
    ground = tab.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (sum(map(int, re.findall(r"\d+", ground))) < 3 * 128) is is_dark


@pytest.mark.browser
@pytest.mark.parametrize("tab", [{"viewport": PHONE}], indirect=True)
def test_the_keyboard_reaches_tables_and_links(tab: Page) -> None:
    tab.keyboard.press("Tab")
    assert tab.evaluate("document.activeElement.textContent") == "Skip to the content"
    tab.keyboard.press("Tab")
    assert tab.evaluate("document.activeElement.getAttribute('aria-label')") == "Options"
    before = tab.evaluate("document.activeElement.scrollLeft")
    tab.keyboard.press("ArrowRight")
    wait_until(lambda: tab.evaluate("document.activeElement.scrollLeft") > before, what="the table to scroll")


def test_a_killed_kernel_ends_its_notebook_alone(tmp_path: Path) -> None:
    """Killed in its second trial: within a minute the report is done, says which, and nothing of the trial is left."""
    dead = write_notebook(
        tmp_path / "dead.ipynb",
        "import os; print('kernel', os.getpid(), flush=True)",
        SYNTHETIC.format(workers=[1, 2, 3], jobs=20),
    )
    alive = write_notebook(tmp_path / "alive.ipynb", "print('well')")
    process = subprocess.Popen(
        command(tmp_path, "--notebook", str(dead), "--notebook", str(alive)),
        cwd=tmp_path,
        env=environment(tmp_path),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    lines: list[str] = []
    assert process.stdout is not None
    reading = threading.Thread(
        target=lambda stream: lines.extend(iter(stream.readline, "")), args=[process.stdout]
    )
    reading.start()
    try:
        wait_until(lambda: any("trial 1/3" in line for line in lines), 120, what="the first trial to end")
        [kernel] = [int(line.split()[1]) for line in lines if line.startswith("kernel ")]
        began = psutil.Process(kernel).children(recursive=True)
        os.kill(kernel, signal.SIGKILL)
        killed_s = time.monotonic()
        process.wait(timeout=60)
        assert time.monotonic() - killed_s < 60
        reading.join()
        assert process.stderr is not None
        errors = process.stderr.read()
    finally:
        process.kill()
        process.wait()
        reading.join()
        process.stdout.close()
        assert process.stderr is not None
        process.stderr.close()
    assert process.returncode == 1
    assert "dead failed: see" in errors
    assert "Kernel died" in (tmp_path / "reports" / "notebooks" / "dead.html").read_text()
    assert "well" in (tmp_path / "reports" / "notebooks" / "alive.html").read_text()
    index = (tmp_path / "reports" / "index.html").read_text()
    assert "There is no decision:" in index
    assert '<a href="#dead">dead</a>' in index
    _, alive_still = psutil.wait_procs(began, timeout=20)
    assert alive_still == []


def test_all_notebooks_together_fit_the_time_of_a_quick_report() -> None:
    budgets = [
        value
        for path in known_notebooks().values()
        for name, value in report_levels.defaults(path).items()
        if name.endswith("budget_s") and value is not None
    ]
    assert 0 < sum(budgets) <= report_levels.QUICK_BUDGET_S


@pytest.mark.parametrize("level", ["tiny", "quick", "full"])
@pytest.mark.parametrize("path", known_notebooks().values(), ids=lambda path: path.stem)
def test_a_level_gives_a_notebook_only_what_it_has(path: Path, level: report_levels.Level) -> None:
    known, given = report_levels.defaults(path), report_levels.parameters(path, level)
    assert set(given) <= set(known)
    if level == "quick":
        assert given == {}
    elif level == "full" and "blocks" in known:
        assert given["blocks"] >= 12
    elif level == "full" and "most_trials" in known:  # more time alone would be left over
        assert given["most_trials"] > known["most_trials"]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--notebook", "worker_count"], "did you mean 'worker_counts'?"),
        (["--rate", "0"], "rate=0: give jobs a second above 0"),
        (["--rate", "$(touch x)"], "'$(touch x)' is not a valid float"),
        (["--wait-p95", "soon"], "'soon' is not a time: give 500ms, 2s, 10m or 1h"),
        (["--full", "--tiny"], "--full and --tiny are both given: choose one"),
    ],
)
def test_what_is_wrong_is_said_before_anything_is_measured(tmp_path: Path, arguments, words) -> None:
    done = run_report(tmp_path, *arguments)
    assert done.returncode != 0
    assert words in done.stderr
    assert not (tmp_path / "reports").exists()
