"""Results as JSON, table and page: honest means, no non-finite JSON, one page without a network."""

import base64
import io
import json
import math
import re
import sys
from html.parser import HTMLParser

import numpy as np
import pytest
from PIL import Image

from fa_hific_jax.errors import UserError
from fa_hific_jax.evaluation import report
from fa_hific_jax.evaluation.report import write_report
from fa_hific_jax.evaluation.results import (
    Row,
    format_table,
    read_results,
    size_notes,
    summarize,
    write_results,
)

HOSTILE = """<img src=x onerror='alert("1")'>&amp; {{ 7 * 7 }} $x_1 ]]>"""


def row(image: str = "a", codec: str = "fa-hific", size: tuple[int, int] = (40, 24), **changes):
    width, height = size
    return Row(
        **{
            "image": image,
            "codec": codec,
            "width": width,
            "height": height,
            "bytes": 60,
            "bpp": 480 / (width * height),
            "bpp_estimated": 0.49 if codec in ("fa-hific", "untrained") else None,
            "psnr": 30.0,
            "ms_ssim": 0.9,
            "lpips": 0.1,
            "lfd": 12.5,
            "setting": "quality 4, 4:2:0" if codec == "jpeg" else "",
            "seconds_encode": 0.25,
            "seconds_decode": 0.5,
            "file": f"{codec}/{image.replace('/', '_')}.png",
        }
        | changes
    )


def save_pictures(folder, rows):
    """Invented pictures: noise, different for every file."""
    for i, r in enumerate(rows):
        for j, path in enumerate((folder / "originals" / f"{r.image}.png", folder / r.file)):
            path.parent.mkdir(parents=True, exist_ok=True)
            noise = np.random.default_rng(2 * i + j).integers(0, 256, (r.height, r.width, 3))
            Image.fromarray(noise.astype(np.uint8)).save(path)


def page_of(folder, rows, meta=None) -> str:
    save_pictures(folder, rows)
    write_results(folder / "results.json", meta or {"model": "m"}, rows)
    path = write_report(read_results(folder / "results.json"), folder)
    assert path == folder / "report.html"
    assert [p.name for p in folder.iterdir() if p.is_file()].count("report.html") == 1
    assert not [p for p in folder.iterdir() if p.name.startswith(".")]
    return path.read_text("utf-8")


class Page(HTMLParser):
    """Tags with attributes, the text, and whether every element is closed where it should be."""

    VOID = {"meta", "img", "input", "link", "br"}

    def __init__(self, text: str):
        super().__init__()
        self.tags, self.open, self.texts = [], [], []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.texts.append(data)

    @property
    def text(self) -> str:
        return "".join(self.texts)

    def pictures(self) -> dict[str, np.ndarray]:
        """alt text -> pixels of every picture outside the plots."""
        found = {}
        for tag, attrs in self.tags:
            if tag == "img" and "src" in attrs:
                head, data = attrs["src"].split(",", 1)
                assert head == "data:image/webp;base64"
                found[attrs["alt"]] = np.asarray(Image.open(io.BytesIO(base64.b64decode(data))))
        return found


CODECS = ("webp", "untrained", "jpeg", "fa-hific")


@pytest.fixture(scope="module")
def usual(tmp_path_factory):
    folder = tmp_path_factory.mktemp("usual")
    rows = [row(image, codec) for image in ("first", "second") for codec in CODECS]
    meta = {"model": "fa_hific", "step": 120000, "target_bpp": 0.5, "tiles": {"side": 256}}
    return folder, page_of(folder, rows, meta)


def test_the_page_loads_nothing(usual):
    page = Page(usual[1])
    links = [
        (tag, name, value)
        for tag, attrs in page.tags
        for name, value in attrs.items()
        if name in ("src", "href", "xlink:href", "srcset", "action", "data")
    ]
    assert links and all(value.startswith(("data:image/", "#")) for _, _, value in links)
    assert not {"link", "iframe", "object", "base"} & {tag for tag, _ in page.tags}
    assert not re.search(r"@import|url\((?!#)", usual[1])
    targets = {attrs.get("id") for _, attrs in page.tags}
    assert all(value[1:] in targets for _, _, value in links if value.startswith("#"))


def test_every_picture_is_in_the_page_without_loss(usual):
    folder, text = usual
    pictures = Page(text).pictures()
    assert len(pictures) == 2 * (1 + len(CODECS))
    for name in ("first", "second"):
        files = {f"original of {name}": f"originals/{name}.png"}
        labels = zip(CODECS, ("WebP", "untrained", "JPEG", "FA-HiFiC"), strict=True)
        files |= {f"{name} through {label}": f"{codec}/{name}.png" for codec, label in labels}
        for alt, file in files.items():
            np.testing.assert_array_equal(pictures[alt], np.asarray(Image.open(folder / file)))


def test_the_slider_refers_to_pictures_that_exist(usual):
    page = Page(usual[1])
    ids = {attrs["id"] for _, attrs in page.tags if "id" in attrs}
    wanted = [a["data-from"] for _, a in page.tags if "data-from" in a]
    wanted += [a["value"] for tag, a in page.tags if tag == "option"]
    assert len(wanted) == 2 * (2 + len(CODECS)) and set(wanted) <= ids
    ranges = [a for tag, a in page.tags if tag == "input"]
    assert len(ranges) == 2 and all(a["type"] == "range" and a["aria-label"] for a in ranges)


def test_ids_are_unique_in_the_page(usual):
    ids = [attrs["id"] for _, attrs in Page(usual[1]).tags if "id" in attrs]
    assert len(ids) == len(set(ids))


def test_the_headline_and_the_settings_name_the_model(usual):
    text = " ".join(Page(usual[1]).text.split())
    assert "FA-HiFiC: fa_hific step 120,000 · target 0.5 bpp · 2 images" in text
    assert 'tiles{"side": 256}' in text


def test_the_page_is_the_same_in_every_run(usual):
    folder, text = usual
    again = write_report(read_results(folder / "results.json"), folder)
    assert again.read_text("utf-8") == text


def test_hostile_names_are_only_text(tmp_path):
    name, rows = HOSTILE, [row(HOSTILE, c, setting=HOSTILE) for c in ("fa-hific", "jpeg")]
    text = page_of(tmp_path, rows, {"model": HOSTILE, HOSTILE: HOSTILE})
    page = Page(text)
    assert not any("onerror" in attrs or attrs.get("src") == "x" for _, attrs in page.tags)
    assert f"FA-HiFiC: {name}" in page.text
    assert f"original of {name}" in page.pictures()
    assert "49" not in page.text.split("Settings")[-1]


def test_a_page_of_one_pixel_without_optional_metrics(tmp_path):
    rows = [
        row("dot", codec, (1, 1), ms_ssim=None, lpips=None, bpp_estimated=None, psnr=math.inf)
        for codec in ("fa-hific", "jpeg")
    ]
    page = Page(page_of(tmp_path, rows))
    assert page.pictures()["original of dot"].shape == (1, 1, 3)
    labels = [a["aria-label"] for tag, a in page.tags if tag == "svg"]
    assert "LFD against bits per pixel" in labels
    assert not any("MS-SSIM" in label or "LPIPS" in label for label in labels)
    assert page.texts.count("inf") == 2 * 2 + 1  # both tables and the headline


def test_large_sets_are_scaled_to_the_budget_and_say_so(tmp_path, monkeypatch):
    monkeypatch.setattr(report, "PIXEL_BUDGET", 2 * 40 * 24 // 4)
    page = Page(page_of(tmp_path, [row()]))
    assert page.pictures()["original of a"].shape == (12, 20, 3)
    assert "shown at 50 % of their size" in page.text


def test_reports_that_cannot_be_written_say_what_to_do(tmp_path, monkeypatch):
    results = {"meta": {}, "rows": [], "mean": {}}
    with pytest.raises(UserError, match="hold no rows: evaluate at least one image"):
        write_report(results, tmp_path)
    with pytest.raises(UserError, match="no 'fa-hific' row for a: evaluate it again"):
        write_report(results | {"rows": [row(codec="jpeg")._asdict()]}, tmp_path)
    with pytest.raises(UserError, match="hold a twice: give every image its own name"):
        write_report(results | {"rows": [row()._asdict()] * 2}, tmp_path)
    with pytest.raises(UserError, match="cannot read .*a.png: run the evaluation again"):
        rows = [row()]
        write_report({"meta": {}, "mean": summarize(rows), "rows": [rows[0]._asdict()]}, tmp_path)
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(UserError, match=r"pip install fa-hific-jax\[eval\]"):
        write_report(results, tmp_path)
    assert not (tmp_path / "report.html").exists()


def test_results_survive_the_round_trip(tmp_path):
    rows = [row("ä/\udcff", psnr=np.float32(31.5)), row("b", "jpeg", lpips=None)]
    meta = {"step": np.int64(7), "rates": (0.14, 0.3), "bad": float("nan")}
    write_results(tmp_path / "deep" / "results.json", meta, rows)
    results = read_results(tmp_path / "deep" / "results.json")
    assert results["meta"] == {"step": 7, "rates": [0.14, 0.3], "bad": None}
    assert [Row(**r) for r in results["rows"]] == rows
    assert results["mean"] == summarize(rows)
    assert [p.name for p in (tmp_path / "deep").iterdir()] == ["results.json"]


def test_infinite_psnr_is_null_in_json_and_inf_in_the_table(tmp_path):
    rows = [row("a", psnr=math.inf), row("b", psnr=30.0, lfd=np.float32("nan"))]
    write_results(tmp_path / "r.json", {}, rows)

    def forbid(constant):
        raise AssertionError(constant)

    results = json.loads((tmp_path / "r.json").read_bytes(), parse_constant=forbid)
    assert results["rows"][0]["psnr"] is None and results["mean"]["fa-hific"]["psnr"] is None
    assert summarize(rows)["fa-hific"]["psnr"] == math.inf
    for summary in (summarize(rows), results["mean"]):
        assert " inf " in format_table(summary, None)


def test_a_failed_write_leaves_the_old_file(tmp_path):
    write_results(tmp_path / "r.json", {}, [row()])
    before = (tmp_path / "r.json").read_bytes()
    with pytest.raises(TypeError, match="not JSON serializable"):
        write_results(tmp_path / "r.json", {"what": object()}, [row()])
    assert (tmp_path / "r.json").read_bytes() == before


@pytest.mark.parametrize(
    "content, message",
    [
        (None, "there are no results at .*r.json: run the evaluation first"),
        (b"\xff{", "r.json is not JSON"),
        (b"[1]", "r.json lacks one of meta, rows and mean"),
        (b'{"meta": {}, "rows": []}', "r.json lacks one of meta, rows and mean"),
    ],
)
def test_files_that_hold_no_results_are_named(tmp_path, content, message):
    if content is not None:
        (tmp_path / "r.json").write_bytes(content)
    with pytest.raises(UserError, match=message):
        read_results(tmp_path / "r.json")


def test_means_weigh_images_equally_and_never_stand_for_a_part():
    rows = [row("a", bpp=0.1, ms_ssim=0.8), row("b", bpp=0.4)]
    rows.append(row("c", bpp=0.4, ms_ssim=None, lpips=None))
    means = summarize(rows)["fa-hific"]
    assert means["images"] == 3
    np.testing.assert_allclose(means["bpp"], 0.3, rtol=1e-12)
    assert means["ms_ssim"] is None and means["measured"]["ms_ssim"] == 2
    assert "2 of 3" in format_table({"fa-hific": means}, 0.3)


def test_the_table_is_aligned_and_ordered():
    rows = [row("a", codec, bpp=1.0) for codec in CODECS]
    lines = format_table(summarize(rows), 0.14).splitlines()
    assert lines[0] == "mean over images, target 0.14 bpp"
    assert [line.split()[0] for line in lines[2:]] == ["fa-hific", "untrained", "jpeg", "webp"]
    assert len({len(line) for line in lines[1:]}) == 1
    assert lines[2].split() == "fa-hific 1 1.0000 0.4900 30.00 0.9000 0.1000 12.50".split()
    assert lines[4].split()[3] == "-"


def test_sizes_far_from_ours_are_told():
    rows = [row(bpp=0.2), row(codec="jpeg", bpp=0.3), row(codec="webp", bpp=0.205)]
    (note,) = size_notes(summarize(rows))
    assert note.startswith("jpeg: bpp 50% larger than fa-hific; no quality setting comes closer")
    assert note in format_table(summarize(rows), 0.2)
