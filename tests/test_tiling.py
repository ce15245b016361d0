"""Tiles and canvases: how far networks see, the same symbols however an image is laid out."""

import dataclasses
import os
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest
from coding_model import coding_config, coding_model, coding_params, image_of
from hypothesis import given
from hypothesis import strategies as st

from fa_hific_jax.codec import programs, tiling
from fa_hific_jax.codec.model import from_params
from fa_hific_jax.codec.programs import LATENT
from fa_hific_jax.errors import UserError
from fa_hific_jax.models import autoencoder
from fa_hific_jax.models.autoencoder import DecoderState

LARGE, SMALL, STRIP = (200, 260), (63, 65), (10, 900)


@pytest.fixture
def small_tiles(monkeypatch):
    """Tiles small enough that an image has several."""
    for name, side in {"ENCODER": 192, "HYPER": 24, "LATENT": 12, "PIXEL": 10}.items():
        monkeypatch.setattr(tiling, f"_{name}_SIDE", side)
    monkeypatch.setattr(tiling, "_BLEND_MARGIN", 1)


@pytest.fixture(scope="module")
def whole():
    """Size -> (file, decoded image), without tiles and canvases."""
    model = coding_model()
    files = {size: model.compress(image_of(*size), mode="whole") for size in (LARGE, SMALL, STRIP)}
    return {
        size: (file, model.decompress(file, mode="whole").astype(int))
        for size, file in files.items()
    }


@given(st.integers(1, 60), st.integers(1, 8), st.integers(0, 3), st.sampled_from([1, 4, 16]))
def test_tiles_cover_an_axis_without_gaps_and_keep_their_margins(extent, inner, margin, align):
    extent, side, margin = extent * align, (inner + 2 * margin) * align, margin * align
    row = tiling.tiles(extent, side, margin, align)
    assert [tile.first for tile in row] == [0, *(tile.last for tile in row[:-1])]
    assert row[-1].last == extent
    for tile in row:
        assert 0 <= tile.start <= tile.first < tile.last <= tile.stop <= extent
        assert tile.stop - tile.start == min(side, extent)
        assert tile.start % align == tile.first % align == 0
        assert tile.start == 0 or tile.first - tile.start >= margin
        assert tile.stop == extent or tile.stop - tile.last >= margin


@given(st.integers(1, 400), st.integers(24, 40), st.integers(1, 4))
def test_weights_of_blended_tiles_add_up_to_one(extent, side, margin):
    total = np.zeros(extent)
    for tile in tiling.tiles(extent, side, margin, 1):
        weights = tiling._ramps(tile, margin)
        assert weights.min() >= 0
        total[tile.start : tile.stop] += weights
    np.testing.assert_allclose(total, 1.0, atol=1e-6)


def reach(net, function, x, factor):
    """How far from the middle of x a change is seen in the output, in units of x.

    Output k stands where x has k / factor to (k + 1) / factor; its nearer edge counts.
    """
    compute = jax.jit(lambda x: function(net, x))
    middle = x.shape[1] // 2
    changed = x.copy()
    changed[:, middle, middle] += 1.0
    differs = np.flatnonzero(np.any(np.asarray(compute(x) != compute(changed))[0], axis=(1, 2)))
    above = middle - ((differs.min() + 1) / factor - 1)
    below = differs.max() / factor - middle
    return max(above, below)


@pytest.mark.parametrize(
    "overrides",
    [
        {"variant": "pytorch"},
        pytest.param({"variant": "tensorflow"}, marks=pytest.mark.long),
        {"encoder_widths": (4, 4, 4), "generator_widths": (4, 4, 4)},
    ],
)
def test_networks_see_as_far_as_computed_and_no_further(overrides, request):
    config = coding_config(residual_blocks=2, **overrides)
    params = coding_params(residual_blocks=2, **overrides)
    request.getfixturevalue("x64")
    # Everything must pass, so no ReLU may be shut.
    params = jax.tree.map(lambda leaf: np.abs(np.asarray(leaf, np.float64)) + 0.01, params)
    field = tiling.receptive_field(config)
    rng = np.random.default_rng(0)
    y = rng.random((1, 32, 32, config.latent_channels))
    features = rng.random((1, 24, 24, config.generator_widths[0]))
    side = 64 * (2 * field.encoder // 64 + 2)
    net, x = autoencoder.bind(config, params, "float64"), 1 + rng.random((1, side, side, 3))
    encoder = reach(net, lambda net, x: net.encode(x)[0], x, 1 / LATENT)
    hyper_analysis = reach(net, lambda net, y: net.hyperprior.analysis(y), y, 1 / 4)
    latent_stage = reach(net, lambda net, y: net.latent_stage(y).features, y, 1)
    pixel_stage = reach(
        net, lambda net, x: net.pixel_stage(DecoderState(x, None))[0], features, LATENT
    )
    # Within an output's block and the parity of upsamplings the reach differs from place to place.
    assert field.encoder - LATENT < encoder <= field.encoder
    assert field.hyper_analysis - 4 < hyper_analysis <= field.hyper_analysis
    assert latent_stage == field.latent_stage == 5
    assert field.pixel_stage - 1 < pixel_stage <= field.pixel_stage


@pytest.mark.parametrize("size", [LARGE, STRIP])
def test_exact_tiles_are_the_whole_image_to_one_step_and_blended_ones_are_near(
    whole, small_tiles, size
):
    model, (file, pixels) = coding_model(), whole[size]
    assert model.compress(image_of(*size), mode="exact") == file
    assert np.max(np.abs(model.decompress(file, mode="exact") - pixels)) <= 1
    assert tiling.receptive_field(model.config).latent_stage > tiling._BLEND_MARGIN
    difference = np.abs(model.decompress(file, mode="blend") - pixels)
    # Random weights let a latent reach farther than trained ones do (docs/large-images.md).
    assert 0 < difference.max() <= 80
    assert difference.mean() < 2


def test_canvases_and_batches_give_the_symbols_of_single_images_and_pixels_to_one_step(whole):
    model = coding_model()
    files = [file for file, _ in whole.values()]
    assert len(model.plan(list(whole))) == 2
    assert model.compress_batch([image_of(*size) for size in whole]) == files
    for image, (_, pixels) in zip(model.decompress_batch(files), whole.values(), strict=True):
        assert np.max(np.abs(image - pixels)) <= 1


def test_many_sizes_take_four_programs(monkeypatch):
    traces = []

    def counted(*arguments):
        traces.append(arguments)
        return autoencoder.bind(*arguments)

    monkeypatch.setattr(programs, "bind", counted)
    # A config of its own, so that no other test has compiled for it.
    config = dataclasses.replace(coding_config(), fcm_dropout=0.125)
    model = from_params(config, coding_params())
    rng = np.random.default_rng(0)
    sizes = [(int(h), int(w)) for h, w in rng.integers(1, 193, (8, 2))]
    plan = model.plan(sizes)
    assert len(plan) == 2
    for height, width in sizes:
        file = model.compress(np.zeros((height, width, 3), np.uint8), plan=plan)
        assert model.decompress(file, plan=plan).shape == (height, width, 3)
    assert len(traces) == 4


def test_few_shapes_serve_themselves_and_odd_ones_keep_their_programs():
    assert programs.plan([]) == programs.plan([(512, 768), (768, 512), (510, 768)]) == ()
    assert programs.plan([(64, 64), (64, 128), (128, 64)]) == ((64, 128), (128, 64))
    # Images that are cut into tiles need no canvas, and one for both wide and high ones would be
    # far too large.
    assert programs.plan([(64, 64), (5000, 5000), (6000, 6000), (7000, 7000)]) == ()
    for canvas in programs.plan([(64, 20000), (20000, 64), (64, 64), (20000, 60), (100, 10000)]):
        assert canvas[0] * canvas[1] <= 2 * programs.WHOLE_PIXELS


def test_unknown_modes_and_sizes_that_a_model_cannot_take_are_named():
    with pytest.raises(UserError, match="no mode 'tiles': choose one of auto, whole, exact, blend"):
        coding_model().compress(image_of(8, 8), mode="tiles")
    for fcm, fits, size, sentence in (
        ("legacy", (256, 200), (256, 300), "300 x 256 pixels do not suit .*, which takes 256"),
        ("conv", (1000, 2000), (2000, 2000), "2000 x 2000 .*'conv', which takes at most"),
    ):
        config = dataclasses.replace(coding_config(), fcm=fcm)
        tiling.check_size(config, *fits)
        with pytest.raises(UserError, match=sentence):
            tiling.check_size(config, *size)


def test_models_that_see_the_whole_image_decode_it_whole_whatever_is_asked(small_tiles):
    network = programs.Network(coding_config(fcm="conv"), coding_params(fcm="conv"))
    latents = [np.random.default_rng(0).normal(size=(16, 20, 4)).astype(np.float32)]
    (whole,) = tiling.generate(network, latents, mode="whole")
    for options in ({"mode": "exact"}, {"mode": "blend"}, {"canvases": ((256, 384),)}):
        np.testing.assert_array_equal(tiling.generate(network, latents, **options)[0], whole)


@pytest.mark.slow
def test_a_hundred_megapixels_take_less_than_six_gigabytes(tmp_path):
    path = Path(__file__).parent / "code_large.py"
    for direction in ("compress", "decompress"):
        command = [sys.executable, str(path), direction, str(tmp_path / "large.fahj")]
        environment = os.environ | {"PYTHONPATH": str(path.parents[1])}
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
        assert float(done.stdout.split()[-1]) < 6.0, done.stdout
