"""results/*.json are whole, and what README shows of them is what they say."""

import pytest
from report_results import results as results_with
from report_results import row

from benchmarks import readme
from fa_hific_jax.evaluation import results as res

NAMES = sorted(path.stem for path in (readme.ROOT / "results").glob("*.json"))


SHOWN = readme.named_in(readme.README.read_text("utf-8"))


def test_readme_says_what_the_results_say():
    text = readme.README.read_text("utf-8")
    assert SHOWN and set(SHOWN) <= set(NAMES)
    assert readme.with_results(text) == text, "run python -m benchmarks.readme"
    for name in SHOWN:
        figure = readme.figure_of(name)
        assert figure.read_text("utf-8").endswith(readme.origin(name)), "as above"
        assert f"(docs/{figure.name})" in text


@pytest.mark.parametrize("name", NAMES)
def test_results_tell_how_to_make_them_again_and_have_the_means_of_their_rows(name):
    results = res.read_results(readme.path_of(name))
    meta = results["meta"]
    assert "eval.py" in meta["command"] and len(meta["commit"]) == 40
    assert {"fa-hific-jax", "jax", "python"} <= meta["versions"].keys()
    assert all(
        about["model_id"] and about["step"] is not None
        for about in results["codecs"].values()
        if about["kind"] == "model"
    )
    assert readme.compact(results) == results, "no places on a disk, seven digits"
    again = res.means(results["rows"], meta["count"])
    for stored, computed in zip(results["means"], again, strict=True):
        assert stored["measured"] == computed["measured"]
        for metric in stored["measured"]:
            one, other = (res.value_of(mean, metric) for mean in (stored, computed))
            # Both in seven digits; a mean of signed errors may nearly cancel.
            assert one == other or one == pytest.approx(other, rel=1e-6, abs=1e-5)


def test_kept_results_have_the_same_table_and_no_places_on_a_disk(tmp_path):
    rows = [row("a", psnr=100 / 3), row("b", bpp=0.2)]
    content = results_with(rows, skipped=[{"image": "c", "reason": "/home/me/c.png: damaged"}])
    command = "python eval.py --workdir runs/demo --images={}kodak --lpips {}a.npz,{}b.npz"
    content["meta"]["command"] = command.format("/data/", "/x/", "/y/")
    content["codecs"]["demo"]["settings"] = {"width": 8}
    short = readme.compact(content)
    assert res.format_table(short) == res.format_table(content)
    assert "c: skipped: c.png: damaged" in res.notes(short)
    assert short["meta"]["command"] == command.format("", "", "")
    assert short["rows"][0]["values"]["psnr"] == 33.33333
    assert not {"file", "bits", "setting"} & short["rows"][0].keys()
    assert "settings" not in short["codecs"]["demo"]
    readme.write_lines(tmp_path / "lines.json", short)
    assert res.read_results(tmp_path / "lines.json") == short
    assert (tmp_path / "lines.json").read_text().count("\n") < 30
