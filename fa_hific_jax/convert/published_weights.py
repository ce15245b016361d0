"""Weights of LPIPS and Inception that other projects publish, checked and converted to .npz files.

The hashes of LPIPS's linear weights were computed from the files of the commit that the address
names. The others are taken from other projects, which agree with each other and with the eight
digits in the file names. Torchvision and pytorch-fid themselves check only these digits.
"""

import functools
import io
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from fa_hific_jax.cache import cache_folder
from fa_hific_jax.convert.download import check_sha256, download, file_name, writable
from fa_hific_jax.convert.torch_file import read_torch_file
from fa_hific_jax.errors import UserError
from fa_hific_jax.losses import lpips
from fa_hific_jax.losses.weight_files import mistakes
from fa_hific_jax.metrics import inception
from fa_hific_jax.writing import write

_TORCHVISION = "https://download.pytorch.org/models"
# The address names a commit, so that the files behind it cannot change.
_LINEAR = (
    "https://raw.githubusercontent.com/richzhang/PerceptualSimilarity/"
    "082bb24f84c091ea94de2867d34c4544f68e0963/lpips/weights/v0.1"
)
# Torchvision's file, its hash, and the hash of the linear weights.
_NETWORKS = {
    "alex": (
        "alexnet-owt-7be5be79.pth",
        "7be5be791159472b1fbf3c69796f7cb30dca7ad8466c2df70058c37116cdee02",
        "df73285e35b22355a2df87cdb6b70b343713b667eddbda73e1977e0c860835c0",
    ),
    "squeeze": (
        "squeezenet1_1-b8a52dc0.pth",
        "b8a52dc049b60e4b6ab68ad0df457362afab8b6304b2febdc1650a5dab4d7e7b",
        "4a5350f23600cb79923ce65bb07cbf57dca461329894153e05a1346bd531cf76",
    ),
    "vgg": (
        "vgg16-397923af.pth",
        "397923af8e79cdbb6a7127f12361acd7a2f83e06b05044ddf496e83de57a5bf0",
        "a78928a0af1e5f0fcb1f3b9e8f8c3a2a5a3de244d830ad5c1feddc79b8432868",
    ),
}
# TensorFlow's inception-2015-12-05.tgz as converted by pytorch-fid.
_INCEPTION = (
    "https://github.com/mseitzer/pytorch-fid/releases/download/fid_weights/"
    "pt_inception-2015-12-05-6726825d.pth"
)
SOURCES = {
    net: {f"{_TORCHVISION}/{file}": network_hash, f"{_LINEAR}/{net}.pth": linear_hash}
    for net, (file, network_hash, linear_hash) in _NETWORKS.items()
} | {"inception": {_INCEPTION: "6726825d0af5f729cebd5821db510b11b1cfad8faad88a03f1befd49fb9129b2"}}
"""Addresses and SHA-256 of the published files of each network.

LPIPS has torchvision's network, then the linear weights."""

_EPSILON = 1e-3  # added to the variance by the batch norms of Inception
_NORM = ("weight", "bias", "running_mean", "running_var")  # arrays of a batch norm


def get_lpips(net: str, output: Path | None = None, folder: Path | None = None) -> Path:
    """Returns the path of an .npz of weights for `load_lpips`, which is made if it is missing.

    Args:
      net: "alex", "squeeze" or "vgg".
      output: path of the .npz; None for the cache folder.
      folder: folder that holds the published files; None to download them. Downloads are removed
        once the .npz is in the cache folder.

    Raises:
      UserError: a published file cannot be downloaded or read or has another hash, or the .npz
        cannot be written.
    """
    return _get_weights(net, output, folder)


def get_inception(output: Path | None = None, folder: Path | None = None) -> Path:
    """Like `get_lpips`, but for the weights of FID's Inception and `load_inception`."""
    return _get_weights("inception", output, folder)


def _get_weights(net: str, output: Path | None, folder: Path | None) -> Path:
    if net == "inception":
        name, command = "inception.npz", inception.COMMAND
        load, convert = inception.load_inception, convert_inception
    else:
        name, command = f"lpips_{net}.npz", f"fa-hific get-lpips --net {net}"
        load, convert = lpips.load_lpips, functools.partial(convert_lpips, net)
    cached, sources = cache_folder() / name, SOURCES[net]
    target = output or cached
    if target.is_dir():
        raise UserError(f"{target} is a folder: name a file")
    files = {url: (folder or cached.parent) / file_name(url) for url in sources}
    if folder is not None:
        for url, file in files.items():
            if not file.is_file():
                raise UserError(f"{file}: no such file: download it from {url}")
            check_sha256(file, sources[url])
        _save(target, convert(*files.values()))
        return target
    try:
        load(cached)
    except UserError:  # It is missing or damaged.
        offline = (
            f"download {' and '.join(sources)} into one folder on a machine that has a network, "
            f"then run `{command} --from FOLDER` here"
        )
        for url, file in files.items():
            download(url, file, sources[url], offline)
        _save(cached, convert(*files.values()))
        for file in files.values():
            file.unlink(missing_ok=True)
    if target != cached:
        with writable(target):
            write(target, cached.read_bytes())
    return target


def convert_lpips(net: str, network: Path, linear: Path) -> dict[str, np.ndarray]:
    """Returns the float32 arrays of the .npz that docs/lpips.md describes, with OIHW kernels.

    `network` is torchvision's file of the whole classifier, `linear` that of PerceptualSimilarity's
    linear layers, version 0.1. Raises a UserError if a file lacks arrays of the right shape.
    """
    found = read_torch_file(network) | {
        # In a NetLinLayer the convolution comes second in `model`, after a dropout.
        name.replace(".model.1.", "."): array
        for name, array in read_torch_file(linear).items()
    }
    wanted = {name: found[name] for name in lpips.expected_shapes(net) if name in found}
    lpips.lpips_params(net, wanted, f"{network} with {linear}")
    # Views would keep the files open, and Windows cannot remove open files.
    return {name: np.array(array, np.float32) for name, array in wanted.items()}


def convert_inception(file: Path) -> dict[str, np.ndarray]:
    """Returns the float32 arrays of the .npz: (out, in, height, width) kernels and biases by layer.

    Each batch norm of pytorch-fid's state dict is folded into the convolution before it, computed
    in float64. Raises a UserError if the file lacks arrays of the right shape.
    """
    found, expected = read_torch_file(file), inception.expected_shapes()
    kernels = {n.removesuffix(".weight"): expected[n] for n in expected if n.endswith(".weight")}
    shapes = {f"{layer}.conv.weight": shape for layer, shape in kernels.items()}
    shapes |= {f"{layer}.bn.{each}": kernels[layer][:1] for layer in kernels for each in _NORM}
    if wrong := mistakes(found, shapes):
        raise UserError(f"{file}: not the weights of FID's Inception ({wrong}): download it again")
    folded = {}
    for layer in kernels:
        weight, bias, mean, variance = (found[f"{layer}.bn.{k}"].astype(np.float64) for k in _NORM)
        scale = weight / np.sqrt(variance + _EPSILON)
        kernel = found[f"{layer}.conv.weight"].astype(np.float64) * scale[:, None, None, None]
        folded[f"{layer}.weight"] = kernel.astype(np.float32)
        folded[f"{layer}.bias"] = (bias - mean * scale).astype(np.float32)
    return folded


def _save(path: Path, arrays: Mapping[str, np.ndarray]) -> None:
    content = io.BytesIO()
    np.savez(content, **arrays)  # pyright: ignore[reportArgumentType]
    with writable(path):
        write(path, content.getvalue())
