"""Show what compressed files contain, without a model.

  fa-hific info photo.fahj
  fa-hific info compressed/ --json

Prints for each file the size of the image, bits per pixel, the id of the model that decompresses
it, with the name of that model if `fa-hific models` lists it as being on this machine, and the
bytes of each part. Each file is checked against its checksum.

exit codes:
  0  all files are intact
  1  some are not; the last lines say which and why
  2  the command itself was wrong
"""

import argparse
import json
from pathlib import Path

from fa_hific_jax import interrupts
from fa_hific_jax.cli import batch, files
from fa_hific_jax.codec import SUFFIX
from fa_hific_jax.errors import shown


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the arguments."""
    parser.add_argument(
        "inputs",
        nargs="+",
        type=files.source_name,
        metavar="FILE",
        help="compressed file, folder, or glob",
    )
    parser.add_argument(
        "--json", action="store_true", help="print a JSON array with one object per file"
    )


def run(args: argparse.Namespace) -> None:
    """Describes every intact file; exits with code 1 after naming the others."""
    found, failures = files.find(args.inputs, frozenset({SUFFIX}))
    described = []
    for file in found:
        interrupts.end_if_asked()
        try:
            described.append(describe(file.path))
        except batch.PER_FILE as error:
            failures.append(batch.sentence(file.path, error))
            continue
        if not args.json:
            print(as_text(described[-1]))
    if args.json:
        print(json.dumps(described, indent=2))
    batch.end(failures)


def describe(path: Path) -> dict:
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


def as_text(described: dict) -> str:
    """Returns the lines that are printed for a file without --json."""
    size, quality = described["bytes"], described["quality"]
    transparent = ", with transparency" if described["alpha"] else ""
    lines = {
        "image": f"{described['width']} x {described['height']} pixels{transparent}",
        "file": f"{size['file']} bytes, {described['bpp']:.4f} bpp"
        + ("" if quality is None else f", quality {quality:.3f}"),
        "model": described["model_id"] + (f" ({described['model']})" if described["model"] else ""),
        "format": f"version {described['version']}, coder {described['coder']}",
        "symbols": f"CRC-32 {described['symbols_crc']}",
    }
    parts = {"header": size["header"], "z": size["z"], "y": size["y"], "alpha": size["alpha"]}
    for name, count in parts.items():
        lines[name] = f"{count:>{len(str(size['file']))}} bytes, {count / size['file']:6.2%}"
    return "\n".join(
        [shown(described["file"]), *(f"  {name:<8}{text}" for name, text in lines.items())]
    )
