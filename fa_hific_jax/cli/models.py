"""List the models that have a name: those of the package, and what `get-model` fetches.

  fa-hific models
  fa-hific models --json

Prints for each model the rate that its training aimed at, in bits per pixel, the approximate size
of its download, its license, and the quality on the 24 Kodak images that its project publishes:
rate, PSNR and LPIPS (AlexNet). The last column is "yes" for a model on this machine. The names work
wherever a command takes a model, as in --model lite.
"""

import argparse
import json
from typing import Any

from fa_hific_jax.cli import arguments
from fa_hific_jax.codec import catalog, shipped

_HEADS = ("name", "bpp", "download", "license", "published on Kodak", "here", "project")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    arguments.add_json(parser, "model")


def run(args: argparse.Namespace) -> None:
    """Prints the table or the array."""
    described = _described()
    if args.json:
        print(json.dumps(described, indent=2))
        return
    rows = [_HEADS, *map(_cells, described)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        cells = [cell.ljust(width) for cell, width in zip(row, widths, strict=True)]
        print("  ".join(cells).rstrip())


def _described() -> list[dict[str, Any]]:
    """Returns a description of each model, as --json prints it; None stands for the unknown."""
    fields = ("name", "project", "target_bpp", "gigabytes", "license", "url", "kodak")
    here = {name: str(folder) for name, folder in shipped.here().items()}
    rows: list[tuple] = [
        (name, "this package", None, None, "research only", None, None)
        for name in shipped.in_package()
    ]
    for model in catalog.PUBLISHED:
        of, kodak = catalog.FAMILIES[model.family], model.quality and model.quality._asdict()
        rows.append(
            (model.name, of.project, model.rate, of.gigabytes, of.license, model.url, kodak)
        )
    return [dict(zip(fields, row, strict=True)) | {"folder": here.get(row[0])} for row in rows]


def _cells(model: dict[str, Any]) -> tuple[str, ...]:
    kodak = model["kodak"]
    return (
        model["name"],
        f"{model['target_bpp']:g}" if model["target_bpp"] else "any",
        f"{model['gigabytes']:.2g} GB" if model["gigabytes"] else "-",
        model["license"],
        f"{kodak['bpp']:.3f} bpp  {kodak['psnr']:.2f} dB  {kodak['lpips']:.4f}" if kodak else "-",
        "yes" if model["folder"] else "-",
        model["project"],
    )
