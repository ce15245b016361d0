"""The page of an evaluation in a real browser: what its controls do, and a quiet console."""

import io
import shutil

import numpy as np
import pytest
from chromium import chromium
from PIL import Image
from report_results import PROTOCOL, results_of, save_pictures

from fa_hific_jax.evaluation.report import write_report

pytestmark = pytest.mark.long

DESKTOP, PHONE = {"width": 1280, "height": 900}, {"width": 360, "height": 740}


@pytest.fixture(scope="module")
def browser():
    with chromium() as found:
        yield found


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    """A page with everything on it: distances between sets, published points, a hostile name."""
    folder = tmp_path_factory.mktemp("report")
    results = results_of(images=("first", "second", "<i>&amp; third"), size=(192, 128))
    entry = {"codec": "ours", "metric": "FID", "not_measured": None, "protocol": PROTOCOL}
    results["sets"] = [entry | {"point": f"q={q}", "value": 9.0 - q} for q in (0, 1)]
    published = {"label": "<b>HiFiC", "source": "", "set": "kodak", "protocol": ""}
    results["published"] = [published | {"points": [{"bpp": 0.3, "psnr": 31.0}]}]
    save_pictures(folder, results)
    return write_report(results, folder)


@pytest.fixture
def opened(browser):
    """Opens a page in a window of its own. No window may have complained or asked for anything."""
    windows, complaints = [], []

    def open_page(path, viewport=DESKTOP, **options):
        window = browser.new_context(viewport=viewport, color_scheme="light", **options)
        windows.append(window)
        page = window.new_page()
        page.set_default_timeout(60_000)
        page.on("console", lambda message: complaints.append(message.text))
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("request", lambda request: complaints.append(request.url))
        page.goto(path.as_uri())
        page.wait_for_selector("#radial .main-svg, #no-picture:not([hidden])")
        return page

    yield open_page
    for window in windows:
        window.close()
    allowed = ("data:", "blob:", "file:")
    assert [text for text in complaints if not text.startswith(allowed)] == []
    assert sum(text.startswith("file:") for text in complaints) == len(windows)


@pytest.fixture
def page(opened, report):
    return opened(report)


def cut_of(page) -> float:
    """Where the dark original ends and the bright decoded picture begins, as part of the width."""
    page.wait_for_function("[...document.querySelectorAll('.layer img')].every(i => i.complete)")
    return float((screenshot(page.locator("#stage")).mean(axis=(0, 2)) < 128).mean())


def screenshot(shown, **options) -> np.ndarray:
    image = Image.open(io.BytesIO(shown.screenshot(**options)))
    return np.asarray(image.convert("RGB")).astype(int)


def stage_of(page) -> dict:
    """Where the pictures are, now in sight."""
    page.locator("#stage").scroll_into_view_if_needed()
    return page.locator("#stage").bounding_box()


def drag(page, start: tuple[float, float], end: tuple[float, float]) -> None:
    page.mouse.move(*start)
    page.mouse.down()
    page.mouse.move(*end, steps=4)
    page.mouse.up()


def divider_of(page) -> int:
    return int(page.locator("#divider").get_attribute("aria-valuenow"))


def test_the_divider_follows_the_mouse_and_the_keys(page):
    assert cut_of(page) == pytest.approx(0.5, abs=0.08)  # the handle is 0.1 of the width
    box = stage_of(page)
    middle = box["y"] + box["height"] / 2
    at = {share: (box["x"] + share / 100 * box["width"], middle) for share in (10, 25, 50, 80)}
    drag(page, at[50], at[80])
    assert cut_of(page) == pytest.approx(0.8, abs=0.08) and divider_of(page) == 80
    page.mouse.move(*at[10])  # the button is up
    assert divider_of(page) == 80
    page.mouse.click(*at[25])
    assert cut_of(page) == pytest.approx(0.25, abs=0.08) and divider_of(page) == 25
    page.locator("#divider").focus()
    for key, value in (("ArrowRight", 27), ("PageDown", 17), ("Shift+ArrowLeft", 7), ("End", 100)):
        page.keyboard.press(key)
        assert divider_of(page) == value
    assert cut_of(page) >= 0.9


def test_a_finger_moves_the_divider(opened, report):
    page = opened(report, PHONE, has_touch=True)
    box = stage_of(page)
    page.touchscreen.tap(box["x"] + 0.2 * box["width"], box["y"] + 10)
    assert divider_of(page) == 20


def test_zoom_and_movement_keep_both_sides_in_step(page):
    box = stage_of(page)

    def picture() -> dict:
        left, right = (page.locator(f"#{s}-picture").bounding_box() for s in ("left", "right"))
        assert left == right
        return left

    whole = picture()
    page.locator("#zoom-in").click()
    assert picture()["width"] == pytest.approx(1.5 * whole["width"], rel=1e-3)
    page.locator("#stage").focus()
    page.keyboard.press("+")
    page.keyboard.press("ArrowRight")
    moved = picture()
    assert moved["width"] == pytest.approx(2.25 * whole["width"], rel=1e-3)
    left = whole["x"] - ((2.25 - 1) / 2 + 0.1) * whole["width"]
    assert moved["x"] == pytest.approx(left, abs=1)

    drag(page, (box["x"] + 30, box["y"] + 30), (box["x"] + 50, box["y"] + 40))
    dragged = picture()
    assert dragged["x"] == pytest.approx(moved["x"] + 20, abs=1)
    assert dragged["y"] == pytest.approx(moved["y"] + 10, abs=1)

    page.keyboard.down("Control")
    page.mouse.wheel(0, -200)
    page.keyboard.up("Control")
    page.wait_for_function("document.getElementById('zoom-level').textContent !== '225 %'")
    zoomed = picture()
    assert zoomed["width"] > dragged["width"]
    under = [(50 - (b["x"] - box["x"])) / b["width"] for b in (dragged, zoomed)]
    assert under[0] == pytest.approx(under[1], abs=0.01)  # what the pointer is on stays
    page.keyboard.press("0")
    assert picture() == whole and page.locator("#zoom-level").text_content() == "100 %"


def test_selectors_change_the_pictures_and_the_numbers(page):
    def sources() -> list[str]:
        pictures = (page.locator(f"#{side}-picture") for side in ("left", "right"))
        return [picture.get_attribute("src") for picture in pictures]

    before = sources()
    chosen = [page.locator(f"#{side}-codec").input_value() for side in ("left", "right")]
    assert chosen == ["original", "ours"]
    page.locator("#right-codec").select_option(label="JPEG")
    nearest = page.locator("#right-point option:checked").text_content()
    assert nearest == "0.220 bpp · quality 22"  # ours was at 0.2
    jpeg = sources()
    assert jpeg[0] == before[0] and jpeg[1] != before[1]
    page.locator("#right-point").select_option(index=1)
    assert sources()[1] not in (before[1], jpeg[1])
    page.locator("#left-codec").select_option(label="WebP")
    both = sources()
    assert both[0] not in (before[0], both[1])
    heads = page.locator("#numbers thead th").all_text_contents()
    assert heads == ["", "WebP quality 50, 0.625 bpp", "JPEG quality 58, 0.580 bpp"]
    bpp = page.locator("#numbers tbody tr").first.locator("td").all_text_contents()
    assert bpp == ["0.6250", "0.5800"]
    page.locator("#gallery button").nth(2).click()
    assert page.locator("#image-name").text_content() == "second · 192 × 128"
    assert sources()[0] not in both
    assert page.locator("#left-codec").input_value() == "webp"
    assert page.locator("#bits-of option").count() == 2
    psnr = page.locator('[data-metric="psnr"]')
    assert "<b>HiFiC" in psnr.text_content()  # a published point, and its name only text
    page.locator("#plot-of").select_option("image")
    assert "HiFiC" not in psnr.text_content() and psnr.locator(".point").count() > 5


def test_sorting_reorders_the_images(page):
    names, values = (page.locator(f"#gallery .{part}") for part in ("name", "value"))
    assert names.all_text_contents() == ["<i>&amp; third", "first", "second"]
    page.locator("#sort-by").select_option(label="PSNR")  # offsets 0, 2 and 4 dB
    assert names.all_text_contents() == ["first", "second", "<i>&amp; third"]
    psnrs = list(map(float, values.all_text_contents()))
    assert psnrs == sorted(psnrs)
    page.locator("#sort-order").click()
    assert names.all_text_contents() == ["<i>&amp; third", "second", "first"]
    page.locator("#sort-by").select_option(label="bpp")
    page.locator("#sort-less").select_option(label="JPEG quality 90")
    assert names.all_text_contents() == ["first", "second", "<i>&amp; third"]
    differences = list(map(float, values.all_text_contents()))
    np.testing.assert_allclose(differences, [-0.7, -0.77, -0.84], atol=1e-6)


@pytest.mark.parametrize("viewport", [DESKTOP, PHONE], ids=["desktop", "phone"])
def test_nothing_is_blank_or_sticks_out_before_and_after_a_change_of_scheme(
    opened, report, viewport
):
    page = opened(report, viewport)
    assert page.evaluate("document.documentElement.scrollWidth") == viewport["width"]
    assert page.locator(".plot").count() == 4 + 3 + 2 + 1  # metrics and FID, spectra, radial, bits
    fill = "getComputedStyle(document.querySelector('#radial .xtick text')).fill"
    light = page.evaluate(fill)
    for is_dark in (False, True):
        if is_dark:
            page.emulate_media(color_scheme="dark")
            page.wait_for_function(f"light => {fill} !== light", arg=light)
        whole = screenshot(page, full_page=True)
        assert whole[:2].mean() < 40 if is_dark else whole[:2].mean() > 240
        parts = page.evaluate(
            """() => [...document.querySelectorAll('#stage, .plot')].map(element => {
            const box = element.getBoundingClientRect();
            return [box.top + scrollY, box.bottom + scrollY, box.left, box.right].map(Math.round);
            })"""
        )
        for top, bottom, left, right in parts:
            part = whole[top:bottom, left:right]
            assert len(np.unique(part.reshape(-1, 3), axis=0)) > 40
            # Lines, markers and cells, not only axes and text.
            assert np.sum(part.max(axis=2) - part.min(axis=2) > 60) > 100


def test_all_is_reached_by_the_keyboard_and_seen_to_be(page):
    reached = set()
    for _ in range(60):
        page.keyboard.press("Tab")
        found = page.evaluate(
            """() => { const e = document.activeElement;
            const outlined = e.id === 'divider' ? e.firstChild : e;
            return [e.id || e.tagName, parseFloat(getComputedStyle(outlined).outlineWidth)]; }"""
        )
        if found[0] != "BODY":
            assert found[1] >= 1, f"{found[0]} does not show its focus"
        reached.add(found[0])
    wanted = "plot-of sort-by sort-order left-codec right-codec right-point stage divider zoom-in"
    assert set(wanted.split()) | {"bits-of", "bits-opacity"} <= reached


@pytest.mark.parametrize("kind", ["one image", "no model", "no pictures", "no originals"])
def test_pages_with_less_work_as_well(opened, tmp_path, kind):
    images = ("only",) if kind == "one image" else ("first", "second")
    codecs = ("jpeg", "webp") if kind == "no model" else ("ours", "jpeg")
    results = results_of(images=images, codecs=codecs)
    save_pictures(tmp_path, results)
    if kind in ("no pictures", "no originals"):
        shutil.rmtree(tmp_path / "originals")
    if kind == "no pictures":
        shutil.rmtree(tmp_path / "reconstructions")
    page = opened(write_report(results, tmp_path))
    assert page.locator("#gallery button").count() == len(images)
    assert page.locator("#stage").is_visible() == (kind != "no pictures")
    assert page.locator("#no-picture").is_visible() == (kind == "no pictures")
    assert page.locator("#bits-map").is_visible() == (kind in ("one image", "no originals"))
