"""IPv6 from end to end: who asks, the gateway, and the member."""

import base64
import contextlib
import socket
import socketserver
import threading
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import yaml
from tests.e2e.conftest import running
from tests.waiting import eventually

pytestmark = pytest.mark.e2e

POD = """
apiVersion: v1
kind: Pod
metadata: {name: six}
spec:
  containers: [{name: c, image: none, command: [sh, -c, "echo over six; sleep 60"]}]
"""


class Relay(socketserver.ThreadingTCPServer):
    """An IPv6 port that leads to an IPv4 one; connections that go on end with the process that made them."""

    address_family = socket.AF_INET6
    daemon_threads = True
    block_on_close = False

    def __init__(self, there: tuple[str, int]) -> None:
        self.there = there
        super().__init__(("::1", 0), Carry)


class Carry(socketserver.BaseRequestHandler):
    def handle(self) -> None:
        assert isinstance(self.server, Relay)
        with socket.create_connection(self.server.there) as there:
            back = threading.Thread(target=copy, args=(there, self.request), daemon=True)
            back.start()
            copy(self.request, there)
            back.join(30)


def copy(source: socket.socket, sink: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while data := source.recv(65536):
            sink.sendall(data)
        sink.shutdown(socket.SHUT_WR)


@contextlib.contextmanager
def relayed(there: tuple[str, int]) -> Iterator[int]:
    with Relay(there) as relay:
        thread = threading.Thread(target=relay.serve_forever, daemon=True)
        thread.start()
        try:
            yield relay.server_address[1]
        finally:
            relay.shutdown()
            thread.join(30)


def test_everything_works_over_ipv6(tmp_path: Path) -> None:
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError as none:
        pytest.skip(f"this machine has no IPv6 loopback: {none}")
    with running(tmp_path / "gw", "--sandbox", "1", host="[::1]") as gateway:
        config = yaml.safe_load((gateway.data_dir / "sandbox" / "sandbox-1.kubeconfig").read_text())
        place, user = config["clusters"][0]["cluster"], config["users"][0]["user"]
        there = urlsplit(place["server"])
        assert there.hostname
        assert there.port
        with relayed((there.hostname, there.port)) as port:
            gateway.register(
                "six",
                endpoint=f"https://[::1]:{port}",
                ca=base64.b64decode(place["certificate-authority-data"]),
                certificate=base64.b64decode(user["client-certificate-data"]),
                key=base64.b64decode(user["client-key-data"]),
                extra={"serverName": there.hostname},
            )
            path = gateway.data_dir / "six.kubeconfig"
            gateway.onepass("pass", "issue", "six", "--cluster=six", "--verbs=*", "-o", str(path))
            issued = yaml.safe_load(path.read_text())
            assert issued["clusters"][0]["cluster"]["server"].startswith("https://[::1]:")

            def kubectl(*arguments: str, input: str = "") -> str:
                return str(gateway.kubectl(*arguments, kubeconfig=path, input=input).stdout)

            may = ("get", "pods")
            eventually(lambda: gateway.kubectl(*may, kubeconfig=path, check=False).returncode == 0)
            kubectl("apply", "-f", "-", input=POD)
            kubectl("wait", "--for=condition=Ready", "pod/six", "--timeout=60s")
            eventually(lambda: kubectl("logs", "six") == "over six\n")
            assert kubectl("exec", "six", "--", "echo", "hello") == "hello\n"
            kubectl("delete", "pod", "six", "--wait=false")
