"""FID's Inception against a second implementation in NumPy, float64, written out layer by layer."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy.lib.stride_tricks import sliding_window_view

from fa_hific_jax.errors import UserError
from fa_hific_jax.losses.weight_files import parameters
from fa_hific_jax.metrics.inception import (
    InceptionParams,
    expected_shapes,
    inception,
    last_maps,
    load_inception,
    resizing,
)


@pytest.fixture(scope="module")
def arrays() -> dict[str, np.ndarray]:
    """Random weights whose features neither vanish nor explode."""
    rng = np.random.default_rng(0)
    noise = rng.standard_normal(999_983, np.float32)  # a prime: layers meet it at other places
    found = {}
    for name, shape in expected_shapes().items():
        if name.endswith("bias"):
            found[name] = rng.uniform(-0.1, 0.1, shape).astype(np.float32)
        else:
            scale = np.float32(np.sqrt(2 / np.prod(shape[1:])))
            found[name] = scale * np.resize(noise, shape)
    return found


@pytest.fixture(scope="module")
def params(arrays) -> InceptionParams:
    return InceptionParams(parameters(arrays))


# The branches of each kind of block, layer by layer: convolutions of stride 1 keep the size, those
# with "/2" halve it without a border.
BRANCHES = {
    "A": [
        "branch1x1",
        "branch5x5_1 branch5x5_2",
        "branch3x3dbl_1 branch3x3dbl_2 branch3x3dbl_3",
        "average branch_pool",
    ],
    "B": ["branch3x3/2", "branch3x3dbl_1 branch3x3dbl_2 branch3x3dbl_3/2", "halve"],
    "C": [
        "branch1x1",
        "branch7x7_1 branch7x7_2 branch7x7_3",
        "branch7x7dbl_1 branch7x7dbl_2 branch7x7dbl_3 branch7x7dbl_4 branch7x7dbl_5",
        "average branch_pool",
    ],
    "D": [
        "branch3x3_1 branch3x3_2/2",
        "branch7x7x3_1 branch7x7x3_2 branch7x7x3_3 branch7x7x3_4/2",
        "halve",
    ],
    "E": [
        "branch1x1",
        "branch3x3_1 branch3x3_2a",
        "branch3x3_1 branch3x3_2b",
        "branch3x3dbl_1 branch3x3dbl_2 branch3x3dbl_3a",
        "branch3x3dbl_1 branch3x3dbl_2 branch3x3dbl_3b",
    ],
}
BRANCHES["E with averages"] = [*BRANCHES["E"], "average branch_pool"]
BRANCHES["E with maxima"] = [*BRANCHES["E"], "maximum branch_pool"]
BLOCKS = dict(
    zip("5b 5c 5d 6a 6b 6c 6d 6e 7a".split(), "AAABCCCCD", strict=True),
    **{"7b": "E with averages", "7c": "E with maxima"},
)


def windows(x, outside=None):
    """Those of 3x3, with a border of `outside` or without one."""
    if outside is not None:
        x = np.pad(x, ((0, 0), (1, 1), (1, 1)), constant_values=outside)
    return sliding_window_view(x, (3, 3), (1, 2))


POOLS = {
    "average": lambda x: np.nanmean(windows(x, np.nan), axis=(3, 4)),
    "maximum": lambda x: windows(x, -np.inf).max(axis=(3, 4)),
    "halve": lambda x: windows(x)[:, ::2, ::2].max(axis=(3, 4)),
}


def reference(arrays, x):
    """The last maps of one image, both (channels, height, width)."""

    def convolve(name, x, stride=1, border=True):
        kernels, biases = (arrays[f"{name}.{kind}"].astype(float) for kind in ("weight", "bias"))
        rows, columns = (size // 2 if border else 0 for size in kernels.shape[2:])
        x = np.pad(x, ((0, 0), (rows, rows), (columns, columns)))
        seen = sliding_window_view(x, kernels.shape[2:], (1, 2))[:, ::stride, ::stride]
        maps = np.tensordot(kernels, seen, axes=((1, 2, 3), (0, 3, 4)))
        return np.maximum(maps + biases[:, None, None], 0)

    def branch(block, layers, x):
        for layer in layers.split():
            name, halves, _ = layer.partition("/2")
            if name in POOLS:
                x = POOLS[name](x)
            else:
                x = convolve(f"Mixed_{block}.{name}", x, 2 if halves else 1, border=not halves)
        return x

    x = convolve("Conv2d_1a_3x3", x, 2, border=False)
    x = convolve("Conv2d_2a_3x3", x, border=False)
    x = POOLS["halve"](convolve("Conv2d_2b_3x3", x))
    x = convolve("Conv2d_4a_3x3", convolve("Conv2d_3b_1x1", x), border=False)
    x = POOLS["halve"](x)
    for block, kind in BLOCKS.items():
        x = np.concatenate([branch(block, layers, x) for layers in BRANCHES[kind]])
    return x


def test_maps_agree_with_an_independent_implementation(arrays, params):
    # Not square, and so small that every pooling meets borders.
    x = np.random.default_rng(1).uniform(-1, 1, (1, 91, 107, 3)).astype(np.float32)
    found = jax.jit(last_maps)(params, jnp.asarray(x))
    expected = reference(arrays, x[0].astype(float).transpose(2, 0, 1)).transpose(1, 2, 0)
    assert found.shape == (1, *expected.shape) and expected.shape[2] == 2048
    np.testing.assert_allclose(found[0], expected, rtol=0, atol=2e-6 * np.abs(expected).max())


def test_layers_have_the_shapes_of_the_published_network():
    shapes = expected_shapes()
    assert len(shapes) == 2 * 94
    # 94 convolutions and as many batch norms, of which scale and offset count: torchvision's number
    # for the network without its classifiers.
    kernels = sum(int(np.prod(shape)) for shape in shapes.values() if len(shape) == 4)
    offsets = sum(shape[0] for shape in shapes.values() if len(shape) == 1)
    assert kernels + 2 * offsets == 21_785_568
    assert shapes["Mixed_6c.branch7x7dbl_4.weight"] == (160, 160, 7, 1)
    assert shapes["Mixed_7c.branch3x3dbl_3b.weight"] == (384, 384, 3, 1)


def test_images_are_resized_as_tensorflow_1_does_it():
    image = np.random.default_rng(2).integers(0, 256, (256, 256)).astype(float)
    found = resizing(256) @ image @ resizing(256).T
    for row, column in ((0, 0), (298, 298), (17, 291), (150, 3)):
        y, x = row * 256 / 299, column * 256 / 299
        top, left = int(y), int(x)
        bottom, right = min(top + 1, 255), min(left + 1, 255)
        above, below = (
            image[line, left] + (image[line, right] - image[line, left]) * (x - left)
            for line in (top, bottom)
        )
        expected = above + (below - above) * (y - top)
        np.testing.assert_allclose(found[row, column], expected, rtol=1e-4)
    np.testing.assert_array_equal(resizing(299), np.eye(299))


@pytest.mark.slow
def test_features_are_means_of_the_maps_of_the_resized_image(arrays, params):
    image = np.random.default_rng(3).integers(0, 256, (1, 256, 200, 3), np.uint8)
    found = jax.jit(inception)(params, jnp.asarray(image))
    resized = np.einsum("ih,hwc,jw->cij", resizing(256), image[0].astype(float), resizing(200))
    expected = reference(arrays, (resized - 128) / 128).mean(axis=(1, 2))
    assert found.shape == (1, 2048) and found.dtype == jnp.float32
    np.testing.assert_allclose(found[0], expected, rtol=0, atol=1e-5 * np.abs(expected).max())


def test_a_file_of_weights_is_read_and_a_wrong_one_is_named(arrays, params, tmp_path):
    path = tmp_path / "inception.npz"
    np.savez(path, **arrays)
    for name, array in load_inception(path).weights.items():
        np.testing.assert_array_equal(array, params.weights[name])
    np.savez(path, **{name: arrays[name] for name in arrays if name != "Mixed_5b.branch1x1.bias"})
    with pytest.raises(
        UserError, match=r"\(Mixed_5b.branch1x1.bias is missing\): make .*get-incep"
    ):
        load_inception(path)
    with pytest.raises(UserError, match=r"absent: no such file: make it with `fa-hific get-incep"):
        load_inception(tmp_path / "absent")
