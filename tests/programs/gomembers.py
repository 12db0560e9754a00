"""Runs gomember, the member cluster made of Kubernetes' own streaming libraries, and asks it what it saw."""

import json
import ssl
import subprocess
import tempfile
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TypedDict

from tests.programs import golang

SOURCE = Path(__file__).parent / "gomember"


class Proof(TypedDict, total=False):
    """A credential as the end-to-end fixture's `register` takes it."""

    certificate: bytes
    key: bytes
    token: str


@dataclass(frozen=True)
class Seen:
    """One request as the member received it. `by` is the credential it came with: "x509", "token" or ""."""

    proto: str
    method: str
    uri: str
    host: str
    by: str
    peer: str
    header: Mapping[str, Sequence[str]]


@dataclass(frozen=True)
class GoMember:
    """A running gomember or kubemember: how it is reached, PEM as text."""

    endpoint: str
    ca: str
    certificate: str
    key: str
    token: str
    process: subprocess.Popen[str]

    def proof(self, by: str) -> Proof:
        """One of the two credentials: "x509" or "token"."""
        if by == "token":
            return {"token": self.token}
        return {"certificate": self.certificate.encode(), "key": self.key.encode()}

    def _asked(self, path: str, method: str) -> bytes:
        context = ssl.create_default_context(cadata=self.ca)
        request = urllib.request.Request(
            f"{self.endpoint}{path}", headers={"Authorization": f"Bearer {self.token}"}, method=method
        )
        with urllib.request.urlopen(request, context=context, timeout=60) as response:
            answer: bytes = response.read()
        return answer

    def compact(self) -> None:
        """Have a kubemember forget the history of its objects up to now."""
        self._asked("/debug/compact", "POST")

    def seen(self) -> list[Seen]:
        """The newest requests, oldest first; these questions themselves are not among them."""
        return [Seen(**each) for each in json.loads(self._asked("/debug/requests", "GET"))]


@contextmanager
def started(executable: Path, *options: str, deadline: float = 60) -> Iterator[GoMember]:
    """A member program from the line that greets until the end of the block; `deadline` in seconds is for its end."""
    with tempfile.TemporaryFile("w+") as complaints:
        process = subprocess.Popen(
            [str(executable), *options],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=complaints,
            text=True,
        )
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            line = process.stdout.readline()
            if not line:
                process.wait(timeout=deadline)
                complaints.seek(0)
                raise AssertionError(f"{executable.name} did not start: {complaints.read()}")
            yield GoMember(**json.loads(line), process=process)
        finally:
            process.stdin.close()
            process.stdout.close()
            try:
                process.wait(timeout=deadline)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


@contextmanager
def running(*, http2: bool = True) -> Iterator[GoMember]:
    """A member on a free loopback port, until the end of the block. Raises golang.GoMissing."""
    with started(golang.build(SOURCE), f"-http2={str(http2).lower()}") as member:
        yield member
