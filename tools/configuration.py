"""Makes docs/configuration.md from the declarations in fa_hific_jax/settings.

  python -m tools.configuration

tests/test_docs.py compares the page with what this writes.
"""

import ast
import inspect
import itertools
import re
from pathlib import Path
from typing import Any

from fa_hific_jax.settings import Settings, declarations

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "configuration.md"
HEAD = """\
# Every setting

<!-- Made by `python -m tools.configuration` from fa_hific_jax/settings: change those. -->

This page explains every key of a config. The defaults are those of HiFiC at its lowest rate. A
config is a Python file that starts from these defaults and changes a few of them, such as
`configs/hific.py`. The command line can change every key, and refuses a key that does not exist:

```sh
python train.py --config configs/hific.py:lo --workdir runs/hific_lo \\
    --config.train.batch_size=16 --config.data.train="('/data/photos',)"
```

A tuple with one element needs a comma. Names in parentheses give the source of a default: "HiFiC"
is Mentzer et al. 2020 with models/hific of tensorflow/compression, "PyTorch HiFiC" Justin-Tan's
high-fidelity-generative-compression, "FA-HiFiC" the authors' poster and repository
(aa35037123/frequency-augmented-high-fidelity-generative-compression), "FA-VAE" Lin et al., CVPR
2023, "FFL" Jiang et al., ICCV 2021. [Ideas and equations](concepts.md) explains the terms.
"""


def page() -> str:
    """Returns the whole page."""
    parts, group, texts = [HEAD], "", explanations(Settings)
    for name, field in declarations():
        if name.rpartition(".")[0] != group:
            group = name.rpartition(".")[0]
            texts = explanations(type(getattr(Settings(), group)))
            parts.append(f"## {group}\n")
        text = re.sub(r"docs/([\w-]+\.md)", r"[\1](\1)", texts[field.name])
        parts.append(f"**`{name}`** = `{field.default!r}`\n\n{text}\n")
    return "\n".join(parts)


def explanations(group: type) -> dict[str, str]:
    """Returns the string below each field of a dataclass, by the name of the field."""
    definition: Any = ast.parse(inspect.getsource(group)).body[0]
    statements = definition.body
    return {
        field.target.id: inspect.cleandoc(text.value.value)
        for field, text in itertools.pairwise(statements)
        if isinstance(field, ast.AnnAssign) and isinstance(text, ast.Expr)
    }


if __name__ == "__main__":
    PAGE.write_text(page(), "utf-8")
    print(PAGE.relative_to(ROOT))
