"""A host cluster for the extension mode: Kubernetes' own kube-apiserver, whose aggregator hands `clusters` on to a
gateway on this machine, and the certificate of its front proxy."""

import base64
import http.client
import json
import ssl
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import trustme
import yaml
from tests.e2e import ways
from tests.e2e.ways import Way
from tests.programs import kubemembers
from tests.programs.gomembers import GoMember

from onepass.api.meta import Object

GROUP = "/apis/cluster.karpor.io/v1beta1"
NAME = "front-proxy-client"
SERVICE = "onepass.onepass.svc"  # what the aggregator expects the gateway's certificate to be for


@dataclass
class FrontProxy:
    """An authority and the files that its certificates are in."""

    directory: Path
    authority: trustme.CA = field(default_factory=trustme.CA)

    def __post_init__(self) -> None:
        self.authority.cert_pem.write_to_path(self.ca)
        self.certificate(NAME)

    @property
    def ca(self) -> Path:
        return self.directory / "front-proxy-ca.crt"

    def certificate(self, name: str) -> tuple[Path, Path]:
        """The certificate chain and the key of a client with this common name."""
        made = self.authority.issue_cert(f"{name}.test", common_name=name)
        chain, key = self.directory / f"{name}.crt", self.directory / f"{name}.key"
        made.private_key_pem.write_to_path(key)
        chain.write_bytes(b"".join(each.bytes() for each in made.cert_chain_pems))
        return chain, key

    def flags(self) -> list[str]:
        """Of kube-apiserver."""
        return [
            f"--requestheader-client-ca-file={self.ca}",
            f"--requestheader-allowed-names={NAME}",
            "--requestheader-username-headers=X-Remote-User",
            "--requestheader-group-headers=X-Remote-Group",
            "--requestheader-extra-headers-prefix=X-Remote-Extra-",
            f"--proxy-client-cert-file={self.directory / NAME}.crt",
            f"--proxy-client-key-file={self.directory / NAME}.key",
        ]


@dataclass
class Asked:
    """What a listener answered."""

    status: int
    body: str


@dataclass
class Knocker:
    """Sends requests to the listener for the aggregator by hand. `proof` is a certificate chain and a key."""

    port: int
    ca: bytes
    proof: tuple[Path, Path] | None

    def connection(self) -> http.client.HTTPSConnection:
        context = ssl.create_default_context(cadata=self.ca.decode())
        if self.proof:
            context.load_cert_chain(*self.proof)
        return http.client.HTTPSConnection("127.0.0.1", self.port, context=context, timeout=60)

    @contextmanager
    def kept(self, path: str, *headers: tuple[str, str]) -> Iterator[Callable[[], int]]:
        """A connection that stays open; each call asks once more on it, and gives the status."""
        with closing(self.connection()) as connection:
            connection.connect()
            first = connection.sock

            def ask() -> int:
                connection.request("GET", path, headers=dict(headers))
                assert connection.sock is first, "the gateway has closed the connection"
                answer = connection.getresponse()
                answer.read()
                return answer.status

            yield ask

    @contextmanager
    def watching(self, path: str, *headers: tuple[str, str]) -> Iterator[Callable[[], Object]]:
        """A watch; each call gives the next event."""
        with closing(self.connection()) as connection:
            connection.request("GET", f"{path}?watch=1", headers=dict(headers))
            answer = connection.getresponse()
            assert answer.status == 200, answer.read()
            yield lambda: json.loads(answer.readline())

    def ask(self, path: str, *headers: tuple[str, str], method: str = "GET", body: bytes | None = None) -> Asked:
        connection = self.connection()
        try:
            connection.putrequest(method, path)
            for name, value in headers:
                connection.putheader(name, value)
            if body is not None:
                connection.putheader("content-length", str(len(body)))
                connection.putheader("content-type", "application/json")
            connection.endheaders(body)
            answer = connection.getresponse()
            # A stream that was let in has no end.
            return Asked(answer.status, "" if answer.status == 101 else answer.read().decode())
        finally:
            connection.close()


@dataclass
class Host:
    """A running host cluster. `admin` is its first user."""

    directory: Path
    server: GoMember
    front: FrontProxy
    admin: Way

    def way(self, name: str, path: str = "", **user: str) -> Way:
        """kubectl as somebody whom the host's first user impersonates."""
        directory = self.directory / name
        directory.mkdir(exist_ok=True)
        return Way(
            directory, "", self.server.endpoint + path, self.server.ca.encode(), {"token": self.server.token, **user}
        )

    def kubectl(self, *arguments: str, objects: object = None) -> str:
        done = self.admin.kubectl(*arguments, input=b"" if objects is None else json.dumps(objects).encode())
        assert done.returncode == 0, done.stderr.decode()
        return done.stdout.decode()

    def apply(self, *objects: Mapping[str, object]) -> None:
        self.kubectl("apply", "-f", "-", objects={"apiVersion": "v1", "kind": "List", "items": list(objects)})

    def discovered(self, group: str) -> None:
        """Until the host's discovery has a group, which comes after its APIService is available: the aggregator looks
        again every minute."""
        deadline = time.monotonic() + 150
        while not self.admin.kubectl("api-resources", f"--api-group={group}", "-o", "name").stdout:
            assert time.monotonic() < deadline, f"{group} is not discovered"
            time.sleep(0.2)

    def kubeconfig(self, path: Path, account: str, namespace: str) -> Path:
        """For a service account of the host, by a bound token."""
        token = self.kubectl("create", "token", account, "-n", namespace).strip()
        cluster = {
            "server": self.server.endpoint,
            "certificate-authority-data": base64.b64encode(self.server.ca.encode()).decode(),
        }
        config = {
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": "host",
            "clusters": [{"name": "host", "cluster": cluster}],
            "users": [{"name": "onepass", "user": {"token": token}}],
            "contexts": [{"name": "host", "context": {"cluster": "host", "user": "onepass"}}],
        }
        path.write_text(yaml.safe_dump(config))
        path.chmod(0o600)
        return path


def registration(port: int) -> list[dict[str, object]]:
    """What the host needs to know: where the gateway is, and what the gateway may ask the host."""
    meta = {"name": "onepass", "namespace": "onepass"}
    subjects = [{"kind": "ServiceAccount", "name": "onepass", "namespace": "onepass"}]
    rbac = "rbac.authorization.k8s.io"
    return [
        {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "onepass"}},
        {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": meta},
        {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": meta,
            "spec": {"type": "ExternalName", "externalName": "localhost", "ports": [{"port": port}]},
        },
        {
            "apiVersion": f"{rbac}/v1",
            "kind": "RoleBinding",
            "metadata": {"name": "onepass", "namespace": "kube-system"},
            "roleRef": {"apiGroup": rbac, "kind": "Role", "name": "extension-apiserver-authentication-reader"},
            "subjects": subjects,
        },
        {
            "apiVersion": f"{rbac}/v1",
            "kind": "ClusterRole",
            "metadata": {"name": "onepass"},
            "rules": [
                {
                    "apiGroups": ["apiregistration.k8s.io"],
                    "resources": ["apiservices"],
                    "resourceNames": ["v1beta1.cluster.karpor.io"],
                    "verbs": ["get", "patch"],
                }
            ],
        },
        {
            "apiVersion": f"{rbac}/v1",
            "kind": "ClusterRoleBinding",
            "metadata": {"name": "onepass"},
            "roleRef": {"apiGroup": rbac, "kind": "ClusterRole", "name": "onepass"},
            "subjects": subjects,
        },
        {
            "apiVersion": "apiregistration.k8s.io/v1",
            "kind": "APIService",
            "metadata": {
                "name": "v1beta1.cluster.karpor.io",
                "annotations": {"access.karpor.io/inject-ca": "true"},
            },
            "spec": {
                "group": "cluster.karpor.io",
                "version": "v1beta1",
                "groupPriorityMinimum": 1000,
                "versionPriority": 15,
                "service": {"name": "onepass", "namespace": "onepass", "port": port},
            },
        },
    ]


def granted(user: str, verbs: list[str], *names: str) -> list[dict[str, object]]:
    """Host RBAC: to look at clusters, and these verbs on `clusters/proxy` of some of them."""
    rbac = "rbac.authorization.k8s.io"
    group = ["cluster.karpor.io"]
    rules = [
        {"apiGroups": group, "resources": ["clusters"], "verbs": ["get", "list", "watch"]},
        {"apiGroups": group, "resources": ["clusters/proxy"], "resourceNames": list(names), "verbs": verbs},
    ]
    return [
        {"apiVersion": f"{rbac}/v1", "kind": "ClusterRole", "metadata": {"name": user}, "rules": rules},
        {
            "apiVersion": f"{rbac}/v1",
            "kind": "ClusterRoleBinding",
            "metadata": {"name": user},
            "roleRef": {"apiGroup": rbac, "kind": "ClusterRole", "name": user},
            "subjects": [{"apiGroup": rbac, "kind": "User", "name": user}],
        },
    ]


@contextmanager
def running(directory: Path) -> Iterator[Host]:
    """Until the end of the block. Raises golang.GoMissing."""
    front, state, admin = (directory / name for name in ("front", "state", "admin"))
    for each in (front, state, admin):
        each.mkdir()
    proxy = FrontProxy(front)
    with kubemembers.running(state, *proxy.flags()) as server:
        yield Host(directory, server, proxy, ways.direct(admin, server, "token"))
