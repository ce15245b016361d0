"""Fetches models that other projects publish: downloaded or local, checked, converted, exported."""

import contextlib
import dataclasses
from pathlib import Path
from typing import NamedTuple

from fa_hific_jax import __version__
from fa_hific_jax.codec import shipped
from fa_hific_jax.codec.catalog import FAMILIES, Published
from fa_hific_jax.codec.model import from_params
from fa_hific_jax.codec.model_folder import save_model
from fa_hific_jax.convert import download
from fa_hific_jax.convert.torch_checkpoint import Imported, import_checkpoint, known_settings
from fa_hific_jax.errors import UserError
from fa_hific_jax.writing import write


class Fetched(NamedTuple):
    """A published model on this machine."""

    folder: Path
    model_id: str  # hexadecimal
    sha256: str  # of the published file
    first: bool  # True if no earlier file of this model was seen
    doubt: str  # a sentence if the file seems to be that of another model; else ""


def get_model(published: Published, file: Path | None = None, *, replace: bool = False) -> Fetched:
    """Converts the published file to a model in the user's cache.

    The file is downloaded, unless `file` is given. A download is removed once it is converted, or
    if it is not such a file. The SHA-256 of the first file that could be converted is written
    beside the model as NAME.sha256, and later files must have the same, since none of the projects
    publishes one. The integers of the hyper-synthesis are calibrated on hyper-latents drawn from
    the prior, so everyone who converts the same file gets the same model id.

    Raises:
      UserError: the file cannot be downloaded or read, has another hash than the first one, or
        holds another model; or the cache cannot be written, or has the model and not `replace`.
    """
    folder = shipped.fetched_folder(published.name)
    record = folder.with_name(f"{published.name}.sha256")
    with download.writable(folder):
        folder.parent.mkdir(parents=True, exist_ok=True)
        known = record.read_text().split()[0] if record.exists() else None
    path = file or folder.with_name(download.file_name(published.url))
    if file:
        sha256, cleaned = download.check_sha256(path, known), contextlib.nullcontext()
    else:
        command = f"fa-hific get-model {published.name} --from FILE"
        offline = f"download it on a machine that has a network, then run `{command}` here"
        sha256 = download.download(published.url, path, known, offline)
        cleaned = download.removed_if_bad(path, published.url)
    with cleaned:
        imported = _imported(published, path)
    doubt = ""
    if imported.regime not in (None, published.regime):
        doubt = f"the file was trained for the regime {imported.regime}, not {published.regime}"
    license = FAMILIES[published.family].license
    source = dict(name=published.name, url=published.url, sha256=sha256, license=license)
    origin = {
        "step": imported.step,
        "settings": known_settings(imported),
        "versions": {"fa_hific_jax": __version__},
        "calibration": "prior",
        "source": source,
    }
    model = from_params(imported.model, imported.autoencoder, origin=origin)
    # All other parameters are in the model: the originals need not stay in memory.
    rest = {"hyperprior": imported.autoencoder["hyperprior"]}
    imported.autoencoder.clear()
    imported.training.clear()
    with download.writable(folder):
        save_model(model, folder, replace=replace, to_train_on=rest)
        content = f"{sha256}  {download.file_name(published.url)}\n"
        write(record, content.encode(), replace=True)
        if file is None:
            path.unlink()
    return Fetched(folder, model.model_id.hex(), sha256, known is None, doubt)


def _imported(published: Published, path: Path) -> Imported:
    imported, variant = import_checkpoint(path), FAMILIES[published.family].variant
    if imported.model.variant != variant:
        raise UserError(
            f"{path}: holds networks of the variant {imported.model.variant}, but those of "
            f"{published.name} are of {variant}: give the file from {published.url}"
        )
    told = {"input_range": published.input_range, "likelihood": published.likelihood}
    lacking = {name: value for name, value in told.items() if name in imported.assumed and value}
    return imported._replace(model=dataclasses.replace(imported.model, **lacking))
