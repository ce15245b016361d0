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
    publishes: rate, PSNR and LPIPS (AlexNet). "here" is "yes" for a model on this machine. The
    names work wherever a command takes a model, as in --model lite.
    """
    parser.add_argument("--json", action="store_true", help="print a JSON array of descriptions")
    return _list


def _list(args: argparse.Namespace) -> None:
    here = {name: str(folder) for name, folder in shipped.here().items()}
    fields = ("name", "project", "target_bpp", "gigabytes", "license", "url", "kodak", "folder")
    rows: list[tuple] = [
        (name, "this package", None, None, "research only", None, None, here[name])
        for name in shipped.in_package()
    ]
    for model in catalog.PUBLISHED:
        of, kodak = catalog.FAMILIES[model.family], model.quality and model.quality._asdict()
        told = (model.name, of.project, model.rate, of.gigabytes, of.license, model.url, kodak)
        rows.append((*told, here.get(model.name)))
    described: list[dict[str, Any]] = [dict(zip(fields, row, strict=True)) for row in rows]
    if args.json:
        print(json.dumps(described, indent=2))
        return
    cells = [_HEADS, *map(_cells, described)]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    for row in cells:
        print("  ".join(map(str.ljust, row, widths)).rstrip())


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

    Downloads the published checkpoint, converts it without PyTorch and without running code from
    it, and stores the model in the cache folder ($XDG_CACHE_HOME/fa-hific or ~/.cache/fa-hific).
    Prints where the model comes from, and what its license asks for. The projects publish no
    SHA-256: that of the first download is recorded, and a later one must have the same.

    To resume an interrupted download, repeat the command. Without a network, download the file on
    another machine and convert it with --from FILE.
    """
    parser.add_argument("name", metavar="NAME", help="name that `fa-hific models` lists")
    _add_from(parser, "FILE", "convert this published file instead of downloading it")
    arguments.add_force(parser)
    return _get_model


def _add_from(parser: argparse.ArgumentParser, name: str, what: str) -> None:
    parser.add_argument("--from", dest="given", metavar=name, type=arguments.path, help=what)


def _get_model(args: argparse.Namespace) -> None:
    published, folder = catalog.find(args.name), shipped.here().get(args.name)
    if folder and not (published and args.force):
        print(f"{args.name}: is there already: {folder}")
        return
    if published is None:
        raise UserError(f"{args.name}: no such model: choose one of {', '.join(shipped.known())}")
    from fa_hific_jax.convert.published_models import get_model

    found = get_model(published, args.given, replace=args.force)
    if found.doubt:
        say(f"note: {args.name}: {found.doubt}")
    family = catalog.FAMILIES[published.family]
    known = "the first seen, recorded for later" if found.first else "as recorded the first time"
    size = sum(file.stat().st_size for file in found.folder.iterdir())
    print(f"{published.name}: model {found.model_id}, {size / 1e6:.1f} MB in {found.folder}")
    print(f"source: {family.project}, {published.url}")
    print(f"SHA-256: {found.sha256} ({known})")
    print(f"license: {family.license}: use it {family.terms}")


def _add_weights(parser: argparse.ArgumentParser) -> None:
    what = ".npz file (default: in the cache folder)"
    parser.add_argument("-o", "--output", metavar="FILE", type=arguments.path, help=what)
    what = "convert the published files in this folder instead of downloading them"
    _add_from(parser, "FOLDER", what)


def get_lpips(parser: argparse.ArgumentParser) -> arguments.Run:
    """Get LPIPS weights that are not part of the package.

      fa-hific get-lpips                       AlexNet: the usual metric, and HiFiC's loss
      fa-hific get-lpips --net vgg -o vgg.npz  VGG16, in a file of your choice
      fa-hific get-lpips --from Downloads/     convert files that were downloaded elsewhere
      python eval.py --workdir runs/hific --images kodak/ --lpips alex,vgg.npz

    The package contains the weights of AlexNet and SqueezeNet with 16-bit kernels. This command
    gets VGG16, or the published float32 weights of the other two: it downloads the published files,
    checks their SHA-256, converts them to one .npz file in the cache folder, and prints its path.
    To resume an interrupted download, repeat the command.
    """
    nets = ("alex", "squeeze", "vgg")
    what = "AlexNet (the default; downloads 244 MB), SqueezeNet 1.1 (5 MB) or VGG16 (553 MB)"
    parser.add_argument("--net", choices=nets, default="alex", help=what)
    _add_weights(parser)
    return _get_lpips


def _get_lpips(args: argparse.Namespace) -> None:
    from fa_hific_jax.convert.published_weights import get_lpips

    print(get_lpips(args.net, args.output, args.given))


def get_inception(parser: argparse.ArgumentParser) -> arguments.Run:
    """Get the weights that FID and KID need.

      fa-hific get-inception
      fa-hific get-inception -o inception.npz
      fa-hific get-inception --from Downloads/    convert the file that was downloaded elsewhere

    Like `get-lpips`, but for FID's Inception network: downloads 96 MB, keeps 87 MB.
    """
    _add_weights(parser)
    return _get_inception


def _get_inception(args: argparse.Namespace) -> None:
    from fa_hific_jax.convert.published_weights import get_inception

    print(get_inception(args.output, args.given))
