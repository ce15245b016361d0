"""`fa-hific info`."""

import argparse
import json
from pathlib import Path

from fa_hific_jax import interrupts
from fa_hific_jax.cli import arguments, batch, files
from fa_hific_jax.codec import SUFFIX
from fa_hific_jax.errors import PER_FILE, about, shown


def info(parser: argparse.ArgumentParser) -> arguments.Run:
    """Show what compressed files contain, without a model.

      fa-hific info photo.fahj
      fa-hific info compressed/ --json

    Prints for each file the size of the image, bits per pixel, the id of the model that
    decompresses it, with the name of that model if `fa-hific models` lists it as being on this
    machine, and the bytes of each part. Each file is checked against its checksum.
    """
    what = "compressed file, folder, or glob"
    parser.add_argument("inputs", nargs="+", type=arguments.source_name, metavar="FILE", help=what)
    arguments.add_json(parser, "file")
    return _run


def _run(args: argparse.Namespace) -> None:
    found, failures = files.find(args.inputs, frozenset({SUFFIX}))
    described = []
    for file in found:
        interrupts.end_if_asked()
        try:
            described.append(_describe(file.path))
        except PER_FILE as error:
            failures.append(about(file.path, error))
            continue
        if not args.json:
            print(_text(described[-1]))
    if args.json:
        print(json.dumps(described, indent=2))
    batch.end(failures)


def _describe(path: Path) -> dict:
    """Returns the description of a file that --json prints.

    Raises:
      BitstreamError: the file is damaged.
      OSError: the file cannot be read.
    """
    from fa_hific_jax.codec import bitstream, shipped

    data = path.read_bytes()
    held = bitstream.unpack(data)
    parts = {"z": held.z_stream, "y": held.y_stream, "alpha": held.alpha_stream}
    sizes = {name: len(stream) for name, stream in parts.items()}
    return {
        "file": str(path),
        "width": held.width,
        "height": held.height,
        "alpha": bool(held.alpha_stream),
        "bpp": 8 * len(data) / (held.width * held.height),
        "quality": None if held.quality is None else held.quality / (bitstream.QUALITIES - 1),
        "model_id": held.model_id.hex(),
        "model": shipped.with_id(held.model_id),
        "version": bitstream.VERSION,
        "coder": held.coder,
        "symbols_crc": f"{held.symbols_crc:08x}",
        "bytes": {"file": len(data), "header": len(data) - sum(sizes.values()), **sizes},
    }


def _text(told: dict) -> str:
    """Returns the lines that are printed for a file without --json."""
    sizes = dict(told["bytes"])
    whole = sizes.pop("file")
    quality = "" if told["quality"] is None else f", quality {told['quality']:.3f}"
    lines = {
        "image": f"{told['width']} x {told['height']} pixels"
        + (", with transparency" if told["alpha"] else ""),
        "file": f"{whole} bytes, {told['bpp']:.4f} bpp{quality}",
        "model": told["model_id"] + (f" ({told['model']})" if told["model"] else ""),
        "format": f"version {told['version']}, coder {told['coder']}",
        "symbols": f"CRC-32 {told['symbols_crc']}",
    }
    for name, count in sizes.items():
        lines[name] = f"{count:>{len(str(whole))}} bytes, {count / whole:6.2%}"
    texts = [f"  {name:<8}{text}" for name, text in lines.items()]
    return "\n".join([shown(told["file"]), *texts])
