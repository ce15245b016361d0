"""Behind the page of `fa-hific serve`: what becomes of dropped files, and sentences on bad ones."""

import argparse
import io
import sys
import types

import numpy as np
import pytest
from coding_model import coding_model, image_of, many_rates_model
from PIL import Image

from fa_hific_jax.cli import serve
from fa_hific_jax.cli.main import main
from fa_hific_jax.data.images import on_white
from fa_hific_jax.demo import coding, page, pictures
from fa_hific_jax.errors import UserError
from fa_hific_jax.evaluation import bits
from fa_hific_jax.metrics.squared_error import psnr

LIMIT = 2**20


@pytest.fixture
def photo(tmp_path):
    path = tmp_path / "a photo.png"
    Image.fromarray(image_of(130, 70)).save(path)
    return path


def test_a_dropped_image_is_coded_as_the_model_codes_it_beside_jpeg(photo):
    model = many_rates_model()
    coded = coding.code(model, photo, 0.25, LIMIT)
    assert coded.name == "a photo"
    np.testing.assert_array_equal(coded.original, image_of(130, 70))
    assert coded.data == model.compress(coded.original, quality=0.25)
    with Image.open(io.BytesIO(coded.jpeg.data)) as jpeg:
        assert jpeg.format == "JPEG"
        np.testing.assert_array_equal(np.asarray(jpeg.convert("RGB")), coded.jpeg.image)


def test_transparency_is_laid_on_white_and_said_to_be(tmp_path):
    rgba = np.dstack([image_of(64, 64), np.full((64, 64), 100, np.uint8)])
    Image.fromarray(rgba).save(tmp_path / "clear.png")
    coded = coding.code(coding_model(), tmp_path / "clear.png", None, LIMIT)
    assert coded.original.min() > 150
    assert "its transparency was laid on white." in coding.table(coded, coded.original)


def test_a_dropped_bitstream_is_decoded_with_its_transparency(tmp_path):
    model, alpha = many_rates_model(), np.arange(63 * 65, dtype=np.uint8).reshape(63, 65)
    data = model.compress(image_of(63, 65), alpha=alpha)
    path = tmp_path / "some.fahj"
    path.write_bytes(data)
    picture = coding.decode(model, path, 0.5, LIMIT)
    np.testing.assert_array_equal(picture.rgb, model.decompress(data, detail=0.5))
    np.testing.assert_array_equal(picture.alpha, alpha)
    assert on_white(picture).shape == (63, 65, 3)


def test_the_table_has_whole_bytes_rates_and_distances(photo):
    coded = coding.code(coding_model(), photo, None, LIMIT)
    decoded = coding_model().decompress(coded.data)
    ours, jpeg = coding.table(coded, decoded).splitlines()[2:4]
    size = len(coded.data)
    distance = psnr(coded.original, decoded)
    assert ours == f"| this model | {size:,} | {8 * size / (130 * 70):.3f} | {distance:.2f} |  |"
    assert f"| {len(coded.jpeg.data):,} |" in jpeg and "quality" in jpeg
    assert coding.table(coded, decoded).endswith("\n\n70 x 130 pixels.")


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda path: path.write_text("hello"), "cannot be read as an image"),
        (lambda path: Image.new("RGB", (1100, 1000)).save(path, "PNG"), "over the limit of 1.048"),
        # A line of pixels is coded as 64 of them.
        (lambda path: Image.new("RGB", (20000, 1)).save(path, "PNG"), "over the limit of 1.048"),
    ],
    ids=["text", "large", "line"],
)
def test_what_is_no_image_or_too_large_gets_one_sentence_with_its_name(tmp_path, make, words):
    path = tmp_path / "odd one.txt"
    make(path)
    with pytest.raises(UserError, match=words) as caught:
        coding.code(coding_model(), path, None, LIMIT)
    said = coding.sentence(caught.value, path)
    assert said.startswith("odd one.txt: ")
    assert str(tmp_path) not in said and "\n" not in said


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (lambda: b"hello", "not a fa-hific-jax file"),
        (lambda: coding_model().compress(image_of(1, 1))[:-1], "fetch it again"),
        (lambda: coding_model(seed=2).compress(image_of(1, 1)), "model"),
        (lambda: coding_model().compress(image_of(130, 70)), "over the limit of 9000 pixels"),
    ],
    ids=["text", "damaged", "other model", "large"],
)
def test_bitstreams_that_cannot_be_decoded_get_one_sentence_with_their_name(tmp_path, data, words):
    path = tmp_path / "bad.fahj"
    path.write_bytes(data())
    with pytest.raises(UserError, match=words) as caught:
        coding.decode(coding_model(), path, None, max_pixels=9000)
    assert coding.sentence(caught.value, path).startswith("bad.fahj: ")


def test_memory_that_ran_out_is_said_in_one_sentence(tmp_path):
    path = tmp_path / "x.png"
    for error in (MemoryError(), RuntimeError("RESOURCE_EXHAUSTED: out of memory\n and more")):
        assert coding.sentence(error, path) == f"x.png: {coding.OUT_OF_MEMORY}"


def test_colors_grow_brighter_with_the_value_and_stop_at_both_ends():
    values = np.linspace(-1.0, 2.0, 31)[None]
    colors = pictures.colored(values, 0.0, 1.0)[0].astype(int)
    luma = colors @ [0.299, 0.587, 0.114]
    assert np.all(np.diff(luma[10:21]) > 0)
    assert np.all(colors[:11] == colors[0]) and np.all(colors[20:] == colors[-1])


def test_spectra_share_the_scale_of_the_first_and_hold_frequency_zero_in_the_middle():
    image = np.full((64, 96, 3), 100, np.uint8)
    image[:, ::4] = 130
    (own, same, dark), (low, high) = pictures.spectra([image, image, image // 8])
    assert own.shape == (96, 96, 3) and high > low
    np.testing.assert_array_equal(own, same)
    assert own[46:50, 46:50].mean() > own.mean() > dark.mean()


def test_the_heat_map_holds_all_bits_and_lies_over_the_image():
    y, z = np.zeros((8, 12), np.float32), np.zeros((2, 3), np.float32)
    y[1, 2], z[1, 1] = 64.0, 320.0
    image = np.full((100, 190, 3), 128, np.uint8)
    heat, most = pictures.heat(bits.BitsMap(y, z), image)
    assert heat.shape == image.shape
    assert most == 64.0 / 16**2  # of 16 x 16 pixels; a position of z covers 4 x 4 of those of y
    luma = heat.astype(int).sum(axis=2)
    assert luma[20, 40] == luma.max() > luma[70, 70] > luma[0, 0]
    assert np.all(luma[64:100, 64:128] == luma[70, 70])


def test_a_missing_gradio_is_named_with_its_extra(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "gradio", None)
    with pytest.raises(SystemExit) as end:
        main(["serve", "--model", "nowhere"])
    assert end.value.code == 2
    said = "error: the page needs Gradio: pip install 'fa-hific-jax[demo]'\n"
    assert capsys.readouterr().err == said


def test_a_gradio_that_lacks_a_package_is_not_called_missing(monkeypatch, capsys, tmp_path):
    (tmp_path / "gradio.py").write_text("import socksio_that_is_not_there")
    monkeypatch.delitem(sys.modules, "gradio", raising=False)
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(
        UserError, match="Gradio is installed but cannot be imported .*socksio_that"
    ):
        serve._gradio()


def test_a_port_that_is_taken_is_named():
    def launch(**options):
        raise OSError("Cannot find empty port in range")

    with pytest.raises(UserError, match=r"^cannot listen on 127.0.0.1:80, .* another --port"):
        serve._launch(types.SimpleNamespace(launch=launch), "127.0.0.1", 80, {})


@pytest.mark.parametrize("option", ["--port=0", "--port=65536", "--max-mb=0", "--max-megapixels=x"])
def test_options_out_of_range_are_refused(option, capsys):
    parser = argparse.ArgumentParser()
    serve.add_arguments(parser)
    with pytest.raises(SystemExit):
        parser.parse_args([option])
    assert option.partition("=")[0] in capsys.readouterr().err


def test_the_page_listens_on_this_machine_alone_and_reports_nothing_unless_told():
    parser = argparse.ArgumentParser()
    serve.add_arguments(parser)
    assert parser.parse_args([]).host == "127.0.0.1"
    theme = types.SimpleNamespace(Default=lambda **fonts: fonts)
    options = page.launch_options(types.SimpleNamespace(themes=theme), page.Limits(2, 1))
    assert options["max_file_size"] == 2 * 2**20
    assert not options["share"] and not options["run_history"]
