"""BPG and VVC through the programs of their authors, if these are on the PATH."""

import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from fa_hific_jax.errors import UserError
from fa_hific_jax.evaluation.baselines import yuv
from fa_hific_jax.evaluation.baselines.codec import Codec, Pixels

SECONDS = 600
"""Seconds after which a program counts as hanging."""

BPG = ("-e", "x265", "-c", "ycbcr", "-f", "444", "-b", "8", "-m", "9")
# One picture, so neither threads nor groups of pictures; QPA would trade PSNR for appearance.
VVC = ("--preset", "medium", "--qpa", "0", "--threads", "1", "--frames", "1", "--framerate", "1")


def _bpg(image: Pixels, quality: int) -> tuple[bytes, str]:
    with tempfile.TemporaryDirectory() as folder:
        source, file = Path(folder, "image.png"), Path(folder, "image.bpg")
        Image.fromarray(image).save(source, compress_level=1)
        _run("bpgenc", *BPG, "-q", str(quality), "-o", str(file), str(source))
        return _read("bpgenc", file), f"qp {quality}, x265, 4:4:4, 8 bit"


def _bpg_back(data: bytes) -> Pixels:
    with tempfile.TemporaryDirectory() as folder:
        file, decoded = Path(folder, "image.bpg"), Path(folder, "image.png")
        file.write_bytes(data)
        _run("bpgdec", "-o", str(decoded), str(file))
        _read("bpgdec", decoded)
        with Image.open(decoded) as picture:
            return np.asarray(picture.convert("RGB"))


def _vvc(image: Pixels, quality: int) -> tuple[bytes, str]:
    height, width, _ = image.shape
    # The programs need even sides; two numbers of 16 bits before the stream hold the true size.
    size = f"{width + width % 2}x{height + height % 2}"
    with tempfile.TemporaryDirectory() as folder:
        source, file = Path(folder, "image.yuv"), Path(folder, "image.266")
        source.write_bytes(yuv.from_rgb(image))
        _run(
            "vvencapp", *VVC, "--format", "yuv420_10", "--size", size,
            "--qp", str(quality), "--input", str(source), "--output", str(file),
        )  # fmt: skip
        header = width.to_bytes(2, "little") + height.to_bytes(2, "little")
        return header + _read("vvencapp", file), f"qp {quality}, medium, 4:2:0, 10 bit"


def _vvc_back(data: bytes) -> Pixels:
    width, height = (int.from_bytes(data[i : i + 2], "little") for i in (0, 2))
    with tempfile.TemporaryDirectory() as folder:
        file, decoded = Path(folder, "image.266"), Path(folder, "image.yuv")
        file.write_bytes(data[4:])
        _run("vvdecapp", "--threads", "1", "--bitstream", str(file), "--output", str(decoded))
        planes = _read("vvdecapp", decoded)
    if len(planes) != yuv.size(height, width):
        raise UserError(
            f"vvdecapp wrote {len(planes)} bytes for a {width}x{height} picture in place of "
            f"{yuv.size(height, width)}: leave this baseline out or install another version of it"
        )
    return yuv.to_rgb(planes, height, width)


def _run(*command: str) -> None:
    """Runs a program; raises a UserError with its last line if it fails, hangs or is missing."""
    done = _ended(command)
    if done.returncode:
        raise UserError(
            f"{command[0]} failed with code {done.returncode} ({_lines(done)[-1]}): "
            "leave this baseline out or fix its installation"
        )


def _ended(command: Sequence[str]) -> subprocess.CompletedProcess[str]:
    try:
        return subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, text=True, errors="replace",
            timeout=SECONDS,
        )  # fmt: skip
    except OSError as error:
        raise UserError(f"{command[0]} cannot be run ({error.strerror}): install it") from None
    except subprocess.TimeoutExpired:
        raise UserError(
            f"{command[0]} took more than {SECONDS} s: leave this baseline out"
        ) from None


def _lines(done: subprocess.CompletedProcess[str]) -> list[str]:
    lines = (done.stdout + done.stderr).strip().splitlines()
    return [line.strip() for line in lines] or ["no message"]


def _read(program: str, file: Path) -> bytes:
    if not file.exists() or not os.path.getsize(file):
        raise UserError(f"{program} wrote nothing: leave this baseline out or install it anew")
    return file.read_bytes()


def _missing(*programs: str) -> Callable[[], str | None]:
    def reason() -> str | None:
        absent = [program for program in programs if shutil.which(program) is None]
        if not absent:
            return None
        verb, them = ("are", "them") if absent[1:] else ("is", "it")
        return f"{' and '.join(absent)} {verb} not on the PATH: install {them}"

    return reason


def _version(*commands: Sequence[str]) -> Callable[[], str]:
    """Returns a function that joins the first line each command prints, whatever its exit code."""
    return lambda: "; ".join(_lines(_ended(command))[0] for command in commands)


CODECS = {
    "bpg": Codec(
        label="BPG",
        qualities=range(51, -1, -1),
        sweep=(48, 45, 42, 39, 36, 33, 30, 27),
        longest_side=65535,
        settings={"encoder": "bpgenc " + " ".join(BPG)},
        missing=_missing("bpgenc", "bpgdec"),
        version=_version(["bpgenc", "-h"]),
        encode=_bpg,
        decode=_bpg_back,
    ),
    "vvc": Codec(
        label="VVC (VVenC)",
        qualities=range(63, -1, -1),
        sweep=(48, 45, 42, 39, 36, 33, 30, 27),
        longest_side=16384,
        settings={"encoder": "vvencapp " + " ".join(VVC), "color": "BT.709, full range, 4:2:0"},
        missing=_missing("vvencapp", "vvdecapp"),
        version=_version(["vvencapp", "--version"], ["vvdecapp", "--version"]),
        encode=_vvc,
        decode=_vvc_back,
    ),
}
