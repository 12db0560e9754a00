"""Real etcd servers, one or a cluster: the `etcd` on PATH, or else that of Debian, 3.4, the oldest that will do."""

import http.client
import json
import os
import shutil
import signal
import subprocess
import tempfile
import time
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from tests.machine import free_port
from tests.programs import debian

DEADLINE = 60


def program() -> Path:
    """Raises DebianMissing."""
    found = os.environ.get("ONEPASS_TEST_ETCD_PROGRAM") or shutil.which("etcd")
    return Path(found) if found else debian.executable("etcd-server", "etcd")


@dataclass
class Etcd:
    """One server. Its data is in memory, so that tests wait for no disk."""

    name: str
    port: int
    peer: int
    metrics: int
    directory: Path
    flags: Sequence[str] = ()
    process: subprocess.Popen[bytes] | None = field(default=None, repr=False)

    @property
    def server(self) -> str:
        return f"127.0.0.1:{self.port}"

    def start(self, cluster: Sequence["Etcd"] = ()) -> None:
        """Returns at once: a member of a cluster is ready when others are there too."""
        scheme = "https" if any(flag.startswith("--cert-file") for flag in self.flags) else "http"
        members = ",".join(f"{each.name}=http://127.0.0.1:{each.peer}" for each in cluster or (self,))
        command = [
            str(program()),
            f"--name={self.name}",
            f"--data-dir={self.directory / self.name}",
            f"--listen-client-urls={scheme}://{self.server}",
            f"--advertise-client-urls={scheme}://{self.server}",
            f"--listen-peer-urls=http://127.0.0.1:{self.peer}",
            f"--initial-advertise-peer-urls=http://127.0.0.1:{self.peer}",
            f"--initial-cluster={members}",
            f"--listen-metrics-urls=http://127.0.0.1:{self.metrics}",
            "--logger=zap",
            *self.flags,
        ]
        with (self.directory / f"{self.name}.log").open("ab") as log:
            self.process = subprocess.Popen(command, stdout=log, stderr=log)

    def ready(self) -> None:
        """Returns when it answers, and knows who leads."""
        ends = time.monotonic() + DEADLINE
        while True:
            try:
                with urllib.request.urlopen(f"http://127.0.0.1:{self.metrics}/health", timeout=2) as answer:
                    if json.load(answer)["health"] == "true":
                        return
            except (OSError, http.client.HTTPException) as error:
                assert self.process is not None
                if self.process.poll() is not None or time.monotonic() > ends:
                    log = (self.directory / f"{self.name}.log").read_text()[-2000:]
                    raise AssertionError(f"etcd is not there: {log}") from error
            time.sleep(0.02)

    def signal(self, what: signal.Signals) -> None:
        assert self.process is not None
        self.process.send_signal(what)

    def kill(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.wait()

    def ctl(self, *arguments: str, input: str = "") -> str:
        """What `etcdctl` says. Raises DebianMissing."""
        found = shutil.which("etcdctl")
        executable = Path(found) if found else debian.executable("etcd-client", "etcdctl")
        return subprocess.run(
            [executable, f"--endpoints={self.server}", *arguments],
            check=True,
            capture_output=True,
            text=True,
            timeout=DEADLINE,
            input=input,
            env={"ETCDCTL_API": "3"},
        ).stdout


@contextmanager
def running(count: int = 1, flags: Sequence[str] = ()) -> Iterator[Sequence[Etcd]]:
    """A cluster of `count` servers that is ready; its processes and its data end with the block."""
    memory = Path("/dev/shm")
    with tempfile.TemporaryDirectory(prefix="etcd-", dir=memory if memory.is_dir() else None) as directory:
        ports = iter([free_port() for _ in range(3 * count)])
        cluster = [Etcd(f"e{n}", next(ports), next(ports), next(ports), Path(directory), flags) for n in range(count)]
        try:
            for each in cluster:
                each.start(cluster)
            for each in cluster:
                each.ready()
            yield cluster
        finally:
            for each in cluster:
                each.kill()
