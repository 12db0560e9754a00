"""Runs the Python client's program that loses its place in a watch, and says when the server is to forget."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

PROGRAM = Path(__file__).parent / "pythonclient" / "relist.py"
WANTED = {
    "listed": [],
    "watched": [["ADDED", "first"]],
    "listed anew": ["first", "missed"],
    "watched anew": [["ADDED", "later"], ["DELETED", "first"]],
}


@dataclass(frozen=True)
class Relisted:
    """What the program saw; `event` is of the watch that came too late, as it stood in the stream."""

    seen: dict[str, Any]
    event: list[Any]
    refused: list[Any]


def run(kubeconfig: Path, namespace: str, forget: Callable[[], None]) -> Relisted:
    """The namespace must be there, without roles. `forget` has the server forget its history up to now."""
    with subprocess.Popen(
        [sys.executable, str(PROGRAM), str(kubeconfig), namespace],
        env={"PATH": os.environ["PATH"], "HOME": str(kubeconfig.parent)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            assert process.stdout is not None
            first = process.stdout.readline()
            if first:
                forget()
            out, err = process.communicate("\n", timeout=300)
        finally:
            process.kill()
    assert process.returncode == 0, f"{first}{out}{err}"
    seen = json.loads(out.splitlines()[-1])
    return Relisted(event=seen.pop("event"), refused=seen.pop("refused"), seen=seen)
