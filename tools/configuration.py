"""docs/configuration.md from the comments and defaults of configs/base.py.

  python -m tools.configuration

tests/test_docs.py holds the page to what this writes.
"""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[1]
SOURCE = ROOT / "configs" / "base.py"
PAGE = ROOT / "docs" / "configuration.md"
HEAD = """\
# Every setting

<!-- Made by `python -m tools.configuration` from configs/base.py: change that one. -->

All keys of a config with their defaults, those of HiFiC at its lowest rate. A config is a Python
file that begins with these and changes a few: `configs/hific.py`, `configs/fa_hific.py`. On the
command line any key can be changed, and one that does not exist ends the run by name:

```sh
python train.py --config configs/hific.py:lo --workdir runs/hific_lo \\
    --config.train.batch_size=16 --config.data.train="('/data/photos',)"
```

A tuple of one has a comma. {sources}
"""


class Entry(NamedTuple):
    """Keys that are explained together, "loss.mse" with "0.075 * 2.0**-5", and the comment."""

    keys: dict[str, str]
    comment: list[str]


def entries(source: str) -> Iterator[Entry]:
    """Those of `configs/base.py`, in its order."""
    keys: dict[str, str] = {}
    comment: list[str] = []
    for line in map(str.strip, source.splitlines()):
        if line.startswith("#"):
            if keys:
                yield Entry(keys, comment)
                keys, comment = {}, []
            comment.append(line.removeprefix("#").removeprefix(" "))
        elif match := re.fullmatch(r"config\.([\w.]+) = (?!ConfigDict\()(.+)", line):
            keys[match[1]] = match[2]
    yield Entry(keys, comment)


def page() -> str:
    """The whole page."""
    source = SOURCE.read_text("utf-8")
    _, _, docstring = source.split('"""')[1].partition("\n\n")
    _, _, sources = docstring.replace("\n", " ").strip().partition("Sources: ")
    parts, group = [HEAD.format(sources=f"Sources: {sources}")], ""
    for entry in entries(source):
        first = next(iter(entry.keys)).rpartition(".")[0]
        if first != group:
            group = first
            parts.append(f"## {group}\n")
        parts.append(_section(entry))
    return "\n".join(parts)


def _section(entry: Entry) -> str:
    named = "  \n".join(f"**`{key}`** = `{default}`" for key, default in entry.keys.items())
    return f"{named}\n\n{_text(entry.comment)}\n"


def _text(comment: list[str]) -> str:
    """The comment as Markdown: what is indented in it is set as it stands."""
    lines: list[str] = []
    for line in comment:
        indented = line.startswith("  ")
        if indented != bool(lines and lines[-1].startswith("    ")):
            lines.append("")
        lines.append(f"  {line}" if indented else line)
    text = "\n".join(lines).strip()
    return re.sub(r"docs/([\w-]+\.md)", r"[\1](\1)", text)


if __name__ == "__main__":
    PAGE.write_text(page(), "utf-8")
    print(PAGE.relative_to(ROOT))
