"""Makes docs/configuration.md from the declarations in fa_hific_jax/settings.

  python -m tools.configuration

tests/test_docs.py compares the page with what this writes.
"""

import inspect
import re
from pathlib import Path

from fa_hific_jax.settings import declarations

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "configuration.md"
HEAD = """\
# Every setting

<!-- Made by `python -m tools.configuration` from fa_hific_jax/settings: change those. -->

All keys of a config with their defaults, which are those of HiFiC at its lowest rate. A config is a
Python file that begins with these defaults and changes a few: `configs/hific.py`,
`configs/fa_hific.py`. The command line can change every key; a key that does not exist ends the run
with its name:

```sh
python train.py --config configs/hific.py:lo --workdir runs/hific_lo \\
    --config.train.batch_size=16 --config.data.train="('/data/photos',)"
```

A tuple of one has a comma. Sources: "HiFiC" is Mentzer et al. 2020 with models/hific of
tensorflow/compression, "FA-HiFiC" the authors' poster and repository
(aa35037123/frequency-augmented-high-fidelity-generative-compression), "FA-VAE" Lin et al., CVPR
2023, "FFL" Jiang et al., ICCV 2021.
"""


def page() -> str:
    """Returns the whole page."""
    parts, group = [HEAD], ""
    for name, field in declarations():
        if name.rpartition(".")[0] != group:
            group = name.rpartition(".")[0]
            parts.append(f"## {group}\n")
        text = inspect.cleandoc(field.metadata["text"])
        text = re.sub(r"docs/([\w-]+\.md)", r"[\1](\1)", text)
        parts.append(f"**`{name}`** = `{field.default!r}`\n\n{text}\n")
    return "\n".join(parts)


if __name__ == "__main__":
    PAGE.write_text(page(), "utf-8")
    print(PAGE.relative_to(ROOT))
