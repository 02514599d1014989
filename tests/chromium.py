"""Headless Chromium for the tests of pages: Playwright's, or the system's."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

MISSING = "playwright is not installed: make page-test docs-test installs it and runs these tests"


@contextmanager
def chromium() -> Iterator[Any]:
    """The browser. Skips the test if there is none."""
    playwright = pytest.importorskip("playwright.sync_api", reason=MISSING)
    system = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    with playwright.sync_playwright() as running:
        own = running.chromium.executable_path
        if system is None and not os.path.exists(own):
            pytest.skip("there is no Chromium: install it with the system's packages or with playwright install")
        path = None if os.path.exists(own) else system
        browser = running.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield browser
        browser.close()
