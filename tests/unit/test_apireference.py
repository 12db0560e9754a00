"""The table of what the API does: every test that it names is there."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
TABLE = ROOT / "docs" / "reference" / "api.md"
SHOWN = re.compile(r"\[`(\w+)`\]\(\.\./\.\./(tests/[\w/]+\.py)\)")


def test_every_row_leads_to_a_test_that_exists() -> None:
    rows = [line for line in TABLE.read_text().splitlines() if line.startswith("| ") and "shown by" not in line]
    assert len(rows) > 60
    for row in rows:
        shown = SHOWN.search(row)
        if shown is None:
            assert "**" in row, f"neither shown nor a gap: {row}"
            continue
        name, path = shown.groups()
        assert re.search(rf"(?m)^(async )?def {name}\(", (ROOT / path).read_text()), f"{path} has no {name}"
