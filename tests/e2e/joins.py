"""What the tests of joining share: a member as its administrator reaches it, and what of OnePass is in it."""

import base64
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
import typer.testing
import yaml
from tests.e2e.conftest import Gateway
from tests.e2e.sandbox.members import Member as Kubectl
from tests.e2e.sandbox.members import Running
from tests.programs import golang, kubemembers
from tests.waiting import eventually

from onepass.cli import main
from onepass.cli.failure import Failure


@dataclass(frozen=True)
class Member:
    """A member, and its administrator's kubeconfig and kubectl."""

    endpoint: str
    ca: str
    token: str
    config: Path
    kubectl: Kubectl

    def altered(self, path: Path, user: Mapping[str, object] | None = None, **cluster: object) -> Path:
        """A kubeconfig with another user, or with other fields of its cluster; None takes a field away."""
        config = yaml.safe_load(self.config.read_text())
        entry = config["clusters"][0]["cluster"]
        for key, value in cluster.items():
            entry.pop(key.replace("_", "-"), None)
            if value is not None:
                entry[key.replace("_", "-")] = value
        if user is not None:
            config["users"][0]["user"] = dict(user)
        path.write_text(yaml.safe_dump(config))
        return path


@contextmanager
def kubernetes(folder: Path) -> Iterator[Member]:
    """Kubernetes' own kube-apiserver. Skips without Go."""
    try:
        with kubemembers.running(folder) as kube:
            yield of(folder, kube.endpoint, kube.ca, kube.certificate, kube.key, kube.token)
    except golang.GoMissing as missing:
        pytest.skip(str(missing))


@contextmanager
def sandbox(folder: Path) -> Iterator[Member]:
    """A sandbox member: quicker, as it takes a namespace away at once, where Kubernetes lets five seconds go by."""
    with Running(folder / "state") as running:
        access = running.access
        assert access is not None
        certificate, key = access.certificate.decode(), access.private_key.decode()
        yield of(folder, access.endpoint, access.ca.decode(), certificate, key, access.token)


def of(folder: Path, endpoint: str, ca: str, certificate: str, key: str, token: str) -> Member:
    document = {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "admin",
        "contexts": [{"name": "admin", "context": {"cluster": "it", "user": "admin"}}],
        "clusters": [{"name": "it", "cluster": {"server": endpoint, "certificate-authority-data": b64(ca)}}],
        "users": [
            {"name": "admin", "user": {"client-certificate-data": b64(certificate), "client-key-data": b64(key)}}
        ],
    }
    config = folder / "admin.yaml"
    config.write_text(yaml.safe_dump(document))
    return Member(endpoint, ca, token, config, Kubectl(folder, config.read_text()))


def b64(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


def onepass(gateway: Gateway, *arguments: str) -> str:
    """The command, in this process; raises Failure as it does."""
    done = typer.testing.CliRunner().invoke(
        main.app, ["--kubeconfig", str(gateway.kubeconfig), *arguments], env={"NO_COLOR": "1"}
    )
    if done.exception is not None:
        raise done.exception
    return str(done.stdout)


def refused(gateway: Gateway, *arguments: str) -> Failure:
    with pytest.raises(Failure) as caught:
        onepass(gateway, *arguments)
    return caught.value


def traces(member: Member) -> list[str]:
    """What of OnePass is in the member."""
    kinds = ("namespaces", "clusterroles", "clusterrolebindings")
    found = [
        member.kubectl("get", kind, "-l", "app.kubernetes.io/managed-by=onepass", "-o", "name").split()
        for kind in kinds
    ]
    return [each for names in found for each in names]


def clean(gateway: Gateway, member: Member, name: str) -> None:
    eventually(lambda: traces(member) == [])
    listed = json.loads(onepass(gateway, "cluster", "list", "-o", "json"))["items"]
    assert name not in [each["metadata"]["name"] for each in listed]
