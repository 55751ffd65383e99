"""The report: self-contained pages that answer first, on any screen, and that own up to failures."""

import os
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import nbformat
import pytest
from playwright.sync_api import Browser

pytest_plugins = ["browser"]
pytestmark = pytest.mark.xdist_group("report")

PHONE = {"width": 360, "height": 740}
DESKTOP = {"width": 1280, "height": 900}
PAGES = ("index.html", "notebooks/worker_counts.html")


def run_report(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("FUZE_", "REDIS_"))}
    return subprocess.run(
        [sys.executable, "-m", "fuze_bench.cli", "report", "--out", str(folder / "reports"), *arguments],
        cwd=folder,
        env=kept | {"FUZE_EMBEDDING_MODEL": "off"},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def write_notebook(path: Path, *sources: str) -> Path:
    v4 = nbformat.v4
    cells = [v4.new_markdown_cell("# A question"), *(v4.new_code_cell(source) for source in sources)]
    nbformat.write(v4.new_notebook(cells=cells), path)
    return path


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("report")
    done = run_report(folder, "--quick", "--notebook", "worker_counts")
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.search(r"trial 4/4 · .* bookmarks/s · done in", done.stdout)
    assert "left" in done.stdout
    return folder / "reports"


class _Links(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.loaded: list[str] = []
        self.targets: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = dict(attrs)
        assert tag not in ("script", "iframe", "object", "embed")
        if values.get("src"):
            self.loaded.append(values["src"] or "")
        if values.get("href"):
            (self.loaded if tag == "link" else self.targets).append(values["href"] or "")


@pytest.mark.parametrize("page", PAGES)
def test_a_page_holds_all_it_needs_and_its_links_lead_somewhere(report: Path, page: str):
    text = (report / page).read_text()
    links = _Links()
    links.feed(text)
    assert all(link.startswith("data:") for link in links.loaded)
    assert "@import" not in text
    assert "url(" not in text
    assert str(report.parent) not in text, "a path of this machine is in the page"
    for target in links.targets:
        if not target.startswith("#"):
            assert ((report / page).parent / target).is_file(), target


def test_nothing_in_it_says_where_it_was_made(report: Path):
    """Neither the notebook nor the data: the whole folder is there to be published."""
    for path in report.rglob("*"):
        if path.suffix in (".ipynb", ".json", ".html"):
            assert str(report.parent) not in path.read_text(), path
    [run] = (report / "data").iterdir()
    assert f'"folder": "../data/{run.name}"' in (report / "notebooks" / "worker_counts.ipynb").read_text()


def test_the_index_says_the_answer_first(report: Path):
    text = re.sub(r"<style>.*?</style>", "", (report / "index.html").read_text(), flags=re.DOTALL)
    places = [
        text.index(words)
        for words in ("had the highest median throughput", "<img", "<table", "How it was measured")
    ]
    assert places == sorted(places)
    for words in (
        "usable cores",
        "redis-server",
        "trials.parquet",
        "events.parquet",
        "sentence-transformers",
    ):
        assert words in text


def test_a_notebooks_page_shows_no_code(report: Path):
    text = (report / PAGES[1]).read_text()
    assert "ParameterWatch" not in text
    assert "Where the service time goes" in text
    assert text.count("<img") == 2


@pytest.mark.browser
@pytest.mark.parametrize("viewport", [PHONE, DESKTOP], ids=["phone", "desktop"])
@pytest.mark.parametrize("page", PAGES)
def test_a_browser_needs_no_network_and_nothing_overflows(report: Path, browser: Browser, page, viewport):
    context = browser.new_context(viewport=viewport)
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
    context.close()


@pytest.mark.browser
def test_dark_and_light_differ_and_the_keyboard_reaches_the_tables(report: Path, browser: Browser):
    grounds = set()
    for scheme in ("light", "dark"):
        context = browser.new_context(viewport=PHONE, color_scheme=scheme)
        tab = context.new_page()
        tab.goto((report / "index.html").as_uri())
        grounds.add(tab.evaluate("getComputedStyle(document.body).backgroundColor"))
        tab.keyboard.press("Tab")
        assert tab.evaluate("document.activeElement.textContent") == "Skip to the content"
        tab.keyboard.press("Tab")
        assert tab.evaluate("document.activeElement.className") == "scroll"
        context.close()
    assert len(grounds) == 2


def test_a_failing_notebook_leaves_what_it_had_done_and_an_exit_code(tmp_path: Path):
    path = write_notebook(tmp_path / "broken.ipynb", "print('so far')", "1 / 0", "print('never')")
    done = run_report(tmp_path, "--notebook", str(path))
    assert done.returncode == 1
    assert "broken failed" in done.stderr
    page = (tmp_path / "reports" / "notebooks" / "broken.html").read_text()
    assert "This notebook failed" in page
    assert "ZeroDivisionError" in page
    assert "so far" in page
    assert "never" not in page
    index = (tmp_path / "reports" / "index.html").read_text()
    assert "This notebook failed" in index
    assert "ZeroDivisionError" in index


def test_a_dead_kernel_ends_the_report(tmp_path: Path):
    path = write_notebook(
        tmp_path / "dead.ipynb", "print('so far')", "import os, signal; os.kill(os.getpid(), signal.SIGKILL)"
    )
    done = run_report(tmp_path, "--notebook", str(path))
    assert done.returncode == 1
    assert "Kernel died" in (tmp_path / "reports" / "notebooks" / "dead.html").read_text()


def test_an_unknown_notebook_is_named_with_the_nearest(tmp_path: Path):
    done = run_report(tmp_path, "--notebook", "worker_count")
    assert done.returncode != 0
    assert "did you mean 'worker_counts'?" in done.stderr
    assert not (tmp_path / "reports").exists()
