"""Writes docs/reference/cli.md out of the commands themselves: `python tools/clidocs.py --write`.

Without `--write` it only says whether the page is up to date; tests/unit/test_cli_reference.py asks the same.
"""

import re
import sys
from collections.abc import Iterator
from pathlib import Path

import typer

from onepass.cli import main

PAGE = Path(__file__).parent.parent / "docs" / "reference" / "cli.md"
_HEAD = """# The command line

Made from `onepass --help` by [tools/clidocs.py](../../tools/clidocs.py). Every command is an API client like any other:
what it does can be done with kubectl too.

**Which gateway.** The first of these that is given: the command's own `--kubeconfig` or `--data-dir`, the same options
before the command, `$ONEPASS_KUBECONFIG`, `$ONEPASS_DATA_DIR`, `.onepass` in the current folder. A data directory
stands for its `admin.kubeconfig`. For `cluster add` and `cluster import`, `--kubeconfig` after the command is the
member's.

**Output.** `-o json` and `-o yaml` print the result alone on standard output; progress and errors go to standard error.
`NO_COLOR` turns colours off, and without a terminal no line is wrapped or cut.

**Exit status.** 0 done; 1 refused or failed, with one sentence on standard error; 2 the command line itself was wrong;
130 interrupted.

**Completion.** `onepass --install-completion` makes the shell complete commands, options, and the names of clusters,
passes and contexts.
"""


def _text(help_: str | None) -> str:
    """A docstring without rich's markup; what stands below `Examples` becomes a code block."""
    prose, _, examples = re.sub(r"\[bold\](Examples?)\[/\]", r"\1", help_ or "").partition("\nExample")
    block = "\n".join(line for line in examples.splitlines()[1:] if line.strip())
    return prose.strip() + (f"\n\n```console\n{block}\n```" if block else "")


def _row(parameter: object) -> str:
    names = ", ".join(
        f"`{name}`" for name in [*getattr(parameter, "opts", ()), *getattr(parameter, "secondary_opts", ())]
    )
    told = (getattr(parameter, "help", "") or "").strip()
    if getattr(parameter, "param_type_name", "") == "argument":
        names = f"`{str(getattr(parameter, 'name', '')).upper()}`"
    default = getattr(parameter, "default", None)
    shown = getattr(parameter, "show_default", True) and default not in (None, "", False, []) and not callable(default)
    if shown and not getattr(parameter, "is_flag", False):
        told += f" Default: `{getattr(default, 'value', default)}`."
    required = " Required." if getattr(parameter, "required", False) else ""
    return f"| {names} | {(told + required).replace('|', chr(92) + '|')} |"


def _sections(command: object, path: str) -> Iterator[str]:
    children = getattr(command, "commands", None)
    if children is None or getattr(command, "invoke_without_command", False):  # a group may be a command as well
        yield _section(command, path)
    for name, child in (children or {}).items():
        yield from _sections(child, f"{path} {name}")


def _section(command: object, path: str) -> str:
    rows = [_row(parameter) for parameter in getattr(command, "params", ())]
    table = "\n".join(["| option | what it says |", "|---|---|", *rows])
    return f"## {path}\n\n{_text(getattr(command, 'help', ''))}\n\n{table}\n"


def page() -> str:
    """The whole page, as it should stand."""
    return "\n".join([_HEAD, *_sections(typer.main.get_command(main.app), "onepass")])


def run() -> int:
    if "--write" in sys.argv[1:]:
        PAGE.parent.mkdir(parents=True, exist_ok=True)
        PAGE.write_text(page())
        return 0
    if PAGE.is_file() and PAGE.read_text() == page():
        return 0
    print(f"{PAGE} is out of date: python tools/clidocs.py --write")
    return 1


if __name__ == "__main__":
    sys.exit(run())
