"""The weights of LPIPS, from the files in which their authors publish them to one .npz of ours.

Two files make one .npz: torchvision's network and the linear weights of PerceptualSimilarity.
"""

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from fa_hific_jax.convert.download import Unreachable, cache_folder, check_sha256, download
from fa_hific_jax.errors import UserError
from fa_hific_jax.losses.lpips import expected_shapes, load_lpips, lpips_params


class Source(NamedTuple):
    """A published file."""

    url: str
    sha256: str

    @property
    def name(self) -> str:
        return self.url.rpartition("/")[2]


_TORCHVISION = "https://download.pytorch.org/models/"
# A commit, so that the file behind the URL cannot change.
_LINEAR = (
    "https://raw.githubusercontent.com/richzhang/PerceptualSimilarity/"
    "082bb24f84c091ea94de2867d34c4544f68e0963/lpips/weights/v0.1/"
)

# The hashes of the linear files were computed from the files of that commit. Those of torchvision's
# files are not: other projects record them, in agreement with each other and with the eight digits
# in the names, which are all that torchvision itself checks.
SOURCES = {
    "alex": (
        Source(
            _TORCHVISION + "alexnet-owt-7be5be79.pth",
            "7be5be791159472b1fbf3c69796f7cb30dca7ad8466c2df70058c37116cdee02",
        ),
        Source(
            _LINEAR + "alex.pth",
            "df73285e35b22355a2df87cdb6b70b343713b667eddbda73e1977e0c860835c0",
        ),
    ),
    "squeeze": (
        Source(
            _TORCHVISION + "squeezenet1_1-b8a52dc0.pth",
            "b8a52dc049b60e4b6ab68ad0df457362afab8b6304b2febdc1650a5dab4d7e7b",
        ),
        Source(
            _LINEAR + "squeeze.pth",
            "4a5350f23600cb79923ce65bb07cbf57dca461329894153e05a1346bd531cf76",
        ),
    ),
    "vgg": (
        Source(
            _TORCHVISION + "vgg16-397923af.pth",
            "397923af8e79cdbb6a7127f12361acd7a2f83e06b05044ddf496e83de57a5bf0",
        ),
        Source(
            _LINEAR + "vgg.pth",
            "a78928a0af1e5f0fcb1f3b9e8f8c3a2a5a3de244d830ad5c1feddc79b8432868",
        ),
    ),
}


def get_lpips(net: str, output: Path | None = None, folder: Path | None = None) -> Path:
    """Path of an .npz of weights for `load_lpips`, made where it is not there yet.

    Every published file is held to its full SHA-256 before it is read, downloaded or not: it is the
    file that `SOURCES` means, bit by bit. The downloads are removed once the .npz stands in the
    cache.

    Args:
      net: a key of SOURCES.
      output: where the .npz is wanted, None for the cache.
      folder: holds the two published files; None to download them.

    Raises:
      UserError: a file cannot be had, read or written, or has another hash.
    """
    if output is not None and output.is_dir():
        raise UserError(f"{output} is a folder: name a file")
    cached = cache_folder() / f"lpips_{net}.npz"
    if folder is not None:
        path = output or cached
        _save(path, convert_lpips(net, *_local(net, folder)))
        return path
    if not _holds(cached, net):
        files = _downloaded(net)
        _save(cached, convert_lpips(net, *files))
        for file in files:
            file.unlink(missing_ok=True)
    if output is not None:
        _replace(output, lambda part: shutil.copyfile(cached, part))
    return output or cached


def convert_lpips(net: str, network: Path, linear: Path) -> dict[str, np.ndarray]:
    """The arrays of the .npz that docs/lpips.md describes, float32, kernels OIHW.

    Args:
      net: a key of SOURCES.
      network: torchvision's state dict of the whole classifier.
      linear: PerceptualSimilarity's state dict of the linear layers, version 0.1.

    Raises:
      UserError: a file is no torch file or lacks arrays of the right shape.
    """
    from fa_hific_jax.convert.torch_file import read_torch_file

    found = read_torch_file(network) | {
        # NetLinLayer has the convolution behind a dropout, as the second of its `model`.
        name.replace(".model.1.", "."): array
        for name, array in read_torch_file(linear).items()
    }
    wanted = {name: found[name] for name in expected_shapes(net) if name in found}
    lpips_params(net, wanted, f"{network} with {linear}")
    # Copies: views would keep the files open, and Windows would then not remove them.
    return {name: np.array(array, np.float32) for name, array in wanted.items()}


def _downloaded(net: str) -> list[Path]:
    files = [cache_folder() / source.name for source in SOURCES[net]]
    try:
        for source, file in zip(SOURCES[net], files, strict=True):
            download(source.url, file, source.sha256)
    except Unreachable as error:
        urls = " and ".join(source.url for source in SOURCES[net])
        raise UserError(
            f"{error}; where there is a network, download {urls} into one folder, and here run "
            f"`fa-hific get-lpips --net {net} --from FOLDER`"
        ) from error
    return files


def _local(net: str, folder: Path) -> list[Path]:
    for source in SOURCES[net]:
        if not (folder / source.name).is_file():
            raise UserError(f"{folder / source.name}: no such file; download it from {source.url}")
        check_sha256(folder / source.name, source.sha256)
    return [folder / source.name for source in SOURCES[net]]


def _holds(path: Path, net: str) -> bool:
    try:
        return load_lpips(path).net == net
    except UserError:
        return False


def _save(path: Path, arrays: dict[str, Any]) -> None:
    def write(part: Path) -> None:
        with open(part, "wb") as file:  # np.savez would add .npz to a name
            np.savez(file, **arrays)

    _replace(path, write)


def _replace(path: Path, write: Callable[[Path], object]) -> None:
    """`path` as `write` makes it, never half-written; raises a UserError where it cannot be."""
    part = path.with_name(f"{path.name}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write(part)
        os.replace(part, path)
    except OSError as error:
        raise UserError(f"{path}: cannot be written: {error.strerror or error}") from error
