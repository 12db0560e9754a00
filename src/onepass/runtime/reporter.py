"""What a person sees of `onepass up`."""

from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.panel import Panel

from onepass.runtime.datadir import DataDir

_NAMED = 5  # clusters; how many there are beside is told

READY = "onepass is ready: "  # scripts wait for a line that begins so


class Reporter:
    """Writes to standard output, or to standard error where the other is taken; plain lines but for a terminal."""

    def __init__(self, *, stderr: bool = False) -> None:
        self._console = Console(highlight=False, soft_wrap=True, stderr=stderr)

    def starting(self, what: str) -> None:
        """Tells what is being done, on a terminal."""
        if self._console.is_terminal:
            self._console.print(f"[dim]{escape(what)} …[/]")

    def waiting(self, why: str) -> None:
        """Tells what keeps it from starting."""
        self._console.print(escape(why))

    def ready(self, url: str, data: DataDir, members: Sequence[str], seconds: float) -> None:
        """The line that scripts wait for, and what to type next; `members` are all that are registered."""
        self._console.print(f"{READY}{url}", style="bold green")
        shown = _shortened(data.root)
        for label, value in (
            ("clusters", _listed(members)),
            ("kubeconfig", f"{shown}/admin.kubeconfig"),
            ("data, logs", shown),
            ("started in", f"{seconds:.1f} s"),
        ):
            self._console.print(f"[dim]{label:<10}[/]  {escape(value)}")
        steps = "\n".join(f"[bold cyan]{escape(step)}[/]" for step in _steps(shown, members))
        if self._console.is_terminal:
            self._console.print(Panel(steps, title="next, in another terminal", title_align="left", expand=False))
            self._console.print("[dim]Ctrl-C stops everything; the data stays.[/]")
        else:
            self._console.print(f"next, in another terminal:\n{steps}")

    def stopping(self) -> None:
        self._console.print("stopping")

    def stopped(self) -> None:
        self._console.print("stopped")


def _listed(members: Sequence[str]) -> str:
    more = len(members) - _NAMED
    return ", ".join(members[:_NAMED]) + (f" and {more} more" if more > 0 else "") or "none yet"


def _steps(shown: str, members: Sequence[str]) -> Sequence[str]:
    """The next three commands to type."""
    first = f"export KUBECONFIG={shown}/admin.kubeconfig"
    if not members:
        return (
            first,
            f"onepass --data-dir {shown} cluster add NAME --kubeconfig FILE",
            "kubectl --context onepass get clusters",
        )
    return (first, "kubectl --context onepass get clusters", f"kubectl --context {members[0]} get pods -A")


def _shortened(path: Path) -> str:
    """Relative to where the person is, when it lies below."""
    here = Path.cwd()
    return str(path.relative_to(here)) if path.is_relative_to(here) else str(path)
