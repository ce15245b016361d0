"""The distribution's Chromium, driven by tests; without one, or without playwright, they skip."""

import contextlib
import shutil
import subprocess

import pytest

FLAGS = "--no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking"
FLAGS += " --disable-component-update --disable-sync"
LOCAL = ("data:", "blob:", "http://127.0.0.1:")


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


@pytest.fixture(scope="module")
def browser():
    with chromium() as found:
        yield found


@pytest.fixture
def open_page(browser):
    """Opens an address in a window of its own and waits for a selector.

    No page may report an error, or ask for anything of another machine or for another file.
    """
    windows, complaints = [], []

    def opened(address: str, ready: str, **options):
        windows.append(browser.new_context(**options))
        page = windows[-1].new_page()
        page.set_default_timeout(60_000)  # The first image of a server waits for the compiler.
        page.on("console", lambda said: said.type == "error" and complaints.append(said.text))
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("request", lambda asked: asked.url != address and complaints.append(asked.url))
        page.goto(address)
        page.wait_for_selector(ready)
        return page

    yield opened
    for window in windows:
        window.close()
    assert [text for text in complaints if not text.startswith(LOCAL)] == []
