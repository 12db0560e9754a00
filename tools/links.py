"""Checks that every relative link in the documentation leads to a file that is there, and to a heading that it has.

Exit status 1, with one line a broken link, when one does not. Links to other sites are not followed.
"""

import re
import sys
from collections.abc import Iterator, Set
from functools import cache
from pathlib import Path
from urllib.parse import unquote, urlsplit

ROOT = Path(__file__).parent.parent
PAGES = ("*.md", "docs/**/*.md")
_FENCE = re.compile(r"^(```|~~~)(\w*).*?^\1", re.DOTALL | re.MULTILINE)
_LINK = re.compile(r"!?\[[^\]]*\]\(\s*<?([^)\s>]+)>?(?:\s+\"[^\"]*\")?\s*\)")
_CLICK = re.compile(r"^\s*click\s+\S+\s+(?:href\s+)?\"([^\"]+)\"", re.MULTILINE)
_HEADING = re.compile(r"^#{1,6}\s+(.+?)\s*#*$", re.MULTILINE)


def links(text: str) -> Iterator[str]:
    """Targets of Markdown links outside code, and of `click` lines inside mermaid diagrams."""
    for fence in _FENCE.finditer(text):
        if fence[2] == "mermaid":
            yield from _CLICK.findall(fence[0])
    bare = re.sub(r"`[^`\n]*`", "", _FENCE.sub("", text))
    yield from _LINK.findall(bare)


@cache
def anchors(page: Path) -> Set[str]:
    """The anchors that GitHub gives the headings of a page."""
    found: set[str] = set()
    for heading in _HEADING.findall(_FENCE.sub("", page.read_text())):
        plain = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading)
        slug = re.sub(r"[^\w\- ]", "", plain.lower()).replace(" ", "-")
        number = 0
        while (anchor := f"{slug}-{number}" if number else slug) in found:
            number += 1
        found.add(anchor)
    return found


def wrong(page: Path, target: str, root: Path = ROOT) -> str:
    """Why a link leads nowhere, "" when it leads somewhere."""
    split = urlsplit(target)
    if split.scheme or split.netloc:
        return ""
    there = (page.parent / unquote(split.path)).resolve() if split.path else page.resolve()
    if not there.is_relative_to(root.resolve()):
        return "it leads out of the repository"
    if not there.exists():
        return "there is no such file"
    if split.fragment and there.suffix == ".md" and split.fragment not in anchors(there):
        return "that page has no such heading"
    return ""


def broken(root: Path = ROOT) -> list[str]:
    """`page: target: why`, one for each broken link, in the order of the pages."""
    pages = sorted({page for pattern in PAGES for page in root.glob(pattern)})
    return [
        f"{page.relative_to(root)}: {target}: {why}"
        for page in pages
        for target in links(page.read_text())
        if (why := wrong(page, target, root))
    ]


def run() -> int:
    found = broken()
    print("\n".join(found) if found else "every link leads somewhere")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(run())
