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

from fa_hific_jax.codec import catalog, shipped

_HEADS = ("name", "bpp", "download", "license", "published on Kodak", "here", "project")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the arguments."""
    parser.add_argument(
        "--json", action="store_true", help="print a JSON array with one object per model"
    )


def run(args: argparse.Namespace) -> None:
    """Prints the table or the array."""
    described = describe()
    if args.json:
        print(json.dumps(described, indent=2))
        return
    rows = [_HEADS, *map(_cells, described)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        cells = [cell.ljust(width) for cell, width in zip(row, widths, strict=True)]
        print("  ".join(cells).rstrip())


def describe() -> list[dict[str, Any]]:
    """Returns a description of each model, as --json prints it; None stands for the unknown."""
    here = {name: str(folder) for name, folder in shipped.here().items()}
    own = {
        "project": "this package",
        "target_bpp": None,
        "gigabytes": None,
        "license": "research only",
        "url": None,
        "kodak": None,
    }
    described = [{"name": name, **own} for name in shipped.in_package()]
    for model in catalog.PUBLISHED:
        family = catalog.FAMILIES[model.family]
        described.append(
            {
                "name": model.name,
                "project": family.project,
                "target_bpp": model.rate,
                "gigabytes": family.gigabytes,
                "license": family.license,
                "url": model.url,
                "kodak": model.quality and model.quality._asdict(),
            }
        )
    return [each | {"folder": here.get(each["name"])} for each in described]


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
