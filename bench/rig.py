"""What is measured and what it is measured with: a member, the gateway, the yardstick proxy, the load."""

import base64
import json
import ssl
import subprocess
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx2
import yaml
from bench import processes
from tests.e2e.conftest import Gateway
from tests.e2e.ways import PROXY
from tests.programs import golang
from tests.programs.gomembers import GoMember

from onepass.api.meta import Object
from onepass.pki import authority, certificates, keys

PROGRAMS = Path(__file__).parent / "programs"
SIZED = "/api/v1/namespaces/default/configmaps/sized"
CLUSTERS = "/apis/cluster.karpor.io/v1beta1/clusters"
PASSES = "/apis/access.karpor.io/v1beta1/passes"
MEMBER = "member"


class BenchError(Exception):
    """Why a measurement means nothing, as a sentence."""


@dataclass(frozen=True)
class Person:
    """A user of the gateway: PEM files for the load generator, an HTTP client for single requests."""

    ca: Path
    proof: Path
    client: httpx2.Client

    @classmethod
    def of(cls, kubeconfig: Path, server: str, directory: Path) -> "Person":
        config = yaml.safe_load(kubeconfig.read_text())
        user = config["users"][0]["user"]
        ca, proof = directory / f"{kubeconfig.stem}-ca.pem", directory / f"{kubeconfig.stem}.pem"
        ca.write_bytes(base64.b64decode(config["clusters"][0]["cluster"]["certificate-authority-data"]))
        parts = (user["client-certificate-data"], user["client-key-data"])
        proof.write_bytes(b"\n".join(base64.b64decode(each) for each in parts))
        context = ssl.create_default_context(cafile=str(ca))
        context.load_cert_chain(proof)
        return cls(ca, proof, httpx2.Client(base_url=server, verify=context, timeout=30))

    def post(self, path: str, content: Mapping[str, object]) -> None:
        self._sent("POST", path, content, "application/json")

    def patch(self, path: str, content: Mapping[str, object]) -> None:
        self._sent("PATCH", path, content, "application/merge-patch+json")

    def delete(self, path: str) -> None:
        self._sent("DELETE", path, None, "application/json")

    def _sent(self, method: str, path: str, content: Mapping[str, object] | None, kind: str) -> None:
        body = b"" if content is None else json.dumps(content).encode()
        answer = self.client.request(method, path, content=body, headers={"Content-Type": kind})
        if answer.status_code >= 300:
            raise BenchError(f"{method} {path}: {answer.status_code} {answer.text[:300]}")


@dataclass(frozen=True)
class Load:
    """What the load generator tells: latencies in microseconds."""

    answered: int
    failed: int
    why: str
    seconds: float
    p50: float
    p99: float


@dataclass(frozen=True)
class Rig:
    """Everything that runs, from the first registered member on."""

    directory: Path
    member: GoMember
    gateway: Gateway
    admin: Person
    user: Person

    @property
    def envoy(self) -> int:
        return processes.child(self.gateway.process.pid, "envoy")

    @property
    def address(self) -> str:
        """The 2 KB object, through the gateway."""
        return self.gateway.url + PROXY.format(MEMBER) + SIZED

    def load(self, address: str, *, http2: bool, requests: int, rate: float = 0, direct: bool = False) -> Load:
        """Send the requests and wait for the answers. Raises BenchError unless every one of them was 200."""
        ca, proof = self.user.ca, self.user.proof
        if direct:
            ca, proof = file(self, "member-ca", self.member.ca), member_proof(self)
        connections, streams = (8, 4) if http2 else (32, 1)
        done = subprocess.run(
            [
                str(golang.build(PROGRAMS, "./load")),
                f"-url={address}",
                f"-ca={ca}",
                f"-proof={proof}",
                f"-http2={str(http2).lower()}",
                f"-requests={requests}",
                f"-connections={connections}",
                f"-streams={streams}",
                f"-rate={rate}",
            ],
            capture_output=True,
            text=True,
            check=False,
            timeout=300,
        )
        if done.returncode != 0:
            raise BenchError(f"the load generator: {done.stderr}")
        load = Load(**json.loads(done.stdout))
        if load.failed or load.answered != requests:
            raise BenchError(f"{load.failed} of {requests} requests to {address} failed: {load.why}")
        return load

    def cluster(self, name: str) -> Object:
        """A Cluster object for the member."""
        return described(name, self.member.endpoint, self.member.ca, self.member.token)


def described(name: str, endpoint: str, ca: str, token: str, **more: str) -> Object:
    """A Cluster object by bearer token, with `more` of how it is reached."""
    access: Object = {
        "endpoint": endpoint,
        "caBundle": base64.b64encode(ca.encode()).decode(),
        "credential": {"type": "ServiceAccountToken", "serviceAccountToken": token},
        **more,
    }
    return {
        "apiVersion": "cluster.karpor.io/v1beta1",
        "kind": "Cluster",
        "metadata": {"name": name},
        "spec": {"access": access},
    }


def file(rig: Rig, name: str, content: str) -> Path:
    path = rig.directory / f"{name}.pem"
    path.write_text(content)
    return path


def folder(rig: Rig, name: str) -> Path:
    path = rig.directory / name
    path.mkdir(exist_ok=True)
    return path


def member_proof(rig: Rig) -> Path:
    return file(rig, "member-proof", rig.member.certificate + rig.member.key)


def serving_pair(pki: Path) -> str:
    """A certificate and key as the gateway makes them for itself, which its clients trust as they trust it."""
    ca = authority.load((pki / "serving-ca.crt").read_bytes(), (pki / "serving-ca.key").read_bytes())
    key = keys.generate()
    issued = authority.issue_serving(ca, key.public_key(), ["127.0.0.1"], time.time(), 86400)
    return (certificates.to_pem([issued]) + keys.to_pem(key)).decode()


@contextmanager
def goproxy(rig: Rig, *, http2: bool) -> Iterator[tuple[int, str]]:
    """The yardstick, with a certificate like the gateway's: its process id, and the address of the 2 KB object."""
    pki = rig.gateway.data_dir / "pki"
    serving = file(rig, "serving", serving_pair(pki))
    with subprocess.Popen(
        [
            str(golang.build(PROGRAMS, "./goproxy")),
            f"-upstream={rig.member.endpoint}",
            f"-upstream-ca={file(rig, 'member-ca', rig.member.ca)}",
            f"-upstream-proof={member_proof(rig)}",
            f"-serving={serving}",
            f"-client-ca={pki / 'client-ca.crt'}",
            f"-http2={str(http2).lower()}",
        ],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        url = process.stdout.readline().strip()
        if not url:
            raise BenchError("goproxy did not start")
        yield process.pid, url + SIZED
