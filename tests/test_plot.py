"""`fa-hific plot`: the right curves from metrics.jsonl, and one sentence where there are none."""

import json
import sys

import pytest
from etils import epath
from PIL import Image

from fa_hific_jax.cli.main import main
from fa_hific_jax.cli.plot import draw
from fa_hific_jax.errors import UserError
from fa_hific_jax.training.logs import read_scalars


def write(folder, *lines):
    text = "".join(line if isinstance(line, str) else f"{json.dumps(line)}\n" for line in lines)
    (folder / "metrics.jsonl").write_text(text)


def plotted(*arguments) -> int:
    """Exit code of `fa-hific plot`."""
    try:
        main(["plot", *map(str, arguments)])
    except SystemExit as ended:
        return ended.code
    return 0


def test_curves_are_those_of_the_metrics():
    reports = {10: {"loss": 3.0, "psnr": 20.0}, 20: {"loss": 2.0, "psnr": 21.0, "eval/psnr": 19.0}}
    axes = {panel.get_title(): panel for panel in draw(reports, "a run").axes}
    assert set(axes) == {"loss", "PSNR, dB"}
    curves = {line.get_label(): line.get_xydata().tolist() for line in axes["PSNR, dB"].lines}
    assert curves == {"psnr": [[10, 20.0], [20, 21.0]], "eval/psnr": [[20, 19.0]]}
    assert axes["loss"].get_yscale() == "log"


def test_picture_lies_where_asked_and_nothing_beside_it(tmp_path, capsys):
    write(tmp_path, {"step": 1, "loss": 2.0}, {"step": 2, "loss": 1.0})
    assert plotted(tmp_path) == plotted(tmp_path, "-o", tmp_path / "other.png") == 0
    assert capsys.readouterr().out.split() == [f"{tmp_path}/curves.png", f"{tmp_path}/other.png"]
    for name in ("curves.png", "other.png"):
        with Image.open(tmp_path / name) as picture:
            assert picture.format == "PNG" and picture.width > 1000
    found = sorted(path.name for path in tmp_path.iterdir())
    assert found == ["curves.png", "metrics.jsonl", "other.png"]


def test_steps_done_twice_count_once_and_half_lines_not_at_all(tmp_path):
    again = {"step": 20, "loss": 1.5}
    write(tmp_path, {"step": 30, "loss": 1.0}, {"step": 20, "loss": 9.0}, again, '{"step": 40, "lo')
    assert read_scalars(epath.Path(tmp_path)) == {20: {"loss": 1.5}, 30: {"loss": 1.0}}


@pytest.mark.parametrize(
    ("line", "options", "sentence"),
    [
        (None, [], "holds no metrics.jsonl: name the --workdir of a training run"),
        ("{", [], "holds no line yet"),
        ({"step": 1, "other": 2.0}, [], "none of the metrics that are drawn"),
        ({"step": 1, "loss": 2.0}, ["-o", "a.pdf"], "a.pdf: only PNG can be written: give"),
        ({"step": 1, "loss": 2.0}, ["-o", "no/a.png"], "a.png cannot be written (No such file"),
    ],
)
def test_wrong_folders_and_targets_are_named(tmp_path, capsys, line, options, sentence):
    if line:
        write(tmp_path, line)
    assert plotted(tmp_path, *options) == 2
    assert sentence in capsys.readouterr().err


def test_missing_matplotlib_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(UserError, match=r"pip install 'fa-hific-jax\[eval\]'"):
        draw({1: {"loss": 1.0}}, "a run")
