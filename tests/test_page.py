"""The page at `/` in a real browser, with a real API and a real worker: paste, watch, read."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from urllib.parse import urlsplit

import pytest
from api_server import Client, running_api
from conftest import StartWorker, wait_until
from playwright.sync_api import Browser, Page, expect

from fuze_bench.lab.parts.origin import Origin
from fuze_bench.pipeline.bookmarks import Outcome, ProcessingError, Reason, TryAgain
from fuze_bench.pipeline.redis_server import PrivateRedis
from fuze_bench.pipeline.settings import Settings
from fuze_bench.pipeline.store import Store

pytest_plugins = ["browser"]
pytestmark = pytest.mark.browser

_WAIT_MS = 30_000
_ARTICLE = (
    "<html lang=en><head><title>On bridges</title></head><body><article><h1>On bridges</h1>{}</article></body></html>"
).format(
    "".join(
        f"<p>Suspension bridge number {n} carries its deck on steel cables that run over tall towers. The cables "
        "hang between the towers, and the engineers check every anchorage of the bridge in the spring.</p>"
        for n in range(6)
    )
)


@dataclass
class Watched:
    """A tab that remembers what went wrong in it, and whom it talked to."""

    page: Page
    base_url: str
    errors: list[str] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.page.set_default_timeout(_WAIT_MS)
        self.page.on("pageerror", lambda error: self.errors.append(str(error)))
        self.page.on(
            "console",
            lambda message: (
                self.errors.append(message.text) if message.type in ("error", "warning") else None
            ),
        )
        self.page.on("request", lambda request: self.requests.append(request.url))
        self.page.on("dialog", lambda dialog: (self.errors.append(dialog.message), dialog.dismiss()))

    @property
    def client(self) -> Client:
        """Another client of the same API."""
        return Client(self.base_url)

    def save(self, url: str, title: str = "") -> None:
        self.page.get_by_label("Address").fill(url)
        self.page.get_by_label("Title").fill(title)
        self.page.get_by_label("Address").press("Enter")

    def assert_clean(self) -> None:
        """Nothing went wrong, and it talked to its own server only (a `data:` icon is no request to anybody)."""
        assert self.errors == []
        hosts = {urlsplit(url).netloc for url in self.requests if not url.startswith("data:")}
        assert hosts == {urlsplit(self.base_url).netloc}


@pytest.fixture
def tab(settings: Settings, browser: Browser) -> Iterator[Watched]:
    with running_api(settings) as base_url:
        context = browser.new_context(viewport={"width": 320, "height": 640})
        tab = Watched(context.new_page(), base_url)
        tab.page.goto(base_url)
        yield tab
        context.close()


def test_a_pasted_address_goes_from_pending_to_processed(
    tab: Watched, settings: Settings, origin: Origin, start_worker: StartWorker
) -> None:
    origin.put("/put/bridges", _ARTICLE.encode())
    expect(tab.page.get_by_text("Nothing saved yet.")).to_be_visible()
    tab.save(f"{origin.url}/put/bridges")
    current = tab.page.locator("#current")
    expect(current.get_by_text("Pending", exact=True)).to_be_visible()
    with start_worker(settings):
        expect(current.get_by_text("Processed", exact=True)).to_be_visible(timeout=_WAIT_MS)
    expect(tab.page.get_by_role("status").first).to_have_text("Processed: On bridges")
    expect(current.get_by_role("link", name="On bridges")).to_have_attribute(
        "href", f"{origin.url}/put/bridges"
    )
    expect(current.locator(".summary")).to_contain_text("cables")
    expect(current.get_by_role("list", name="Keywords")).to_contain_text("bridge")
    expect(current.locator(".facts")).to_contain_text("min read")
    expect(current.locator(".facts")).to_contain_text("English")
    expect(tab.page.get_by_label("Address")).to_be_focused()
    tab.assert_clean()


def test_it_shows_processing_while_the_page_is_fetched(
    tab: Watched, settings: Settings, origin: Origin, start_worker: StartWorker
) -> None:
    current = tab.page.locator("#current")
    with start_worker(settings):
        tab.save(f"{origin.url}/slow/8000/1")
        expect(current.get_by_text("Processing", exact=True)).to_be_visible(timeout=_WAIT_MS)
        expect(current.get_by_text("Processed", exact=True)).to_be_visible(timeout=_WAIT_MS)
    tab.assert_clean()


def test_a_failure_says_why_and_can_be_tried_again(
    tab: Watched, settings: Settings, origin: Origin, start_worker: StartWorker
) -> None:
    tab.save(f"{origin.url}/put/later")
    current = tab.page.locator("#current")
    with start_worker(settings):
        expect(current.get_by_text("Failed", exact=True)).to_be_visible(timeout=_WAIT_MS)
        expect(current.get_by_text("The page does not exist (any more).")).to_be_visible()
        expect(current.get_by_text("HTTP 404")).to_be_visible()
        origin.put("/put/later", _ARTICLE.encode())
        with tab.page.expect_request("**/api/bookmarks/1/reprocess"):
            current.get_by_role("button", name="Try again").click()
        expect(current.get_by_text("Processed", exact=True)).to_be_visible(timeout=_WAIT_MS)
        expect(tab.page.get_by_role("status").first).to_have_text("Processed: On bridges")
    tab.assert_clean()


def put_in_states(settings: Settings, ids: Sequence[int], *outcomes: Outcome) -> None:
    """End the processing of the first bookmarks with these outcomes, as a worker does."""
    with Store(settings) as store:
        claims = store.claim(list(ids[: len(outcomes)]), lease_s=60)
        store.finish([(claim, outcome, {}) for claim, outcome in zip(claims, outcomes, strict=True)])


def test_a_retry_in_the_list_stays_there_and_keeps_the_focus(tab: Watched, settings: Settings) -> None:
    tab.client.save("https://example.org/1", title="A title")
    put_in_states(settings, [1], ProcessingError(Reason.NOT_FOUND, "HTTP 404"))
    tab.page.reload()
    latest = tab.page.locator("#latest")
    button = latest.get_by_role("button", name="Try again: A title")
    button.focus()
    button.press("Enter")
    expect(latest.get_by_text("Pending", exact=True)).to_be_visible()
    expect(latest.get_by_role("link", name="A title")).to_be_focused()
    expect(tab.page.get_by_role("status").first).to_have_text("Trying again: A title")
    tab.assert_clean()


def test_a_retry_that_is_refused_says_so_at_the_button(tab: Watched, settings: Settings) -> None:
    tab.client.save("https://example.org/1")
    put_in_states(settings, [1], ProcessingError(Reason.NOT_FOUND, "HTTP 404"))
    tab.page.clock.install()  # so that it does not look again, and sees that the bookmark is gone
    tab.page.reload()
    expect(tab.page.get_by_role("button", name="Try again")).to_be_visible()
    tab.client.send("DELETE", "/api/bookmarks/1")
    tab.page.get_by_role("button", name="Try again").click()
    expect(tab.page.locator("#latest").get_by_role("alert")).to_have_text("there is no bookmark '1'")


def test_one_that_will_be_tried_again_says_why_and_when(tab: Watched, settings: Settings) -> None:
    tab.client.save("https://example.org/1")
    error = ProcessingError(Reason.TIMED_OUT, "after 30 s")
    put_in_states(settings, [1], TryAgain(error=error, delay_s=3_600, counts=True))
    tab.page.reload()
    latest = tab.page.locator("#latest")
    expect(latest.get_by_text("Pending", exact=True)).to_be_visible()
    expect(latest).to_contain_text("The site took too long to answer.")
    expect(latest).to_contain_text("To be tried again:")
    tab.assert_clean()


def test_a_second_look_in_vain_is_a_note(
    tab: Watched, settings: Settings, origin: Origin, start_worker: StartWorker
) -> None:
    origin.put("/put/gone", _ARTICLE.encode())
    tab.save(f"{origin.url}/put/gone")
    current = tab.page.locator("#current")
    with start_worker(settings):
        expect(current.get_by_text("Processed", exact=True)).to_be_visible(timeout=_WAIT_MS)
        origin.put("/put/gone", _ARTICLE.encode(), status=410)
        tab.client.send("POST", "/api/bookmarks/1/reprocess")
        wait_until(lambda: tab.client.get("/api/bookmarks/1").json["note"], what="the second look")
    tab.page.reload()
    latest = tab.page.locator("#latest")
    expect(latest.get_by_text("Processed", exact=True)).to_be_visible()
    expect(latest).to_contain_text("Looked at again in vain,")
    expect(latest.locator(".summary")).to_contain_text("cables")
    tab.assert_clean()


def test_the_list_can_be_narrowed_by_state_and_reason(tab: Watched, settings: Settings) -> None:
    for n in range(4):
        tab.client.save(f"https://example.org/{n}", title=f"Page {n}")
    reasons = (Reason.NOT_FOUND, Reason.TIMED_OUT, Reason.NOT_FOUND)
    put_in_states(settings, [1, 2, 3], *(ProcessingError(reason, "so") for reason in reasons))
    tab.page.reload()
    headings = tab.page.locator("#latest h3")
    expect(headings).to_have_text(["Page 3", "Page 2", "Page 1", "Page 0"])
    tab.page.get_by_label("State").select_option("Failed")
    expect(headings).to_have_text(["Page 2", "Page 1", "Page 0"])
    tab.page.get_by_label("Reason").select_option("The page does not exist (any more)")
    expect(headings).to_have_text(["Page 2", "Page 0"])
    tab.page.reload()
    expect(headings).to_have_text(["Page 2", "Page 0"])
    expect(tab.page.get_by_label("State")).to_have_value("failed")
    tab.page.get_by_label("State").select_option("Processed")
    expect(tab.page.get_by_text("None of this kind.")).to_be_visible()
    tab.page.goto(f"{tab.base_url}/?status=nonsense")
    expect(headings).to_have_text(["Page 3", "Page 2", "Page 1", "Page 0"])
    tab.assert_clean()


def test_more_are_loaded_and_stay_up_to_date(tab: Watched, settings: Settings) -> None:
    for n in range(45):
        tab.client.save(f"https://example.org/{n}", title=f"Page {n}")
    tab.page.reload()
    headings = tab.page.locator("#latest h3")
    expect(headings).to_have_count(20)
    more = tab.page.get_by_role("button", name="Load more")
    more.press("Enter")
    expect(headings).to_have_count(40)
    expect(more).to_be_focused()
    more.press("Enter")
    expect(headings).to_have_count(45)
    expect(more).to_be_hidden()
    expect(tab.page.get_by_role("link", name="Page 4", exact=True)).to_be_focused()
    expect(headings.last).to_have_text("Page 0")
    put_in_states(settings, [1], ProcessingError(Reason.NOT_FOUND, "HTTP 404"))
    expect(tab.page.locator("#latest li").last).to_contain_text("Failed")
    tab.assert_clean()


def test_it_says_how_many_wait_and_that_redis_is_away(tab: Watched, private_redis: PrivateRedis) -> None:
    tab.save("https://example.org/1")
    waiting = tab.page.get_by_role("region", name="Waiting for a worker")
    expect(waiting.locator("div")).to_have_text(["high0", "default1", "low0"])
    private_redis.stop()
    expect(tab.page.get_by_text("Redis is away")).to_be_visible()
    expect(waiting).to_be_hidden()


def test_one_that_is_deleted_elsewhere_is_gone(tab: Watched) -> None:
    tab.save("https://example.org/1")
    expect(tab.page.locator("#current article")).to_be_visible()
    tab.client.send("DELETE", "/api/bookmarks/1")
    expect(tab.page.locator("#current")).to_be_hidden()
    expect(tab.page.get_by_text("Nothing saved yet.")).to_be_visible()


def test_it_warns_while_no_worker_listens(
    tab: Watched, settings: Settings, start_worker: StartWorker
) -> None:
    tab.save("https://example.org/1")
    expect(tab.page.get_by_text("no worker listens to the queue 'default'")).to_be_visible()
    with start_worker(settings):
        others = (f"https://example.org/{n}" for n in range(3, 1_000))
        wait_until(lambda: "warning" not in tab.client.save(next(others)).json, what="the worker to be seen")
        tab.save("https://example.org/2")
        expect(tab.page.locator("#current h3")).to_have_text("https://example.org/2")
        expect(tab.page.get_by_text("no worker listens")).to_be_hidden()
    tab.assert_clean()


def test_markup_in_a_title_is_shown_and_not_run(tab: Watched) -> None:
    hostile = "<img src=x onerror=alert(1)><script>alert(2)</script>"
    tab.save("https://example.org/a", hostile)
    expect(tab.page.locator("#current h3")).to_have_text(hostile)
    tab.page.reload()
    expect(tab.page.locator("#latest h3")).to_have_text(hostile)
    assert tab.page.locator("article img, article script").count() == 0
    tab.assert_clean()


def test_it_stays_within_a_narrow_window(tab: Watched) -> None:
    tab.save("https://example.org/" + "long-" * 200, "W" * 300)
    expect(tab.page.locator("#current article")).to_be_visible()
    tab.page.reload()
    expect(tab.page.locator("#latest article")).to_be_visible()
    assert tab.page.evaluate("document.documentElement.scrollWidth") <= 320


def test_what_the_server_refuses_is_said_at_the_field(tab: Watched) -> None:
    tab.save("ftp://example.org/x")
    expect(tab.page.get_by_role("alert")).to_have_text("ftp: URLs cannot be saved: only http and https")
    expect(tab.page.get_by_label("Address")).to_have_attribute("aria-invalid", "true")
    expect(tab.page.get_by_label("Address")).to_have_value("ftp://example.org/x")
    tab.save("https://example.org/x")
    expect(tab.page.locator("#current article")).to_be_visible()
    expect(tab.page.get_by_role("alert")).to_be_empty()


def test_a_server_that_is_away_is_said(settings: Settings, browser: Browser) -> None:
    with running_api(settings) as base_url:
        page = browser.new_page()
        page.goto(base_url)
        expect(page.get_by_text("Nothing saved yet.")).to_be_visible()
    page.get_by_label("Address").fill("https://example.org/x")
    page.get_by_role("button", name="Save").press("Enter")
    expect(page.get_by_role("alert")).to_contain_text("The server cannot be reached.")
    expect(page.get_by_label("Address")).to_have_value("https://example.org/x")
    page.close()


def test_it_asks_again_only_while_something_is_unfinished(tab: Watched) -> None:
    tab.page.clock.install()
    tab.page.reload()
    expect(tab.page.get_by_text("Nothing saved yet.")).to_be_visible()
    tab.requests.clear()
    tab.page.clock.run_for(60_000)
    assert tab.requests == []
    tab.save("https://example.org/never")
    expect(tab.page.locator("#current article")).to_be_visible()
    with tab.page.expect_request("**/api/bookmarks?*"):
        tab.page.clock.run_for(1_000)
