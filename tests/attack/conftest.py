"""The whole product with two echo members, people with passes, and the means to send what no client would.

`site` is shared by all attacks: each leaves it as it found it. c1 is reached by token, c2 by client certificate and
HTTP/2.
"""

import base64
import json
import ssl
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any  # parsed JSON of the tests

import httpx2
import pytest
import yaml
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID
from tests.attack import echo
from tests.attack.echo import Echo
from tests.attack.rawhttp import Answer, Http2, Wire, request
from tests.e2e.conftest import Gateway, running
from tests.waiting import eventually

from onepass.pki import keys

SECONDS = 60.0
C1 = "/apis/cluster.karpor.io/v1beta1/clusters/c1/proxy"
C2 = "/apis/cluster.karpor.io/v1beta1/clusters/c2/proxy"
CLUSTERS = "/apis/cluster.karpor.io/v1beta1/clusters"
PASSES = "/apis/access.karpor.io/v1beta1/passes"
CSRS = "/apis/certificates.k8s.io/v1/certificatesigningrequests"
TOKEN_1 = "canary-token-of-c1-7f3a"
EVERYTHING = {"apiGroups": ["*"], "resources": ["*"], "verbs": ["*"]}
READING = {"apiGroups": ["*"], "resources": ["*"], "verbs": ["get", "list", "watch"]}


@dataclass(frozen=True)
class Person:
    """Somebody with a client certificate; `proof` is a PEM file of certificate and key, None for nobody."""

    name: str
    proof: Path | None


@dataclass
class Site:
    """The gateway under attack."""

    gateway: Gateway
    c1: Echo
    c2: Echo
    directory: Path
    admin: Person
    ca: str
    people: dict[str, Person] = field(default_factory=dict)

    @property
    def address(self) -> tuple[str, int]:
        host, _, port = self.gateway.url.removeprefix("https://").rpartition(":")
        return host, int(port)

    def context(self, person: Person | None = None) -> ssl.SSLContext:
        context = ssl.create_default_context(cadata=self.ca)
        context.check_hostname = False
        if person and person.proof:
            context.load_cert_chain(person.proof)
        return context

    def wire(self, person: Person | None = None) -> Wire:
        """A raw HTTP/1.1 connection."""
        return Wire.open(self.address, self.context(person))

    def http2(self, person: Person | None = None) -> Http2:
        """A raw HTTP/2 connection."""
        return Http2.open(self.address, self.context(person))

    def ask(
        self,
        person: Person | None,
        target: str,
        *headers: tuple[str, str],
        method: str = "GET",
        body: bytes = b"",
        http2: bool = False,
    ) -> Answer:
        """One request on a connection of its own."""
        if http2:
            with self.http2(person) as connection:
                return connection.answer(connection.send(method, target, headers))
        with self.wire(person) as wire:
            wire.send(request(method, target, *headers, body=body))
            return wire.answer(method)

    def api(
        self, method: str, path: str, body: object = None, *, person: Person | None = None, kind: str = "json"
    ) -> Answer:
        """A request to the gateway's own API; the administrator's unless `person` is given."""
        content = b"" if body is None else json.dumps(body).encode()
        given = [("content-type", f"application/{kind}")] if content else []
        return self.ask(person or self.admin, path, *given, method=method, body=content)

    def made(self, path: str, obj: Mapping[str, Any]) -> Any:
        answer = self.api("POST", path, obj)
        assert answer.code == 201, answer.body
        return answer.json()

    def gone(self, path: str) -> None:
        assert self.api("DELETE", path).code in (200, 202, 404)

    def member(self, name: str, member: Echo, **access: object) -> dict[str, object]:
        """A Cluster object for an echo member."""
        spec = {"endpoint": member.endpoint, "caBundle": base64.b64encode(member.ca).decode()}
        return {
            "apiVersion": "cluster.karpor.io/v1beta1",
            "kind": "Cluster",
            "metadata": {"name": name},
            "spec": {"access": spec | access},
        }

    def healthy(self, name: str) -> None:
        eventually(
            lambda: self.api("GET", f"{CLUSTERS}/{name}").json().get("status", {}).get("healthy") is True,
            f"{name} is not healthy",
        )

    def person(
        self,
        name: str,
        *rules: Mapping[str, object],
        clusters: Sequence[str] = ("c1", "c2"),
        wait: bool = True,
        **spec: object,
    ) -> Person:
        """Somebody with a certificate and, with `rules`, a pass of the same name that is in force. Made once."""
        if name not in self.people:
            self.people[name] = Person(name, self._certificate(name))
            if rules:
                self.made(PASSES, granting(name, rules, clusters, name, **spec))
                someone = self.people[name]
                for cluster in clusters if wait else ():
                    eventually(lambda c=cluster: self.ask(someone, f"{CLUSTERS}/{c}/proxy/version").code == 200)  # type: ignore[misc]
        return self.people[name]

    def _certificate(self, user: str) -> Path:
        key = keys.generate()
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, user)])
        csr = x509.CertificateSigningRequestBuilder().subject_name(subject).sign(key, hashes.SHA256())
        name = f"{user}-{time.monotonic_ns()}".lower()
        made = self.made(
            CSRS,
            {
                "apiVersion": "certificates.k8s.io/v1",
                "kind": "CertificateSigningRequest",
                "metadata": {"name": name},
                "spec": {
                    "request": base64.b64encode(csr.public_bytes(Encoding.PEM)).decode(),
                    "signerName": "kubernetes.io/kube-apiserver-client",
                    "usages": ["client auth"],
                },
            },
        )
        made["status"] = {"conditions": [{"type": "Approved", "status": "True", "reason": "Test"}]}
        assert self.api("PUT", f"{CSRS}/{name}/approval", made).code == 200
        signed: list[str] = []

        def issued() -> bool:
            text = self.api("GET", f"{CSRS}/{name}").json().get("status", {}).get("certificate", "")
            signed[:] = [text]
            return bool(text)

        eventually(issued)
        path = self.directory / f"{name}.pem"
        path.write_bytes(base64.b64decode(signed[0]) + keys.to_pem(key))
        return path

    def records(self) -> list[dict[str, Any]]:
        """What the data plane has written of requests so far, oldest first."""
        path = self.gateway.data_dir / "audit.log"
        # What stands behind the last newline is still being written.
        return [json.loads(line) for line in path.read_bytes().split(b"\n")[:-1]] if path.exists() else []

    def admin_socket(self, path: str, method: str = "GET") -> bytes:
        """Asks Envoy's own administration, on its unix socket."""
        transport = httpx2.HTTPTransport(uds=str(self.gateway.data_dir / "run" / "admin.sock"))
        with httpx2.Client(transport=transport, timeout=SECONDS) as client:
            answer = client.request(method, f"http://envoy{path}")
            assert answer.status_code == 200, answer.text
            return answer.content

    def counter(self, name: str) -> int:
        """The sum of the counters whose name ends like this."""
        listed = json.loads(self.admin_socket(f"/stats?format=json&filter={name}$"))["stats"]
        return sum(int(each["value"]) for each in listed if "value" in each)


def granting(
    name: str, rules: Sequence[Mapping[str, object]], clusters: Sequence[str] = ("c1",), user: str = "", **spec: object
) -> dict[str, Any]:
    """A Pass."""
    return {
        "apiVersion": "access.karpor.io/v1beta1",
        "kind": "Pass",
        "metadata": {"name": name},
        "spec": {
            "subjects": [{"kind": "User", "name": user or name, "apiGroup": "rbac.authorization.k8s.io"}],
            "clusters": {"names": list(clusters)},
            "rules": [dict(rule) for rule in rules],
        }
        | spec,
    }


def _administrator(gateway: Gateway, directory: Path) -> tuple[Person, str]:
    config = yaml.safe_load(gateway.kubeconfig.read_text())
    user, cluster = config["users"][0]["user"], config["clusters"][0]["cluster"]
    path = directory / "admin.pem"
    path.write_bytes(base64.b64decode(user["client-certificate-data"]) + base64.b64decode(user["client-key-data"]))
    return Person("admin", path), base64.b64decode(cluster["certificate-authority-data"]).decode()


@contextmanager
def open_site(directory: Path, *options: str) -> Iterator[Site]:
    """A gateway of its own with both members registered and healthy."""
    with ExitStack() as stack:
        gateway = stack.enter_context(running(directory / "gw", *options))
        c1 = stack.enter_context(echo.running("c1"))
        c2 = stack.enter_context(echo.running("c2", http2=True))
        admin, ca = _administrator(gateway, directory)
        site = Site(gateway, c1, c2, directory, admin, ca)
        token = {"type": "ServiceAccountToken", "serviceAccountToken": TOKEN_1}
        site.made(CLUSTERS, site.member("c1", c1, credential=token))
        site.made(CLUSTERS, site.member("c2", c2, credential=certificate_of(c2, "gateway-to-c2")))
        site.healthy("c1")
        site.healthy("c2")
        yield site


def certificate_of(member: Echo, name: str) -> dict[str, Any]:
    """A credential that the member's authority has signed."""
    issued = member.clients.issue_cert(common_name=name)
    chain = b"".join(blob.bytes() for blob in issued.cert_chain_pems)
    pair = {"certificate": chain, "privateKey": issued.private_key_pem.bytes()}
    return {"type": "X509Certificate", "x509": {k: base64.b64encode(v).decode() for k, v in pair.items()}}


@pytest.fixture(scope="session")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    with open_site(tmp_path_factory.mktemp("attack")) as started:
        yield started


@pytest.fixture(scope="session")
def reader(site: Site) -> Person:
    """May get, list and watch everything on both members, and nothing else."""
    return site.person("reader", READING)
