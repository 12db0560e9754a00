"""The links of the documentation."""

from pathlib import Path

import pytest
from tools import links


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("[a](other.md)", ""),
        ("[a](other.md#a-heading)", ""),
        ("[a](other.md#two)", ""),
        ("[a](other.md#a-heading-1)", ""),
        ("[a](#here)\n\n# Here", ""),
        ("[a](https://example.com/absent.md)", ""),
        ("`[a](absent.md)`", ""),
        ("```sh\n[a](absent.md)\n```", ""),
        ("[a](absent.md)", "there is no such file"),
        ('![a](absent.png "title")', "there is no such file"),
        ("[a](other.md#nothing)", "that page has no such heading"),
        ("[a](other.md#in-code)", "that page has no such heading"),
        ("[a](../../etc/passwd)", "it leads out of the repository"),
        ('```mermaid\nflowchart\nclick x "absent.py"\n```', "there is no such file"),
    ],
)
def test_a_link_leads_somewhere_or_is_told(tmp_path: Path, text: str, why: str) -> None:
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs" / "other.md").write_text("# A heading\n## [Two](x.md)!\n# A heading\n```\n# in code\n```\n")
    (tmp_path / "docs" / "x.md").touch()
    (tmp_path / "docs" / "page.md").write_text(text)
    found = [line for line in links.broken(tmp_path) if line.startswith("docs/page.md")]
    assert [line.rpartition(": ")[2] for line in found] == ([why] if why else [])


def test_the_documentation_has_no_broken_link() -> None:
    assert links.broken() == []
