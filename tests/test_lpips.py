import dataclasses
import io

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy.lib.stride_tricks import sliding_window_view

from fa_hific_jax.errors import UserError
from fa_hific_jax.losses.lpips import (
    SHIPPED,
    expected_shapes,
    load_lpips,
    lpips,
)

SMALLEST = {"alex": 31, "squeeze": 17, "vgg": 16}
PAIRS = [("ex_ref", "ex_p0", "ex_p0"), ("ex_ref", "ex_p1", "ex_p1")]
PAIRS += [(f"rand{i}_a", f"rand{i}_b", f"rand{i}") for i in range(4)]
distances = jax.jit(lpips)
gradients = jax.jit(jax.grad(lambda p, a, b: jnp.sum(lpips(p, a, b)), argnums=(1, 2)))


def random_arrays(net: str) -> dict[str, np.ndarray]:
    """Random weights of a network's shapes, whose features neither vanish nor explode."""
    rng = np.random.default_rng(0)

    def draw(name, shape):
        if name.startswith("lin"):
            return rng.random(shape, np.float32)
        if name.endswith("bias"):
            return rng.uniform(-0.1, 0.1, shape).astype(np.float32)
        return np.float32(np.sqrt(2 / np.prod(shape[1:]))) * rng.standard_normal(shape, np.float32)

    return {name: draw(name, shape) for name, shape in expected_shapes(net).items()}


@pytest.fixture(scope="module", params=SMALLEST)
def case(request, tmp_path_factory):
    """(network, its arrays, its parameters, two batches of images as low as it allows)."""
    net = request.param
    arrays, path = random_arrays(net), tmp_path_factory.mktemp("lpips") / f"{net}.npz"
    np.savez(path, **arrays)
    side = SMALLEST[net]
    pair = np.random.default_rng(0).random((2, 2, side, side + 5, 3), np.float32)
    return net, arrays, load_lpips(path), [jnp.asarray(each) for each in pair]


@pytest.mark.parametrize("trained", SHIPPED)
@pytest.mark.parametrize("shipped, rtol, atol", [(False, 0, 1e-5), (True, 1e-4, 1e-6)])
def test_distances_agree_with_the_reference(data_folder, trained, shipped, rtol, atol):
    # Reference numbers: LPIPS v0.1, computed in float64. The shipped kernels have 16 bits.
    file = data_folder / "lpips" / f"lpips_{trained}.npz"
    params = load_lpips(trained if shipped else file)
    assert params.net == trained
    with np.load(data_folder / "lpips" / f"lpips_{trained}_golden.npz") as stored:
        for x, x_hat, distance in PAIRS:
            images = [jnp.asarray(stored[key] / np.float32(255))[None] for key in (x, x_hat)]
            found = distances(params, *images)
            assert found.shape == (1,) and found.dtype == jnp.float32
            np.testing.assert_allclose(found[0], stored[f"dist_{distance}"], rtol=rtol, atol=atol)


# An independent LPIPS: one image as (channels, height, width), float64, NumPy alone.


def conv(arrays, name, x, stride=1, padding=0):
    kernels, biases = (arrays[f"{name}.{kind}"].astype(float) for kind in ("weight", "bias"))
    x = np.pad(x, ((0, 0), (padding, padding), (padding, padding)))
    windows = sliding_window_view(x, kernels.shape[2:], (1, 2))[:, ::stride, ::stride]
    maps = np.tensordot(kernels, windows, axes=((1, 2, 3), (0, 3, 4)))
    return np.maximum(maps + biases[:, None, None], 0)


def pool(x, window, round_up):
    # Windows of an image that goes on at -infinity: round_up has as many as touch it.
    rounded = np.ceil if round_up else np.floor
    rows, columns = (int(rounded((side - window) / 2)) + 1 for side in x.shape[1:])
    beyond = np.pad(x, ((0, 0), (0, window), (0, window)), constant_values=-np.inf)
    windows = sliding_window_view(beyond, (window, window), (1, 2))[:, ::2, ::2]
    return windows[:, :rows, :columns].max((3, 4))


def expected_taps(net, arrays, h):
    taps = []
    if net == "vgg":
        layer = 0
        for count in (2, 2, 3, 3, 3):  # torchvision's configuration D
            for _ in range(count):
                h, layer = conv(arrays, f"features.{layer}", h, padding=1), layer + 2
            taps.append(h)
            h, layer = pool(h, 2, False), layer + 1
        return taps
    if net == "alex":
        for layer, stride, padding in ((0, 4, 2), (3, 1, 2), (6, 1, 1), (8, 1, 1), (10, 1, 1)):
            h = pool(h, 3, False) if layer in (3, 6) else h
            h = conv(arrays, f"features.{layer}", h, stride, padding)
            taps.append(h)
        return taps
    h = conv(arrays, "features.0", h, stride=2)
    taps.append(h)
    for layer in range(2, 13):
        if layer in (2, 5, 8):
            h = pool(h, 3, True)
            continue
        h = conv(arrays, f"features.{layer}.squeeze", h)
        sides = [conv(arrays, f"features.{layer}.expand{k}x{k}", h, 1, k // 2) for k in (1, 3)]
        h = np.concatenate(sides)
        if layer in (4, 7, 9, 10, 11, 12):
            taps.append(h)
    return taps


def expected_distance(net, arrays, x, x_hat):
    mean, std = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])
    shift, scale = np.round(2 * mean - 1, 3), np.round(2 * std, 3)
    taps = [
        expected_taps(net, arrays, ((2 * image - 1 - shift) / scale).transpose(2, 0, 1))
        for image in (np.asarray(x, float), np.asarray(x_hat, float))
    ]
    total = 0.0
    for i, (a, b) in enumerate(zip(*taps, strict=True)):
        a, b = (side / (np.linalg.norm(side, axis=0) + 1e-10) for side in (a, b))
        total += np.mean(np.einsum("c,chw->hw", arrays[f"lin{i}.weight"][0, :, 0, 0], (a - b) ** 2))
    return total


def test_distances_agree_with_an_independent_implementation(case):
    net, arrays, params, pair = case
    # SqueezeNet's poolings meet whole and partial windows in images of this size.
    expected = [expected_distance(net, arrays, x, x_hat) for x, x_hat in zip(*pair, strict=True)]
    np.testing.assert_allclose(distances(params, *pair), expected, rtol=1e-5)


def test_equal_images_have_zero_distance_and_zero_gradient(case):
    _, _, params, pair = case
    # Black and white leave some pixels of some layers with only zeros after ReLU.
    x = pair[0].at[0].set(0.0).at[1, :12].set(1.0)
    assert np.max(distances(params, x, x)) < 1e-12
    usual = np.max(np.abs(gradients(params, *pair)))
    assert usual > 0
    for grad in gradients(params, x, x):
        np.testing.assert_allclose(grad, 0.0, rtol=0, atol=1e-6 * usual)


@pytest.mark.parametrize("lower, dead", [(1e4, True), (0.5, False)])
def test_gradient_stays_finite_where_features_are_zero(case, lower, dead):
    _, _, params, pair = case
    weights = {n: w - lower if n.endswith("bias") else w for n, w in params.weights.items()}
    params = dataclasses.replace(params, weights=weights)
    assert np.all((distances(params, *pair) == 0) == dead)
    assert all(np.all(np.isfinite(grad)) for grad in gradients(params, *pair))


def test_smaller_images_are_refused(case):
    net, _, params, _ = case
    x = jnp.zeros((1, SMALLEST[net] - 1, 64, 3))
    with pytest.raises(UserError, match=f"at least {SMALLEST[net]} x {SMALLEST[net]} pixels"):
        lpips(params, x, x)


def saved(save, *given, **arrays) -> bytes:
    buffer = io.BytesIO()
    save(buffer, *given, **arrays)
    return buffer.getvalue()


def damaged(position: int) -> bytes:
    return NPZ[:position] + bytes([NPZ[position] ^ 0xFF]) + NPZ[position + 1 :]


NPZ = saved(np.savez, a=np.arange(1000.0))
UNREADABLE = [b"", b"no archive", saved(np.save, np.zeros(3)), NPZ[:-200]]
UNREADABLE += [damaged(position) for position in (0, 60, 70, 2000)]


@pytest.mark.parametrize(
    "content, message",
    [(None, "no such file: make it with `fa-hific get-lp")]
    + [(content, "not a readable .npz file, perhaps truncated") for content in UNREADABLE]
    + [(NPZ, "not LPIPS weights, since no array fits AlexNet")],
    ids=range(10),
)
def test_a_file_without_weights_is_named(tmp_path, content, message):
    path = tmp_path / "weights.npz"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(UserError, match=f"weights.npz: {message}"):
        load_lpips(path)


def test_missing_and_misshapen_arrays_are_named(tmp_path):
    wrong = random_arrays("alex")
    wrong["features.0.weight"] = np.zeros((64, 3, 3, 3), np.float32)
    wrong["features.8.bias"] = wrong["features.8.bias"].astype(np.int32)
    wrong["features.10.bias"][5] = np.nan
    del wrong["lin3.weight"], wrong["lin4.weight"]
    np.savez(tmp_path / "other.npz", **wrong)
    message = (
        r"AlexNet \(features.0.weight has shape \(64, 3, 3, 3\) .*, features.8.bias is of type "
        r"int32 .*, features.10.bias has values that are not finite and 2 more\): .* --net alex"
    )
    with pytest.raises(UserError, match=message):
        load_lpips(tmp_path / "other.npz")
