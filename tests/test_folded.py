"""Folded encoder and generator: where pixels go, canvases, tiles, files, and what is refined."""

import jax
import jax.numpy as jnp
import numpy as np
from coding_model import forward, image_of, moved
from tiny_settings import tiny_settings

from fa_hific_jax.codec import tiling
from fa_hific_jax.codec.model import from_params
from fa_hific_jax.codec.model_folder import load_model, save_model
from fa_hific_jax.models import autoencoder
from fa_hific_jax.models.folded.layers import FOLD, fold, unfold

KEY = jax.random.key(0)
WIDTHS = {"model__encoder_widths": (8, 4, 6), "model__generator_widths": (6, 4, 8)}


def model_of():
    """(config, parameters of which each is away from where it begins)."""
    sizes = {"model__latent_channels": 12, "model__hyper_channels": 8}
    config = tiny_settings(model__linear_path="beside", **sizes, **WIDTHS).model
    return config, moved(config, 0.05)


def test_a_position_holds_its_block_row_by_row():
    image = jnp.arange(8 * 12 * 2.0).reshape(1, 8, 12, 2)
    folded = fold(image)
    assert folded.shape == (1, 2, 3, FOLD**2 * 2)
    np.testing.assert_array_equal(folded[0, 1, 2], image[0, 4:8, 8:12].ravel())
    np.testing.assert_array_equal(unfold(folded), image)


def test_detail_is_the_share_of_the_complements_whose_features_are_those_of_the_finest_levels():
    config, params = model_of()
    x = jax.random.uniform(KEY, (1, 64, 64, 3))
    out = forward(config, params, x)
    for features in (out.encoder_features, out.fcm_features):
        assert [leaf.shape for leaf in features] == [(1, 16, 16, 8), (1, 8, 8, 4)]
    complements = {name: params["generator"][name] for name in ("fcm1", "fcm2")}
    without = params["generator"] | jax.tree.map(jnp.zeros_like, complements)
    plain = forward(config, params | {"generator": without}, x).x_hat
    detail = jnp.array([0.0, 0.5, 1.0])
    images = forward(config, params, jnp.repeat(x, 3, axis=0), detail=detail).x_hat
    np.testing.assert_allclose(images[:1], plain, atol=1e-5)
    np.testing.assert_allclose(images[2:], out.x_hat, atol=1e-5)
    assert jnp.max(jnp.abs(images[1] - images[0])) > 1e-3


def test_the_generator_refines_the_picture_of_the_linear_path():
    net = autoencoder.bind(*model_of())
    y = jnp.round(jax.jit(net.encode)(jax.random.uniform(KEY, (1, 64, 64, 3)))[0])
    state = jax.jit(net.latent_stage)(y)

    @jax.jit
    def added(y_hat):
        return net.pixel_stage(state._replace(y_hat=y_hat))[0] - net.linear_synthesis(y_hat)

    assert jnp.max(jnp.abs(added(y) - added(y.at[:, 1, 1, 0].add(50.0)))) > 1e-2


def test_files_and_tiles_decode_to_what_the_network_gives(tmp_path, monkeypatch):
    config, params = model_of()
    save_model(from_params(config, params), str(tmp_path / "model"))
    model, image = load_model(str(tmp_path / "model")), image_of(448, 512)
    data = model.compress(image)
    whole = model.decompress(data, mode="whole").astype(int)
    expected = forward(config, params, jnp.asarray(image[None], jnp.float32) / 255)
    expected = np.clip(np.floor(np.asarray(expected.x_hat[0]) * 255 + 0.5), 0, 255)
    # The encoder computes in float64 there, and rounds a few latents the other way.
    assert np.mean(np.abs(whole - expected) > 1) < 5e-3
    sides = {"_ENCODER_SIDE": 384, "_HYPER_SIDE": 24, "_LATENT_SIDE": 24, "_PIXEL_SIDE": 24}
    for name, side in sides.items():
        monkeypatch.setattr(tiling, name, side)
    assert model.compress(image, mode="exact") == data
    assert np.max(np.abs(model.decompress(data, mode="exact").astype(int) - whole)) <= 1
