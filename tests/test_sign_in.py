"""Signing in with a real browser, and what the pages of other sites can do with a browser that is signed in: nothing."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import pytest
from api_server import running_api
from playwright.sync_api import Browser, BrowserContext, ConsoleMessage, Page, expect

from fuze_bench.lab.parts.origin import Origin
from fuze_bench.pipeline.redis_server import PrivateRedis
from fuze_bench.pipeline.settings import Settings
from fuze_bench.pipeline.store import Store

pytest_plugins = ["browser"]
pytestmark = pytest.mark.browser

_TOKEN = "browser-0123456789abcdef"
_WAIT_MS = 30_000


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Settings]:
    folder = tmp_path_factory.mktemp("sign-in")
    tokens = folder / "tokens"
    tokens.write_text(f"{_TOKEN} 5\n")
    tokens.chmod(0o600)
    with PrivateRedis(folder / "redis") as server:
        yield Settings(data_dir=folder, redis_url=server.url, embedding_model="off", api_tokens=tokens)


@dataclass
class Visit:
    """A tab of a browser of its own, the API as `localhost`, and what was sent to it."""

    context: BrowserContext
    page: Page
    api_url: str

    def sign_in(self) -> None:
        self.page.goto(f"{self.api_url}/sign-in")
        self.page.get_by_label("Token").fill(_TOKEN)
        self.page.get_by_role("button", name="Sign in").click()
        expect(self.page).to_have_url(f"{self.api_url}/")


@pytest.fixture
def visit(settings: Settings, browser: Browser) -> Iterator[Visit]:
    with running_api(settings) as base_url:
        context = browser.new_context()
        context.set_default_timeout(_WAIT_MS)
        visit = Visit(context, context.new_page(), base_url.replace("127.0.0.1", "localhost"))
        errors: list[str] = []
        visit.page.on("pageerror", lambda error: errors.append(str(error)))
        visit.page.on(
            "console", lambda message: errors.append(message.text) if is_a_fault(visit, message) else None
        )
        yield visit
        context.close()
        assert errors == []


def is_a_fault(visit: Visit, message: ConsoleMessage) -> bool:
    """Not: what a stranger's page is told, advice, that a token is refused, and that plain JSON has no icon."""
    where = message.location["url"]
    if message.type != "error" or not visit.page.url.startswith(visit.api_url):
        return False
    return "status of 401" not in message.text and where != f"{visit.api_url}/favicon.ico"


def test_whoever_opens_the_page_signs_in_once(visit: Visit) -> None:
    page = visit.page
    page.goto(visit.api_url)
    expect(page.get_by_role("heading", name="Sign in")).to_be_visible()
    expect(page.get_by_label("Token")).to_be_focused()
    page.keyboard.press("Enter")
    expect(page.get_by_role("alert")).to_have_text("Paste your token.")
    page.get_by_label("Token").fill(_TOKEN[:-1])
    page.keyboard.press("Enter")
    expect(page.get_by_role("alert")).to_contain_text("this token is not known")
    page.get_by_label("Token").fill(f" {_TOKEN}\n")
    page.keyboard.press("Enter")
    expect(page).to_have_url(f"{visit.api_url}/")
    expect(page.locator("#queues")).to_be_visible()  # its script is at work
    page.get_by_label("Address").fill("https://example.org/signed-in")
    page.get_by_label("Address").press("Enter")
    expect(page.locator("#current article")).to_be_visible()
    page.reload()
    expect(page.locator("#latest")).to_contain_text("https://example.org/signed-in")
    assert page.evaluate("document.cookie") == ""
    assert page.evaluate("sessionStorage.length + localStorage.length") == 0
    [cookie] = visit.context.cookies()
    assert (cookie["name"], cookie["httpOnly"], cookie["sameSite"]) == ("fuze_session", True, "Strict")


def test_signing_out(visit: Visit) -> None:
    visit.sign_in()
    visit.page.goto(f"{visit.api_url}/sign-in")
    visit.page.get_by_role("button", name="Sign out").click()
    expect(visit.page.get_by_text("Signed out.")).to_be_visible()
    assert visit.context.cookies() == []
    visit.page.goto(visit.api_url)
    expect(visit.page.get_by_role("heading", name="Sign in")).to_be_visible()


@pytest.mark.parametrize("goal", ["https://evil.example/", "//evil.example/", "javascript:alert(1)", "\\\\evil.example"])  # fmt: skip
def test_the_sign_in_leads_to_no_other_site(visit: Visit, goal: str) -> None:
    visit.page.goto(f"{visit.api_url}/sign-in?next={goal}")
    visit.page.get_by_label("Token").fill(_TOKEN)
    visit.page.get_by_role("button", name="Sign in").click()
    expect(visit.page).to_have_url(f"{visit.api_url}/")


def test_a_link_on_another_site_leads_to_the_page_without_a_second_sign_in(
    visit: Visit, origin: Origin
) -> None:
    """The browser withholds the cookie from the first request, which is a stranger's; the page's own have it."""
    visit.sign_in()
    for path in ("/", "/api/bookmarks?limit=1"):
        origin.put("/put/link", f"<a href='{visit.api_url}{path}'>there</a>".encode())
        visit.page.goto(f"{origin.url}/put/link")
        visit.page.get_by_role("link").click()
        expect(visit.page).to_have_url(f"{visit.api_url}{path}")
        if path == "/":
            expect(visit.page.get_by_role("heading", name="Latest")).to_be_visible()
        else:
            expect(visit.page.locator("body")).to_contain_text('"bookmarks"')


def test_a_share_is_not_lost_over_the_sign_in(visit: Visit, settings: Settings) -> None:
    page = visit.page
    page.goto(
        f"{visit.api_url}/share?title=Tea+%26+cake&text=https%3A%2F%2Fexample.org%2Ftea%3Fa%3D1%26b%3D%25C3%25A9"
    )
    page.get_by_role("button", name="Save").click()
    page.get_by_label("Token").fill(_TOKEN)
    page.get_by_role("button", name="Sign in").click()
    expect(page.get_by_role("heading", name="Save this page?")).to_be_visible()
    page.get_by_role("button", name="Save").click()
    expect(page.get_by_role("heading", name="Saved")).to_be_visible()
    with Store(settings) as store:
        [row] = [row for row in store.rows("url", "user_title", "user_id") if "tea" in row["url"]]
    assert row == {"url": "https://example.org/tea?a=1&b=%C3%A9", "user_title": "Tea & cake", "user_id": 5}


_HOSTILE = """<form method=post action='{api}/api/bookmarks/quick-save' enctype=text/plain target=frame>
<input name='{{"url": "https://evil.example/form", "title": "' value='"}}'></form><iframe name=frame></iframe>
<script type=module>
  const body = JSON.stringify({{ url: "https://evil.example/fetch" }});
  const results = [];
  for (const mode of ["cors", "no-cors"]) {{
    for (const credentials of ["include", "omit"]) {{
      for (const headers of [{{}}, {{ "Content-Type": "application/json" }}]) {{
        try {{
          const answer = await fetch("{api}/api/bookmarks/quick-save", {{ method: "POST", mode, credentials, headers, body }});
          results.push(answer.type === "opaque" ? "opaque" : "READ " + await answer.text());
        }} catch {{ results.push("blocked"); }}
      }}
    }}
    try {{
      const answer = await fetch("{api}/api/bookmarks", {{ mode, credentials: "include" }});
      results.push(answer.type === "opaque" ? "opaque" : "READ " + await answer.text());
    }} catch {{ results.push("blocked"); }}
  }}
  document.forms[0].submit();
  document.title = results.join(" ");
</script>"""


@pytest.mark.parametrize("name", ["127.0.0.1", "localhost"], ids=["another site", "another port"])
def test_a_hostile_page_reads_and_changes_nothing(
    visit: Visit, origin: Origin, settings: Settings, name: str
) -> None:
    visit.sign_in()
    statuses: list[int] = []
    visit.context.on(
        "response",
        lambda answer: statuses.append(answer.status) if answer.request.method == "POST" else None,
    )
    origin.put("/put/hostile", _HOSTILE.format(api=visit.api_url).encode())
    form = f"{visit.api_url}/api/bookmarks/quick-save"
    with visit.page.expect_response(
        lambda answer: answer.url == form and answer.request.is_navigation_request()
    ):
        visit.page.goto(f"{origin.url.replace('127.0.0.1', name)}/put/hostile")
    visit.page.wait_for_function("document.title !== ''")
    results = visit.page.title().split()
    assert "blocked" in results
    assert not [each for each in results if each not in ("blocked", "opaque")], visit.page.title()
    assert set(statuses) == {403}
    with Store(settings) as store:
        assert not [row for row in store.rows("url") if "evil" in row["url"]]
