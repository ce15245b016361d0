"""Published figures are those of their sources, and stand beside their own set of images only."""

import csv

import pytest

from fa_hific_jax.evaluation import literature

KODAK = {f"kodim{n:02d}": (512, 768) if n in (4, 9) else (768, 512) for n in range(1, 25)}
COLUMNS = {"ms_ssim": "MS-SSIM", "lpips_alex": "LPIPS"} | {
    name: name.upper() for name in ("psnr", "niqe", "fid", "kid")
}


@pytest.mark.parametrize("name", ["kodak", "clic2020", "div2k"])
def test_figures_of_hific_are_those_of_its_file(name, data_folder):
    lines = csv.DictReader((data_folder / "hific_paper" / "data.csv").read_text().splitlines())
    expected = [
        {"bpp": float(line["bpp"])}
        | {ours: float(line[theirs]) for ours, theirs in COLUMNS.items() if line[theirs].strip()}
        for line in lines
        if line["dataset"] == name
    ]
    (entry,) = literature.for_images(name)
    assert entry["points"] == expected and len(expected) == 3


def test_figures_of_the_poster_are_those_read_off_it(data_folder):
    lines = list(csv.DictReader((data_folder / "poster.csv").read_text().splitlines()))
    entries = literature.for_images("kodak-256")
    assert [entry["label"] for entry in entries] == ["HiFiC (FA-HiFiC poster)", "FA-HiFiC (poster)"]
    found = [point for entry in entries for point in entry["points"]]
    assert found == [
        {"bpp": float(i["bpp"]), "psnr": float(i["psnr_db"]), "lpips": float(i["lpips"])}
        for i in lines
    ]


def test_sets_are_recognized_by_all_their_names_and_sizes_and_no_others_have_figures():
    assert literature.recognize(KODAK) == "kodak"
    assert literature.recognize(dict.fromkeys(KODAK, (256, 256))) == "kodak-256"
    assert literature.recognize({f"{n:04d}": (2040, 1000 + n) for n in range(801, 901)}) == "div2k"
    assert literature.for_images("photographs") == literature.for_images(None) == []
    some, larger = dict(list(KODAK.items())[:23]), KODAK | {"kodim01": (1536, 1024)}
    other = {f"image{n}": size for n, size in enumerate(KODAK.values())}
    for sizes in ({}, some, larger, other, KODAK | {"another": (768, 512)}):
        assert literature.recognize(sizes) is None
