"""The page of `fa-hific serve` in a real browser, from dropped image to dropped bitstream."""

import io
import json
import os
import re
import subprocess
import sys
import urllib.error
import urllib.request
from pathlib import Path

import numpy as np
import pytest
from chromium import chromium
from coding_model import image_of, many_rates_model
from cpu_devices import hasty
from PIL import Image
from training_run import free_port

from fa_hific_jax.codec.model_folder import save_model
from fa_hific_jax.evaluation import baselines

pytest.importorskip("gradio", reason="pip install 'fa-hific-jax[demo]'")

pytestmark = pytest.mark.long

ROOT = Path(__file__).resolve().parents[1]
PATIENCE = 60_000  # milliseconds: the first image waits for the compiler
IMAGE = image_of(130, 200)


@pytest.fixture(scope="module")
def browser():
    with chromium() as found:
        yield found


@pytest.fixture(scope="module")
def address(tmp_path_factory):
    """The address of a served model; its files lie in a folder that must be empty at the end."""
    folder = tmp_path_factory.mktemp("served")
    save_model(many_rates_model(), folder / "model")
    (folder / "tmp").mkdir()
    read_errors = (folder / "stderr").read_text
    port = str(free_port())
    command = [sys.executable, "-m", "fa_hific_jax", "serve", "--model", str(folder / "model")]
    process = subprocess.Popen(
        [*command, "--port", port, "--max-mb=0.5", "--max-megapixels=0.1"],
        cwd=ROOT,
        env=os.environ | hasty() | {"TMPDIR": str(folder / "tmp")},
        stdout=subprocess.PIPE,
        stderr=(folder / "stderr").open("w"),
        text=True,
    )
    try:
        said = process.stdout.readline()
        assert said == f"http://127.0.0.1:{port}  (Ctrl-C ends it)\n", read_errors()
        yield said.split()[0]
    finally:
        process.terminate()
        process.communicate(timeout=60)
    assert "Traceback" not in read_errors() and not list((folder / "tmp").glob("fa-hific*"))


@pytest.fixture
def opened(browser):
    """Opens a page. None may report an error, or ask anything of another machine."""
    complaints = []
    window = browser.new_context(viewport={"width": 1280, "height": 1200})

    def open_page(address):
        page = window.new_page()
        page.set_default_timeout(PATIENCE)
        page.on("console", lambda said: said.type == "error" and complaints.append(said.text))
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("request", lambda asked: complaints.append(asked.url))
        page.goto(address)
        page.wait_for_selector("#quality")
        return page

    yield open_page
    window.close()
    local = ("http://127.0.0.1:", "data:", "blob:")
    assert [text for text in complaints if not text.startswith(local)] == []


def drop(page, zone: str, path) -> None:
    clear = page.locator(f"#{zone} button[aria-label=Clear]")
    if clear.count():
        clear.click()
    page.locator(f"#{zone} input[type=file]").set_input_files(path)


def sizes(page) -> list[int]:
    """Bytes of the model's file and of JPEG's, once the table is there."""
    page.wait_for_selector("#summary table")
    rows = page.locator("#summary tbody tr")
    cells = (rows.nth(row).locator("td").nth(1).text_content() for row in range(rows.count()))
    return [int(cell.replace(",", "")) for cell in cells]


def pixels(page, selector: str) -> list[np.ndarray]:
    """Those of the pictures shown in a place, as the server sends them."""
    page.wait_for_selector(f"{selector} img")
    found = page.locator(f"{selector} img")
    sources = [found.nth(i).get_attribute("src") for i in range(found.count())]
    read = (urllib.request.urlopen(source).read() for source in sources)
    return [np.asarray(Image.open(io.BytesIO(data)).convert("RGB")) for data in read]


def sentence(page) -> str:
    """The one message over the page, then dismissed."""
    page.wait_for_selector(".toast-body")
    assert page.locator(".toast-body").count() == 1
    said = page.get_by_test_id("toast-text").text_content().strip()
    page.get_by_test_id("toast-close").click()
    page.wait_for_selector(".toast-body", state="detached")
    return said


@pytest.fixture
def photo(tmp_path):
    Image.fromarray(IMAGE).save(tmp_path / "photo.png")
    return tmp_path / "photo.png"


def test_image_to_bitstream_and_back(opened, address, photo, tmp_path):
    model = many_rates_model()
    page = opened(address)
    drop(page, "image", photo)
    data = model.compress(IMAGE)
    jpeg = baselines.encode_nearest(IMAGE, "jpeg", len(data)).data
    assert sizes(page) == [len(data), len(jpeg)]
    before, after = pixels(page, "#ours")
    np.testing.assert_array_equal(before, IMAGE)
    # The page's process compiles with all optimizations, this one without.
    np.testing.assert_allclose(after, model.decompress(data).astype(int), atol=1)
    (heat,) = pixels(page, "#heat")
    assert heat.shape == IMAGE.shape

    page.locator("#quality input[type=range]").focus()
    page.keyboard.press("End")
    page.wait_for_function(
        "size => document.querySelector('#summary td:nth-child(2)').textContent != size",
        arg=f"{len(data):,}",
    )
    best = model.compress(IMAGE, quality=1.0)
    assert sizes(page)[0] == len(best) > len(data)
    with page.expect_download() as download:
        page.locator("#file").click()
    assert download.value.suggested_filename == "photo.fahj"
    download.value.save_as(tmp_path / "photo.fahj")
    assert (tmp_path / "photo.fahj").read_bytes() == best

    _, after = pixels(page, "#ours")
    page.get_by_role("tab", name="Decompress").click()
    drop(page, "bitstream", tmp_path / "photo.fahj")
    (decoded,) = pixels(page, "#decoded")
    np.testing.assert_array_equal(decoded, after)
    assert f"200 x 130 pixels from {len(best):,} bytes" in page.inner_text("#decoded-summary")
    with page.expect_download() as download:
        page.locator("#png").click()
    assert download.value.suggested_filename == "photo.png"
    np.testing.assert_array_equal(np.asarray(Image.open(download.value.path())), decoded)


def test_bad_files_get_one_sentence_and_leave_nothing_of_the_one_before(
    opened, address, photo, tmp_path
):
    (tmp_path / "notes.txt").write_text("<b>hello</b>")
    Image.new("RGB", (500, 300)).save(tmp_path / "large.png")
    (tmp_path / "heavy.png").write_bytes(bytes(2**20))
    page = opened(address)
    drop(page, "image", photo)
    sizes(page)
    drop(page, "image", tmp_path / "notes.txt")
    assert sentence(page).startswith("notes.txt: cannot be read as an image (not of a kind that ")
    assert page.locator("#summary table").count() == page.locator("#ours img").count() == 0
    assert page.locator("#file").is_disabled()
    drop(page, "image", tmp_path / "large.png")
    assert sentence(page).startswith("large.png: 500 x 300 pixels are over the limit of 0.1 ")
    drop(page, "image", tmp_path / "heavy.png")
    assert "512 Kb" in sentence(page).replace(".0", "")
    page.get_by_role("tab", name="Decompress").click()
    drop(page, "bitstream", tmp_path / "notes.txt")
    assert sentence(page).startswith("notes.txt: not a fa-hific-jax file: choose one that `compr")


def test_files_of_the_machine_are_not_served(address):
    with pytest.raises(urllib.error.HTTPError, match="403"):
        urllib.request.urlopen(f"{address}/gradio_api/file={ROOT / 'pyproject.toml'}")
    config = json.loads(urllib.request.urlopen(f"{address}/config").read())
    assert config["analytics_enabled"] is False
    text = urllib.request.urlopen(address).read().decode()
    assert not re.search(r"<(script|link)[^>]+(src|href)=.https?://", text)
