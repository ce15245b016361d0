"""Invented results in the form of a results.json, and pictures of noise for their page."""

import math

import numpy as np
from PIL import Image

from fa_hific_jax.evaluation.results import means

METRICS = {
    "psnr": {"label": "PSNR", "unit": "dB", "better": "higher", "decimals": 2},
    "lpips_alex": {"label": "LPIPS", "unit": "", "better": "lower", "decimals": 4},
    "band_low": {"label": "low band", "unit": "dB", "better": "zero", "decimals": 2},
    "fid": {"label": "FID", "unit": "", "better": "lower", "decimals": 2},
    "fd_alex": {"label": "FD-Alex", "unit": "", "better": "lower", "decimals": 2},
}
KINDS = {"jpeg": "baseline", "webp": "baseline", "untrained": "control"}
LABELS = {"ours": "FA-HiFiC lite", "jpeg": "JPEG", "webp": "WebP"}
POINTS = {
    "ours": {"q=0": 0.2, "q=1": 0.6},
    "untrained": {"": 0.4},
    "jpeg": {f"quality {q}": q / 100 for q in (10, 22, 35, 58, 90)},
    "webp": {f"quality {q}": q / 80 for q in (5, 15, 50, 80)},
}
PROTOCOL = {"patch": 256, "grids": 2, "patches": 1234, "features": "AlexNet", "weights": "abc"}


def row(image, codec="demo", point="", bpp=0.25, psnr=30.0, lpips=None, **more):
    """A row; `more` takes the place of its other fields."""
    stem = f"{image}.{codec}.{point}".replace("/", "_").replace(" ", "_")
    return {
        "image": image, "codec": codec, "point": point, "width": 96, "height": 64,
        "bytes": 60, "bpp": bpp, "bpp_estimated": None, "setting": "",
        "values": {"psnr": psnr, "lpips_alex": lpips},
        "not_measured": {"lpips_alex": "no weights"} if lpips is None else {},
        "seconds_encode": 1.0, "seconds_decode": 2.0,
        "file": f"reconstructions/{stem}.png", "bits": None,
    } | more  # fmt: skip


def results(rows, images=2, sets=(), **meta):
    """What results.json holds of rows; metrics that none of them has lack their weights."""
    names = [*rows[0]["values"], *(e["metric"] for e in sets if e["metric"] in METRICS)]
    metrics = {}
    for name in names:
        missing = {row["values"].get(name, "of a set") for row in rows} == {None}
        reason = {"not_measured": "no weights" if missing else None}
        metrics[name] = METRICS[name] | {"reference": ""} | reason
    codecs = {}
    for codec in dict.fromkeys(row["codec"] for row in rows):
        known = {"label": LABELS.get(codec, codec), "kind": KINDS.get(codec, "model")}
        codecs[codec] = known | {"version": "1", "settings": {}, "not_measured": None}
    return {
        "meta": {"command": "eval.py", "skipped": [], "failed": [], "count": images} | meta,
        "codecs": codecs,
        "metrics": metrics,
        "rows": rows,
        "means": means(rows, images),
        "sets": list(sets),
        "published": [],
    }


def results_of(images=("first", "second"), size=(48, 32), codecs=tuple(POINTS)):
    """Every image through every point of the codecs; values differ by image and rate."""
    rows = []
    for i, image in enumerate(images):
        for codec in codecs:
            for point, bpp in POINTS[codec].items():
                rows.append(_row(image, codec, point, bpp * (1 + 0.1 * i), size, (i * 7) % 5))
    return results(rows, len(images))


def _row(image, codec, point, bpp, size, offset):
    made = row(image, codec, point, bpp, 30 + offset + 5 * math.log2(bpp), 0.1 / bpp + offset)
    made["values"]["band_low"] = 0.5 - bpp
    made["bpp_estimated"] = None if KINDS.get(codec) == "baseline" else bpp
    made["bits"] = f"{made['file']}.npz" if codec == "ours" else None
    return made | {"width": size[0], "height": size[1]}


def with_means(results):
    """The results with means of their rows."""
    images = len({row["image"] for row in results["rows"]})
    return results | {"means": means(results["rows"], images)}


def save_pictures(folder, results):
    """Dark noise for the originals, bright noise for what was decoded, and maps of bits."""
    for directory in ("originals", "reconstructions"):
        (folder / directory).mkdir(parents=True, exist_ok=True)
    for i, row in enumerate(results["rows"]):
        for level, name in ((0, f"originals/{row['image']}.png"), (160, row["file"])):
            noise = np.random.default_rng(i).integers(level, level + 96, (4, 6, 3)).astype(np.uint8)
            Image.fromarray(noise).resize((row["width"], row["height"])).save(folder / name)
        if row["bits"]:
            z = np.ones((-(-row["height"] // 64), -(-row["width"] // 64)), np.float32)
            np.savez(folder / row["bits"], y=np.full([4 * n for n in z.shape], 2, np.float32), z=z)
