"""Sharing in a real browser: the manifest as Chromium reads it, the pages of `/share`, and forms of other sites."""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlencode

import pytest
from api_server import Client
from playwright.sync_api import Browser, Page, expect

from fuze_bench.lab.parts.origin import Origin

pytest_plugins = ["browser"]
pytestmark = pytest.mark.browser

CASES = Path(__file__).parent / "cases"
#: Ends every isolation and override that it finds open, and starts one of its own.
BREAKING_OUT = "\u2069\u2069\u202c\u202c\u202egnorw\u2067"


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:
    """A narrow tab in which nothing may go wrong on our pages, least of all with the policy on what they may load."""
    context = browser.new_context(viewport={"width": 320, "height": 640})
    page, errors = context.new_page(), []
    page.on("pageerror", lambda error: errors.append(str(error)))
    # A stranger's page is told that it may not have our answer.
    page.on("console", lambda message: None if "/put/" in page.url else errors.append(message.text))
    yield page
    context.close()
    assert errors == []


def saved(api: Client) -> list[str]:
    return [bookmark["url"] for bookmark in api.get("/api/bookmarks").json["bookmarks"]]


def test_chromium_would_install_it_as_a_share_target(api: Client, page: Page) -> None:
    page.goto(api.base_url)
    devtools = page.context.new_cdp_session(page)
    read = devtools.send("Page.getAppManifest")
    assert read["url"] == f"{api.base_url}/manifest.webmanifest"
    assert read["errors"] == []
    manifest = read["manifest"]
    assert (manifest["name"], manifest["startUrl"]) == ("Bookmarks", f"{api.base_url}/")
    assert manifest["shareTarget"]["action"] == f"{api.base_url}/share"
    assert manifest["shareTarget"]["method"] == "kPost"
    found = {
        error["errorId"] for error in devtools.send("Page.getInstallabilityErrors")["installabilityErrors"]
    }
    assert found <= {"in-incognito"}  # which every tab of a test is


def test_the_manifests_icons_are_what_it_says(api: Client) -> None:
    manifest = api.get("/manifest.webmanifest")
    read = json.loads(manifest.raw)
    assert read["share_target"]["params"] == {"title": "title", "text": "text", "url": "url"}
    for icon in read["icons"]:
        answer = api.get(icon["src"])
        assert (answer.status, answer.headers["content-type"]) == (200, icon["type"])
        if icon["type"] == "image/png":
            width, height = struct.unpack(">II", answer.raw[16:24])
            assert icon["sizes"] == f"{width}x{height}"


def test_a_link_asks_and_its_button_saves(api: Client, page: Page) -> None:
    title = json.loads((CASES / "A07.json").read_text())["title"]
    link = f"{api.base_url}/share?" + urlencode({"title": title, "text": "(see https://example.org/a_(b))."})
    page.goto(link)
    expect(page.get_by_role("heading", level=1)).to_have_text("Save this page?")
    expect(page.locator("article")).to_contain_text("https://example.org/a_(b)")
    assert saved(api) == []
    expect(page.get_by_role("button", name="Save")).to_be_focused()
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", level=1)).to_have_text("Saved")
    expect(page.locator("article .name")).to_have_text(title)
    page.goto(link)
    page.get_by_role("button", name="Save").click()
    expect(page.get_by_role("heading", level=1)).to_have_text("Saved before")
    page.get_by_role("link", name="Show all bookmarks").click()
    expect(page.locator("#latest h3")).to_have_text(title)
    assert api.get("/api/bookmarks/1").json["title"] == title


@pytest.mark.parametrize("hostile", [BREAKING_OUT, "<img src=x onerror=alert(1)>", "W" * 300])
def test_what_is_shared_stays_in_its_place(api: Client, page: Page, hostile: str) -> None:
    page.goto(
        f"{api.base_url}/share?" + urlencode({"title": hostile, "url": "https://example.org/" + "x-" * 300})
    )
    for heading in ("Save this page?", "Saved"):
        expect(page.get_by_role("heading", level=1)).to_have_text(heading)
        boxes = page.locator("article bdi")
        expect(boxes).to_have_count(2)
        assert boxes.first.evaluate("node => getComputedStyle(node).display") == "inline-block"
        assert page.locator("article img").count() == 0
        assert page.evaluate("document.documentElement.scrollWidth") <= 320
        if heading != "Saved":
            page.get_by_role("button", name="Save").click()


def test_another_sites_page_saves_nothing(api: Client, page: Page, origin: Origin) -> None:
    """Neither with a picture nor with a form: they are asked about."""
    target = f"{api.base_url}/share"
    origin.put(
        "/put/trap",
        f"""<!doctype html><link rel="icon" href="data:,">
        <img src="{target}?url=https://example.org/picture" alt="">
        <form method="post" action="{target}"><input name="url" value="https://example.org/form">
        <button>Win</button></form>""".encode(),
    )
    # Chromium hides the answer from that page, once it is there.
    with page.expect_event("requestfailed", lambda request: "picture" in request.url):
        page.goto(f"{origin.url.replace('127.0.0.1', 'localhost')}/put/trap")
    with page.expect_request(target) as sent:
        page.get_by_role("button", name="Win").click()
    assert sent.value.all_headers()["sec-fetch-site"] == "cross-site"
    expect(page.get_by_role("heading", level=1)).to_have_text("Save this page?")
    assert saved(api) == []
    page.get_by_role("button", name="Save").click()
    expect(page.get_by_role("heading", level=1)).to_have_text("Saved")
    assert saved(api) == ["https://example.org/form"]
