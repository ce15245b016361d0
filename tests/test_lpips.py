import io

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fa_hific_jax.errors import UserError
from fa_hific_jax.losses.lpips import LpipsParams, load_lpips, lpips

SHAPES = [(64, 3, 11, 11), (192, 64, 5, 5), (384, 192, 3, 3), (256, 384, 3, 3), (256, 256, 3, 3)]
LAYERS = (0, 3, 6, 8, 10)
distances = jax.jit(lpips)
gradients = jax.jit(jax.grad(lambda p, a, b: jnp.sum(lpips(p, a, b)), argnums=(1, 2)))


@pytest.fixture(scope="module")
def arrays() -> dict[str, np.ndarray]:
    """Random weights of AlexNet's shapes."""
    rng = np.random.default_rng(0)
    found = {}
    for i, (layer, shape) in enumerate(zip(LAYERS, SHAPES, strict=True)):
        scale = np.float32(np.sqrt(2 / np.prod(shape[1:])))
        found[f"features.{layer}.weight"] = scale * rng.standard_normal(shape, np.float32)
        found[f"features.{layer}.bias"] = np.full(shape[0], -0.1, np.float32)
        found[f"lin{i}.weight"] = rng.random((1, shape[0], 1, 1), np.float32)
    return found


@pytest.fixture(scope="module")
def params(arrays, tmp_path_factory) -> LpipsParams:
    path = tmp_path_factory.mktemp("lpips") / "random.npz"
    np.savez(path, **arrays)
    return load_lpips(path)


@pytest.fixture(scope="module")
def pair() -> tuple[jax.Array, jax.Array]:
    x, x_hat = np.random.default_rng(0).random((2, 2, 40, 48, 3), np.float32)
    return jnp.asarray(x), jnp.asarray(x_hat)


@pytest.mark.parametrize(
    ("x", "x_hat", "distance"),
    [("ex_ref", "ex_p0", "ex_p0"), ("ex_ref", "ex_p1", "ex_p1")]
    + [(f"rand{i}_a", f"rand{i}_b", f"rand{i}") for i in range(4)],
)
def test_distances_agree_with_the_reference(data_folder, x, x_hat, distance):
    # Reference numbers: LPIPS v0.1, computed in float64.
    trained = load_lpips(data_folder / "lpips" / "lpips_alex.npz")
    with np.load(data_folder / "lpips" / "lpips_alex_golden.npz") as stored:
        images = [jnp.asarray(stored[key] / np.float32(255))[None] for key in (x, x_hat)]
        expected = stored[f"dist_{distance}"]
    found = distances(trained, *images)
    assert found.shape == (1,) and found.dtype == jnp.float32
    np.testing.assert_allclose(found[0], expected, rtol=0, atol=1e-5)


def test_kernels_are_stored_with_outputs_last(arrays, params):
    assert params.kernels[1].shape == (5, 5, 64, 192)
    stored = arrays["features.3.weight"]
    assert params.kernels[1][1, 2, 3, 4] == stored[4, 3, 1, 2]
    assert params.linear[4].shape == (256,)


def test_equal_images_have_zero_distance_and_zero_gradient(params, pair):
    # Black and white leave some pixels of some layers with only zeros after ReLU.
    x = pair[0].at[0].set(0.0).at[1, :20].set(1.0)
    assert np.max(distances(params, x, x)) < 1e-12
    usual = np.max(np.abs(gradients(params, *pair)))
    for grad in gradients(params, x, x):
        np.testing.assert_allclose(grad, 0.0, rtol=0, atol=1e-6 * usual)


def test_gradient_stays_finite_where_all_features_are_zero(params, pair):
    dead = params._replace(biases=tuple(b - 1e4 for b in params.biases))
    assert not np.any(distances(dead, *pair))
    sparse = params._replace(biases=tuple(b - 1.0 for b in params.biases))
    assert np.any(distances(sparse, *pair))
    for weights in (dead, sparse):
        assert all(np.all(np.isfinite(grad)) for grad in gradients(weights, *pair))


def test_distance_is_symmetric_positive_and_of_each_pair_alone(params, pair):
    x, x_hat = pair
    distance = distances(params, x, x_hat)
    assert np.all(distance > 0.01)
    np.testing.assert_allclose(distance, distances(params, x_hat, x), rtol=1e-5)
    np.testing.assert_allclose(distance[::-1], distances(params, x[::-1], x_hat[::-1]), rtol=1e-5)


def test_bfloat16_images_give_float32_distances(params, pair):
    x, x_hat = (image.astype(jnp.bfloat16) for image in pair)
    assert jax.eval_shape(lpips, params, x, x_hat).dtype == jnp.float32


def test_the_smallest_image_has_31_pixels_a_side(params):
    x = jnp.asarray(np.random.default_rng(1).random((1, 31, 31, 3), np.float32))
    assert np.isfinite(distances(params, x, 1 - x)[0])
    with pytest.raises(UserError, match="at least 31 x 31 pixels, not 30 x 64"):
        lpips(params, jnp.zeros((1, 30, 64, 3)), jnp.zeros((1, 30, 64, 3)))


def test_a_missing_file_is_named_with_the_way_to_make_it(tmp_path):
    path = tmp_path / "absent.npz"
    with pytest.raises(UserError, match=r'absent.npz: no such file; .*"LPIPS weights" in docs'):
        load_lpips(path)


def npy() -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, np.zeros(3))
    return buffer.getvalue()


def cut_short() -> bytes:
    buffer = io.BytesIO()
    np.savez_compressed(buffer, a=np.arange(1000.0))
    return buffer.getvalue()[:-200]


def damaged() -> bytes:
    buffer = io.BytesIO()
    np.savez(buffer, a=np.arange(1000.0))
    content = bytearray(buffer.getvalue())
    content[2000] ^= 1
    return bytes(content)


@pytest.mark.parametrize(
    "content", [b"", b"no archive", npy(), cut_short(), damaged()], ids=range(5)
)
def test_a_file_that_is_no_npz_is_named(tmp_path, content):
    path = tmp_path / "weights.npz"
    path.write_bytes(content)
    with pytest.raises(UserError, match="weights.npz: not a readable .npz file"):
        load_lpips(path)


def test_missing_and_misshapen_arrays_are_named(tmp_path, arrays):
    wrong = arrays | {"features.0.weight": np.zeros((64, 3, 3, 3), np.float32)}
    wrong["features.8.bias"] = wrong["features.8.bias"].astype(np.int32)
    del wrong["lin4.weight"]
    path = tmp_path / "other.npz"
    np.savez(path, **wrong)
    sentence = "wrong shape: features.0.weight, features.8.bias, lin4.weight; docs/lpips.md"
    with pytest.raises(UserError, match=sentence):
        load_lpips(path)
