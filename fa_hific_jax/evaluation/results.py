"""What was measured: one row per image and codec, their means, and both as JSON and as a table."""

import json
import math
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from fa_hific_jax.errors import UserError

Summary = dict[str, dict[str, Any]]

OURS = "fa-hific"
# The order of rows in tables and pictures; other codecs follow.
ORDER = (OURS, "untrained", "jpeg", "webp")


class Row(NamedTuple):
    """One image through one codec. Qualities compare 8-bit images, decoded from the real file."""

    image: str  # name without suffix; the original is originals/<image>.png
    codec: str  # "fa-hific", "untrained", "jpeg" or "webp"
    width: int
    height: int
    bytes: int  # the whole file, header included
    bpp: float  # 8 * bytes / (width * height)
    bpp_estimated: float | None  # the model's own estimate; None for classical codecs
    psnr: float  # dB, infinite for identical images
    ms_ssim: float | None  # None where a side is under 161 pixels
    lpips: float | None  # None without LPIPS weights
    lfd: float  # log frequency distance, natural logarithm
    setting: str
    seconds_encode: float
    seconds_decode: float
    file: str  # the reconstruction as PNG, relative to the folder of the results


# metric -> (heading, decimals, which way is better)
METRICS = {
    "bpp": ("bpp", 4, "lower"),
    "bpp_estimated": ("est. bpp", 4, "lower"),
    "psnr": ("PSNR dB", 2, "higher"),
    "ms_ssim": ("MS-SSIM", 4, "higher"),
    "lpips": ("LPIPS", 4, "lower"),
    "lfd": ("LFD", 2, "lower"),
    "seconds_encode": ("encode s", 2, "lower"),
    "seconds_decode": ("decode s", 2, "lower"),
}
_TERMINAL = ("bpp", "bpp_estimated", "psnr", "ms_ssim", "lpips", "lfd")


def summarize(rows: Iterable[Row]) -> Summary:
    """codec -> {metric: mean over the codec's images, "images": count, "measured": counts}.

    Every image weighs the same. A metric that some images lack (`measured[metric] < images`) has
    the mean None: a mean over a subset never stands where a mean over all is expected.
    """
    by_codec: dict[str, list[Row]] = {}
    for row in rows:
        by_codec.setdefault(row.codec, []).append(row)
    return {codec: _means(by_codec[codec]) for codec in sorted(by_codec, key=rank)}


def _means(rows: list[Row]) -> dict[str, Any]:
    values = {m: [v for row in rows if (v := getattr(row, m)) is not None] for m in METRICS}
    means = {
        m: sum(map(float, v)) / len(v) if len(v) == len(rows) else None for m, v in values.items()
    }
    return {"images": len(rows), "measured": {m: len(v) for m, v in values.items()}, **means}


def rank(codec: str) -> tuple[int, str]:
    """Sort key: ours first, then `ORDER`, then by name."""
    return (ORDER.index(codec) if codec in ORDER else len(ORDER)), codec


def write_results(path: str | os.PathLike, meta: Mapping[str, Any], rows: Iterable[Row]) -> None:
    """Writes {"meta": …, "rows": […], "mean": `summarize(rows)`} as JSON.

    JSON has no infinity: an infinite PSNR is written as null, and so a null PSNR that counts as
    measured means infinity. All other non-finite numbers become null as well.
    """
    rows = list(rows)
    content = {"meta": meta, "rows": [row._asdict() for row in rows], "mean": summarize(rows)}
    replace_file(path, json.dumps(_plain(content), indent=1, allow_nan=False).encode() + b"\n")


def read_results(path: str | os.PathLike) -> dict[str, Any]:
    """The dictionary of `write_results`, null as None.

    Raises:
      UserError: the file is missing or was not written by `write_results`.
    """
    try:
        results = json.loads(Path(path).read_bytes())
    except FileNotFoundError:
        raise UserError(f"there are no results at {path}: run the evaluation first") from None
    except ValueError:
        raise UserError(f"{path} is not JSON: write it again with the evaluation") from None
    if not isinstance(results, dict) or not {"meta", "rows", "mean"} <= results.keys():
        raise UserError(
            f"{path} lacks one of meta, rows and mean: write it again with the evaluation"
        )
    return results


def replace_file(path: str | os.PathLike, data: bytes) -> None:
    """Writes data under a temporary name beside path, then renames: never half a file."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        temporary.write_bytes(data)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def _plain(value: Any) -> Any:
    """value in JSON's own types: array scalars as Python numbers, non-finite numbers as None."""
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if hasattr(value, "item"):
        value = value.item()
    return None if isinstance(value, float) and not math.isfinite(value) else value


def cell(means: Mapping[str, Any], metric: str) -> str:
    """A mean as text: "-" where nothing was measured, "5 of 6" where only some images were."""
    value, measured, images = means[metric], means["measured"][metric], means["images"]
    if measured == 0:
        return "-"
    if measured < images:
        return f"{measured} of {images}"
    if value is None:
        return "inf" if metric == "psnr" else "-"
    return f"{value:.{METRICS[metric][1]}f}"


def size_notes(summary: Summary) -> list[str]:
    """A sentence for each classical codec whose files are over 5 % off the size of ours."""
    ours = summary.get(OURS)
    notes = []
    for codec in ("jpeg", "webp"):
        if ours and codec in summary and ours["bpp"]:
            off = summary[codec]["bpp"] / ours["bpp"] - 1.0
            if abs(off) > 0.05:
                size = f"{abs(off):.0%} {'larger' if off > 0 else 'smaller'}"
                notes.append(
                    f"{codec}: bpp {size} than {OURS}; no quality setting comes closer, "
                    "so this is not a comparison at equal rate"
                )
    return notes


def format_table(summary: Summary, target_bpp: float | None) -> str:
    """The means as aligned plain text, bpp from file sizes beside the model's estimate."""
    header = ["codec", "images", *(METRICS[m][0] for m in _TERMINAL)]
    lines = [header] + [
        [codec, str(means["images"]), *(cell(means, m) for m in _TERMINAL)]
        for codec, means in summary.items()
    ]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    text = [
        "  ".join([line[0].ljust(widths[0]), *map(str.rjust, line[1:], widths[1:])])
        for line in lines
    ]
    title = "mean over images" + (f", target {target_bpp:g} bpp" if target_bpp is not None else "")
    return "\n".join([title, *text, *size_notes(summary)])
