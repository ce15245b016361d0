"""An image and its versions by several codecs as one HTML page that loads nothing."""

from collections.abc import Sequence
from html import escape
from importlib import resources
from string import Template

from PIL import Image as PilImage

from fa_hific_jax.demo.equal_size import Image, Version, bpp
from fa_hific_jax.demo.sheet import Place
from fa_hific_jax.evaluation.report.page import SIZE_LIMIT, asset
from fa_hific_jax.evaluation.report.pictures import DETAILS, data_uri, script_json


def page(
    name: str,
    original: Image,
    versions: Sequence[Version],
    places: Sequence[Place],
    notes: Sequence[str],
) -> bytes:
    """Returns the page: any two of the pictures with a divider, and a table of all numbers.

    Buttons zoom to the places. The page stays under the report's SIZE_LIMIT by coding the pictures
    with loss, then by making them smaller, and says so.
    """
    height, width, _ = original.shape
    sources, fidelity = _embedded([original, *(version.image for version in versions)])
    told = [("original", ""), *((v.title, f"{v.size}, {v.numbers}") for v in versions)]
    index = {
        "name": name,
        "width": width,
        "height": height,
        "versions": [
            {"title": title, "told": numbers, "src": source}
            for (title, numbers), source in zip(told, sources, strict=True)
        ],
        "places": [{"x": p.middle[0], "y": p.middle[1], "side": p.side} for p in places],
    }
    text = Template(_own("compare.html")).substitute(
        name=escape(name),
        width=width,
        height=height,
        style=asset("report.css"),
        stage=asset("stage.html"),
        rows="\n".join(map(_row, versions)),
        notes="".join(f'<p class="warning">{escape(note)}</p>\n' for note in notes),
        fidelity=fidelity,
        index=script_json(index),
        script=asset("viewer.js") + _own("compare.js"),
    )
    return text.encode()


def _row(version: Version) -> str:
    numbers = (
        version.size.replace(" bytes", ""),
        f"{bpp(version.data, version.image):.4f}",
        f"{version.psnr:.2f}",
        "–" if version.lpips is None else f"{version.lpips:.4f}",
    )
    cells = "".join(f"<td>{escape(number)}</td>" for number in numbers)
    setting = f'<td class="text">{escape(version.setting)}</td>'
    return f'<tr><th scope="row">{escape(version.label)}</th>{cells}{setting}</tr>'


def _embedded(images: Sequence[Image]) -> tuple[list[str], str]:
    """Returns the images as data URIs by the first plan that fits, and a sentence on their loss."""
    sources, quality, scale = [], None, 1.0
    for quality, scale in dict.fromkeys((each.quality, each.scale) for each in DETAILS):
        sources = [data_uri(PilImage.fromarray(image), quality, scale) for image in images]
        if sum(map(len, sources)) <= SIZE_LIMIT:
            break
    if quality is None:
        return sources, "The pictures are embedded without loss."
    size = f", at {100 * scale:.0f} % of their size" if scale < 1 else ""
    return sources, (
        f"The pictures are embedded with loss to bound this file: WebP of quality {quality}{size}."
    )


def _own(name: str) -> str:
    return resources.files("fa_hific_jax.demo").joinpath(name).read_text("utf-8")
