"""The whole product under test: `onepass up` in a process of its own, with Envoy and sandbox members."""

import base64
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from tests.machine import free_port

BIN = Path(sys.executable).parent
READY = "onepass is ready: "


@dataclass
class Gateway:
    """A running `onepass up`."""

    data_dir: Path
    url: str
    process: subprocess.Popen[str]
    output: list[str] = field(default_factory=list)
    records: list[str] = field(default_factory=list)  # standard output, where that is apart from what people read

    @property
    def kubeconfig(self) -> Path:
        return self.data_dir / "admin.kubeconfig"

    def environment(self, env: Mapping[str, str] | None = None) -> dict[str, str]:
        home = self.data_dir / "home"
        home.mkdir(exist_ok=True)
        kept = {k: v for k, v in os.environ.items() if not k.startswith(("KUBE", "ONEPASS"))}
        return kept | {"HOME": str(home), "KUBECONFIG": str(self.kubeconfig), "NO_COLOR": "1"} | dict(env or {})

    def run(
        self,
        *command: str,
        env: Mapping[str, str] | None = None,
        input: str | bytes | None = None,
        check: bool = True,
        timeout: float = 90,
    ) -> subprocess.CompletedProcess[str]:
        given = input.decode() if isinstance(input, bytes) else input
        done = subprocess.run(
            command,
            env=self.environment(env),
            input=given,
            stdin=subprocess.DEVNULL if given is None else None,
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )
        if check and done.returncode != 0:
            raise AssertionError(f"{' '.join(command)}: exit {done.returncode}\n{done.stdout}\n{done.stderr}")
        return done

    def kubectl(
        self,
        *arguments: str,
        context: str = "",
        kubeconfig: Path | None = None,
        env: Mapping[str, str] | None = None,
        input: str | bytes | None = None,
        check: bool = True,
        timeout: float = 90,
    ) -> subprocess.CompletedProcess[str]:
        command = [str(BIN / "kubectl"), "--kubeconfig", str(kubeconfig or self.kubeconfig)]
        if context:
            command += ["--context", context]
        return self.run(*command, *arguments, env=env, input=input, check=check, timeout=timeout)

    def onepass(
        self, *arguments: str, env: Mapping[str, str] | None = None, check: bool = True, input: str | None = None
    ) -> subprocess.CompletedProcess[str]:
        return self.run(
            str(BIN / "onepass"),
            *arguments,
            env={"ONEPASS_KUBECONFIG": str(self.kubeconfig)} | dict(env or {}),
            check=check,
            input=input,
        )

    def register(
        self,
        name: str,
        *,
        endpoint: str,
        ca: bytes = b"",
        certificate: bytes = b"",
        key: bytes = b"",
        token: str = "",
        labels: Mapping[str, str] | None = None,
        extra: Mapping[str, object] | None = None,
    ) -> None:
        """Create or replace a Cluster, and wait until the prober found it healthy."""
        access: dict[str, object] = {"endpoint": endpoint} | dict(extra or {})
        if ca:
            access["caBundle"] = base64.b64encode(ca).decode()
        if token:
            access["credential"] = {"type": "ServiceAccountToken", "serviceAccountToken": token}
        elif certificate:
            access["credential"] = {
                "type": "X509Certificate",
                "x509": {
                    "certificate": base64.b64encode(certificate).decode(),
                    "privateKey": base64.b64encode(key).decode(),
                },
            }
        cluster = {
            "apiVersion": "cluster.karpor.io/v1beta1",
            "kind": "Cluster",
            "metadata": {"name": name, "labels": dict(labels or {})},
            "spec": {"access": access},
        }
        self.kubectl("apply", "-f", "-", context="onepass", input=json.dumps(cluster))
        self.kubectl(
            "wait", "--for=jsonpath={.status.healthy}=true", f"cluster/{name}", "--timeout=60s", context="onepass"
        )

    def files(self) -> Iterator[tuple[Path, bytes]]:
        """What lies in its data directory, but what is taken away meanwhile: files are written beside others, and take
        their place."""
        for path in self.data_dir.rglob("*"):
            if path.is_file() and not path.is_symlink():
                with suppress(FileNotFoundError):
                    yield path, path.read_bytes()

    def stop(self, number: int = signal.SIGTERM) -> int:
        """Send a signal and return the exit status."""
        if self.process.poll() is None:
            self.process.send_signal(number)
        return self.process.wait(timeout=60)


@contextmanager
def running(
    data_dir: Path,
    *options: str,
    host: str = "127.0.0.1",
    port: int = 0,
    env: Mapping[str, str] | None = None,
    split: bool = False,
) -> Iterator[Gateway]:
    """`onepass up` from its ready line on; stopped at the end. `split` reads that line from standard error."""
    listen = f"{host}:{port or free_port(host.strip('[]'))}"
    process = subprocess.Popen(
        [str(BIN / "onepass"), "up", "--data-dir", str(data_dir), "--listen", listen, *options],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE if split else subprocess.STDOUT,
        text=True,
        env={k: v for k, v in os.environ.items() if not k.startswith(("KUBE", "ONEPASS"))}
        | {"NO_COLOR": "1"}
        | dict(env or {}),
    )
    assert process.stdout is not None
    told = process.stderr or process.stdout
    output: list[str] = []
    records: list[str] = []
    ready = threading.Event()

    def drain(lines: Iterator[str]) -> None:
        for line in lines:
            output.append(line)
            if line.startswith(READY):
                ready.set()
        ready.set()

    readers = [threading.Thread(target=drain, args=(iter(told),), daemon=True)]
    if split:
        readers.append(threading.Thread(target=records.extend, args=(iter(process.stdout),), daemon=True))
    for reader in readers:
        reader.start()
    gateway = Gateway(data_dir, f"https://{listen}", process, output, records)
    try:
        ready.wait(120)  # it gives up by itself before that
        if not any(line.startswith(READY) for line in output):
            raise AssertionError("onepass did not become ready:\n" + "".join(output))
        yield gateway
    finally:
        try:
            gateway.stop()
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            raise
        finally:
            for reader in readers:
                reader.join(10)
            process.stdout.close()
            told.close()


Start = Callable[..., Gateway]


@pytest.fixture(scope="session")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    """One gateway with two sandbox members, shared by the tests that leave it as they found it."""
    with running(tmp_path_factory.mktemp("gw"), "--sandbox", "2") as started:
        yield started


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Starts gateways of a test's own: `start("--sandbox", "1", data_dir=...)`."""
    with ExitStack() as stack:

        def begin(
            *options: str,
            data_dir: Path | None = None,
            port: int = 0,
            env: Mapping[str, str] | None = None,
            split: bool = False,
        ) -> Gateway:
            return stack.enter_context(running(data_dir or tmp_path / "gw", *options, port=port, env=env, split=split))

        yield begin


def lines(text: str) -> Sequence[str]:
    return [line for line in text.splitlines() if line.strip()]
