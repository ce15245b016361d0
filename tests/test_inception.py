"""FID's Inception against a second implementation in NumPy, float64, written out layer by layer."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy.lib.stride_tricks import sliding_window_view

from fa_hific_jax.errors import UserError
from fa_hific_jax.metrics.inception import (
    InceptionParams,
    expected_shapes,
    inception,
    inception_params,
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
    return inception_params(arrays)


class Reference:
    """One image, (channels, height, width)."""

    def __init__(self, arrays):
        self.arrays = arrays

    def conv(self, name, x, stride=1, padding=(0, 0)):
        kernels, biases = (
            self.arrays[f"{name}.{kind}"].astype(float) for kind in ("weight", "bias")
        )
        x = np.pad(x, ((0, 0), (padding[0],) * 2, (padding[1],) * 2))
        windows = sliding_window_view(x, kernels.shape[2:], (1, 2))[:, ::stride, ::stride]
        maps = np.tensordot(kernels, windows, axes=((1, 2, 3), (0, 3, 4)))
        return np.maximum(maps + biases[:, None, None], 0)

    def chain(self, block, x, *layers):
        for name, *padding in layers:
            x = self.conv(f"{block}.{name}", x, 1, padding or (0, 0))
        return x

    @staticmethod
    def windows(x, outside):
        x = np.pad(x, ((0, 0), (1, 1), (1, 1)), constant_values=outside)
        return sliding_window_view(x, (3, 3), (1, 2))

    def averages(self, x):
        return np.nanmean(self.windows(x, np.nan), axis=(3, 4))

    def maxima(self, x):
        return self.windows(x, -np.inf).max(axis=(3, 4))

    @staticmethod
    def halved(x):
        return sliding_window_view(x, (3, 3), (1, 2))[:, ::2, ::2].max(axis=(3, 4))

    def a(self, m, x):
        return np.concatenate(
            [
                self.chain(m, x, ("branch1x1",)),
                self.chain(m, x, ("branch5x5_1",), ("branch5x5_2", 2, 2)),
                self.chain(
                    m, x, ("branch3x3dbl_1",), ("branch3x3dbl_2", 1, 1), ("branch3x3dbl_3", 1, 1)
                ),
                self.chain(m, self.averages(x), ("branch_pool",)),
            ]
        )

    def b(self, m, x):
        double = self.chain(m, x, ("branch3x3dbl_1",), ("branch3x3dbl_2", 1, 1))
        return np.concatenate(
            [
                self.conv(f"{m}.branch3x3", x, 2),
                self.conv(f"{m}.branch3x3dbl_3", double, 2),
                self.halved(x),
            ]
        )

    def c(self, m, x):
        single = (("branch7x7_1",), ("branch7x7_2", 0, 3), ("branch7x7_3", 3, 0))
        double = [("branch7x7dbl_1",)]
        double += [(f"branch7x7dbl_{i}", *((3, 0) if i % 2 == 0 else (0, 3))) for i in (2, 3, 4, 5)]
        return np.concatenate(
            [
                self.chain(m, x, ("branch1x1",)),
                self.chain(m, x, *single),
                self.chain(m, x, *double),
                self.chain(m, self.averages(x), ("branch_pool",)),
            ]
        )

    def d(self, m, x):
        large = self.chain(
            m, x, ("branch7x7x3_1",), ("branch7x7x3_2", 0, 3), ("branch7x7x3_3", 3, 0)
        )
        return np.concatenate(
            [
                self.conv(f"{m}.branch3x3_2", self.chain(m, x, ("branch3x3_1",)), 2),
                self.conv(f"{m}.branch7x7x3_4", large, 2),
                self.halved(x),
            ]
        )

    def e(self, m, x, pool):
        single = self.chain(m, x, ("branch3x3_1",))
        double = self.chain(m, x, ("branch3x3dbl_1",), ("branch3x3dbl_2", 1, 1))
        return np.concatenate(
            [
                self.chain(m, x, ("branch1x1",)),
                self.chain(m, single, ("branch3x3_2a", 0, 1)),
                self.chain(m, single, ("branch3x3_2b", 1, 0)),
                self.chain(m, double, ("branch3x3dbl_3a", 0, 1)),
                self.chain(m, double, ("branch3x3dbl_3b", 1, 0)),
                self.chain(m, pool(x), ("branch_pool",)),
            ]
        )

    def __call__(self, x):
        x = self.conv("Conv2d_1a_3x3", x, 2)
        x = self.conv("Conv2d_2a_3x3", x)
        x = self.halved(self.conv("Conv2d_2b_3x3", x, 1, (1, 1)))
        x = self.conv("Conv2d_4a_3x3", self.conv("Conv2d_3b_1x1", x))
        x = self.halved(x)
        for m in ("Mixed_5b", "Mixed_5c", "Mixed_5d"):
            x = self.a(m, x)
        x = self.b("Mixed_6a", x)
        for m in ("Mixed_6b", "Mixed_6c", "Mixed_6d", "Mixed_6e"):
            x = self.c(m, x)
        x = self.d("Mixed_7a", x)
        x = self.e("Mixed_7b", x, self.averages)
        return self.e("Mixed_7c", x, self.maxima)


def test_maps_agree_with_an_independent_implementation(arrays, params):
    # Not square, and so small that every pooling meets borders.
    x = np.random.default_rng(1).uniform(-1, 1, (1, 91, 107, 3)).astype(np.float32)
    found = jax.jit(last_maps)(params, jnp.asarray(x))
    expected = Reference(arrays)(x[0].astype(float).transpose(2, 0, 1)).transpose(1, 2, 0)
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
        across = [
            image[line, left] + (image[line, right] - image[line, left]) * (x - left)
            for line in (top, bottom)
        ]
        expected = across[0] + (across[1] - across[0]) * (y - top)
        np.testing.assert_allclose(found[row, column], expected, rtol=1e-4)
    np.testing.assert_array_equal(resizing(299), np.eye(299))


@pytest.mark.slow
def test_features_are_means_of_the_maps_of_the_resized_image(arrays, params):
    image = np.random.default_rng(3).integers(0, 256, (1, 256, 200, 3), np.uint8)
    found = jax.jit(inception)(params, jnp.asarray(image))
    resized = np.einsum("ih,hwc,jw->cij", resizing(256), image[0].astype(float), resizing(200))
    expected = Reference(arrays)((resized - 128) / 128).mean(axis=(1, 2))
    assert found.shape == (1, 2048) and found.dtype == jnp.float32
    np.testing.assert_allclose(found[0], expected, rtol=0, atol=1e-5 * np.abs(expected).max())


def test_a_file_of_weights_is_read_and_a_wrong_one_is_named(arrays, params, tmp_path):
    path = tmp_path / "inception.npz"
    np.savez(path, **arrays)
    for name, array in load_inception(path).weights.items():
        np.testing.assert_array_equal(array, params.weights[name])
    wrong = {name: array for name, array in arrays.items() if name != "Mixed_5b.branch1x1.bias"}
    np.savez(path, **wrong)
    with pytest.raises(UserError) as raised:
        load_inception(path)
    assert str(raised.value) == (
        f"{path}: not the weights of FID's Inception (Mixed_5b.branch1x1.bias is missing): make "
        "the file with `fa-hific get-inception`"
    )
    with pytest.raises(
        UserError, match=r"absent: no such file: make it with `fa-hific get-inception`"
    ):
        load_inception(tmp_path / "absent")
