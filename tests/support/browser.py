"""A browser for tests of pages: Chromium without a window, where there is one."""

import shutil
import subprocess
from pathlib import Path

import pytest

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
needs_browser = pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium")


def dump_page(address: str, profile: Path, *, width: int = 1200, milliseconds: int = 3000) -> str:
    """The page's HTML after its scripts have run for some time of its own clock.

    Args:
        address: URL of the page.
        profile: Folder for the browser's own files.
        width: Of the window, in pixels.
        milliseconds: Time that the page is given.
    """
    assert CHROMIUM is not None
    flags = ["--headless", "--no-sandbox", "--disable-gpu", "--allow-file-access-from-files"]
    flags += [f"--virtual-time-budget={milliseconds}", f"--window-size={width},900", f"--user-data-dir={profile}"]
    command = [CHROMIUM, *flags, "--dump-dom", address]
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout
