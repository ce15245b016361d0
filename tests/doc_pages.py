"""What the tests of the documentation need to know of Markdown, as GitHub and the site read it."""

import re
from collections import Counter
from pathlib import Path
from typing import NamedTuple

from cpu_devices import ROOT

PAGES = sorted(
    page.relative_to(ROOT)
    for page in (*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"))
    if page.name != "CHANGELOG.md"
)
_FENCE = re.compile(r"(?ms)^(<!-- run -->\n)?^```(\w*)\n(.*?)^```$")


class Fence(NamedTuple):
    """A block of code; `run` where a comment <!-- run --> stands before it."""

    language: str
    code: str
    run: bool


def read(page: Path) -> str:
    return (ROOT / page).read_text("utf-8")


def fences(text: str) -> list[Fence]:
    return [Fence(match[2], match[3], bool(match[1])) for match in _FENCE.finditer(text)]


def links(text: str) -> list[str]:
    """Targets of links and images, outside of fences, inline code and comments."""
    prose = re.sub(r"(?s)<!--.*?-->", "", _FENCE.sub("", text))
    return re.findall(r"\]\(([^()\s]+)\)", re.sub(r"`[^`\n]*`", "`code`", prose))


def anchors(text: str) -> set[str]:
    """Names of the headings as GitHub makes them; the second of a kind ends in -1."""
    headings = re.findall(r"(?m)^#+ (.+)$", _FENCE.sub("", text))
    plain = (re.sub(r"\[(.*?)\]\(.*?\)", r"\1", heading).lower() for heading in headings)
    found = Counter(re.sub(r"[^\w\- ]", "", heading).replace(" ", "-") for heading in plain)
    return {f"{name}-{i}" if i else name for name, count in found.items() for i in range(count)}


def commands(text: str) -> list[str]:
    """The lines of all shell blocks, continued ones joined, without comments."""
    code = "\n".join(fence.code for fence in fences(text) if fence.language == "sh")
    lines = re.sub(r"\\\n\s*", "", code).splitlines()
    return [stripped for line in lines if (stripped := re.sub(r"(^|\s)#.*", "", line).strip())]
