"""kubectl's ways to change an object, on the gateway's own API and on a member through the gateway."""

import json
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml
from tests.e2e.conftest import Gateway

pytestmark = pytest.mark.e2e

Run = subprocess.CompletedProcess[str]
CANARY = "canary-of-a-token-0815"


@dataclass(frozen=True)
class Api:
    """One API under kubectl, and names that are nobody else's."""

    gateway: Gateway
    context: str
    name: str

    def __call__(self, *arguments: str, input: object = None, env: Mapping[str, str] | None = None) -> str:
        return self.run(*arguments, input=input, env=env, check=True).stdout

    def run(
        self, *arguments: str, input: object = None, env: Mapping[str, str] | None = None, check: bool = False
    ) -> Run:
        given = None if input is None else input if isinstance(input, str) else json.dumps(input)
        return self.gateway.kubectl(*arguments, context=self.context, input=given, check=check, env=env)

    def role(self, verbs: tuple[str, ...] = ("get",), **labels: str) -> dict[str, object]:
        return {
            "apiVersion": "rbac.authorization.k8s.io/v1",
            "kind": "ClusterRole",
            "metadata": {"name": self.name, "labels": labels},
            "rules": [{"apiGroups": [""], "resources": ["configmaps"], "verbs": list(verbs)}],
        }

    def labels(self) -> dict[str, str]:
        told: dict[str, str] = json.loads(self("get", "clusterrole", self.name, "-o", "json"))["metadata"].get(
            "labels", {}
        )
        return told

    def managers(self, *what: str) -> set[tuple[str, str]]:
        shown = yaml.safe_load(
            self("get", *(what or ("clusterrole", self.name)), "-o", "yaml", "--show-managed-fields")
        )
        return {(entry["manager"], entry["operation"]) for entry in shown["metadata"].get("managedFields", [])}


@pytest.fixture(params=["onepass", "sandbox-1"])
def api(request: pytest.FixtureRequest, gateway: Gateway) -> Iterator[Api]:
    made = Api(gateway, request.param, f"apply-{time.monotonic_ns()}")
    yield made
    made.run("delete", "clusterrole", made.name, f"{made.name}-2", "--ignore-not-found")


def applying(api: Api, manager: str, *more: str) -> tuple[str, ...]:
    return ("apply", "--server-side", f"--field-manager={manager}", *more, "-f", "-")


def test_two_people_apply_one_object(api: Api) -> None:
    assert "serverside-applied" in api(*applying(api, "one"), input=api.role(a="1"))
    api(*applying(api, "two"), input=api.role(b="1"))
    assert api.labels() == {"a": "1", "b": "1"}
    assert api.managers() == {("one", "Apply"), ("two", "Apply")}
    refused = api.run(*applying(api, "two"), input=api.role(a="2", b="1"))
    assert refused.returncode == 1
    assert 'Apply failed with 1 conflict: conflict with "one": .metadata.labels.a' in refused.stderr
    api(*applying(api, "two", "--force-conflicts"), input=api.role(a="2", b="1"))
    api(*applying(api, "one"), input=api.role())
    assert api.labels() == {"a": "2", "b": "1"}
    api(*applying(api, "two"), input=api.role())
    assert api.labels() == {}
    assert "managedFields" not in api("get", "clusterrole", api.name, "-o", "yaml")


def test_client_side_apply_becomes_server_side_apply(api: Api) -> None:
    api("apply", "-f", "-", input=api.role(a="1", gone="1"))
    api("apply", "-f", "-", input=api.role(a="1"))
    assert api.labels() == {"a": "1"}
    assert api.managers() == {("kubectl-client-side-apply", "Update")}
    api("apply", "--server-side", "-f", "-", input=api.role(a="2"))
    assert ("kubectl", "Apply") in api.managers()
    assert ("kubectl-client-side-apply", "Update") not in api.managers()
    api("apply", "--server-side", "-f", "-", input=api.role(b="1"))
    assert api.labels() == {"b": "1"}
    api("apply", "-f", "-", input=api.role(b="2"))
    assert api.labels() == {"b": "2"}


@pytest.mark.parametrize("more", [(), ("--server-side",)], ids=["client-side", "server-side"])
def test_dry_runs_and_differences_change_nothing(api: Api, more: tuple[str, ...]) -> None:
    assert "(server dry run)" in api("apply", *more, "--dry-run=server", "-f", "-", input=api.role(a="1"))
    assert api.run("get", "clusterrole", api.name).returncode == 1
    assert f"+  name: {api.name}" in api.run("diff", *more, "-f", "-", input=api.role(a="1")).stdout
    api("apply", *more, "-f", "-", input=api.role(a="1"))
    api("apply", *more, "--dry-run=server", "-f", "-", input=api.role(a="2"))
    found = api.run("diff", *more, "-f", "-", input=api.role(a="2"))
    assert found.returncode == 1, found.stderr
    assert '-    a: "1"' in found.stdout
    assert '+    a: "2"' in found.stdout
    same = api.run("diff", *more, "-f", "-", input=api.role(a="1"))
    assert (same.returncode, same.stdout) == (0, "")
    assert api.labels() == {"a": "1"}


def test_applying_a_set_prunes_what_is_no_longer_in_it(api: Api) -> None:
    second = api.role(set=api.name) | {"metadata": {"name": f"{api.name}-2", "labels": {"set": api.name}}}
    both = {"apiVersion": "v1", "kind": "List", "items": [api.role(set=api.name), second]}
    pruning = ("apply", "--prune", f"--selector=set={api.name}", "-f", "-")
    allowed = "--prune-allowlist=rbac.authorization.k8s.io/v1/ClusterRole"
    api(*pruning, allowed, input=both)
    assert f"clusterrole.rbac.authorization.k8s.io/{api.name}-2 pruned" in api(
        *pruning, allowed, input=api.role(set=api.name)
    )
    assert api("get", "clusterrole", "-l", f"set={api.name}", "-o", "name").split() == [
        f"clusterrole.rbac.authorization.k8s.io/{api.name}"
    ]


def test_an_object_is_edited(api: Api, tmp_path: Path) -> None:
    api("create", "-f", "-", input=api.role(a="1"))
    editor = tmp_path / "editor"
    editor.write_text('#!/bin/sh\nsed -i \'s/a: "1"/a: "edited"/\' "$1"\n')
    editor.chmod(0o755)
    assert "edited" in api("edit", "clusterrole", api.name, env={"KUBE_EDITOR": str(editor)})
    assert api.labels() == {"a": "edited"}
    assert ("kubectl-edit", "Update") in api.managers()
    editor.write_text("#!/bin/sh\nsed -i 's/^kind: .*/kind: 7/' \"$1\"\n")
    assert api.run("edit", "clusterrole", api.name, env={"KUBE_EDITOR": str(editor)}).returncode == 1
    assert api.labels() == {"a": "edited"}


def test_labels_and_annotations_are_set_changed_and_taken_away(api: Api) -> None:
    api("create", "-f", "-", input=api.role(a="1"))
    api("label", "clusterrole", api.name, "b=1")
    assert "already has a value" in api.run("label", "clusterrole", api.name, "b=2").stderr
    api("label", "clusterrole", api.name, "b=2", "a-", "--overwrite")
    api("annotate", "clusterrole", api.name, "note=one two", "--field-manager=me")
    assert api.labels() == {"b": "2"}
    assert api("get", "clusterrole", api.name, "-o", "jsonpath={.metadata.annotations.note}") == "one two"
    assert {("kubectl-label", "Update"), ("me", "Update")} <= api.managers()
    api("annotate", "clusterrole", api.name, "note-")
    assert ("me", "Update") not in api.managers()


@pytest.mark.parametrize(
    ("kind", "patch", "labels"),
    [
        ("merge", {"metadata": {"labels": {"a": None, "b": "2"}}}, {"b": "2"}),
        ("strategic", {"metadata": {"labels": {"$patch": "replace", "b": "2"}}}, {"b": "2"}),
        ("json", [{"op": "replace", "path": "/metadata/labels/new", "value": "2"}], {"a": "1", "new": "2"}),
    ],
)
def test_an_object_is_patched(api: Api, kind: str, patch: object, labels: dict[str, str]) -> None:
    api("create", "-f", "-", input=api.role(a="1"))
    api("patch", "clusterrole", api.name, f"--type={kind}", f"--patch={json.dumps(patch)}", "--dry-run=server")
    assert api.labels() == {"a": "1"}
    api("patch", "clusterrole", api.name, f"--type={kind}", f"--patch={json.dumps(patch)}")
    assert api.labels() == labels
    assert ("kubectl-patch", "Update") in api.managers()


def test_a_stale_object_is_not_written(api: Api) -> None:
    api("create", "-f", "-", input=api.role(a="1"))
    stale = api("get", "clusterrole", api.name, "-o", "yaml")
    api("replace", "-f", "-", input=stale.replace('a: "1"', 'a: "2"'))
    for command in (("replace",), ("apply", "--server-side", "--force-conflicts"), ("apply",)):
        refused = api.run(*command, "-f", "-", input=stale.replace('a: "1"', 'a: "3"'))
        assert refused.returncode == 1, command
        assert "the object has been modified" in refused.stderr
    assert api.labels() == {"a": "2"}


def test_odd_manifests_are_refused_told_or_let_be(api: Api) -> None:
    odd = yaml.safe_dump(api.role(a="1")) + "nothing: 1\n"
    refused = api.run("apply", "-f", "-", input=odd)
    assert refused.returncode == 1
    assert 'unknown field "nothing"' in refused.stderr
    assert (
        'Warning: unknown field "nothing"'
        in api.run("apply", "--validate=warn", "-f", "-", input=odd, check=True).stderr
    )
    assert "Warning" not in api.run("apply", "--validate=ignore", "-f", "-", input=odd, check=True).stderr
    refused = api.run("apply", "--server-side", "-f", "-", input=odd)
    assert ".nothing: field not declared in schema" in refused.stderr


def cluster(name: str, token: str = "", **labels: str) -> dict[str, object]:
    credential = {"type": "ServiceAccountToken", **({"serviceAccountToken": token} if token else {})}
    return {
        "apiVersion": "cluster.karpor.io/v1beta1",
        "kind": "Cluster",
        "metadata": {"name": name, "labels": labels},
        "spec": {"access": {"endpoint": "https://198.51.100.7:6443", "credential": credential}},
    }


@pytest.mark.parametrize("more", [(), ("--server-side",)], ids=["client-side", "server-side"])
def test_a_credential_is_applied_and_seen_by_nobody(gateway: Gateway, more: tuple[str, ...]) -> None:
    api = Api(gateway, "onepass", f"apply-{time.monotonic_ns()}")
    told = [api.run("apply", *more, "-f", "-", input=cluster(api.name, CANARY), check=True)]
    print_it: Callable[..., str] = lambda: api("get", "cluster", api.name, "-o", "jsonpath={.spec.access.credential}")  # noqa: E731
    first = print_it()
    assert "sha256:" in first
    told.append(api.run("apply", *more, "-f", "-", input=cluster(api.name, "", a="1"), check=True))
    assert print_it() == first
    told.append(api.run("diff", *more, "-f", "-", input=cluster(api.name, "", a="2")))
    told.append(api.run("patch", "cluster", api.name, "--type=merge", '-p={"spec":{"displayName":"x"}}', "-o", "yaml"))
    told.append(api.run("get", "cluster", api.name, "-o", "yaml", "--show-managed-fields"))
    told.append(api.run("apply", "view-last-applied", f"cluster/{api.name}"))
    told.append(api.run("apply", *more, "--dry-run=server", "-o", "yaml", "-f", "-", input=cluster(api.name, CANARY)))
    assert not [run for run in told if CANARY in run.stdout + run.stderr]
    # A changed endpoint takes the credential again, however it is applied.
    moved = json.dumps(cluster(api.name)).replace("198.51.100.7", "198.51.100.8")
    refused = api.run("apply", *more, "-f", "-", input=moved)
    assert refused.returncode == 1
    assert "unless the credential is supplied again" in refused.stderr
    assert print_it() == first
    api("delete", "cluster", api.name)


def test_lists_of_a_member_are_merged_by_their_keys(gateway: Gateway) -> None:
    api = Api(gateway, "sandbox-1", f"apply-{time.monotonic_ns()}")

    def service(*ports: tuple[str, int, str]) -> dict[str, object]:
        shown = [{"name": name, "port": port, "protocol": protocol} for name, port, protocol in ports]
        return {"apiVersion": "v1", "kind": "Service", "metadata": {"name": api.name}, "spec": {"ports": shown}}

    def ports() -> list[tuple[str, int, str]]:
        spec = json.loads(api("get", "service", api.name, "-o", "json"))["spec"]
        return [(port["name"], port["port"], port["protocol"]) for port in spec["ports"]]

    api(*applying(api, "one"), input=service(("dns", 53, "UDP"), ("dns-tcp", 53, "TCP")))
    api(*applying(api, "two"), input=service(("web", 80, "TCP")))
    assert ports() == [("dns", 53, "UDP"), ("dns-tcp", 53, "TCP"), ("web", 80, "TCP")]
    refused = api.run(*applying(api, "two"), input=service(("other", 53, "TCP")))
    assert 'conflict with "one": .spec.ports[port=53,protocol="TCP"].name' in refused.stderr
    api(*applying(api, "one"), input=service(("dns", 53, "UDP")))
    assert ports() == [("dns", 53, "UDP"), ("web", 80, "TCP")]
    api("delete", "service", api.name)
