"""A sandbox member under the real kubectl: exec, attach, cp and port-forward."""

import base64
import contextlib
import fcntl
import json
import os
import pty
import select
import signal
import socket
import struct
import termios
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import websockets.sync.client
from tests.e2e.sandbox import members
from tests.e2e.sandbox.members import KUBECTL, SECONDS, Member, Running, client_tls, read_line
from tests.machine import free_port
from tests.waiting import eventually
from websockets.exceptions import ConnectionClosedOK, InvalidStatus
from websockets.sync.client import ClientConnection
from websockets.typing import Subprotocol

from onepass.apiserver import serving

pytestmark = pytest.mark.e2e


def test_a_command_has_its_streams_and_its_exit_status(kubectl: Member) -> None:
    kubectl.pod("p", "sleep", "1000")
    done = kubectl.run("exec", "p", "--", "sh", "-c", "echo out; echo err >&2; exit 7", check=False)
    assert done.stdout == "out\n"
    assert done.stderr.splitlines()[0] == "err"
    assert done.returncode == 7
    text = "".join(f"{n}\n" for n in range(50_000))
    assert kubectl("exec", "-i", "p", "--", "cat", input=text) == text
    absent = kubectl.run("exec", "p", "--", "nosuchprogram", check=False)
    assert "executable file not found" in absent.stderr
    assert absent.returncode == 1


def test_a_terminal_has_a_size_that_follows_and_an_exit_status(kubectl: Member) -> None:
    kubectl.pod("p", "sleep", "1000")
    script = 'stty size; while [ "$(stty size)" != "40 120" ]; do sleep 0.05; done; stty size; exit 5'
    pid, terminal = pty.fork()
    if pid == 0:
        os.execve(KUBECTL, [KUBECTL, "exec", "-it", "p", "--", "sh", "-c", script], kubectl.environment)
    try:
        fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", 33, 101, 0, 0))
        seen = read_terminal(terminal, b"\n")
        fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", 40, 120, 0, 0))
        seen += read_terminal(terminal, b"40 120\r\n")
        while chunk := read_terminal(terminal, None):
            seen += chunk
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGHUP)
        _, status = os.waitpid(pid, 0)
        os.close(terminal)
    assert b"40 120" in seen
    assert os.waitstatus_to_exitcode(status) == 5


def read_terminal(terminal: int, until: bytes | None) -> bytes:
    """What a terminal shows up to and with `until`; without it what comes next, b"" at the end."""
    seen = b""
    while until is None or until not in seen:
        readable, _, _ = select.select([terminal], [], [], SECONDS)
        assert readable, f"nothing more came after {seen!r}"
        try:
            chunk = os.read(terminal, 4096)
        except OSError:  # the other side is gone
            chunk = b""
        seen += chunk
        if until is None or not chunk:
            return seen
    return seen


def test_a_command_ends_when_its_client_goes(kubectl: Member, tmp_path: Path) -> None:
    kubectl.pod("p", "sleep", "1000")
    client = kubectl.start("exec", "-i", "p", "--", "sh", "-c", "echo $$; sleep 1234")
    pid = int(read_line(client, lambda line: line.strip().isdigit()))
    os.kill(pid, 0)
    client.kill()
    eventually(lambda: not Path(f"/proc/{pid}").exists())


def test_a_command_ends_when_its_pod_goes(kubectl: Member) -> None:
    kubectl.pod("p", "sleep", "1000")
    client = kubectl.start("exec", "p", "--", "sh", "-c", "echo up; sleep 1234")
    read_line(client, lambda line: line == "up\n")
    kubectl("delete", "pod", "p", "--now")
    assert client.wait(SECONDS) == 137


def test_attached_clients_see_and_feed_the_container(kubectl: Member) -> None:
    kubectl.pod("echo", "sh", "-c", "while read x; do echo got $x; done", options=["--stdin"])
    client = kubectl.start("attach", "-i", "echo")
    assert client.stdin is not None
    client.stdin.write("hello\n")
    client.stdin.flush()
    assert read_line(client, lambda line: line.startswith("got")) == "got hello\n"
    eventually(lambda: kubectl("logs", "echo") == "got hello\n")


def test_run_with_input_gives_the_exit_status(kubectl: Member) -> None:
    arguments = ("run", "once", "--image=busybox", "--restart=Never", "--rm", "-i", "-q")
    done = kubectl.run(*arguments, "--", "sh", "-c", "read x; echo got $x; exit 4", input="hello\n", check=False)
    assert "got hello" in done.stdout
    assert done.returncode == 4


def test_files_are_copied_both_ways(kubectl: Member, tmp_path: Path) -> None:
    kubectl.pod("p", "sleep", "1000")
    content = os.urandom(3_000_000)
    (tmp_path / "there").write_bytes(content)
    kubectl("cp", str(tmp_path / "there"), "p:copied")
    kubectl("cp", "p:copied", str(tmp_path / "back"))
    assert (tmp_path / "back").read_bytes() == content


def test_spdy_is_refused_with_a_sentence(kubectl: Member) -> None:
    kubectl.pod("p", "sleep", "1000")
    kubectl.environment["KUBECTL_REMOTE_COMMAND_WEBSOCKETS"] = "false"
    refused = kubectl.run("exec", "p", "--", "true", check=False)
    assert "over WebSocket only" in refused.stderr


def test_ports_are_forwarded_many_times_at_once(kubectl: Member, tmp_path: Path) -> None:
    port = free_port()
    kubectl("run", "site", "--image=nginx", f"--port={port}")
    kubectl("wait", "--for=condition=Ready", "pod/site", "--timeout=60s")
    content = os.urandom(2_000_000)
    (tmp_path / "big").write_bytes(content)
    kubectl("cp", str(tmp_path / "big"), "site:big")
    eventually(lambda: listens(port))
    forward = kubectl.start("port-forward", "pod/site", f":{port}")
    local = int(read_line(forward, lambda line: "127.0.0.1" in line).split(":")[1].split()[0])
    answers: list[bytes] = []
    threads = [threading.Thread(target=lambda: answers.append(get(local, "/big"))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert answers == [content] * 4


def listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def get(port: int, path: str) -> bytes:
    with socket.create_connection(("127.0.0.1", port), timeout=SECONDS) as connection:
        connection.sendall(f"GET {path} HTTP/1.0\r\n\r\n".encode())
        connection.shutdown(socket.SHUT_WR)
        answer = b""
        while chunk := connection.recv(65536):
            answer += chunk
    return answer.partition(b"\r\n\r\n")[2]


def test_a_port_that_nobody_listens_on_is_told(kubectl: Member) -> None:
    kubectl.pod("p", "sleep", "1000")
    forward = kubectl.start("port-forward", "pod/p", f":{free_port()}")
    local = int(read_line(forward, lambda line: "127.0.0.1" in line).split(":")[1].split()[0])
    with socket.create_connection(("127.0.0.1", local), timeout=SECONDS) as connection:
        assert connection.recv(1) == b""
    assert "connection refused" in read_line(forward, lambda line: "error occurred forwarding" in line)


@pytest.mark.parametrize("kubectl", ["direct"], indirect=True)
def test_ports_are_forwarded_by_channels_too(kubectl: Member) -> None:
    kubectl.pod("p", "sleep", "1000")
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        thread = threading.Thread(target=answer_once, args=(listener,))
        thread.start()
        with websocket(kubectl, f"p/portforward?ports={port}", "v4.channel.k8s.io") as client:
            first = {client.recv(SECONDS), client.recv(SECONDS)}
            assert first == {bytes((n,)) + port.to_bytes(2, "little") for n in (0, 1)}
            client.send(b"\0ping")
            assert client.recv(SECONDS) == b"\0pong"
            with pytest.raises(ConnectionClosedOK):  # the only port has ended
                client.recv(SECONDS)
        thread.join(SECONDS)


@pytest.mark.parametrize("kubectl", ["direct"], indirect=True)
@pytest.mark.parametrize(
    ("subprotocol", "end_of_input"),
    [("v5.channel.k8s.io", b"\xff\x00"), ("v4.channel.k8s.io", None), ("v4.base64.channel.k8s.io", None)],
)
def test_every_subprotocol_carries_a_command(kubectl: Member, subprotocol: str, end_of_input: bytes | None) -> None:
    kubectl.pod("p", "sleep", "1000")
    script = "read%20x%3B%20echo%20got%20%24x%3B%20exit%203"  # read x; echo got $x; exit 3
    path = f"p/exec?command=sh&command=-c&command={script}&stdin=1&stdout=1&stderr=1"
    with websocket(kubectl, path, subprotocol) as client:
        client.send("0" + base64.b64encode(b"hello\n").decode() if "base64" in subprotocol else b"\0hello\n")
        if end_of_input is not None:
            client.send(end_of_input)
        seen = dict.fromkeys(range(4), b"")
        for message in client:
            text = isinstance(message, str)
            channel = int(message[0]) if isinstance(message, str) else message[0]
            seen[channel] += base64.b64decode(message[1:]) if text else bytes(message[1:])  # type: ignore[arg-type]
    assert seen[1] == b"got hello\n"
    assert json.loads(seen[3])["details"]["causes"] == [{"reason": "ExitCode", "message": "3"}]


@pytest.mark.parametrize("kubectl", ["direct"], indirect=True)
@pytest.mark.parametrize(
    ("path", "told"),
    [
        ("p/exec?command=true&stdout=1", "the server speaks v5.channel.k8s.io"),
        ("p/exec?stdout=1", "at least one command"),
        ("p/exec?command=true", "at least 1 of stdin, stdout, stderr"),
        ("p/exec?command=true&stdout=1&stderr=1&tty=1", "tty and stderr cannot both be true"),
        ("p/exec?command=true&stdout=1&container=none", "container none is not valid for pod p"),
        ("p/portforward?ports=0", "unable to upgrade"),
        ("none/exec?command=true&stdout=1", 'pods "none" not found'),
    ],
)
def test_a_stream_that_cannot_be_is_refused_with_a_status(kubectl: Member, path: str, told: str) -> None:
    kubectl.pod("p", "sleep", "1000")
    with pytest.raises(InvalidStatus) as refused, websocket(kubectl, path, "unknown.example.com"):
        pass
    assert refused.value.response.status_code in (400, 404)
    status = json.loads(refused.value.response.body or b"")
    assert status["kind"] == "Status"
    assert told in status["message"]


def test_the_server_ends_at_once_with_streams_open(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(serving, "GRACE", 60)  # far above what ending takes on a busy machine
    with Running(tmp_path) as started:
        assert started.access is not None
        kubectl = Member(tmp_path, members.kubeconfig(started.access), started.access)
        kubectl.pod("p", "sh", "-c", "while true; do echo x; sleep 0.05; done")
        for arguments in (("logs", "-f", "p"), ("attach", "p"), ("exec", "p", "--", "yes"), ("get", "pods", "-w")):
            read_line(kubectl.start(*arguments), lambda line: bool(line))
        begun = time.monotonic()
    # The grace of ordinary requests, after which what still runs is cut, is not needed.
    assert time.monotonic() - begun < serving.GRACE
    for client in kubectl.started:
        client.communicate(timeout=SECONDS)


@contextlib.contextmanager
def websocket(kubectl: Member, path: str, subprotocol: str) -> Iterator[ClientConnection]:
    """A WebSocket to a subresource of a pod, `NAME/SUBRESOURCE?QUERY`."""
    namespace = kubectl("config", "view", "--minify", "-o", "jsonpath={..namespace}")
    assert kubectl.direct is not None
    server = kubectl.direct.endpoint.replace("https", "wss")
    with websockets.sync.client.connect(
        f"{server}/api/v1/namespaces/{namespace}/pods/{path}",
        ssl=client_tls(kubectl),
        additional_headers={"Authorization": f"Bearer {kubectl.direct.token}"},
        subprotocols=[Subprotocol(subprotocol)],
        open_timeout=SECONDS,
    ) as client:
        yield client


def answer_once(listener: socket.socket) -> None:
    connection, _ = listener.accept()
    with connection:
        assert connection.recv(4) == b"ping"
        connection.sendall(b"pong")
