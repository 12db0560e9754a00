"""kubectl against a member made of Kubernetes' own streaming libraries: first directly, which shows that the member and
the tests are sound, then the same through the gateway, to the member reached by certificate and by token."""

import fcntl
import functools
import json
import os
import pty
import re
import secrets
import select
import socket
import socketserver
import struct
import subprocess
import termios
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO

import pytest
from tests.e2e import ways
from tests.e2e.conftest import Gateway
from tests.e2e.ways import Way
from tests.programs import golang, gomembers
from tests.programs.gomembers import GoMember, Seen

pytestmark = pytest.mark.e2e

MEBIBYTE = 1 << 20
Register = Callable[..., Way]


@pytest.fixture(scope="session")
def gomember() -> Iterator[GoMember]:
    try:
        with gomembers.running() as member:
            yield member
    except golang.GoMissing as missing:
        pytest.skip(str(missing))


@pytest.fixture(scope="session")
def old_gomember(gomember: GoMember) -> Iterator[GoMember]:
    """A member that offers no HTTP/2."""
    with gomembers.running(http2=False) as member:
        yield member


@pytest.fixture(scope="session", params=["direct-x509", "direct-token", "gateway-x509", "gateway-token"])
def way(request: pytest.FixtureRequest, gomember: GoMember, tmp_path_factory: pytest.TempPathFactory) -> Way:
    route, by = request.param.split("-")
    if route == "direct":
        return ways.direct(tmp_path_factory.mktemp(request.param), gomember, by)
    return request.getfixturevalue("registered")(gomember, by)  # type: ignore[no-any-return]


@pytest.fixture(scope="session")
def registered(gateway: Gateway, tmp_path_factory: pytest.TempPathFactory) -> Register:
    """Registers a member with the gateway once, by one of its credentials, and gives a way to it."""

    @functools.cache
    def register(member: GoMember, by: str, proxy: str = ways.PROXY) -> Way:
        name = f"gomember-{by}-{member.endpoint.rpartition(':')[2]}"
        gateway.register(name, endpoint=member.endpoint, ca=member.ca.encode(), **member.proof(by))
        directory = tmp_path_factory.mktemp(name)
        return ways.through(directory, gateway.kubeconfig, gateway.url, name, by, proxy)

    return register


@pytest.fixture(params=["x509", "token"])
def by(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(params=sorted(ways.PROTOCOLS))
def protocol(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="session")
def echo_port() -> Iterator[int]:
    """A port of this machine's loopback, which is also the pod's, that sends back what it gets."""

    class Echo(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            while chunk := self.request.recv(65536):
                self.request.sendall(chunk)

    class Server(socketserver.ThreadingTCPServer):
        daemon_threads = True

    with Server(("127.0.0.1", 0), Echo) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        try:
            yield server.server_address[1]
        finally:
            server.shutdown()
            thread.join()


def assert_upgraded(member: GoMember, way: Way, subresource: str, protocol: str) -> None:
    """The last such request reached the member in the protocol asked for, not in the one that kubectl falls back to."""
    last = [each for each in member.seen() if f"/pods/demo/{subresource}" in each.uri][-1]
    wanted = {"websocket": "websocket", "spdy": "spdy/3.1"}[protocol]
    assert [value.lower() for value in last.header["Upgrade"]] == [wanted]
    assert (last.proto, last.by) == ("HTTP/1.1", way.by)


def read_until(stream: IO[bytes] | int, pattern: bytes) -> bytes:
    """What comes until the pattern is in it. Raises AssertionError at its end, or after the deadline."""
    number = stream if isinstance(stream, int) else stream.fileno()
    until = time.monotonic() + ways.DEADLINE
    got = b""
    while not re.search(pattern, got):
        ready, _, _ = select.select([number], [], [], max(0.0, until - time.monotonic()))
        chunk = os.read(number, 65536) if ready else b""
        assert chunk, f"waited for {pattern!r}, got {got!r}"
        got += chunk
    return got


def receive(connection: socket.socket, size: int) -> bytes:
    with connection.makefile("rb") as stream:
        return stream.read(size)


def test_get_version_and_discovery(way: Way) -> None:
    assert way.kubectl("get", "pod", "demo", "-o", "name").stdout == b"pod/demo\n"
    assert b"gomember" in way.kubectl("version").stdout
    assert b"pods" in way.kubectl("api-resources").stdout


def test_exec_keeps_output_errors_and_exit_code_apart(way: Way, gomember: GoMember, protocol: str) -> None:
    done = way.kubectl("exec", "demo", "--", "sh", "-c", "echo out; echo err >&2; exit 7", protocol=protocol)
    assert done.returncode == 7
    assert done.stdout == b"out\n"
    assert b"err\n" in done.stderr
    assert_upgraded(gomember, way, "exec", protocol)


def test_exec_carries_input_both_ways_whole(way: Way, protocol: str) -> None:
    content = secrets.token_bytes(4 * MEBIBYTE)
    done = way.kubectl("exec", "-i", "demo", "--", "cat", protocol=protocol, input=content)
    assert done.returncode == 0
    assert done.stdout == content


def test_exec_of_a_missing_program_is_told(way: Way, protocol: str) -> None:
    done = way.kubectl("exec", "demo", "--", "/no/such/program", protocol=protocol)
    assert done.returncode == 127
    assert done.stdout == b""


def test_exec_with_a_terminal_follows_its_size(way: Way, protocol: str) -> None:
    ours, theirs = pty.openpty()
    fcntl.ioctl(ours, termios.TIOCSWINSZ, struct.pack("HHHH", 30, 90, 0, 0))
    script = 'while test "$(stty size)" != "30 90"; do sleep 0.05; done; echo small; ' + (
        'while test "$(stty size)" != "50 120"; do sleep 0.05; done; echo "tall $(tty)"; exit 3'
    )
    process = subprocess.Popen(
        way.command("exec", "-it", "demo", "--", "sh", "-c", script),
        env=way.environment(protocol),
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        start_new_session=True,
        preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),  # so that kubectl gets SIGWINCH
    )
    os.close(theirs)
    try:
        read_until(ours, rb"small")
        fcntl.ioctl(ours, termios.TIOCSWINSZ, struct.pack("HHHH", 50, 120, 0, 0))
        read_until(ours, rb"tall /dev/pts/\d+")
        assert process.wait(ways.DEADLINE) == 3
    finally:
        process.kill()
        process.wait()
        os.close(ours)


def test_attach_joins_the_running_program(way: Way, gomember: GoMember, protocol: str) -> None:
    with way.started("attach", "-i", "demo", protocol=protocol) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(b"hello\n")
        process.stdin.flush()
        read_until(process.stdout, rb"heard hello\n")
        process.stdin.write(b"bye\n")
        process.stdin.flush()
        read_until(process.stdout, rb"heard bye\n")
        assert process.wait(ways.DEADLINE) == 0
    assert_upgraded(gomember, way, "attach", protocol)


def test_logs_follow_what_the_program_writes(way: Way) -> None:
    word = secrets.token_hex(8)
    with way.started("logs", "-f", "demo") as following:
        assert following.stdout is not None
        read_until(following.stdout, rb"started\n")
        with way.started("attach", "-i", "demo") as attached:
            assert attached.stdin is not None
            attached.stdin.write(word.encode() + b"\n")
            attached.stdin.flush()
            read_until(following.stdout, rb"heard " + word.encode() + rb"\n")
    assert f"heard {word}\n".encode() in way.kubectl("logs", "demo").stdout


def test_watch_stays_open(way: Way) -> None:
    with way.started("get", "pods", "-w", "-o", "name") as watching:
        assert watching.stdout is not None
        read_until(watching.stdout, rb"pod/demo\n")
        assert way.kubectl("get", "pod", "demo").returncode == 0
        assert watching.poll() is None


def test_cp_both_ways(way: Way, protocol: str, tmp_path: Path) -> None:
    name = secrets.token_hex(8)
    content = secrets.token_bytes(2 * MEBIBYTE)
    there, back = tmp_path / "there", tmp_path / "back"
    there.write_bytes(content)
    up = way.kubectl("cp", str(there), f"demo:{name}", protocol=protocol)
    assert up.returncode == 0, up.stderr
    down = way.kubectl("cp", f"demo:{name}", str(back), protocol=protocol)
    assert down.returncode == 0, down.stderr
    assert back.read_bytes() == content


def test_port_forward_carries_several_connections(way: Way, gomember: GoMember, protocol: str, echo_port: int) -> None:
    with way.started("port-forward", "pod/demo", f":{echo_port}", protocol=protocol) as process:
        assert process.stdout is not None
        said = read_until(process.stdout, rb"127\.0\.0\.1:(\d+) ->")
        found = re.search(rb"127\.0\.0\.1:(\d+) ->", said)
        assert found is not None
        local = ("127.0.0.1", int(found[1]))
        with socket.create_connection(local, ways.DEADLINE) as first:
            first.sendall(b"first")
            assert receive(first, 5) == b"first"
            with socket.create_connection(local, ways.DEADLINE) as second:
                content = secrets.token_bytes(MEBIBYTE)
                sender = threading.Thread(target=second.sendall, args=(content,))
                sender.start()
                assert receive(second, len(content)) == content
                sender.join()
            first.sendall(b"again")
            assert receive(first, 5) == b"again"
    assert_upgraded(gomember, way, "portforward", protocol)


# What only a gateway can get wrong: which protocol it speaks to the member, and whose name and proof the member sees.

OF_A_CLIENT = re.compile(r"(?i)x-remote-|impersonate-|x-onepass-|x-envoy-|x-forwarded-client-cert|cookie")
SMUGGLED = {
    "X-Remote-User": "root",
    "X-Remote-Group": "system:masters",
    "X-Remote-Extra-Scopes": "all",
    "X-Forwarded-Client-Cert": 'Subject="CN=root"',
    "X-Envoy-Original-Path": "/",
    "X-Envoy-Internal": "true",
    "X-Onepass-Member": "member/other",
    "x-onepass-route": "stream",
    "Cookie": "session=1",
}


def the_request(member: GoMember, marker: str) -> Seen:
    [found] = [each for each in member.seen() if marker in each.uri]
    return found


def assert_only_the_gateway_shows(seen: Seen, member: GoMember, by: str) -> None:
    assert seen.by == by
    assert [name for name in seen.header if OF_A_CLIENT.match(name)] == []
    authorization = seen.header.get("Authorization", [])
    assert (authorization, seen.peer) == (([f"Bearer {member.token}"], "") if by == "token" else ([], "gateway"))


@pytest.mark.parametrize("http2", [True, False], ids=["h2-client", "h1-client"])
def test_the_gateway_speaks_http2_to_a_member_that_offers_it(
    registered: Register, gomember: GoMember, http2: bool
) -> None:
    way = registered(gomember, "x509")
    done = way.kubectl("get", "--raw", f"/version?marker={(marker := secrets.token_hex(8))}", http2=http2)
    assert done.returncode == 0, done.stderr
    assert the_request(gomember, marker).proto == ("HTTP/2.0" if http2 else "HTTP/1.1")


def test_the_gateway_speaks_http1_to_a_member_that_does_not(registered: Register, old_gomember: GoMember) -> None:
    way = registered(old_gomember, "x509")
    done = way.kubectl("get", "--raw", f"/version?marker={(marker := secrets.token_hex(8))}")
    assert done.returncode == 0, done.stderr
    assert the_request(old_gomember, marker).proto == "HTTP/1.1"


def test_no_identity_header_of_the_client_reaches_the_member(registered: Register, gomember: GoMember, by: str) -> None:
    way = registered(gomember, by)
    marker = secrets.token_hex(8)
    request = urllib.request.Request(f"{way.server}/api/v1/namespaces/default/pods?marker={marker}", headers=SMUGGLED)
    with urllib.request.urlopen(request, context=way.tls(), timeout=ways.DEADLINE) as response:
        assert json.load(response)["kind"] == "PodList"
    seen = the_request(gomember, marker)
    assert seen.uri == f"/api/v1/namespaces/default/pods?marker={marker}"
    assert seen.host == gomember.endpoint.removeprefix("https://")
    assert_only_the_gateway_shows(seen, gomember, by)


def test_no_token_of_the_client_reaches_the_member(
    registered: Register, gateway: Gateway, gomember: GoMember, by: str, protocol: str, tmp_path: Path
) -> None:
    admin = registered(gomember, by)
    account = f"robot-{secrets.token_hex(4)}"
    gateway.kubectl("create", "serviceaccount", account, "-n", "default", context="onepass")
    gateway.kubectl(
        "create", "clusterrolebinding", account, "--clusterrole=cluster-admin", f"--serviceaccount=default:{account}",
        context="onepass",
    )  # fmt: skip
    token = gateway.kubectl("create", "token", account, "-n", "default", context="onepass").stdout.strip()
    way = Way(tmp_path, by, admin.server, admin.ca, {"token": token})
    marker = secrets.token_hex(8)
    assert "pod/demo" in eventually(lambda: way.kubectl("get", "pod", "demo", "-o", "name").stdout.decode())
    done = way.kubectl("exec", "demo", "--", "echo", marker, protocol=protocol)
    assert done.stdout.decode() == f"{marker}\n", done.stderr
    assert_only_the_gateway_shows(the_request(gomember, marker), gomember, by)
    assert_upgraded(gomember, way, "exec", protocol)


def test_the_alias_path_carries_requests_and_streams(registered: Register, gomember: GoMember, protocol: str) -> None:
    way = registered(gomember, "x509", ways.ALIAS)
    assert way.kubectl("get", "pod", "demo", "-o", "name").stdout == b"pod/demo\n"
    assert way.kubectl("exec", "demo", "--", "echo", "hello", protocol=protocol).stdout == b"hello\n"
    assert_upgraded(gomember, way, "exec", protocol)


def eventually(question: Callable[[], str]) -> str:
    """The first answer that is not empty: a permission is in force within a second of its writing."""
    until = time.monotonic() + ways.DEADLINE
    while not (answer := question()):
        assert time.monotonic() < until, "no answer within the deadline"
        time.sleep(0.1)
    return answer
