"""The client matrix: client x version x target, with how many steps passed, failed or were skipped, and why.

Tests record their steps in it; `tests/clients/conftest.py` prints it at the end of the run."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import astuple, dataclass, field
from typing import Any, Literal

import pytest

OWN = "own API"
MEMBER = "member through the gateway"
TARGETS = (OWN, MEMBER)
Outcome = Literal["passed", "failed", "skipped"]


@dataclass(frozen=True)
class Step:
    """One thing that a client was asked to do. `reason` says why it failed or was skipped."""

    client: str
    version: str
    target: str
    name: str
    outcome: Outcome
    reason: str = ""


@dataclass
class Matrix:
    """`clients` are those whose tests were collected: each gets a row for every target, or the reason why not."""

    steps: list[Step] = field(default_factory=list)
    clients: set[str] = field(default_factory=set)
    reasons: dict[str, str] = field(default_factory=dict)  # client -> why tests of it were skipped as a whole

    def add(self, client: str, version: str, target: str, step: str, outcome: Outcome, reason: str = "") -> None:
        if target not in TARGETS:
            raise ValueError(f"{target!r} is none of {TARGETS}")
        if outcome == "skipped" and not reason:
            raise ValueError(f"{client}: {step} was skipped without a reason")
        self.steps.append(Step(client, version, target, step, outcome, reason))

    @contextmanager
    def record(self, client: str, version: str, target: str, step: str) -> Iterator[None]:
        """Record what becomes of the block: it passes, fails by an exception, or skips by `pytest.skip(reason)`."""
        try:
            yield
        except pytest.skip.Exception as skipped:
            self.add(client, version, target, step, "skipped", str(skipped) or "no reason given")
            raise
        except BaseException as failure:
            told = str(failure).strip() or type(failure).__name__
            self.add(client, version, target, step, "failed", told.splitlines()[0])
            raise
        self.add(client, version, target, step, "passed")

    def told(self) -> dict[str, Any]:
        """All of it in plain types, for another process to `merge`."""
        return {"steps": [astuple(step) for step in self.steps], "clients": [*self.clients], "reasons": self.reasons}

    def merge(self, told: Mapping[str, Any]) -> None:
        self.steps += [Step(*step) for step in told.get("steps", ())]
        self.clients |= {*told.get("clients", ())}
        for client, reason in told.get("reasons", {}).items():
            self.reasons.setdefault(client, reason)

    def empty(self) -> Sequence[str]:
        """Rows that were promised, but in which nothing ran and nothing says why."""
        ran = {(step.client, step.target) for step in self.steps}
        return [
            f"{client}, {target}"
            for client in sorted(self.clients)
            for target in TARGETS
            if (client, target) not in ran and client not in self.reasons
        ]

    def lines(self) -> Iterator[str]:
        """The table, and under it the reasons of what did not pass."""
        known = {step.client: step.version for step in self.steps}
        rows = dict.fromkeys((step.client, step.version, step.target) for step in self.steps)
        ran = {(client, target) for client, _, target in rows}
        for client in sorted(self.clients):
            for target in TARGETS:
                if (client, target) not in ran:
                    rows[client, known.get(client, "?"), target] = None
        yield f"{'client':24} {'version':20} {'target':28} {'passed':>6} {'failed':>6} {'skipped':>7}"
        for client, version, target in sorted(rows):
            counts = Counter(
                s.outcome for s in self.steps if (s.client, s.version, s.target) == (client, version, target)
            )
            note = "" if counts else "  not run: " + self.reasons.get(client, "no test of it was selected")
            yield (
                f"{client:24} {version:20} {target:28} "
                f"{counts['passed']:6} {counts['failed']:6} {counts['skipped']:7}{note}"
            )
        told = dict.fromkeys(
            f"{s.outcome}: {s.client} {s.version}, {s.target}, {s.name}: {s.reason}"
            for s in self.steps
            if s.outcome != "passed"
        )
        yield from told
