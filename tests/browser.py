"""A real Chromium, Debian's own, driven by Playwright; for tests/test_web.py and tests/screenshots.py."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
from typing import TYPE_CHECKING

from playwright.sync_api import sync_playwright

if TYPE_CHECKING:
    from collections.abc import Iterator

    from playwright.sync_api import Browser

# The page is for people who read Chinese, too: without a font for it a picture of the page shows boxes.
_PACKAGES = ("chromium", "fonts-noto-cjk")
_NAMES = ("chromium", "chromium-browser", "google-chrome")
# In a container there is no sandbox for root, and no GPU; nothing but the page may reach the network.
_FLAGS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
    "--disable-quic",
)


def find() -> tuple[str | None, str]:
    """The path of Chromium, installed by apt where that is allowed; without it None, and why."""
    path = next(filter(None, map(shutil.which, _NAMES)), None)
    if path is not None:
        return path, ""
    if shutil.which("apt-get") is None or os.geteuid() != 0:
        return None, "Chromium is not here, and can't be installed: that needs apt-get and root"
    for arguments in (["update"], ["install", "-y", "--no-install-recommends", *_PACKAGES]):
        done = subprocess.run(["apt-get", "-qq", *arguments], capture_output=True, text=True, check=False)
        if done.returncode != 0:
            return None, f"Chromium is not here, and apt-get {arguments[0]} failed: {done.stderr.strip()[-300:]}"
    return shutil.which("chromium"), "apt-get install chromium brought no chromium"


@contextlib.contextmanager
def launched(path: str) -> Iterator[Browser]:
    """The browser at ``path``, without a window and with a fresh profile."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, headless=True, args=list(_FLAGS))
        yield browser
        browser.close()
