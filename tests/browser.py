"""A real Chromium for the tests of pages: the machine's own, else the one that Playwright installed."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, Error, Playwright, sync_playwright

_ON_PATH = ("chromium", "chromium-browser", "google-chrome")
_ARGUMENTS = [
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync",
]  # fmt: skip
_HOW_TO_INSTALL = "no Chromium: install one (`apt install chromium`, or `playwright install chromium`)"


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Without any the test is skipped, or fails where `CI` is `true` or one was found and does not start.

    One a module and not one a session: as long as it is open, nothing else in the process can `asyncio.run`.
    """
    with sync_playwright() as playwright:
        browser = _launched(playwright)
        yield browser
        browser.close()


def _launched(playwright: Playwright) -> Browser:
    path = next(filter(None, map(shutil.which, _ON_PATH)), None)
    try:
        return playwright.chromium.launch(executable_path=path, args=_ARGUMENTS)
    except Error as error:
        if path is not None or os.environ.get("CI") == "true":
            pytest.fail(f"{_HOW_TO_INSTALL}: {str(error)[:300]}")
        pytest.skip(_HOW_TO_INSTALL)
