"""README's picture: every cell stands where it should and tells what was measured."""

import sys

import numpy as np
from coding_model import coding_model, image_of
from PIL import Image

from benchmarks import picture
from fa_hific_jax.codec.model_folder import save_model

SIDE = 40


def test_a_row_holds_the_middle_of_the_original_and_of_what_was_decoded():
    model, image = coding_model(), image_of(70, 90)
    drawn = picture.row(model, image, None, SIDE)
    height, width = SIDE + picture.HEAD + picture.GAP, SIDE + picture.GAP
    assert drawn.shape == (height, 4 * width, 3)
    places = range(0, 4 * width, width)
    cells = [drawn[picture.HEAD : picture.HEAD + SIDE, at : at + SIDE] for at in places]
    np.testing.assert_array_equal(cells[0], image[15:55, 25:65])
    np.testing.assert_array_equal(cells[1], model.decompress(model.compress(image))[15:55, 25:65])
    assert all(
        (drawn[: picture.HEAD, at : at + width] < 128).any() for at in range(0, 4 * width, width)
    )


def test_the_command_writes_a_row_for_each_image(tmp_path, monkeypatch):
    save_model(coding_model(), tmp_path / "model")
    (tmp_path / "in").mkdir()
    for name in "abc":
        Image.fromarray(image_of(64, 64)).save(tmp_path / "in" / f"{name}.png")
    command = ["picture", "--model", tmp_path / "model", "--images", tmp_path / "in"]
    command += ["--limit", 2, "--side", SIDE, "-o", tmp_path / "out.jpg"]
    monkeypatch.setattr(sys, "argv", [str(part) for part in command])
    picture.main()
    with Image.open(tmp_path / "out.jpg") as drawn:
        assert drawn.size == (4 * (SIDE + picture.GAP), 2 * (SIDE + picture.HEAD + picture.GAP))
