"""What was measured, beside its budget: on the terminal and as the page in docs/reference."""

from collections.abc import Sequence
from dataclasses import dataclass

from rich.table import Table


@dataclass(frozen=True)
class Row:
    """One measurement. `holds` is None where no budget is set, or where this cannot tell whether it holds."""

    what: str
    measured: str
    budget: str = ""
    holds: bool | None = None

    @property
    def verdict(self) -> str:
        return {True: "yes", False: "no", None: ""}[self.holds]


def short_of(holds: bool) -> bool | None:
    """The verdict of a measurement under easier conditions than the budget's: it can break the budget, not prove it."""
    return None if holds else False


COLUMNS = ("what", "measured", "budget", "holds")


def table(rows: Sequence[Row]) -> Table:
    shown = Table(*COLUMNS, title="OnePass, measured against its budgets")
    for row in rows:
        style = "red" if row.holds is False else ""
        shown.add_row(row.what, row.measured, row.budget, row.verdict, style=style)
    return shown


def page(rows: Sequence[Row], circumstances: Sequence[str]) -> str:
    """The Markdown page."""
    lines = [
        "# Benchmarks",
        "",
        "Written by `python -m bench --write` from one run; `make bench` shows the same without writing it here.",
        "",
        "Absolute numbers are this machine's. What to compare is the ratio to the yardstick of the same run: Go's",
        "`httputil.ReverseProxy` between two TLS connections, which checks the client certificate in the handshake and",
        "authorizes nothing, while OnePass knows the user of each request and decides on it. Both speak to the same",
        "member, with the same keys and with the same protocol on both sides; rounds alternate between the two, and a",
        "ratio is the median over the rounds. CPU time is the proxy process's own (`/proc/PID/stat`), for GETs of 2 KB",
        "by the user of a pass, with the proxy kept to one core. Where `holds` is empty beside a budget, conditions",
        "were easier than the budget names: the measurement could have broken the budget but does not prove it.",
        "",
        *(f"* {each}" for each in circumstances),
        "",
        f"| {' | '.join(COLUMNS)} |",
        f"|{' --- |' * len(COLUMNS)}",
        *(f"| {row.what} | {row.measured} | {row.budget} | {row.verdict} |" for row in rows),
    ]
    return "\n".join(lines) + "\n"
