"""The kubectls under test, the newest and the oldest, and what one says when it is run."""

import functools
import os
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.clients.access import Access, steady
from tests.programs import debian

DEADLINE = 300  # seconds, for what takes a few at most


@dataclass(frozen=True)
class Said:
    """What a command came to; the texts without what differs from run to run."""

    code: int
    out: str
    err: str


@dataclass(frozen=True)
class Kubectl:
    executable: Path

    @functools.cached_property
    def version(self) -> str:
        done = subprocess.run(
            [self.executable, "version", "--client"], capture_output=True, text=True, check=True, env={}
        )
        found = re.search(r"v(\d+\.\d+\.\d+)", done.stdout)
        assert found is not None, done.stdout
        return found[0]

    @property
    def minor(self) -> int:
        return int(self.version.split(".")[1])

    def command(self, access: Access, *arguments: str) -> list[str]:
        return [str(self.executable), "--kubeconfig", str(access.kubeconfig), *arguments]

    def environment(self, access: Access, extra: Mapping[str, str] | None = None) -> dict[str, str]:
        home = access.home / f"home-{self.version}"
        home.mkdir(exist_ok=True)
        return {"PATH": os.environ["PATH"], "HOME": str(home), "TERM": "dumb"} | dict(extra or {})

    def run(
        self, access: Access, *arguments: str, input: str = "", env: Mapping[str, str] | None = None
    ) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            self.command(access, *arguments),
            env=self.environment(access, env),
            input=input,
            capture_output=True,
            text=True,
            errors="backslashreplace",
            timeout=DEADLINE,
            check=False,
        )

    def said(self, access: Access, *arguments: str, input: str = "", env: Mapping[str, str] | None = None) -> Said:
        done = self.run(access, *arguments, input=input, env=env)
        return Said(done.returncode, steady(access.plain(done.stdout)), steady(access.plain(done.stderr)))

    @contextmanager
    def started(self, access: Access, *arguments: str) -> Iterator[subprocess.Popen[str]]:
        """kubectl in the background, its output in pipes, both in one; ended with the block."""
        with subprocess.Popen(
            self.command(access, *arguments),
            env=self.environment(access),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        ) as process:
            try:
                yield process
            finally:
                process.kill()


def newest() -> Kubectl:
    """The wheel of the test dependencies."""
    return Kubectl(Path(sys.executable).parent / "kubectl")


def of_debian() -> Kubectl:
    """The kubectl of Debian's package kubernetes-client. Raises DebianMissing."""
    return Kubectl(debian.executable("kubernetes-client", "kubectl"))
