"""The page of an evaluation: nothing loaded, nothing hidden, within its size, names only text."""

import base64
import io
import json
import re
import sys
from html.parser import HTMLParser

import numpy as np
import pytest
from PIL import Image
from report_results import PROTOCOL, results_of, save_pictures, with_means

from fa_hific_jax.errors import UserError
from fa_hific_jax.evaluation.report import page, pictures, tables, write_report
from fa_hific_jax.spectra import log_spectrum

HOSTILE = """<img src=x onerror='alert("1")'>&amp; {{ 7 * 7 }} </script> $x_1 ]]>"""


@pytest.fixture(scope="module", autouse=True)
def no_library():
    """Pages without the plotting library's 5 MB, which only the browser needs."""
    import plotly.offline

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(plotly.offline, "get_plotlyjs", lambda: "/* plotly */")
        yield


class Page(HTMLParser):
    """Tags with attributes, scripts and text of a page in which every element is closed."""

    VOID = {"meta", "img", "input", "link", "br"}

    def __init__(self, text: str):
        super().__init__()
        self.tags, self.open, self.texts, self.scripts = [], [], [], []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        hidden = self.open and self.open[-1] in ("script", "style")
        (self.scripts if hidden else self.texts).append(data)

    @property
    def text(self) -> str:
        return " ".join("".join(self.texts).split())

    def shown(self) -> dict[str, dict]:
        """image -> what is embedded of it."""
        names = [a["data-image"] for tag, a in self.tags if a.get("class") == "pictures"]
        found = [json.loads(script) for script in self.scripts if script.startswith('{"original"')]
        return dict(zip(names, found, strict=True))

    def index(self) -> dict:
        return json.loads(next(s for s in self.scripts if s.startswith('{"codecs"')))


def page_of(folder, results) -> Page:
    save_pictures(folder, results)
    return written(folder, results)


def written(folder, results) -> Page:
    path = write_report(results, folder)
    assert path == folder / "report.html" and not list(folder.glob(".*"))
    return Page(path.read_text("utf-8"))


def pixels(uri: str) -> np.ndarray:
    assert uri.startswith("data:image/webp;base64,")
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(uri.split(",")[1]))))


@pytest.fixture(scope="module")
def usual(tmp_path_factory):
    results, folder = results_of(), tmp_path_factory.mktemp("usual")
    return results, folder, page_of(folder, results)


def test_the_page_loads_nothing_its_ids_are_unique_and_its_controls_have_names(usual):
    _, folder, found = usual
    policy = next(a["content"] for _, a in found.tags if "http-equiv" in a)
    assert policy.startswith("default-src 'none'; img-src data: blob:")
    for tag, attrs in found.tags:
        for name in ("src", "href", "srcset", "action", "data"):
            assert attrs.get(name, "#").startswith(("data:", "#")), (tag, attrs)
    ids = [attrs["id"] for _, attrs in found.tags if "id" in attrs]
    links = [a["href"] for tag, a in found.tags if tag == "a"]
    assert len(ids) == len(set(ids)) and links and all(link[1:] in ids for link in links)
    controls = [a for tag, a in found.tags if tag in ("select", "input") and "aria-label" not in a]
    assert len(controls) == sum(tag == "label" for tag, _ in found.tags)
    assert not re.search(r"@import|url\(|https?://|fetch\(", (folder / "report.html").read_text())


def test_small_sets_are_embedded_without_loss_and_the_page_says_where_its_bytes_are(usual):
    results, folder, found = usual
    assert re.search(r"pictures, spectra and maps \d+\.\d MB · plotting library", found.text)
    assert "Pictures are embedded without loss" in found.text
    for name, shown in found.shown().items():
        files = {f"originals/{name}.png": shown["original"]}
        files |= {results["rows"][int(key)]["file"]: each for key, each in shown["rows"].items()}
        for file, picture in files.items():
            expected = np.asarray(Image.open(folder / file))
            np.testing.assert_array_equal(pixels(picture["src"]), expected)


def test_codecs_are_shown_at_the_rates_nearest_to_the_models():
    results = results_of()

    def chosen(points):
        rows = map(results["rows"].__getitem__, pictures.shown_rows(results, "first", points))
        return [(row["codec"], row["point"]) for row in rows]

    assert chosen(points=4) == [
        ("ours", "q=0"),
        ("ours", "q=1"),
        ("untrained", ""),
        ("jpeg", "quality 22"),  # 0.22 bpp beside 0.2
        ("jpeg", "quality 58"),  # 0.58 beside 0.6
        ("webp", "quality 15"),  # 0.1875 beside 0.2
        ("webp", "quality 50"),  # 0.625 beside 0.6
    ]
    assert set(chosen(points=4)) == tables.near_keys(results)
    assert [codec for codec, _ in chosen(points=1)] == ["ours", "untrained", "jpeg", "webp"]


@pytest.mark.parametrize("detail", [pictures.Detail(2, 90), pictures.DETAILS[-2]])
def test_pages_stay_within_their_size_and_say_at_what_cost(tmp_path, monkeypatch, detail):
    results = results_of(size=(96, 64))
    monkeypatch.setattr(pictures, "DETAILS", (pictures.Detail(4, None), detail))
    page_of(tmp_path, results)
    limit = (tmp_path / "report.html").stat().st_size - 1000  # beside the reserve for notes
    monkeypatch.setattr(page, "SIZE_LIMIT", limit + page._RESERVE)
    found = written(tmp_path, results)
    assert (tmp_path / "report.html").stat().st_size <= limit
    assert f"with loss to bound this file: WebP of quality {detail.quality}" in found.text
    assert f"at up to {detail.points} rate" in found.text
    assert (f"at {100 * detail.scale:.0f} % of their size" in found.text) == (detail.scale < 1)
    height, width, _ = pixels(found.shown()["first"]["original"]["src"]).shape
    assert (width, height) == (round(96 * detail.scale), round(64 * detail.scale))


def test_sets_too_large_for_any_plan_show_the_images_that_fit(tmp_path, monkeypatch):
    results = results_of(images=("a", "b", "c"))
    save_pictures(tmp_path, results)
    with monkeypatch.context() as patch:
        patch.setattr(pictures, "DETAILS", pictures.DETAILS[-1:])
        whole = pictures.fit(results, tmp_path, 10**9).images
    limit = len(whole["a"]) + len(whole["b"]) + 99
    shown = pictures.fit(results, tmp_path, limit)
    assert list(shown.images) == ["a", "b"] and shown.detail == pictures.DETAILS[-1]


def test_hostile_names_and_those_that_are_not_unicode_are_only_text(tmp_path):
    results = results_of(images=("a",), codecs=("ours", "jpeg"))
    save_pictures(tmp_path, results)
    for row in results["rows"]:
        row["image"] = HOSTILE
    results["rows"][0] |= {"point": HOSTILE, "not_measured": {"psnr": HOSTILE}}
    results["rows"][0]["values"]["psnr"] = None
    results["codecs"]["ours"] |= {"label": HOSTILE, "version": "bad \udcff name"}
    results["metrics"]["psnr"]["label"] = HOSTILE
    results["meta"] = {HOSTILE: HOSTILE}
    published = dict.fromkeys(("label", "source", "set", "protocol"), HOSTILE)
    results["published"] = [published | {"points": [{"bpp": 0.3, "psnr": 20.0}]}]
    found = written(tmp_path, with_means(results))
    assert not any("onerror" in attrs or attrs.get("src") == "x" for _, attrs in found.tags)
    assert found.text.count("alert(") >= 7 and "49" not in found.text and "bad ? name" in found.text
    assert list(found.shown()) == [HOSTILE] and found.index()["images"][0]["name"] == HOSTILE


def test_missing_and_wrong_pictures_and_maps_are_named_and_left_out(tmp_path):
    results = results_of(images=("first", "second", "third"))
    save_pictures(tmp_path, results)
    ours = {i: row for i, row in enumerate(results["rows"]) if row["codec"] == "ours"}
    gone, short, torn, mapless, keyless, _ = ours.values()
    (tmp_path / gone["file"]).unlink()
    Image.new("RGB", (3, 5)).save(tmp_path / short["file"])
    (tmp_path / torn["file"]).write_bytes(b"not a picture")
    (tmp_path / mapless["bits"]).unlink()
    np.savez(tmp_path / keyless["bits"], y=np.ones((4, 4), np.float32))
    (tmp_path / "originals" / "second.png").unlink()
    found = written(tmp_path, results)
    for name in (gone["file"], mapless["bits"], "originals/second.png"):
        assert f"{name}: the file is missing" in found.text
    assert f"{short['file']}: 3 × 5 pixels instead of 48 × 32" in found.text
    assert f"{torn['file']}: cannot identify image file" in found.text
    assert f"{keyless['bits']}: " in found.text
    shown, places = found.shown(), list(map(str, ours))
    assert shown["second"]["original"] is None
    assert (
        not set(places) & set(shown["first"]["rows"]) and places[2] not in shown["second"]["rows"]
    )
    assert shown["second"]["rows"][places[3]]["bits"] is None
    assert shown["third"]["rows"][places[4]]["bits"] is None
    assert shown["third"]["rows"][places[5]]["bits"]


def test_classical_codecs_alone_and_a_single_pixel_have_a_page(tmp_path):
    found = page_of(tmp_path, results_of(images=("dot",), codecs=("jpeg", "webp"), size=(1, 1)))
    assert "Codecs compared" in found.text and found.index()["anchor"] == "jpeg"
    shown = found.shown()["dot"]
    assert shown["rows"] and pixels(shown["original"]["src"]).shape == (1, 1, 3)
    assert shown["original"]["spectrum"]["shape"] == [1, 1]


def test_published_figures_are_named_apart_and_in_no_curve(usual, tmp_path):
    entry = {"label": "HiFiC", "source": "data.csv", "set": "kodak", "protocol": "24 images"}
    published = [entry | {"points": [{"bpp": 0.3, "psnr": 99.0}]}]
    found = page_of(tmp_path, results_of() | {"published": published})
    assert "HiFiC · kodak · 24 images · data.csv" in found.text
    assert "HiFiC: published, not measured here" in found.text
    curves = found.index()["curves"]
    assert all(point["value"] != 99.0 for points in curves.values() for point in points)
    assert "published" not in usual[2].text


def cells(table, codec: str, point: str) -> dict[str, tuple[str, int | None]]:
    found = next(cells for *of, cells in table["lines"] if of == [codec, point])
    return dict(zip(map(" ".join, table["columns"]), found, strict=True))


def every(results):
    return tables.table(results, {(mean["codec"], mean["point"]) for mean in results["means"]})


@pytest.mark.parametrize("images, said", [(("a", "b"), "1 of 2 images"), (("a",), "not measured")])
def test_a_mean_of_some_or_no_images_is_none_and_gives_the_reason(tmp_path, images, said):
    results = results_of(images=images)
    row = results["rows"][0]
    row["values"]["psnr"], row["not_measured"]["psnr"] = None, "identical images: infinite"
    results = with_means(results)
    table = every(results)
    assert cells(table, "ours", "q=0")["PSNR dB, higher is better"] == (said, 1)
    assert table["notes"] == ["identical images: infinite"]
    assert cells(table, "ours", "q=1")["PSNR dB, higher is better"][1] is None
    text = page_of(tmp_path, results).text
    assert f"{said}1" in text and "identical images: infinite" in text


def test_images_that_failed_leave_no_mean_rate():
    results = results_of()
    results["meta"]["failed"] = [{**results["rows"].pop(0), "reason": "out of memory"}]
    results = with_means(results)
    table = every(results)
    assert cells(table, "ours", "q=0")["bpp real files"] == ("1 of 2 images", 1)
    assert table["notes"] == ["first: out of memory"]
    assert all(p["point"] != "q=0" for p in tables.curves(results)["psnr"])


def test_distances_of_different_protocols_stand_in_different_columns():
    results = results_of()
    entry = {"codec": "ours", "metric": "FID", "not_measured": None}
    results["sets"] = [
        entry | {"point": "q=0", "value": 12.3456, "protocol": PROTOCOL},
        entry | {"point": "q=1", "value": 6.5, "protocol": PROTOCOL | {"grids": 1}},
    ]
    table = every(results)
    two, one = (
        f"FID patches of 256 × 256 · {n} grids · 1,234 patches · AlexNet · weights abc"
        for n in (2, 1)
    )
    assert cells(table, "ours", "q=0")[two] == ("12.3456", None)
    assert cells(table, "ours", "q=0")[one][0] == "not measured"
    assert cells(table, "ours", "q=1")[one][0] == "6.5000"
    assert [p["value"] for p in tables.curves(results)["FID"]] == [12.3456, 6.5]


def test_packed_spectra_are_the_upper_half_of_those_of_the_picture():
    image = np.random.default_rng(0).integers(0, 256, (33, 45, 3)).astype(np.uint8)
    packed, whole = pictures.spectrum(image), log_spectrum(image)
    assert packed["shape"] == [17, 45]
    codes = np.frombuffer(base64.b64decode(packed["data"]), np.uint8).reshape(17, 45)
    values = packed["low"] + packed["step"] * codes  # steps of 0.5 dB
    np.testing.assert_allclose(values, whole[:17], atol=0.2501)
    np.testing.assert_allclose(whole, whole[::-1, ::-1], atol=1e-9)  # the rest is its half turn
    assert pictures.spectrum(image.repeat(6, axis=0).repeat(7, axis=1))["shape"] == [48, 95]


def test_maps_of_bits_are_densities_that_add_up(tmp_path):
    y = np.zeros((4, 8), np.float32)
    y[0, 0] = 512.0
    np.savez(tmp_path / "b.npz", y=y, z=np.full((1, 2), 64.0, np.float32))
    maps = pictures.heat_maps(tmp_path / "b.npz", 100, 60)
    assert maps["y"]["size"] == [16.0, 16.0] and maps["z"]["size"] == [64.0, 64.0]
    assert maps["y"]["step"] * 255 == pytest.approx(512 / 256, rel=1e-6)
    assert maps["z"]["step"] * 255 == pytest.approx(64 / 4096, rel=1e-6)
    assert maps["y"]["bpp"] == round(512 / 6000, 5) and maps["z"]["bpp"] == round(128 / 6000, 5)


def test_reports_that_cannot_be_written_say_what_to_do(tmp_path, monkeypatch):
    with pytest.raises(UserError, match="hold no rows: evaluate at least one image"):
        write_report(results_of() | {"rows": []}, tmp_path)
    monkeypatch.setitem(sys.modules, "plotly.offline", None)
    with pytest.raises(UserError, match=r"pip install fa-hific-jax\[eval\]"):
        write_report(results_of(), tmp_path)
    assert not (tmp_path / "report.html").exists()
