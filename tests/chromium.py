"""The distribution's Chromium, driven by tests; without one, or without playwright, they skip."""

import contextlib
import shutil
import subprocess

import pytest

FLAGS = "--no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking"
FLAGS += " --disable-component-update --disable-sync"


@contextlib.contextmanager
def chromium():
    """playwright's browser."""
    sync_api = pytest.importorskip("playwright.sync_api", reason="pip install playwright")
    names = ("chromium", "chromium-browser", "google-chrome")
    path = next(filter(None, map(shutil.which, names)), None)
    # Where a distribution's package is only a stub of another installer, it does not start.
    if not path or subprocess.run([path, "--version"], capture_output=True).returncode:
        pytest.skip("no Chromium on the PATH: apt-get install chromium")
    with sync_api.sync_playwright() as driver:
        found = driver.chromium.launch(executable_path=path, args=FLAGS.split())
        yield found
        found.close()
