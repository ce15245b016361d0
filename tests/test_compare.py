"""`compare`: its picture shows what the codecs decoded, its page loads nothing, labels are true."""
# ruff: noqa: F811

import base64
import io
import json
import re
import sys
import types
from pathlib import Path

import numpy as np
import pytest
from chromium import chromium
from coding_model import image_of
from command_line import image, models, refused, run, written  # noqa: F401  (models: a fixture)
from fake_model import FakeModel
from PIL import Image

from fa_hific_jax.demo import comparison
from fa_hific_jax.demo.comparison import CELL, GAP, HEAD, Place, Version
from fa_hific_jax.evaluation import baselines
from fa_hific_jax.metrics import psnr
from fa_hific_jax.metrics.weights import Weights, load_weights

FLAT = np.full((300, 400, 3), 90, np.uint8)


def version(label: str, image: np.ndarray, size: int = 1000, excess: float = 0.0) -> Version:
    return Version(label, "quality 7, fast", b"x" * size, image, excess, 31.234, 0.0567)


@pytest.mark.parametrize(("others", "columns"), [(1, 3), (3, 2)])
def test_every_cell_holds_its_image_whole_and_enlarged_under_text(others, columns):
    images = [image_of(200, 160) // (i + 1) for i in range(others + 1)]
    versions = [version(f"codec {i}", image) for i, image in enumerate(images[1:])]
    drawn = comparison.sheet(images[0], versions, [Place(10, 0, 160), Place(40, 0, 160)])
    height, rows = HEAD + 200 + GAP + 2 * (CELL + GAP), -(-(others + 1) // columns)
    assert drawn.shape == (rows * height, columns * (CELL + GAP) + GAP, 3)
    for i, shown in enumerate(images):
        top, left = i // columns * height, i % columns * (CELL + GAP) + GAP
        cell = drawn[top : top + height, left : left + CELL]
        assert (cell[:HEAD] < 128).any()
        if i > 0:  # The original has the places marked.
            np.testing.assert_array_equal(cell[HEAD : HEAD + 200, :160], shown)
        for place, at in ((10, HEAD + 200 + GAP), (40, HEAD + 200 + CELL + 2 * GAP)):
            crop = shown[place : place + 160].repeat(2, axis=0).repeat(2, axis=1)
            np.testing.assert_array_equal(cell[at : at + CELL], crop)


def test_a_tiny_image_is_enlarged_by_a_whole_factor():
    image = image_of(8, 8)
    places = [comparison.most_detailed(image)]
    drawn = comparison.sheet(image, [version("codec", image)], places)
    whole = drawn[HEAD : HEAD + CELL, CELL + 2 * GAP :][:, :CELL]
    np.testing.assert_array_equal(whole, image.repeat(40, axis=0).repeat(40, axis=1))


def test_the_place_with_most_detail_is_found():
    image = FLAT.copy()
    image[110:200, 230:320] = image_of(90, 90)
    place = comparison.most_detailed(image)
    assert place.side == 160 and place.top <= 110 and place.top + 160 >= 200
    assert place.left <= 230 and place.left + 160 >= 320
    assert comparison.place_at(image, *place.middle) == place


@pytest.mark.parametrize("height, width", [(1, 1), (3, 500), (161, 159)])
def test_places_lie_within_images_of_any_size(height, width):
    image = image_of(height, width)
    corners = (comparison.place_at(image, *at) for at in ((0, 0), (width - 1, height - 1)))
    for place in (comparison.most_detailed(image), *corners):
        assert 0 <= place.top <= height - place.side and 0 <= place.left <= width - place.side
        assert place.side == min(160, height, width)
        comparison.sheet(image, [version("codec", image)], [place])


def test_labels_tell_bytes_rate_and_distances_and_how_far_the_size_is_off():
    near, far = version("JPEG", FLAT, 1010, 0.01), version("JPEG", FLAT, 1300, 0.3)
    assert near.title == "JPEG, quality 7"
    assert near.size == "1,010 bytes" and far.size == "1,300 bytes (nearest possible: +30 %)"
    assert near.numbers == "0.067 bpp, 31.23 dB, LPIPS 0.057"
    assert far._replace(psnr=np.inf, lpips=None).numbers == "0.087 bpp, no error"


def test_each_codec_has_its_nearest_file_and_measured_numbers():
    image, names = image_of(40, 48), ("jpeg", "webp")
    data, weights = FakeModel("").compress(image), load_weights(["alex"])
    made, notes = comparison.versions(image, data, image // 2, "mine", names, weights)
    assert notes == [] and [each.label for each in made] == ["FA-HiFiC", "JPEG", "WebP"]
    ours, *others = made
    assert (ours.setting, ours.excess, ours.data) == ("model mine", 0, data) and ours.lpips > 0.01
    for each, name in zip(others, names, strict=True):
        nearest = baselines.encode_nearest(image, name, len(data))
        assert (each.data, each.setting) == (nearest.data, nearest.setting)
        assert each.excess == pytest.approx(len(nearest.data) / len(data) - 1)
        np.testing.assert_array_equal(each.image, nearest.image)
    assert [each.psnr for each in made] == [psnr(image, each.image) for each in made]


def test_what_cannot_be_coded_or_measured_is_left_out_and_said():
    image = np.zeros((1, 16384, 3), np.uint8)
    data = FakeModel("").compress(image)
    made, notes = comparison.versions(image, data, image, "mine", ("webp",), Weights())
    assert [each.label for each in made] == ["FA-HiFiC"] and made[0].lpips is None
    assert sorted(note.partition(" is left out")[0] for note in notes) == ["LPIPS", "WebP"]


def compared(*arguments) -> int:
    return run("compare", *arguments)


def index_of(page: str) -> dict:
    return json.loads(re.search(r'id="index">(.*?)</script>', Path(page).read_text("utf-8"))[1])


def pixels_of(uri: str) -> np.ndarray:
    with Image.open(io.BytesIO(base64.b64decode(uri.partition(",")[2]))) as opened:
        return np.asarray(opened.convert("RGB"))


def test_one_command_makes_a_picture_and_a_page_which_loads_nothing_and_takes_names_for_text(
    models, capsys
):
    pixels = image("in/<b>&$x.png", 8, 8)
    assert compared("in/<b>&$x.png") == 0
    out, err = capsys.readouterr()
    assert out == "<b>&$x_compare.png\n<b>&$x_compare.html\n"
    notes = [line for line in err.splitlines() if line.startswith("note: ")]
    assert notes == ["note: in/<b>&$x.png: LPIPS is left out: a side has less than 31 pixels"]
    with Image.open("<b>&$x_compare.png") as drawn:
        assert drawn.size == (3 * (CELL + GAP) + GAP, 2 * (HEAD + 2 * (CELL + GAP)))
    index = index_of("<b>&$x_compare.html")
    titles = [each["title"] for each in index["versions"]]
    assert titles[:2] == ["original", "FA-HiFiC, model verbatim"]
    assert [title.partition(",")[0] for title in titles[2:]] == ["JPEG", "WebP", "AVIF", "JPEG XL"]
    for each in index["versions"][:2]:  # The fake model loses nothing.
        np.testing.assert_array_equal(pixels_of(each["src"]), pixels)
    assert "nearest possible: +" in index["versions"][2]["told"]
    assert index["places"] == [{"x": 4, "y": 4, "side": 8}]
    text = Path("<b>&$x_compare.html").read_text("utf-8")
    assert "content=\"default-src 'none'; img-src data:;" in text
    assert not re.search(r"""@import|url\(|https?://|fetch\(|(src|href)="(?!data:)""", text)
    assert "<h1>&lt;b&gt;&amp;$x.png</h1>" in text and "<b>" not in text


def test_a_page_that_would_be_too_large_loses_detail_and_says_so(monkeypatch):
    content = ("a", image_of(64, 64), [version("x", image_of(64, 64))], [], [])
    whole = len(comparison.page(*content))
    monkeypatch.setattr(comparison, "SIZE_LIMIT", 12_000)
    page = comparison.page(*content).decode()
    assert len(page) < whole and "embedded with loss to bound this file: WebP of quality" in page


@pytest.mark.long
def test_the_page_shows_the_chosen_versions_and_zooms_to_the_place(tmp_path):
    image = image_of(300, 400)
    versions = [version("one", image // 2), version("two", 255 - image)]
    place = Place(top=10, left=20, side=160)
    path = tmp_path / "page.html"
    path.write_bytes(comparison.page("a", image, versions, [place], []))
    with chromium() as browser:
        page, complaints = browser.new_page(), []
        page.on("console", lambda message: complaints.append(message.text))
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.goto(path.as_uri())
        page.locator("#right-codec").select_option(label="two, quality 7")
        for side, expected in (("left", image), ("right", 255 - image)):
            source = page.locator(f"#{side}-picture").get_attribute("src")
            np.testing.assert_array_equal(pixels_of(source), expected)
        told = page.locator("#right-told").text_content()
        assert told == f"{versions[1].size}, {versions[1].numbers}"
        page.locator("#places button").click()
        assert page.locator("#zoom-level").text_content() == "125 %"
        stage, picture = (page.locator(s).bounding_box() for s in ("#stage", "#left-picture"))
        middle = stage["x"] + stage["width"] / 2 - picture["x"]
        # 320 pixels are visible, so the middle stops at 160 although that of the place is at 100.
        assert middle / picture["width"] == pytest.approx(160 / 400, abs=0.01)
    assert complaints == []


def test_several_images_have_a_picture_each_and_bad_ones_are_named(models, capsys):
    image("in/a.png", 8, 8)
    Image.new("RGBA", (7, 9)).save(Path("in/b.png"))
    Path("in/c.jpg").write_bytes(b"no image")
    assert compared("in", "-o", "new/out", "--zoom", "6,8") == 1
    assert written("new/out") == ["b_compare.html", "b_compare.png"]
    out, err = capsys.readouterr()
    assert out.split() == ["new/out/b_compare.png", "new/out/b_compare.html"]
    errors = [line for line in err.splitlines() if line.startswith("error: ")]
    assert errors[0] == "error: in/a.png: --zoom 6,8 is outside the 8 x 8 pixels of the image"
    assert errors[1].startswith("error: in/c.jpg: cannot be read as an image")
    assert "note: in/b.png: its transparency was laid on white" in err
    original = index_of("new/out/b_compare.html")["versions"][0]["src"]
    np.testing.assert_array_equal(pixels_of(original), np.full((9, 7, 3), 255))


def test_an_output_may_be_named_or_be_a_stream(models, capfdbinary, monkeypatch):
    image("a.png", 8, 8)
    assert compared("a.png", "-o", "deep/small.jpg") == 0
    capfdbinary.readouterr()
    assert compared("a.png", "-o", "-") == 0
    with Image.open(io.BytesIO(capfdbinary.readouterr().out)) as drawn:
        assert drawn.format == "PNG"
    assert written() == ["a.png", "deep/small.html", "deep/small.jpg"]
    content = types.SimpleNamespace(buffer=io.BytesIO(Path("a.png").read_bytes()), isatty=bool)
    monkeypatch.setattr(sys, "stdin", content)
    assert compared("-") == 0
    assert {"stdin_compare.png", "stdin_compare.html"} < set(written())


def test_the_rate_reaches_the_model(models):
    image("a.png", 8, 8)
    for rate in ("--quality", "--bpp"):
        assert compared("a.png", "--model", "gains", rate, "0.5", "--force") == 0
    assert [model.calls[0]["quality"] for model in models] == [0.5, 0.05]


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ("-o b.gif", "b.gif: images are written as .png"),
        ("-o a.png", "a.png: is an input"),
        ("a.bmp", "would both become a_compare.png"),
        ("-o old.png", "old.html: exists already: give --force"),
        ("--zoom 4", "argument --zoom: invalid value '4'"),
    ],
)
def test_a_wrong_command_changes_nothing_and_says_why(models, capsys, arguments, sentence):
    for name in ("a.png", "a.bmp"):
        image(name, 8, 8)
    Path("old.html").write_text("precious")
    assert sentence in refused(capsys, "compare", "a.png", *arguments.split())
