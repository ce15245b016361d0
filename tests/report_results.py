"""Invented results with pictures of noise, in the form of a results.json, for tests of its page."""

import math

import numpy as np
from PIL import Image

from fa_hific_jax.evaluation.results import means

CODECS = {
    "ours": {"label": "FA-HiFiC lite", "kind": "model"},
    "untrained": {"label": "untrained", "kind": "control"},
    "jpeg": {"label": "JPEG", "kind": "baseline"},
    "webp": {"label": "WebP", "kind": "baseline"},
}
POINTS = {
    "ours": {"q=0": 0.2, "q=1": 0.6},
    "untrained": {"": 0.4},
    "jpeg": {f"quality {q}": q / 100 for q in (10, 22, 35, 58, 90)},
    "webp": {f"quality {q}": q / 80 for q in (5, 15, 50, 80)},
}
METRICS = {
    "psnr": {"label": "PSNR", "unit": "dB", "better": "higher", "decimals": 2},
    "lpips_alex": {"label": "LPIPS", "unit": "", "better": "lower", "decimals": 4},
    "band_low": {"label": "low band", "unit": "dB", "better": "zero", "decimals": 2},
}
PROTOCOL = {"patch": 256, "grids": 2, "patches": 1234, "features": "AlexNet", "weights": "abc"}


def results_of(images=("first", "second"), size=(48, 32), codecs=tuple(CODECS)):
    """Every image through every point of the codecs; values differ by image and rate."""
    rows = [
        _row(image, codec, point, bpp * (1 + 0.1 * i), size, offset=(i * 7) % 5)
        for i, image in enumerate(images)
        for codec in codecs
        for point, bpp in POINTS[codec].items()
    ]
    return with_means(
        {
            "meta": {"command": "fa-hific evaluate", "skipped": [], "failed": []},
            "codecs": {c: CODECS[c] | {"version": "1", "settings": {}} for c in codecs},
            "metrics": {m: d | {"reference": "", "not_measured": None} for m, d in METRICS.items()},
            "rows": rows,
            "sets": [],
            "published": [],
        }
    )


def _row(image, codec, point, bpp, size, offset):
    stem = f"{image}.{codec}.{point}".replace("/", "_").replace(" ", "_")
    psnr = 30 + offset + 5 * math.log2(bpp)
    return {
        "image": image, "codec": codec, "point": point, "width": size[0], "height": size[1],
        "bytes": 60, "bpp": bpp, "bpp_estimated": bpp if codec in ("ours", "untrained") else None,
        "values": {"psnr": psnr, "lpips_alex": 0.1 / bpp + offset, "band_low": 0.5 - bpp},
        "not_measured": {}, "setting": "", "seconds_encode": 0.1, "seconds_decode": 0.1,
        "file": f"reconstructions/{stem}.png",
        "bits": f"bits/{stem}.npz" if codec == "ours" else None,
    }  # fmt: skip


def with_means(results):
    """The results with means of their rows."""
    images = len({row["image"] for row in results["rows"]})
    return results | {"means": means(results["rows"], images)}


def save_pictures(folder, results):
    """Dark noise for the originals, bright noise for what was decoded, and maps of bits."""
    for directory in ("originals", "reconstructions", "bits"):
        (folder / directory).mkdir(parents=True, exist_ok=True)
    for i, row in enumerate(results["rows"]):
        for level, name in ((0, f"originals/{row['image']}.png"), (160, row["file"])):
            noise = np.random.default_rng(i).integers(level, level + 96, (4, 6, 3)).astype(np.uint8)
            Image.fromarray(noise).resize((row["width"], row["height"])).save(folder / name)
        if row["bits"]:
            z = np.ones((-(-row["height"] // 64), -(-row["width"] // 64)), np.float32)
            np.savez(folder / row["bits"], y=np.full([4 * n for n in z.shape], 2, np.float32), z=z)
