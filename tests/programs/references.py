"""Runs goreference, which answers with Kubernetes' own libraries what a patch makes of an object."""

import json
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.programs import golang

from onepass.api.meta import JSON, Object

SOURCE = Path(__file__).parent / "goreference"


@dataclass(frozen=True)
class Reference:
    """The running program: one line in, one line out."""

    process: subprocess.Popen[str]

    def ask(self, case: Mapping[str, JSON]) -> Object:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(json.dumps(case) + "\n")
        self.process.stdin.flush()
        told: Object = json.loads(self.process.stdout.readline())
        return told


@contextmanager
def running(schemas: Object) -> Iterator[Reference]:
    """The program, with the `components.schemas` of an OpenAPI v3 document. Raises golang.GoMissing."""
    executable = golang.build(SOURCE)
    with subprocess.Popen([str(executable)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        reference = Reference(process)
        assert process.stdin is not None
        process.stdin.write(json.dumps(schemas) + "\n")
        process.stdin.flush()
        yield reference
        process.stdin.close()
        assert process.wait(timeout=30) == 0
