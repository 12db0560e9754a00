"""Ways to a member cluster: kubeconfigs that lead to it directly or through the gateway, and kubectl with them."""

import base64
import os
import ssl
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import yaml
from tests.programs.gomembers import GoMember

KUBECTL = Path(sys.executable).parent / "kubectl"
DEADLINE = 60  # seconds, for what takes one at most
PROXY = "/apis/cluster.karpor.io/v1beta1/clusters/{}/proxy"
ALIAS = "/apis/kusionstack.io/Cluster/{}/proxy"
PROTOCOLS: Mapping[str, Mapping[str, str]] = {
    "websocket": {},
    "spdy": {"KUBECTL_REMOTE_COMMAND_WEBSOCKETS": "false", "KUBECTL_PORT_FORWARD_WEBSOCKETS": "false"},
}


@dataclass(frozen=True)
class Way:
    """kubectl with one kubeconfig. `by` is the credential that the member sees: "x509" or "token"."""

    directory: Path
    by: str
    server: str
    ca: bytes
    user: Mapping[str, str] = field(repr=False)

    def __post_init__(self) -> None:
        config = {
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": "it",
            "clusters": [
                {"name": "it", "cluster": {"server": self.server, "certificate-authority-data": encoded(self.ca)}}
            ],
            "users": [{"name": "it", "user": dict(self.user)}],
            "contexts": [{"name": "it", "context": {"cluster": "it", "user": "it", "namespace": "default"}}],
        }
        (self.directory / "config").write_text(yaml.safe_dump(config))

    def command(self, *arguments: str) -> list[str]:
        return [str(KUBECTL), "--kubeconfig", str(self.directory / "config"), *arguments]

    def environment(self, protocol: str = "websocket") -> dict[str, str]:
        return {"PATH": os.environ["PATH"], "HOME": str(self.directory), "TERM": "xterm", **PROTOCOLS[protocol]}

    def tls(self) -> ssl.SSLContext:
        """For requests that kubectl would not send: as the same user, when that has a certificate."""
        context = ssl.create_default_context(cadata=self.ca.decode())
        if "client-certificate-data" in self.user:
            proof = self.directory / "client.pem"
            parts = (self.user["client-certificate-data"], self.user["client-key-data"])
            proof.write_bytes(b"\n".join(base64.b64decode(each) for each in parts))
            context.load_cert_chain(proof)
        return context

    def kubectl(
        self, *arguments: str, protocol: str = "websocket", http2: bool = True, input: bytes = b""
    ) -> subprocess.CompletedProcess[bytes]:
        return subprocess.run(
            self.command(*arguments),
            env=self.environment(protocol) | ({} if http2 else {"DISABLE_HTTP2": "true"}),
            input=input,
            capture_output=True,
            timeout=DEADLINE,
            check=False,
        )

    @contextmanager
    def started(self, *arguments: str, protocol: str = "websocket") -> Iterator[subprocess.Popen[bytes]]:
        """kubectl in the background, with pipes to its input and output; ended with the block."""
        with subprocess.Popen(
            self.command(*arguments),
            env=self.environment(protocol),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        ) as process:
            try:
                yield process
            finally:
                process.kill()


def encoded(pem: bytes) -> str:
    return base64.b64encode(pem).decode()


def direct(directory: Path, member: GoMember, by: str) -> Way:
    """Straight to the member, with the credential that a gateway would hold."""
    user = {
        "x509": {
            "client-certificate-data": encoded(member.certificate.encode()),
            "client-key-data": encoded(member.key.encode()),
        },
        "token": {"token": member.token},
    }[by]
    return Way(directory, by, member.endpoint, member.ca.encode(), user)


def through(directory: Path, admin: Path, url: str, name: str, by: str, proxy: str = PROXY) -> Way:
    """Through the gateway to the member registered as `name`, as the administrator of a kubeconfig."""
    config = yaml.safe_load(admin.read_text())
    ca = base64.b64decode(config["clusters"][0]["cluster"]["certificate-authority-data"])
    return Way(directory, by, url + proxy.format(name), ca, config["users"][0]["user"])
