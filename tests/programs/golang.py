"""Builds the test programs that are written in Go, each a module of its own, with Go's own cache."""

import functools
import os
import shutil
import subprocess
from pathlib import Path

from tests.machine import BUILD, building


class GoMissing(Exception):
    """Why the Go programs cannot be had on this machine, as a sentence."""


@functools.cache
def build(source: Path, package: str = ".", *definitions: str) -> Path:
    """The executable of a package of the Go module in `source`; built once a process, from Go's cache when unchanged.
    `definitions` set string variables for the linker: "import/path.name=value".

    Raises GoMissing without Go, and CalledProcessError, with the compiler's words on stderr, for a program that does
    not compile.
    """
    go = shutil.which("go")
    if go is None:
        raise GoMissing("there is no `go` on PATH: install Go from https://go.dev/dl to run this")
    executable = BUILD / (source if package == "." else source / package).name
    linker = " ".join(["-s -w", *(f"-X {each}" for each in definitions)])
    command = [go, "build", "-trimpath", f"-ldflags={linker}", "-buildvcs=false", "-o", str(executable), package]
    with building():
        subprocess.run(
            command, cwd=source, check=True, env=os.environ | {"CGO_ENABLED": "0"}, stdout=subprocess.DEVNULL
        )
    return executable
