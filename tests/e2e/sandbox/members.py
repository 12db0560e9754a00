"""A sandbox member on a thread of its own, and kubectl on it."""

import asyncio
import base64
import contextlib
import json
import os
import ssl
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import uvloop
from tests.waiting import eventually

from onepass.runtime.sandboxes import Access, Sandbox

KUBECTL = str(Path(sys.executable).parent / "kubectl")
SECONDS = 90.0


def kubeconfig(access: Access) -> str:
    def data(pem: bytes) -> str:
        return base64.b64encode(pem).decode()

    cluster = {"server": access.endpoint, "certificate-authority-data": data(access.ca)}
    certificate = {
        "client-certificate-data": data(access.certificate),
        "client-key-data": data(access.private_key),
    }
    config = {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "certificate",
        "clusters": [{"name": "member", "cluster": cluster}],
        "users": [{"name": "certificate", "user": certificate}, {"name": "token", "user": {"token": access.token}}],
        "contexts": [
            {"name": name, "context": {"cluster": "member", "user": name}} for name in ("certificate", "token")
        ],
    }
    return json.dumps(config)


class Running:
    """A sandbox member on a loop of its own, in a thread."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._ready: threading.Event = threading.Event()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._task: asyncio.Task[None] | None = None
        self.access: Access | None = None
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> "Running":
        self._thread.start()
        assert self._ready.wait(SECONDS)
        assert self.access is not None, "the member did not start"
        return self

    def __exit__(self, *_: object) -> None:
        assert self._loop is not None
        assert self._task is not None
        self._loop.call_soon_threadsafe(self._task.cancel)
        self._thread.join(SECONDS)
        assert not self._thread.is_alive()

    def _run(self) -> None:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner, contextlib.suppress(asyncio.CancelledError):
            try:
                runner.run(self._serve())
            finally:
                self._ready.set()

    async def _serve(self) -> None:
        self._loop = asyncio.get_running_loop()
        sandbox = await Sandbox.open("east", self._root)
        self._task = asyncio.create_task(sandbox.run())
        ready = asyncio.create_task(sandbox.ready.wait())
        await asyncio.wait([ready, self._task], return_when=asyncio.FIRST_COMPLETED)
        if ready.done():
            self.access = sandbox.access
        ready.cancel()
        self._ready.set()
        await self._task


@dataclass
class Member:
    """kubectl on one member, by the kubeconfig `given`. `direct` is how a test that needs no gateway reaches it."""

    folder: Path
    given: str
    direct: Access | None = None
    started: list[subprocess.Popen[str]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.config = self.folder / "config"
        self.config.write_text(self.given)
        kept = {name: value for name, value in os.environ.items() if not name.startswith("KUBE")}
        self.environment = kept | {"KUBECONFIG": str(self.config), "HOME": str(self.folder)}

    def run(self, *arguments: str, input: str | None = None, check: bool = True) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            [KUBECTL, *arguments],
            env=self.environment,
            input=input,
            stdin=subprocess.DEVNULL if input is None else None,
            capture_output=True,
            text=True,
            timeout=SECONDS,
            check=False,
        )
        if check and done.returncode:
            raise AssertionError(f"kubectl {' '.join(arguments)}: {done.returncode}\n{done.stdout}\n{done.stderr}")
        return done

    def __call__(self, *arguments: str, input: str | None = None) -> str:
        return self.run(*arguments, input=input).stdout

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        """kubectl beside the test; ended with it."""
        process = subprocess.Popen(
            [KUBECTL, *arguments],
            env=self.environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self.started.append(process)
        return process

    def pod(self, name: str, *command: str, options: Sequence[str] = ()) -> str:
        """A pod of busybox that is ready."""
        self("run", name, "--image=busybox", *options, "--", *command)
        self("wait", "--for=condition=Ready", f"pod/{name}", "--timeout=60s")
        return name


def read_line(process: subprocess.Popen[str], holds: Callable[[str], bool]) -> str:
    """The next line of a process for which `holds`; the process is killed when it does not come."""
    timer = threading.Timer(SECONDS, process.kill)
    timer.start()
    try:
        assert process.stdout is not None
        seen = []
        for line in process.stdout:
            seen.append(line)
            if holds(line):
                return line
    finally:
        timer.cancel()
        timer.join()
    raise AssertionError(f"it did not come: {seen}")


def first_line(kubectl: Member, pod: str) -> str:
    """What a pod writes first, once it has."""
    eventually(lambda: "\n" in kubectl("logs", pod))
    return kubectl("logs", pod).splitlines()[0]


def client_tls(kubectl: Member) -> ssl.SSLContext:
    assert kubectl.direct is not None
    return ssl.create_default_context(cadata=kubectl.direct.ca.decode())
