"""Types of the commands' arguments, and the arguments that several commands share."""

import argparse
import math
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from fa_hific_jax import streams
from fa_hific_jax.codec.shipped import DEFAULT, MODEL_VARIABLE

IMAGES = "image, folder (searched for images at any depth), glob, or - for standard input"
"""The help text of images to read."""

Run = Callable[[argparse.Namespace], None]
"""The function that a command runs with its parsed arguments."""


def source_name(text: str) -> str:
    """Returns an input as it was given; `-` is standard input."""
    if not text:
        raise argparse.ArgumentTypeError("an empty name: give . for the current folder")
    return str(streams.STDIN) if text == "-" else text


def target_name(text: str) -> str:
    """Returns an output with `~` expanded; `-` is standard output."""
    return str(streams.STDOUT) if text == "-" else path_name(text)


def path_name(text: str) -> str:
    """Returns a file or folder with `~` expanded."""
    if text in ("", "-"):
        raise argparse.ArgumentTypeError(f"{text!r} is not the name of a file or folder")
    expanded = os.path.expanduser(text)
    if expanded.startswith("~"):
        raise argparse.ArgumentTypeError(
            f"{text!r}: no such home folder: give ./{text} if that is the name of a file"
        )
    return expanded


def path(text: str) -> Path:
    """Returns a file or folder as a Path, with `~` expanded."""
    return Path(path_name(text))


def point(text: str) -> tuple[int, int]:
    """Returns the x and y of a pixel, given as X,Y."""
    if not (match := re.fullmatch(r"(\d+),(\d+)", text)):
        raise argparse.ArgumentTypeError(f"invalid value {text!r}: give X,Y in pixels, as 400,120")
    return int(match[1]), int(match[2])


def _number(wanted: str, fits: Callable[[float], bool], kind: type = float) -> Callable[[str], Any]:
    def parse(text: str) -> Any:
        try:
            value = kind(text)
        except ValueError:
            value = math.nan
        if not fits(value):
            raise argparse.ArgumentTypeError(f"invalid value {text!r}: give {wanted}")
        return value

    return parse


share = _number("a number from 0 to 1", lambda value: 0 <= value <= 1)
positive = _number("a number above 0", lambda value: 0 < value < math.inf)
threads = _number("a whole number from 1 to 256", lambda value: 1 <= value <= 256, int)
port = _number("a whole number up to 65535", lambda value: 0 < value < 65536, int)


def add_inputs(parser: argparse.ArgumentParser, name: str, what: str) -> None:
    """Declares the files to read as `inputs`; `what` is the help text."""
    parser.add_argument("inputs", nargs="+", type=source_name, metavar=name, help=what)


def add_files(parser: argparse.ArgumentParser, inputs: str, output: str) -> None:
    """Declares the files to read and to write, which `files.pair` interprets, by their help."""
    add_inputs(parser, "INPUT", inputs)
    parser.add_argument("-o", "--output", type=target_name, metavar="OUT", help=output)


def add_folder(parser: argparse.ArgumentParser, name: str, what: str) -> None:
    """Declares the folder that the command writes."""
    parser.add_argument("-o", "--output", metavar=name, required=True, type=path_name, help=what)


def add_model(parser: argparse.ArgumentParser) -> None:
    """Declares --model, which `codec/shipped.py` interprets."""
    what = f"folder, or name of `fa-hific models` (default: ${MODEL_VARIABLE}, else {DEFAULT})"
    parser.add_argument("--model", type=path_name, metavar="FOLDER", help=what)


def add_force(parser: Any) -> None:
    """Declares --force."""
    parser.add_argument("--force", action="store_true", help="overwrite what exists already")


def add_coding(parser: argparse.ArgumentParser) -> None:
    """Declares the options that compress and decompress share."""
    add_model(parser)
    existing = parser.add_mutually_exclusive_group()
    add_force(existing)
    what = "keep existing files and write only the others"
    existing.add_argument("--skip-existing", action="store_true", help=what)
    what = "number of threads that read and write images, and of images that wait (default: 2)"
    parser.add_argument("--jobs", type=threads, default=2, metavar="N", help=what)
    what = (
        "large images; exact: in tiles, with the pixels of the whole image; blend: faster, and the "
        "pixels differ slightly; auto (default): whole or exact, depending on the size"
    )
    parser.add_argument("--mode", choices=("auto", "exact", "blend"), default="auto", help=what)
    what = "put transparent images on a white background"
    parser.add_argument("--drop-alpha", action="store_true", help=what)


def add_rate(parser: argparse.ArgumentParser) -> None:
    """Declares --quality and --bpp."""
    rate = parser.add_mutually_exclusive_group()
    what = "quality from 0, the smallest file, to 1, the best image (default: 0.5)"
    rate.add_argument("--quality", type=share, metavar="Q", help=what)
    what = "use the highest quality with at most RATE bits per pixel, else the smallest file"
    rate.add_argument("--bpp", type=positive, metavar="RATE", help=what)
