"""Parses numbers and places of the command line, as types of arguments."""

import argparse
import math
import re


def share(text: str) -> float:
    """Returns a number from 0 to 1."""
    return _number(text, lambda value: 0 <= value <= 1, "a number from 0 to 1")


def positive(text: str) -> float:
    """Returns a finite number above 0."""
    return _number(text, lambda value: 0 < value < math.inf, "a number above 0")


def threads(text: str) -> int:
    """Returns a number of threads that every system can start, 1 to 256."""
    return int(_number(text, lambda value: 1 <= value <= 256, "a whole number from 1 to 256", int))


def port(text: str) -> int:
    """Returns the number of a port, 1 to 65535."""
    return int(_number(text, lambda value: 0 < value < 65536, "a whole number up to 65535", int))


def point(text: str) -> tuple[int, int]:
    """Returns the x and y of a pixel, given as X,Y."""
    if not (match := re.fullmatch(r"(\d+),(\d+)", text)):
        raise argparse.ArgumentTypeError(f"invalid value {text!r}: give X,Y in pixels, as 400,120")
    return int(match[1]), int(match[2])


def _number(text, fits, wanted, kind=float):
    try:
        value = kind(text)
    except ValueError:
        value = None
    if value is None or not fits(value):
        raise argparse.ArgumentTypeError(f"invalid value {text!r}: give {wanted}")
    return value
