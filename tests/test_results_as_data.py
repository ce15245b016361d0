"""results/*.json are whole, and what README shows of them is what they say."""

import pytest

from benchmarks import readme
from fa_hific_jax.errors import UserError
from fa_hific_jax.evaluation import results as res

NAMES = sorted(path.stem for path in (readme.ROOT / "results").glob("*.json"))


def test_there_are_results_and_the_readme_shows_some():
    shown = readme.named_in(readme.README.read_text("utf-8"))
    assert shown and set(shown) <= set(NAMES)


def test_readme_says_what_the_results_say():
    text = readme.README.read_text("utf-8")
    assert readme.with_results(text) == text, "run python -m benchmarks.readme"


def test_readme_that_says_something_else_is_noticed():
    text = readme.README.read_text("utf-8")
    first = readme.SECTION.search(text)
    other = text.replace(first[0], first[0].replace("mean over images", "mean over  images"))
    assert other != text
    assert readme.with_results(other) == text


@pytest.mark.parametrize("name", readme.named_in(readme.README.read_text("utf-8")))
def test_figure_was_drawn_from_the_results_and_is_shown(name):
    figure = readme.figure_of(name)
    assert figure.read_text("utf-8").endswith(readme.origin(name)), (
        "run python -m benchmarks.readme"
    )
    assert f"(docs/{figure.name})" in readme.README.read_text("utf-8")


@pytest.mark.parametrize("name", NAMES)
def test_results_tell_how_to_make_them_again(name):
    results = res.read_results(readme.path_of(name))
    meta = results["meta"]
    assert "eval.py" in meta["command"] and len(meta["commit"]) == 40
    assert {"fa-hific-jax", "jax", "python"} <= meta["versions"].keys()
    assert all(
        about["model_id"] and about["step"] is not None
        for about in results["codecs"].values()
        if about["kind"] == "model"
    )
    assert res.compact(results) == results, "no places on a disk, seven digits"


def test_results_that_no_commit_made_are_not_kept(tmp_path, monkeypatch):
    results = res.read_results(readme.path_of(NAMES[0]))
    monkeypatch.setattr(readme, "ROOT", tmp_path)
    results["meta"]["commit"] = None
    res.write_lines(tmp_path / "results.json", results)
    with pytest.raises(UserError, match="names no commit"):
        readme.keep(NAMES[0], tmp_path)


@pytest.mark.parametrize("name", NAMES)
def test_means_are_those_of_the_rows(name):
    results = res.read_results(readme.path_of(name))
    again = res.means(results["rows"], results["meta"]["count"])
    for stored, computed in zip(results["means"], again, strict=True):
        assert stored["measured"] == computed["measured"]
        pairs = [(res.value_of(mean, n) for mean in (stored, computed)) for n in stored["measured"]]
        for one, other in pairs:
            # Both in seven digits; a mean of signed errors may nearly cancel.
            assert one == other or one == pytest.approx(other, rel=1e-6, abs=1e-5)
