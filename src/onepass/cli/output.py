"""What the terminal shows. Results go to standard output, everything else to standard error.

Text that comes from the API or from a file is made `safe` first: no escape sequence of a stranger reaches a terminal.
"""

import json
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from enum import Enum
from typing import TYPE_CHECKING

from onepass.api.meta import Object

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

# Wide enough that nothing is cut when the output is a file or a pipe.
_UNBOUNDED = 4_000


class Format(str, Enum):  # noqa: UP042  typer shows the values of a str enumeration as the choices
    """What `-o` takes."""

    table = "table"
    json = "json"
    yaml = "yaml"


def safe(text: object) -> str:
    """Text without control characters and without anything that rich would take for markup."""
    from rich.markup import escape

    return escape("".join(c if c.isprintable() else "\ufffd" for c in str(text)))


def _console(*, stderr: bool) -> "Console":
    from rich.console import Console

    console = Console(stderr=stderr, highlight=False, soft_wrap=True)
    if not console.is_terminal:
        console.width = _UNBOUNDED
    return console


def say(markup: str = "") -> None:
    """A line of the result."""
    _console(stderr=False).print(markup)


def note(markup: str) -> None:
    """A line about how things go."""
    _console(stderr=True).print(markup)


def fail(what: str, hint: str) -> None:
    """An error: what, and what to do next. Both are made safe here."""
    console = _console(stderr=True)
    console.print(f"[bold red]error:[/] {safe(what)}")
    for line in hint.splitlines():
        console.print(f"  {safe(line)}")


def data(format: Format, value: Object) -> None:
    """One object as JSON or YAML, and nothing else, on standard output."""
    if format is Format.yaml:
        from onepass.api import yamltext

        sys.stdout.write(yamltext.dump(value))
    else:
        sys.stdout.write(json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def items(format: Format, objects: Sequence[Object]) -> None:
    """Several objects as a `v1 List`, as kubectl does."""
    data(format, {"apiVersion": "v1", "kind": "List", "metadata": {}, "items": list(objects)})


def table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Aligned columns. Cells are markup; in a terminal they wrap, elsewhere each row is one line."""
    from rich.table import Table

    console = _console(stderr=False)
    grid = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    for column in columns:
        grid.add_column(column, no_wrap=not console.is_terminal, overflow="fold")
    for row in rows:
        grid.add_row(*row)
    _show(console, grid)


def facts(pairs: Sequence[tuple[str, str]]) -> None:
    """A name and a value a line; the values are markup, empty ones are left out."""
    from rich.table import Table

    console = _console(stderr=False)
    grid = Table.grid(padding=(0, 2, 0, 0))
    grid.add_column(style="bold", no_wrap=True)
    grid.add_column(no_wrap=not console.is_terminal, overflow="fold")
    for label, value in pairs:
        if value:
            grid.add_row(label, value)
    _show(console, grid)


def _show(console: "Console", grid: "Table") -> None:
    if console.is_terminal:
        console.print(grid, soft_wrap=False)
        return
    with console.capture() as captured:
        console.print(grid, soft_wrap=False)
    # rich pads every line to the width of the widest.
    sys.stdout.writelines(f"{line.rstrip()}\n" for line in captured.get().splitlines())


@contextmanager
def waiting(what: str) -> Iterator[None]:
    """A spinner on standard error while the body runs; one plain line where there is no terminal."""
    console = _console(stderr=True)
    if not console.is_terminal:
        console.print(f"{safe(what)} ...")
        yield
        return
    with console.status(safe(what)):
        yield


@contextmanager
def progress(what: str, total: int) -> Iterator["Step"]:
    """A progress bar on standard error while the body runs; nothing where there is no terminal."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

    console = _console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task(safe(what), total=total)
        yield lambda text: bar.update(task, description=safe(text), advance=1)


if TYPE_CHECKING:
    from collections.abc import Callable

    Step = Callable[[str], None]
