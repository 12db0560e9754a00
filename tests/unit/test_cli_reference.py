"""The reference page is what the commands say of themselves, and `--help` teaches."""

import subprocess
import sys
from pathlib import Path

import pytest
import typer
from tools import clidocs

from onepass.cli import main


def test_the_reference_page_is_up_to_date() -> None:
    assert clidocs.PAGE.read_text() == clidocs.page(), "python tools/clidocs.py --write"


COMMANDS = [
    "up",
    "status",
    "version",
    "explain",
    "who-can",
    *(f"cluster {name}" for name in ("add", "join", "import", "list", "show", "rotate", "remove", "leave")),
    *(f"pass {name}" for name in ("issue", "list", "show", "revoke")),
    "streams",
    "streams end",
    *(f"ca {name}" for name in ("list", "rotate")),
    *(f"seal {name}" for name in ("status", "generate", "rotate")),
    "login",
    *(f"credential {name}" for name in ("oidc", "certificate")),
]


def test_every_command_stands_in_the_page() -> None:
    lines = clidocs.page().splitlines()
    titles = [line.removeprefix("## onepass ") for line in lines if line.startswith("## ")]
    assert sorted(titles) == sorted(COMMANDS)


@pytest.mark.parametrize("command", COMMANDS)
def test_help_shows_an_example(command: str) -> None:
    found = typer.main.get_command(main.app)
    for name in command.split():
        children: dict[str, typer.core.TyperCommand] = getattr(found, "commands", {})
        found = children[name]
    assert f"onepass {command}" in (found.help or "")


def test_help_is_there_without_a_terminal_and_without_a_gateway(tmp_path: Path) -> None:
    done = subprocess.run(
        [str(Path(sys.executable).parent / "onepass"), "pass", "issue", "--help"],
        cwd=tmp_path,
        env={"NO_COLOR": "1", "COLUMNS": "100"},
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    assert "[default: get,list,watch]" in done.stdout
    assert "[default: 8h]" in done.stdout
    assert "\x1b" not in done.stdout
