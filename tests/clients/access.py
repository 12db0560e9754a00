"""What a client is given: kubeconfigs that lead to a member directly, to it through the gateway, and to the gateway."""

import base64
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import yaml
from tests.e2e.conftest import Gateway
from tests.e2e.ways import PROXY, encoded

NAMESPACE = "clients"  # of whatever a client makes; it is made by the client and goes with it
EVERY_PATH = {"nonResourceURLs": ["*"], "verbs": ["*"]}  # a rule


@dataclass(frozen=True)
class Proven:
    """How a member is reached: PEM, and two credentials of which either will do."""

    endpoint: str
    ca: bytes
    certificate: bytes
    private_key: bytes
    token: str


@dataclass(frozen=True)
class Access:
    """One kubeconfig with one context. `home` is a folder for what a client caches, of this access alone."""

    kubeconfig: Path
    server: str

    @property
    def home(self) -> Path:
        return self.kubeconfig.parent

    def plain(self, text: str) -> str:
        """The text without what names this way and no other: its URL, as a whole or in pieces."""
        for found in dict.fromkeys((self.server, self.server.removeprefix("https://"))):
            text = text.replace(found, "<server>")
        return text


@dataclass(frozen=True)
class Member:
    """The same member, directly and through the gateway: by a user's certificate and by a service account's token."""

    direct: Access
    certificate: Access
    token: Access
    real: bool  # Kubernetes' own kube-apiserver; a sandbox member lacks much, such as deployments and SPDY

    @property
    def through(self) -> Mapping[str, Access]:
        return {"certificate": self.certificate, "token": self.token}


def kubeconfig(folder: Path, server: str, ca: bytes, user: Mapping[str, str], namespace: str = NAMESPACE) -> Access:
    folder.mkdir(parents=True, exist_ok=True)
    config = {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "it",
        "clusters": [{"name": "it", "cluster": {"server": server, "certificate-authority-data": encoded(ca)}}],
        "users": [{"name": "it", "user": dict(user)}],
        "contexts": [{"name": "it", "context": {"cluster": "it", "user": "it", "namespace": namespace}}],
    }
    path = folder / "kubeconfig"
    path.write_text(yaml.safe_dump(config))
    return Access(path, server)


def certificate_of(proven: Proven) -> dict[str, str]:
    return {
        "client-certificate-data": encoded(proven.certificate),
        "client-key-data": encoded(proven.private_key),
    }


def gateway_ca(gateway: Gateway) -> bytes:
    config = yaml.safe_load(gateway.kubeconfig.read_text())
    return base64.b64decode(config["clusters"][0]["cluster"]["certificate-authority-data"])


def issued(gateway: Gateway, user: str, *clusters: str, group: str = "") -> dict[str, str]:
    """A certificate by `onepass pass issue`, with a pass for everything on those clusters, as a kubeconfig's user."""
    path = gateway.data_dir / f"{user}.kubeconfig"
    options = [f"--cluster={name}" for name in clusters] + ([f"--group={group}"] if group else [])
    gateway.onepass("pass", "issue", user, *options, "--verbs=*", "-o", str(path))
    name = gateway.kubectl("get", "passes", "-o", "name", context="onepass").stdout
    [own] = [line for line in name.split() if line.startswith(f"pass.access.karpor.io/{user}-")]
    more = [{"op": "add", "path": "/spec/rules/-", "value": EVERY_PATH}]
    gateway.kubectl("patch", own, "--type=json", "-p", json.dumps(more), context="onepass")
    user_entry: dict[str, str] = yaml.safe_load(path.read_text())["users"][0]["user"]
    return user_entry


def account(gateway: Gateway, name: str, *clusters: str) -> dict[str, str]:
    """A service account of the gateway with a pass for everything on those clusters; its token."""
    gateway.kubectl("create", "serviceaccount", name, "-n", "default", context="onepass")
    subject = {"kind": "ServiceAccount", "name": name, "namespace": "default"}
    granted = {
        "apiVersion": "access.karpor.io/v1beta1",
        "kind": "Pass",
        "metadata": {"name": name},
        "spec": {
            "subjects": [subject],
            "clusters": {"names": list(clusters)},
            "rules": [{"apiGroups": ["*"], "resources": ["*"], "verbs": ["*"]}, EVERY_PATH],
        },
    }
    gateway.kubectl("apply", "-f", "-", context="onepass", input=yaml.safe_dump(granted))
    token = gateway.kubectl("create", "token", name, "-n", "default", "--duration=2h", context="onepass").stdout
    return {"token": token.strip()}


def member(gateway: Gateway, folder: Path, name: str, proven: Proven, *, real: bool) -> Member:
    """Register the member twice, by its certificate and by its token, and make the three ways to it."""
    gateway.register(
        f"{name}-x509", endpoint=proven.endpoint, ca=proven.ca, certificate=proven.certificate, key=proven.private_key
    )
    gateway.register(f"{name}-token", endpoint=proven.endpoint, ca=proven.ca, token=proven.token)
    ca = gateway_ca(gateway)
    user = issued(gateway, f"{name}-user", f"{name}-x509")
    robot = account(gateway, f"{name}-robot", f"{name}-token")
    return Member(
        direct=kubeconfig(folder / "direct", proven.endpoint, proven.ca, certificate_of(proven)),
        certificate=kubeconfig(folder / "certificate", gateway.url + PROXY.format(f"{name}-x509"), ca, user),
        token=kubeconfig(folder / "token", gateway.url + PROXY.format(f"{name}-token"), ca, robot),
        real=real,
    )


def own(gateway: Gateway, folder: Path, member: str) -> Mapping[str, Access]:
    """The gateway's own API as its administrators: by a certificate that was issued, and by a token."""
    ca = gateway_ca(gateway)
    user = issued(gateway, "own-user", member)
    robot = account(gateway, "own-robot", member)
    rights = ("--clusterrole=cluster-admin", "--user=own-user", "--serviceaccount=default:own-robot")
    gateway.kubectl("create", "clusterrolebinding", "own", *rights, context="onepass")
    return {
        "certificate": kubeconfig(folder / "own-certificate", gateway.url, ca, user),
        "token": kubeconfig(folder / "own-token", gateway.url, ca, robot),
    }


# What differs between two runs of the same commands on the same server, and what stands for it when they are compared.
_VARYING = tuple(
    (re.compile(pattern, re.MULTILINE), instead)
    for pattern, instead in (
        (r"\b[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}\b", "<uid>"),
        (r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]\d\d:\d\d)", "<time>"),
        (r"[A-Z][a-z]{2}, \d\d [A-Z][a-z]{2} \d{4} \d\d:\d\d:\d\d [+-]\d{4}", "<time>"),
        (r"\beyJ[\w-]+\.[\w-]+\.[\w-]+", "<token>"),
        (r'("?resourceVersion"?:\s*"?)\d+', r"\1<version>"),
        (r"(continue\"?[:=]\s*\"?)[\w%-]{8,}=*", r"\1<continue>"),
        (r"(127\.0\.0\.1|\[::1\]|localhost):\d+", r"\1:<port>"),
        (r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d+ [+-]\d{4}", "<time>"),
        (r"/tmp/(LIVE|MERGED)-\d+", r"/tmp/\1-<number>"),
        (r"(?<=://)[0-9a-f]{32,64}\b", "<container>"),
        (r'("serverAddress":)"[^"]+"', r"\1<server>"),
        (r"\b10\.\d+\.\d+\.\d+\b", "<address>"),
        (r"^[EWI]\d{4} \d\d:\d\d:\d\d\.\d+ +\d+ ", "<log> "),
        (r"\b(\d+[smhd]){1,2}\b(?! ago)|<invalid>", "<age>"),
        (r"(?<=\S) {2,}", "  "),  # a column is as wide as its longest value
        (r"(?<=\S) +$", ""),
    )
)


def steady(text: str) -> str:
    """The text without what differs from run to run."""
    for pattern, instead in _VARYING:
        text = pattern.sub(instead, text)
    return text
