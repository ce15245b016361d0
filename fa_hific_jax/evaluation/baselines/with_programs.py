"""BPG and VVC through the programs of their authors, if these are on the PATH."""

import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path

from fa_hific_jax.errors import UserError
from fa_hific_jax.evaluation.baselines import yuv
from fa_hific_jax.evaluation.baselines.with_pillow import Codec, Pixels, decoded, saved

SECONDS = 600
"""Seconds after which a program counts as hanging."""

BPG = ("-e", "x265", "-c", "ycbcr", "-f", "444", "-b", "8", "-m", "9")
# One picture, so neither threads nor groups of pictures; QPA would trade PSNR for appearance.
VVC = ("--preset", "medium", "--qpa", "0", "--threads", "1", "--frames", "1", "--framerate", "1")


def _bpg(image: Pixels, quality: int) -> tuple[bytes, str]:
    options = (*BPG, "-q", str(quality), "-o", "out.bpg", "in.png")
    data = _made("out.bpg", "in.png", saved(image, "PNG", compress_level=1), "bpgenc", *options)
    return data, f"qp {quality}, x265, 4:4:4, 8 bit"


def _bpg_back(data: bytes) -> Pixels:
    return decoded(_made("out.png", "in.bpg", data, "bpgdec", "-o", "out.png", "in.bpg"))


def _vvc(image: Pixels, quality: int) -> tuple[bytes, str]:
    height, width, _ = image.shape
    # The program takes even sides; two numbers of 16 bits before the stream hold the true size.
    size = f"{width + width % 2}x{height + height % 2}"
    data = _made(
        "out.266", "in.yuv", yuv.from_rgb(image), "vvencapp", *VVC, "--format", "yuv420_10",
        "--size", size, "--qp", str(quality), "--input", "in.yuv", "--output", "out.266",
    )  # fmt: skip
    header = width.to_bytes(2, "little") + height.to_bytes(2, "little")
    return header + data, f"qp {quality}, medium, 4:2:0, 10 bit"


def _vvc_back(data: bytes) -> Pixels:
    width, height = (int.from_bytes(data[i : i + 2], "little") for i in (0, 2))
    options = ("--threads", "1", "--bitstream", "in.266", "--output", "out.yuv")
    planes = _made("out.yuv", "in.266", data[4:], "vvdecapp", *options)
    if len(planes) != (size := yuv.size(height, width)):
        raise UserError(
            f"vvdecapp wrote {len(planes)} bytes for a {width}x{height} picture in place of "
            f"{size}: leave this baseline out or install another version of it"
        )
    return yuv.to_rgb(planes, height, width)


def _made(output: str, source: str, content: bytes, *command: str) -> bytes:
    """Returns the file `output` that a program makes in a folder that holds only `source`.

    Raises:
      UserError: the program fails, hangs, is missing, or writes nothing.
    """
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, source).write_bytes(content)
        code, lines = _ended(command, folder)
        if code:
            failed = f"{command[0]} failed with code {code} ({lines[-1]})"
            raise UserError(f"{failed}: leave this baseline out or fix its installation")
        made = Path(folder, output)
        data = made.read_bytes() if made.exists() else b""
    if not data:
        raise UserError(f"{command[0]} wrote nothing: leave this baseline out or install it anew")
    return data


def _ended(command: Sequence[str], folder: str | None = None) -> tuple[int, list[str]]:
    """Returns the exit code of a program and the lines it printed, at least one."""
    try:
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, text=True, errors="replace",
            timeout=SECONDS, cwd=folder,
        )  # fmt: skip
    except OSError as error:
        raise UserError(f"{command[0]} cannot be run ({error.strerror}): install it") from None
    except subprocess.TimeoutExpired:
        slow = f"{command[0]} took more than {SECONDS} s"
        raise UserError(f"{slow}: leave this baseline out") from None
    lines = (done.stdout + done.stderr).strip().splitlines()
    return done.returncode, [line.strip() for line in lines] or ["no message"]


def _missing(*programs: str) -> str | None:
    absent = [program for program in programs if shutil.which(program) is None]
    verb, them = ("are", "them") if absent[1:] else ("is", "it")
    return f"{' and '.join(absent)} {verb} not on the PATH: install {them}" if absent else None


def _version(*commands: Sequence[str]) -> str:
    """Returns the first line that each command prints, whatever its exit code."""
    return "; ".join(_ended(command)[1][0] for command in commands)


_SWEEP = (48, 45, 42, 39, 36, 33, 30, 27)
CODECS = {
    "bpg": Codec(
        label="BPG", qualities=range(51, -1, -1), sweep=_SWEEP, longest_side=65535,
        settings={"encoder": "bpgenc " + " ".join(BPG)}, encode=_bpg, decode=_bpg_back,
        missing=lambda: _missing("bpgenc", "bpgdec"), version=lambda: _version(["bpgenc", "-h"]),
    ),
    "vvc": Codec(
        label="VVC (VVenC)", qualities=range(63, -1, -1), sweep=_SWEEP, longest_side=16384,
        settings={"encoder": "vvencapp " + " ".join(VVC), "color": "BT.709, full range, 4:2:0"},
        encode=_vvc, decode=_vvc_back, missing=lambda: _missing("vvencapp", "vvdecapp"),
        version=lambda: _version(["vvencapp", "--version"], ["vvdecapp", "--version"]),
    ),
}  # fmt: skip
