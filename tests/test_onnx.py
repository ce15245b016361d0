"""`fa-hific export-onnx`: ONNX models of any size that compute what the networks compute."""

import functools
import itertools
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from coding_model import coding_model, image_of, many_rates_model
from PIL import Image

from fa_hific_jax.cli.main import main
from fa_hific_jax.codec import bitstream, choices, coding, programs
from fa_hific_jax.codec.model_folder import load_model, save_model
from fa_hific_jax.codec.programs import Network
from fa_hific_jax.convert.onnx_graph import onnx_model
from fa_hific_jax.errors import UserError

INSTALL = "pip install 'fa-hific-jax[onnx]' onnxruntime"
ROOT = Path(__file__).resolve().parents[1]
SIZES = ((128, 192), (256, 128))


MODELS = {
    "plain": lambda: coding_model(fcm_width=0),
    "zeros at the edges, tanh": lambda: coding_model(
        fcm_width=0, variant="tensorflow", input_range="symmetric"
    ),
    "qualities, FCM": many_rates_model,
    "lite": lambda: load_model("lite"),
}


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """name -> one of MODELS, and the folder with its networks in ONNX."""
    pytest.importorskip("onnx", reason=INSTALL)

    @functools.cache
    def export(name):
        model, folder = MODELS[name](), tmp_path_factory.mktemp("onnx")
        save_model(model, folder / "model")
        main(["export-onnx", "--model", str(folder / "model"), "-o", str(folder / "onnx")])
        return model, folder / "onnx"

    return export


@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=[] if "FCM" in name else pytest.mark.long) for name in MODELS],
)
def test_both_networks_compute_what_jax_computes_at_every_size(name, exported):
    runtime = pytest.importorskip("onnxruntime", reason=INSTALL)
    model, folder = exported(name)
    encoder, decoder = (
        runtime.InferenceSession(str(folder / f"{each}.onnx")) for each in ("encoder", "decoder")
    )
    assert decoder.get_modelmeta().custom_metadata_map == {"model_id": model.model_id.hex()}
    qualities = (0.2, 0.9) if model.config.qualities else (None,)
    details = (0.0, 1.0) if model.config.fcm_width else (None,)
    for (height, width), quality in itertools.product(SIZES, qualities):
        image = image_of(height, width)
        level = choices.quality_level(model.config, quality)
        chosen = {} if level is None else {"quality": np.float32([level / 255])}
        found = encoder.run(["y", "z"], {"image": image[None], **chosen})
        network = Network(*choices.at_quality(model.config, model.params, level))
        (expected,) = programs.run_whole(network, programs.analyze, [image])
        for ours, theirs in zip(found, expected, strict=True):
            np.testing.assert_allclose(ours[0], theirs, atol=1e-5 * np.abs(theirs).max())
        symbols = coding.quantize(model.entropy, found[0][0], found[1][0])
        data = model.encode(symbols, height, width, quality=quality)
        y_hat = coding.decode(model.entropy, bitstream.unpack(data))
        for detail in details:
            share = {} if detail is None else {"detail": np.float32([detail])}
            (decoded,) = decoder.run(["image"], {"y_hat": y_hat[None], **chosen, **share})
            steps = np.abs(decoded[0].astype(int) - model.decompress(data, detail=detail))
            assert steps.max() <= 1 and np.mean(steps > 0) < 1e-3


def test_the_page_decodes_a_file_without_jax(exported, tmp_path):
    pytest.importorskip("onnxruntime", reason=INSTALL)
    model, folder = exported("qualities, FCM")
    (tmp_path / "onnx").symlink_to(folder)
    (tmp_path / "photo.fahj").write_bytes(model.compress(image_of(100, 70), quality=0.7))
    page = (ROOT / "docs" / "onnx.md").read_text("utf-8")
    code = page.split("```python\n")[1].split("```")[0].replace("lite-onnx", "onnx")
    refused = "import sys\nsys.modules['jax'] = sys.modules['flax'] = None\n"
    command = [sys.executable, "-c", refused + code]
    subprocess.run(command, cwd=tmp_path, check=True, env={"PYTHONPATH": str(ROOT)})
    shown = np.asarray(Image.open(tmp_path / "photo.png")).astype(int)
    expected = model.decompress((tmp_path / "photo.fahj").read_bytes())
    assert shown.shape == expected.shape and np.abs(shown - expected).max() <= 1


@pytest.mark.parametrize("missing", [True, False])
def test_mistakes_are_named(missing, tmp_path, monkeypatch, capsys):
    if missing:
        monkeypatch.setitem(sys.modules, "onnx", None)
    else:
        pytest.importorskip("onnx", reason=INSTALL)
    save_model(coding_model(fcm_width=4, fcm="conv"), tmp_path / "model")
    with pytest.raises(SystemExit, match="2"):
        main(["export-onnx", "--model", str(tmp_path / "model"), "-o", str(tmp_path / "onnx")])
    assert ("fa-hific-jax[onnx]" if missing else "model.fcm='hific'") in capsys.readouterr().err


def test_an_operation_without_a_counterpart_is_named():
    pytest.importorskip("onnx", reason=INSTALL)
    specs = {"x": jax.ShapeDtypeStruct((1, 1, 1, 1), jnp.float32)}
    with pytest.raises(UserError, match="operation 'sort'"):
        onnx_model(lambda x: {"y": jnp.sort(x, axis=1)}, specs, {})
