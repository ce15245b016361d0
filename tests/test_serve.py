"""Behind the page of `fa-hific serve`: what becomes of dropped files, and sentences on bad ones."""

import sys
import types

import numpy as np
import pytest
from coding_model import coding_model, image_of, many_rates_model
from image_files import saved

from fa_hific_jax.cli import main as main_lib
from fa_hific_jax.cli import serve
from fa_hific_jax.demo import page
from fa_hific_jax.errors import UserError
from fa_hific_jax.evaluation import baselines, bits
from fa_hific_jax.metrics import psnr


@pytest.fixture
def file(tmp_path):
    """Writes an image, or bytes, under a name with a space; returns the path."""

    def write(content: np.ndarray | bytes):
        path = tmp_path / "a file.txt"
        path.write_bytes(content if isinstance(content, bytes) else saved(content))
        return path

    return write


def test_a_dropped_image_is_coded_as_the_model_codes_it_beside_jpeg(file):
    model, image = many_rates_model(), image_of(130, 70)
    coded = page.code(model, file(image), 0.25, 1.0)
    np.testing.assert_array_equal(coded.original, image)
    assert coded.data == model.compress(image, quality=0.25)
    assert coded.jpeg.data == baselines.encode_nearest(image, "jpeg", len(coded.data)).data
    decoded = model.decompress(coded.data)
    size, distance = len(coded.data), psnr(image, decoded)
    table = page.table(coded, decoded)
    ours, jpeg = table.splitlines()[2:4]
    assert ours == f"| this model | {size:,} | {8 * size / (130 * 70):.3f} | {distance:.2f} |  |"
    assert f"| {len(coded.jpeg.data):,} |" in jpeg and "quality" in jpeg
    assert table.endswith("\n\n70 x 130 pixels.")


def code(path):
    page.code(coding_model(), path, None, 1.0)


def decode(path):
    coding_model().decompress_picture(path.read_bytes(), max_pixels=9000)


@pytest.mark.parametrize(
    ("call", "content", "words"),
    [
        (code, lambda: b"hello", "cannot be read as an image"),
        (code, lambda: np.zeros((1000, 1100), np.uint8), "over the limit of 1 "),
        # A line of pixels is coded as 64 of them.
        (code, lambda: np.zeros((1, 20000), np.uint8), "over the limit of 1 "),
        (decode, lambda: b"hello", "not a fa-hific-jax file"),
        (decode, lambda: coding_model().compress(image_of(130, 70)), "over the limit of 9000 pix"),
    ],
)
def test_what_cannot_be_coded_or_decoded_gets_one_sentence_with_its_name(
    file, call, content, words
):
    path = file(content())
    with pytest.raises(UserError) as caught:
        call(path)
    said = page.sentence(path, caught.value)
    assert said.startswith("a file.txt: ") and words in said
    assert str(path.parent) not in said and "\n" not in said


def test_colors_grow_brighter_with_the_value_and_stop_at_both_ends():
    values = np.linspace(-1.0, 2.0, 31)[None]
    colors = page.colored(values, 0.0, 1.0)[0].astype(int)
    luma = colors @ [0.299, 0.587, 0.114]
    assert np.all(np.diff(luma[10:21]) > 0)
    assert np.all(colors[:11] == colors[0]) and np.all(colors[20:] == colors[-1])


def test_spectra_share_the_scale_of_the_first_and_hold_frequency_zero_in_the_middle():
    image = np.full((64, 96, 3), 100, np.uint8)
    image[:, ::4] = 130
    (own, same, dark), (low, high) = page.spectra([image, image, image // 8])
    assert own.shape == (96, 96, 3) and high > low
    np.testing.assert_array_equal(own, same)
    assert own[46:50, 46:50].mean() > own.mean() > dark.mean()


def test_the_heat_map_holds_all_bits_and_lies_over_the_image():
    y, z = np.zeros((8, 12), np.float32), np.zeros((2, 3), np.float32)
    y[1, 2], z[1, 1] = 64.0, 320.0
    image = np.full((100, 190, 3), 128, np.uint8)
    heat, most = page.heat(bits.BitsMap(y, z), image)
    assert heat.shape == image.shape
    assert most == 64.0 / 16**2  # of 16 x 16 pixels; a position of z covers 4 x 4 of those of y
    luma = heat.astype(int).sum(axis=2)
    assert luma[20, 40] == luma.max() > luma[70, 70] > luma[0, 0]
    assert np.all(luma[64:100, 64:128] == luma[70, 70])


def test_a_missing_gradio_and_a_port_that_is_taken_are_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "gradio", None)
    with pytest.raises(UserError, match=r"needs Gradio.*: pip install 'fa-hific-jax\[demo\]'"):
        serve._gradio()

    def launch(**options):
        raise OSError("Cannot find empty port in range")

    with pytest.raises(UserError, match=r"^cannot listen on 127.0.0.1:80, .* another --port"):
        serve._launch(types.SimpleNamespace(launch=launch), "127.0.0.1", 80, {})


def test_the_page_listens_on_this_machine_alone_and_reports_nothing_unless_told():
    assert main_lib.parser().parse_args(["serve"]).host == "127.0.0.1"
    theme = types.SimpleNamespace(Default=lambda **fonts: fonts)
    options = page.launch_options(types.SimpleNamespace(themes=theme), page.Limits(2, 1))
    assert options["max_file_size"] == 2 * 2**20
    assert not options["share"] and not options["run_history"]
