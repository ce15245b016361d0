"""A hook of MkDocs: formulas in fences marked `math`, as GitHub draws them, become MathML.

Browsers draw that by themselves, so the pages need no script and no network.
"""

from typing import Any

from latex2mathml.converter import convert


def on_config(config: Any) -> Any:
    options = config.mdx_configs.setdefault("pymdownx.superfences", {})
    fence = {"name": "math", "class": "math", "format": _formula}
    options["custom_fences"] = [*options.get("custom_fences", ()), fence]
    return config


def _formula(source: str, *_: Any, **__: Any) -> str:
    return f'<p class="math">{convert(source, display="block")}</p>'
