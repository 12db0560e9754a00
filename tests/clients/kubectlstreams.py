"""What kubectl does that goes on: watches, waits, followed logs, attach, copies, forwarded ports, the proxy.

Each is a function that gives what it saw, without what differs from run to run; WANTED says what that has to be.
"""

import json
import re
import secrets
import select
import socket
import socketserver
import subprocess
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from tests.clients.access import NAMESPACE, Access
from tests.clients.kubectls import DEADLINE, Kubectl

POD = {
    "apiVersion": "v1",
    "kind": "Pod",
    "metadata": {"name": "p"},
    "spec": {
        "restartPolicy": "Never",
        "containers": [
            {
                "name": "main",
                "image": "busybox",
                "stdin": True,
                "command": ["sh", "-c", "echo started; while read line; do echo heard $line; done; sleep 600"],
            }
        ],
    },
}


def done(kubectl: Kubectl, access: Access, *arguments: str, input: str = "") -> str:
    """What a command prints that has to succeed."""
    result = kubectl.run(access, *arguments, input=input)
    assert result.returncode == 0, f"{arguments}: {result.stderr}"
    return result.stdout


@contextmanager
def namespace(kubectl: Kubectl, access: Access) -> Iterator[None]:
    done(kubectl, access, "create", "namespace", NAMESPACE)
    try:
        yield
    finally:
        done(kubectl, access, "delete", "namespace", NAMESPACE)


@contextmanager
def pod(kubectl: Kubectl, access: Access) -> Iterator[None]:
    done(kubectl, access, "create", "-f", "-", input=json.dumps(POD))
    try:
        done(kubectl, access, "wait", "--for=condition=Ready", "pod/p", "--timeout=300s")
        yield
    finally:
        done(kubectl, access, "delete", "pod", "p", "--now")


def read_until(process: subprocess.Popen[str], pattern: str) -> re.Match[str]:
    """Where the pattern is in what a process prints. Raises AssertionError at its end, or after the deadline."""
    assert process.stdout is not None
    number, until, got = process.stdout.fileno(), time.monotonic() + DEADLINE, ""
    while not (found := re.search(pattern, got)):
        ready, _, _ = select.select([number], [], [], max(0.0, until - time.monotonic()))
        chunk = process.stdout.buffer.raw.read(65536) if ready else b""  # type: ignore[attr-defined]
        assert chunk, f"waited for {pattern!r}, got {got!r}"
        got += chunk.decode()
    return found


def type_in(process: subprocess.Popen[str], text: str) -> None:
    assert process.stdin is not None
    process.stdin.write(text)
    process.stdin.flush()


def watch(kubectl: Kubectl, access: Access) -> object:
    """A watch from a list on: what is there, what comes, changes and goes."""
    done(kubectl, access, "create", "sa", "before")
    options = ("--output-watch-events",) if kubectl.minor >= 16 else ()
    with kubectl.started(access, "get", "sa", "-w", "--no-headers", "-l", "!gone", *options) as process:
        seen = [read_until(process, r"ADDED +(before)")[1]]
        done(kubectl, access, "create", "sa", "during")
        seen.append(read_until(process, r"ADDED +(during)")[1])
        done(kubectl, access, "label", "sa", "during", "x=y")
        seen.append(read_until(process, r"MODIFIED +(during)")[1])
        done(kubectl, access, "label", "sa", "before", "gone=yes")
        seen.append(read_until(process, r"DELETED +(before)")[1])
        done(kubectl, access, "delete", "sa", "before", "during")
        seen.append(read_until(process, r"DELETED +(during)")[1])
    return seen


def watch_only(kubectl: Kubectl, access: Access) -> object:
    done(kubectl, access, "create", "sa", "before")
    with kubectl.started(
        access, "get", "sa", "--watch-only", "-o", "name", "--field-selector=metadata.name=late"
    ) as process:
        seen = ""
        assert process.stdout is not None
        for _ in range(600):  # until the watch is there, which it does not tell
            done(kubectl, access, "create", "sa", "late")
            done(kubectl, access, "delete", "sa", "late")
            ready, _, _ = select.select([process.stdout], [], [], 0.1)
            if ready:
                seen = read_until(process, r"serviceaccount/(\w+)\n")[1]
                break
    done(kubectl, access, "delete", "sa", "before")
    return seen


def wait_for_deletion(kubectl: Kubectl, access: Access) -> object:
    """`wait --for=delete` of what is still held by a finalizer."""
    held = {"apiVersion": "v1", "kind": "ServiceAccount"} | {
        "metadata": {"name": "held", "finalizers": ["example.com/it"]}
    }
    done(kubectl, access, "create", "-f", "-", input=json.dumps(held))
    done(kubectl, access, "delete", "sa", "held", "--wait=false")
    # With -v=6 it tells when it has seen that the object is there.
    with kubectl.started(access, "wait", "--for=delete", "sa/held", f"--timeout={DEADLINE}s", "-v=6") as process:
        read_until(process, r"metadata\.name(%3D|=)held.*200 OK")
        done(kubectl, access, "patch", "sa", "held", "--type=merge", "-p", '{"metadata":{"finalizers":null}}')
        return read_until(process, r"(serviceaccount/held condition met)")[1], process.wait(DEADLINE)


def proxy(kubectl: Kubectl, access: Access) -> object:
    """`kubectl proxy`, and requests by it: an object, and what is not there."""
    done(kubectl, access, "create", "sa", "proxied")
    # kubectl leaves out the path of the server's URL, unless told otherwise, which it can be since 1.22.
    options = ("--append-server-path",) if kubectl.minor >= 22 else ()
    path = "" if options else urllib.parse.urlsplit(access.server).path
    with kubectl.started(access, "proxy", "--port=0", *options) as process:
        port = read_until(process, r"127\.0\.0\.1:(\d+)")[1]
        url = f"http://127.0.0.1:{port}{path}/api/v1/namespaces/{NAMESPACE}/serviceaccounts"
        with urllib.request.urlopen(f"{url}/proxied", timeout=DEADLINE) as answer:
            name = json.load(answer)["metadata"]["name"]
        try:
            urllib.request.urlopen(f"{url}/nosuch", timeout=DEADLINE)
        except urllib.error.HTTPError as refused:
            reason = json.load(refused)["reason"]
            refused.close()
    done(kubectl, access, "delete", "sa", "proxied")
    return name, reason


def logs(kubectl: Kubectl, access: Access) -> object:
    with kubectl.started(access, "logs", "-f", "p") as process:
        return read_until(process, r"(started)\n")[1]


def execute(kubectl: Kubectl, access: Access) -> object:
    """exec with input, output, errors and exit code, and with more input than fits into any buffer."""
    told = kubectl.run(access, "exec", "p", "--", "sh", "-c", "echo out; echo err >&2; exit 7")
    content = secrets.token_hex(1 << 20)
    back = kubectl.run(access, "exec", "-i", "p", "--", "cat", input=content)
    return told.stdout, told.stderr.splitlines()[0], told.returncode, back.stdout == content


def attach(kubectl: Kubectl, access: Access) -> object:
    """attach, while another one follows the log."""
    with kubectl.started(access, "attach", "-i", "p") as process, kubectl.started(access, "logs", "-f", "p") as log:
        type_in(process, "hello\n")
        return read_until(process, r"heard (hello)\n")[1], read_until(log, r"heard (hello)\n")[1]


def copy(kubectl: Kubectl, access: Access) -> object:
    """cp there and back."""
    folder = access.home / "copied"
    folder.mkdir(exist_ok=True)
    there, back = folder / "there", folder / "back"
    there.write_bytes(secrets.token_bytes(1 << 20))
    name = f"copied-{secrets.token_hex(4)}"
    done(kubectl, access, "cp", str(there), f"p:{name}")
    done(kubectl, access, "cp", f"p:{name}", str(back))
    done(kubectl, access, "exec", "p", "--", "rm", name)
    return Path(back).read_bytes() == there.read_bytes()


@contextmanager
def echo() -> Iterator[int]:
    """A port of loopback, which is also the pod's, that sends back what it gets."""

    class Echo(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            while chunk := self.request.recv(65536):
                self.request.sendall(chunk)

    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Echo) as server:
        server.daemon_threads = True
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield server.server_address[1]
        finally:
            server.shutdown()
            thread.join()


def forward(kubectl: Kubectl, access: Access) -> object:
    """port-forward of two connections, one after the other."""
    seen = []
    with echo() as port, kubectl.started(access, "port-forward", "pod/p", f":{port}") as process:
        local = int(read_until(process, r"127\.0\.0\.1:(\d+) ->")[1])
        for word in (b"first", b"again"):
            with socket.create_connection(("127.0.0.1", local), DEADLINE) as connection:
                connection.sendall(word)
                with connection.makefile("rb") as stream:
                    seen.append(stream.read(len(word)))
    return seen


Doing = Callable[[Kubectl, Access], object]
EVERYWHERE: dict[str, Doing] = {
    "get -w": watch,
    "get --watch-only": watch_only,
    "wait --for=delete": wait_for_deletion,
    "proxy": proxy,
}
ON_MEMBER: Mapping[str, Doing] = EVERYWHERE | {
    "logs -f": logs,
    "exec": execute,
    "attach": attach,
    "cp": copy,
    "port-forward": forward,
}
SPDY = ("exec", "attach", "cp", "port-forward")  # which kubectl before 1.30 does over SPDY only
WANTED: Mapping[str, object] = {
    "get -w": ["before", "during", "during", "before", "during"],
    "get --watch-only": "late",
    "wait --for=delete": ("serviceaccount/held condition met", 0),
    "proxy": ("proxied", "NotFound"),
    "logs -f": "started",
    "exec": ("out\n", "err", 7, True),
    "attach": ("hello", "hello"),
    "cp": True,
    "port-forward": [b"first", b"again"],
}
