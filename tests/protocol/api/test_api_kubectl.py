"""kubectl, as it is, against the API server."""

import asyncio
import json
from pathlib import Path

import yaml
from tests.protocol.api.conftest import DEADLINE, Api

ALL = "create,delete,deletecollection,get,list,patch,update,watch"
ROBOT = """
apiVersion: v1
kind: ServiceAccount
metadata: {name: robot, namespace: default, labels: {a: b}}
"""


async def test_lists_what_is_served(api: Api) -> None:
    told = await api.kubectl("api-resources", "-o", "wide")
    for line in (
        f"serviceaccounts sa v1 true ServiceAccount {ALL}",
        f"clusters cl cluster.karpor.io/v1beta1 false Cluster {ALL}",
        "selfsubjectreviews authentication.k8s.io/v1 false SelfSubjectReview create",
    ):
        assert line in {" ".join(found.split()) for found in told.splitlines()}
    assert (await api.kubectl("api-versions")).split() == [
        "access.karpor.io/v1beta1",
        "authentication.k8s.io/v1",
        "authorization.k8s.io/v1",
        "certificates.k8s.io/v1",
        "cluster.karpor.io/v1beta1",
        "rbac.authorization.k8s.io/v1",
        "v1",
    ]
    assert "Server Version: v1.36.0+onepass" in await api.kubectl("version")


async def test_creates_applies_patches_replaces_and_deletes(api: Api, tmp_path: Path) -> None:
    path = tmp_path / "robot.yaml"
    path.write_text(ROBOT)
    robot = ("serviceaccount/robot", "-n", "default")
    labels = ("get", *robot, "-o", "jsonpath={.metadata.labels}")
    assert await api.kubectl("apply", "-f", str(path)) == "serviceaccount/robot created\n"
    assert await api.kubectl("apply", "-f", str(path)) == "serviceaccount/robot unchanged\n"
    path.write_text(ROBOT.replace("a: b", "c: d"))
    assert "configured (server dry run)" in await api.kubectl("apply", "-f", str(path), "--dry-run=server")
    assert await api.kubectl(*labels) == '{"a":"b"}'
    assert await api.kubectl("apply", "-f", str(path)) == "serviceaccount/robot configured\n"
    assert await api.kubectl(*labels) == '{"c":"d"}'
    await api.kubectl("patch", *robot, "-p", '{"metadata":{"labels":{"one":"1"}}}')
    await api.kubectl("patch", *robot, "--type=merge", "-p", '{"metadata":{"labels":{"two":"2"}}}')
    added = '[{"op":"add","path":"/metadata/labels/three","value":"3"},{"op":"remove","path":"/metadata/labels/c"}]'
    await api.kubectl("patch", *robot, "--type=json", "-p", added)
    await api.kubectl("label", *robot, "four=4", "two-")
    await api.kubectl("annotate", *robot, "note=kept")
    assert json.loads(await api.kubectl(*labels)) == {"one": "1", "three": "3", "four": "4"}
    await api.kubectl("wait", "--for=jsonpath={.metadata.annotations.note}=kept", *robot, "--timeout=60s")
    path.write_text(ROBOT)
    assert await api.kubectl("replace", "-f", str(path)) == "serviceaccount/robot replaced\n"
    assert await api.kubectl(*labels) == '{"a":"b"}'
    assert 'serviceaccount "robot" deleted' in await api.kubectl("delete", *robot)
    assert "NotFound" in await api.kubectl("get", *robot, fails=True)


async def test_creates_kinds_that_it_sends_as_protobuf(api: Api) -> None:
    assert await api.kubectl("create", "namespace", "team") == "namespace/team created\n"
    assert await api.kubectl("create", "sa", "robot", "-n", "team") == "serviceaccount/robot created\n"
    await api.kubectl("create", "role", "reader", "-n", "team", "--verb=get,list", "--resource=serviceaccounts")
    await api.kubectl("create", "rolebinding", "read", "-n", "team", "--role=reader", "--serviceaccount=team:robot")
    await api.kubectl("create", "clusterrole", "look", "--verb=get", "--non-resource-url=/metrics")
    await api.kubectl("create", "clusterrolebinding", "look", "--clusterrole=look", "--user=bob", "--group=dev")
    role = yaml.safe_load(await api.kubectl("get", "role", "reader", "-n", "team", "-o", "yaml"))
    assert role["rules"] == [{"apiGroups": [""], "resources": ["serviceaccounts"], "verbs": ["get", "list"]}]
    binding = yaml.safe_load(await api.kubectl("get", "clusterrolebinding", "look", "-o", "yaml"))
    assert [(subject["kind"], subject["name"]) for subject in binding["subjects"]] == [
        ("User", "bob"),
        ("Group", "dev"),
    ]
    assert "already exists" in await api.kubectl("create", "namespace", "team", fails=True)
    assert "dry run" in await api.kubectl("create", "namespace", "other", "--dry-run=server")
    assert "NotFound" in await api.kubectl("get", "namespace", "other", fails=True)


async def test_prints_tables(api: Api) -> None:
    await api.kubectl("create", "sa", "robot")
    told = (await api.kubectl("get", "sa", "-A")).splitlines()
    assert told[0].split() == ["NAMESPACE", "NAME", "AGE"]
    assert told[1].split()[:2] == ["default", "robot"]
    assert (await api.kubectl("get", "ns")).splitlines()[0].split() == ["NAME", "STATUS", "AGE"]
    assert await api.kubectl("get", "clusters") == ""
    assert (await api.kubectl("get", "sa,ns", "-o", "name")).split()[0] == "serviceaccount/robot"


async def test_watches(api: Api) -> None:
    await api.kubectl("create", "sa", "first")
    process = await asyncio.create_subprocess_exec(
        *api.command("get", "sa", "-n", "default", "-w"),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        env=api.environment,
    )
    assert process.stdout is not None
    try:
        async with asyncio.timeout(DEADLINE):
            assert (await process.stdout.readline()).split()[0] == b"NAME"
            assert (await process.stdout.readline()).split()[0] == b"first"
            await api.kubectl("create", "sa", "second")
            assert (await process.stdout.readline()).split()[0] == b"second"
    finally:
        process.kill()
        await process.wait()


async def test_edits(api: Api, tmp_path: Path) -> None:
    await api.kubectl("create", "sa", "robot")
    editor = tmp_path / "editor"
    editor.write_text('#!/bin/sh\nsed -i "s/^metadata:/metadata:\\n  labels: {edited: by-hand}/" "$1"\n')
    editor.chmod(0o755)
    process = await asyncio.create_subprocess_exec(
        *api.command("edit", "sa", "robot"),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        env={**api.environment, "KUBE_EDITOR": str(editor)},
    )
    async with asyncio.timeout(DEADLINE):
        out, _ = await process.communicate()
    assert out.decode() == "serviceaccount/robot edited\n"
    assert await api.kubectl("get", "sa", "robot", "-o", "jsonpath={.metadata.labels.edited}") == "by-hand"


async def test_tells_who_asks_and_what_they_may(api: Api) -> None:
    assert "onepass:administrators" in await api.kubectl("auth", "whoami")
    assert await api.kubectl("auth", "can-i", "delete", "clusters") == "yes\n"
    assert await api.kubectl("auth", "can-i", "delete", "clusters", user="bob", fails=True) != "yes\n"
    assert "bob" in await api.kubectl("auth", "whoami", user="bob")
    listed = await api.kubectl("auth", "can-i", "--list", user="bob")
    assert "selfsubjectreviews.authentication.k8s.io" in listed
    assert "/version" in listed
    assert 'User "bob" cannot list resource "clusters"' in await api.kubectl("get", "clusters", user="bob", fails=True)


async def test_asks_what_is_only_ever_created(api: Api, tmp_path: Path) -> None:
    """As the documentation of Kubernetes' authorization has it: `kubectl create -f`, validated before it is sent."""
    path = tmp_path / "review.yaml"
    review = {
        "apiVersion": "authorization.k8s.io/v1",
        "kind": "SelfSubjectAccessReview",
        "spec": {"resourceAttributes": {"verb": "get", "resource": "clusters", "group": "cluster.karpor.io"}},
    }
    path.write_text(yaml.safe_dump(review))
    assert "allowed: true" in await api.kubectl("create", "-f", str(path), "-o", "yaml")
    path.write_text(yaml.safe_dump({**review, "spek": {}}))
    assert 'unknown field "spek"' in await api.kubectl("create", "-f", str(path), fails=True)
    path.write_text(yaml.safe_dump({"apiVersion": "example.com/v1", "kind": "Other", "metadata": {"name": "a"}}))
    assert "no matches for kind" in await api.kubectl("create", "-f", str(path), fails=True)


async def test_hands_out_tokens(api: Api) -> None:
    await api.kubectl("create", "sa", "robot")
    uid = await api.kubectl("get", "sa", "robot", "-o", "jsonpath={.metadata.uid}")
    assert await api.kubectl("create", "token", "robot") == f"token-of-default/robot/{uid}"
    assert "10 minutes" in await api.kubectl("create", "token", "robot", "--duration=5m", fails=True)
    assert "not found" in await api.kubectl("create", "token", "nobody", fails=True)


async def test_warns_of_unknown_fields_and_refuses_them_when_strict(api: Api) -> None:
    odd = ROBOT + "colour: blue\n"
    assert 'unknown field "colour"' in await api.kubectl("create", "-f", "-", given=odd, fails=True)
    await api.kubectl("create", "-f", "-", "--validate=warn", given=odd)
    assert "colour" not in await api.kubectl("get", "sa", "robot", "-o", "yaml")


async def test_explains(api: Api) -> None:
    told = await api.kubectl("explain", "clusters.spec.access")
    assert "KIND:       Cluster" in told
    assert "endpoint" in told
