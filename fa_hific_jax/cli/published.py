"""`fa-hific models`, and the commands that fetch models and weights which others publish."""

import argparse
import json
from typing import Any

from fa_hific_jax.cli import arguments
from fa_hific_jax.codec import catalog, shipped
from fa_hific_jax.errors import UserError, say

_HEADS = ("name", "bpp", "download", "license", "published on Kodak", "here", "project")


def models(parser: argparse.ArgumentParser) -> arguments.Run:
    """List the models that have a name: those of the package, and what `get-model` fetches.

      fa-hific models
      fa-hific models --json

    Prints for each model the rate that its training aimed at, in bits per pixel, the approximate
    size of its download, its license, and the quality on the 24 Kodak images that its project
    publishes: rate, PSNR and LPIPS (AlexNet). The last column is "yes" for a model on this machine.
    The names work wherever a command takes a model, as in --model lite.
    """
    arguments.add_json(parser, "model")
    return _list


def _list(args: argparse.Namespace) -> None:
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


def get_model(parser: argparse.ArgumentParser) -> arguments.Run:
    """Fetch a model that another project publishes, ready to use under its name.

      fa-hific models                                  what there is, with sizes and licenses
      fa-hific get-model msillm-0.14
      fa-hific compress photo.jpg --model msillm-0.14

    Downloads the published checkpoint, checks it, converts it without PyTorch and without running
    code from it, makes the integer tables that coding needs, and stores the model in the cache
    folder ($XDG_CACHE_HOME/fa-hific or ~/.cache/fa-hific). The download is removed. Prints where
    the model comes from, and what its license asks for.

    The projects publish no SHA-256. That of the first file is recorded in the cache folder, and a
    later file of the same name must have the same.

    To resume an interrupted download, repeat the command. Without a network, download the file on
    another machine; --from then converts it:

      fa-hific get-model msillm-0.14 --from Downloads/msillm_target_0.14bpp.ckpt
    """
    parser.add_argument("name", metavar="NAME", help="name that `fa-hific models` lists")
    parser.add_argument(
        "--from",
        dest="file",
        metavar="FILE",
        type=arguments.path,
        help="convert this published file instead of downloading it; it is not changed",
    )
    parser.add_argument(
        "--force", action="store_true", help="fetch the model again if it is there already"
    )
    return _get_model


def _get_model(args: argparse.Namespace) -> None:
    published, folder = catalog.find(args.name), shipped.here().get(args.name)
    if folder and not (published and args.force):
        print(f"{args.name}: is there already: {folder}")
        return
    if published is None:
        raise UserError(f"{args.name}: no such model: choose one of {', '.join(shipped.known())}")
    from fa_hific_jax.convert.published_models import get_model

    found = get_model(published, args.file, replace=args.force)
    if found.doubt:
        say(f"note: {args.name}: {found.doubt}")
    family = catalog.FAMILIES[published.family]
    known = "the first seen, recorded for later" if found.first else "as recorded the first time"
    size = sum(file.stat().st_size for file in found.folder.iterdir())
    print(f"{published.name}: model {found.model_id}, {size / 1e6:.1f} MB in {found.folder}")
    print(f"source: {family.project}, {published.url}")
    print(f"SHA-256: {found.sha256} ({known})")
    print(f"license: {family.license}: use it {family.terms}")


def get_lpips(parser: argparse.ArgumentParser) -> arguments.Run:
    """Get LPIPS weights that are not part of the package.

      fa-hific get-lpips                       AlexNet: the usual metric, and HiFiC's loss
      fa-hific get-lpips --net vgg -o vgg.npz  VGG16, in a file of your choice
      python eval.py --workdir runs/hific --images kodak/ --lpips alex,vgg.npz

    The package contains the weights of AlexNet and SqueezeNet with 16-bit kernels. This command
    gets VGG16, or the published float32 weights of the other two.

    It downloads the published weights, checks their SHA-256, converts them to one .npz file and
    prints its path. The file stays in the cache folder ($XDG_CACHE_HOME/fa-hific or
    ~/.cache/fa-hific), so a second call downloads nothing.

    To resume an interrupted download, repeat the command. Without a network, the command says which
    files to download elsewhere; --from then converts them:

      fa-hific get-lpips --from Downloads/
    """
    parser.add_argument(
        "--net",
        choices=("alex", "squeeze", "vgg"),
        default="alex",
        help="network: AlexNet (the default; downloads 244 MB, keeps 10 MB), SqueezeNet 1.1 (5 MB, "
        "keeps 3 MB) or VGG16 (553 MB, keeps 59 MB)",
    )
    arguments.add_weights(parser)
    return _get_lpips


def _get_lpips(args: argparse.Namespace) -> None:
    from fa_hific_jax.convert.published_weights import get_lpips

    print(get_lpips(args.net, args.output, args.folder))


def get_inception(parser: argparse.ArgumentParser) -> arguments.Run:
    """Get the weights that FID and KID need.

      fa-hific get-inception
      fa-hific get-inception -o inception.npz

    Downloads the published weights of FID's Inception network (96 MB), checks their SHA-256,
    converts them to one .npz file (87 MB) and prints its path. The file stays in the cache folder
    ($XDG_CACHE_HOME/fa-hific or ~/.cache/fa-hific), so a second call downloads nothing.

    To resume an interrupted download, repeat the command. Without a network, the command says which
    file to download elsewhere; --from then converts it:

      fa-hific get-inception --from Downloads/
    """
    arguments.add_weights(parser)
    return _get_inception


def _get_inception(args: argparse.Namespace) -> None:
    from fa_hific_jax.convert.published_weights import get_inception

    print(get_inception(args.output, args.folder))
