"""Server-side apply over HTTP: what a configuration has to be, who manages what afterwards, and what is refused."""

import asyncio
from collections.abc import Mapping, Sequence
from typing import cast

import pytest
import yaml
from tests.protocol.api.conftest import Api

from onepass.access.identity import AUTHENTICATED
from onepass.api import meta
from onepass.api.meta import JSON, Object

ACCOUNTS = "/api/v1/namespaces/default/serviceaccounts"
ROBOT = f"{ACCOUNTS}/robot"
APPLY = {"content-type": "application/apply-patch+yaml"}
CLUSTERS = "/apis/cluster.karpor.io/v1beta1/clusters"
ROLES = "/apis/rbac.authorization.k8s.io/v1/clusterroles"
TOKEN = "canary-4711-token"


def robot(labels: Mapping[str, JSON] | None = None, **more: JSON) -> Object:
    metadata: Object = {"name": "robot", **({"labels": dict(labels)} if labels else {})}
    return {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": metadata, **more}


async def applied(api: Api, path: str, body: JSON, manager: str, query: str = "", code: int = 200) -> Object:
    answer = await api.send("PATCH", f"{path}?fieldManager={manager}{query}", body, headers=APPLY)
    assert answer.status_code == code, answer.text
    told: Object = answer.json()
    return told


def managed(obj: Object) -> dict[tuple[str, str, str], JSON]:
    """The fields by manager, operation and subresource."""
    found = {}
    for entry in cast(list[Object], meta.section(obj, "metadata").get("managedFields", [])):
        key = (meta.text(entry, "manager"), meta.text(entry, "operation"), meta.text(entry, "subresource"))
        assert entry["fieldsType"] == "FieldsV1"
        found[key] = entry["fieldsV1"]
    return found


def labelled(*names: str) -> Object:
    return {"f:metadata": {"f:labels": {f"f:{name}": {} for name in names}}}


async def test_what_is_applied_is_made_shared_and_taken_back(api: Api) -> None:
    first = await applied(api, ROBOT, robot({"a": "1", "b": "1"}), "one", code=201)
    assert managed(first) == {("one", "Apply", ""): labelled("a", "b")}
    again = await applied(api, ROBOT, robot({"a": "1", "b": "1"}), "one")
    assert again == first
    both = await applied(api, ROBOT, robot({"a": "1", "c": "1"}), "two")
    assert managed(both) == {("one", "Apply", ""): labelled("a", "b"), ("two", "Apply", ""): labelled("a", "c")}
    fewer = await applied(api, ROBOT, robot(), "one")
    assert meta.labels(fewer) == {"a": "1", "c": "1"}
    assert managed(fewer) == {("two", "Apply", ""): labelled("a", "c")}


async def test_what_others_manage_is_not_changed_without_force(api: Api) -> None:
    await applied(api, ROBOT, robot({"a": "1", "b": "1"}), "one", code=201)
    refused = await applied(api, ROBOT, robot({"a": "2", "b": "1"}), "two", code=409)
    assert refused["reason"] == "Conflict"
    assert refused["message"] == 'Apply failed with 1 conflict: conflict with "one": .metadata.labels.a'
    cause: Object = {"reason": "FieldManagerConflict", "message": 'conflict with "one"', "field": ".metadata.labels.a"}
    assert refused["details"] == {"causes": [cause]}
    await api.send("PATCH", f"{ROBOT}?fieldManager=hand", {"metadata": {"labels": {"b": "9"}}}, headers=MERGE)
    several = await applied(api, ROBOT, robot({"a": "2", "b": "2"}), "two", code=409)
    assert str(several["message"]).split("\n") == [
        'Apply failed with 2 conflicts: conflicts with "hand" using v1:',
        "- .metadata.labels.b",
        'conflicts with "one":',
        "- .metadata.labels.a",
    ]
    forced = await applied(api, ROBOT, robot({"a": "2", "b": "2"}), "two", "&force=true")
    assert managed(forced) == {("two", "Apply", ""): labelled("a", "b")}


MERGE = {"content-type": "application/merge-patch+json"}


@pytest.mark.parametrize(
    ("body", "query", "code", "told"),
    [
        (robot(), "", 422, "fieldManager: Required value: is required for apply patch"),
        ({"metadata": {"name": "robot"}}, "?fieldManager=a", 400, "invalid object type: /, Kind="),
        ({**robot(), "kind": "Pod"}, "?fieldManager=a", 400, "invalid object type: /v1, Kind=Pod"),
        (
            robot() | {"metadata": cast(JSON, {"name": "robot", "managedFields": []})},
            "?fieldManager=a",
            400,
            "must be nil",
        ),
        (robot(nothing=1), "?fieldManager=a", 400, ".nothing: field not declared in schema"),
        (robot(automountServiceAccountToken="yes"), "?fieldManager=a", 400, "expected boolean, got string"),
        (robot(secrets=[{"name": "a"}, {"name": "a"}]), "?fieldManager=a", 400, "duplicate entries for key"),
        ({**robot(), "metadata": {"name": "other"}}, "?fieldManager=a", 400, "does not match the name on the URL"),
        ({**robot(), "metadata": {}}, "?fieldManager=a", 400, "name must be provided"),
        ({**robot(), "metadata": {"name": "robot", "uid": "u"}}, "?fieldManager=a", 409, "uid mismatch"),
        ({**robot(), "metadata": {"name": "robot", "resourceVersion": "5"}}, "?fieldManager=a", 409, "modified"),
        ([1], "?fieldManager=a", 400, "not an object"),
    ],
    ids=lambda value: str(value)[:40],
)
async def test_configurations_that_cannot_be_applied(api: Api, body: JSON, query: str, code: int, told: str) -> None:
    answer = await api.send("PATCH", ROBOT + query, body, headers=APPLY)
    assert answer.status_code == code, answer.text
    assert told in answer.json()["message"]
    assert (await api.send("GET", ROBOT)).status_code == 404


async def test_force_is_for_applying_alone(api: Api) -> None:
    await api.make(ACCOUNTS, robot())
    refused = await api.send("PATCH", f"{ROBOT}?force=true", {"metadata": {}}, headers=MERGE)
    assert refused.status_code == 422
    told = 'PatchOptions.meta.k8s.io "" is invalid: force: Forbidden: may not be specified for non-apply patch'
    assert refused.json()["message"] == told


async def test_to_make_by_applying_takes_the_right_to_create(api: Api) -> None:
    rules: JSON = [{"apiGroups": [""], "resources": ["serviceaccounts"], "verbs": ["patch"]}]
    await api.make(ROLES, {"metadata": {"name": "patcher"}, "rules": rules})
    subject: JSON = {"kind": "User", "name": "jane", "apiGroup": "rbac.authorization.k8s.io"}
    role: JSON = {"kind": "ClusterRole", "name": "patcher", "apiGroup": "rbac.authorization.k8s.io"}
    bindings = "/apis/rbac.authorization.k8s.io/v1/clusterrolebindings"
    await api.make(bindings, {"metadata": {"name": "patcher"}, "roleRef": role, "subjects": [subject]})
    path = f"{ROBOT}?fieldManager=a"
    refused = await api.send("PATCH", path, robot(), user="jane", groups=[AUTHENTICATED], headers=APPLY)
    assert refused.status_code == 403
    assert 'User "jane" cannot create resource "serviceaccounts"' in refused.json()["message"]
    await api.make(ACCOUNTS, robot())
    assert (await api.send("PATCH", path, robot(), user="jane", headers=APPLY)).status_code == 200


async def test_every_write_is_tracked(api: Api) -> None:
    await api.send("POST", f"{ACCOUNTS}?fieldManager=maker", robot({"a": "1", "b": "1"}))
    await api.send("PATCH", f"{ROBOT}?fieldManager=hand", {"metadata": {"labels": {"b": "2", "c": "2"}}}, headers=MERGE)
    found = managed(await api.get(ROBOT))
    assert found[("maker", "Update", "")] == {"f:metadata": {"f:labels": {".": {}, "f:a": {}}}}
    assert found[("hand", "Update", "")] == labelled("b", "c")
    gone = await api.send("PATCH", ROBOT, {"metadata": {"labels": {"b": None}}}, headers={**MERGE, "user-agent": "x/1"})
    assert managed(gone.json())[("hand", "Update", "")] == labelled("c")


async def test_an_agent_is_the_manager_where_none_is_named(api: Api) -> None:
    await api.send("POST", ACCOUNTS, robot({"a": "1"}), headers={"user-agent": "kubectl/v1.37 (linux)"})
    assert list(managed(await api.get(ROBOT))) == [("kubectl", "Update", "")]


async def test_managers_can_be_forgotten_and_found_again(api: Api) -> None:
    made = await api.make(ACCOUNTS, robot({"a": "1"}))
    resets: Sequence[JSON] = ([], [{}])
    for reset in resets:
        body: Object = {**made, "metadata": {"name": "robot", "labels": {"a": "1"}, "managedFields": reset}}
        answer = await api.send("PUT", ROBOT, body)
        assert managed(answer.json()) == {}
        begun = await applied(api, ROBOT, robot({"b": "1"}), "one")
        assert set(managed(begun)) == {("before-first-apply", "Update", ""), ("one", "Apply", "")}
    ill: JSON = [{"manager": "x", "operation": "Guess", "apiVersion": "v1", "fieldsType": "FieldsV1"}]
    kept = await api.send("PATCH", ROBOT, {"metadata": {"managedFields": ill}}, headers=MERGE)
    assert managed(kept.json()) == managed(begun)


async def test_a_client_may_say_who_manages_what(api: Api) -> None:
    """As kubectl does when it moves an object from client-side to server-side apply."""
    made = await api.make(ACCOUNTS, robot({"a": "1"}))
    entry: Object = {"manager": "me", "operation": "Apply", "apiVersion": "v1", "fieldsType": "FieldsV1"}
    entry["fieldsV1"] = labelled("a")
    version = meta.text(meta.section(made, "metadata"), "resourceVersion")
    patch: JSON = [
        {"op": "replace", "path": "/metadata/managedFields", "value": [entry]},
        {"op": "replace", "path": "/metadata/resourceVersion", "value": version},
    ]
    answer = await api.send("PATCH", ROBOT, patch, headers={"content-type": "application/json-patch+json"})
    assert managed(answer.json()) == {("me", "Apply", ""): labelled("a")}
    assert meta.labels(await applied(api, ROBOT, robot(), "me")) == {}


async def test_many_managers_become_one(api: Api) -> None:
    await api.send("POST", f"{ACCOUNTS}?fieldManager=a-maker", robot({"l": "1"}))
    for number in range(13):
        change: JSON = {"metadata": {"labels": {f"l{number}": "1"}}}
        await api.send("PATCH", f"{ROBOT}?fieldManager=m{number:02}", change, headers=MERGE)
    found = managed(await api.get(ROBOT))
    assert len(found) == 10
    ancient = cast(Object, found[("ancient-changes", "Update", "")])
    labels = meta.section(meta.section(ancient, "f:metadata"), "f:labels")
    assert set(labels) == {".", "f:l", "f:l0", "f:l1", "f:l2", "f:l3"}


async def test_a_dry_run_tells_and_keeps_nothing(api: Api) -> None:
    dry = await applied(api, ROBOT, robot({"a": "1"}), "one", "&dryRun=All", 201)
    assert managed(dry) == {("one", "Apply", ""): labelled("a")}
    assert (await api.send("GET", ROBOT)).status_code == 404
    made = await applied(api, ROBOT, robot({"a": "1"}), "one", code=201)
    await applied(api, ROBOT, robot({"a": "2"}), "one", "&dryRun=All")
    await applied(api, ROBOT, robot({"a": "2"}), "two", "&dryRun=All", 409)
    assert await api.get(ROBOT) == made


async def test_a_subresource_has_managers_of_its_own(api: Api) -> None:
    access: Object = {"endpoint": "https://127.0.0.1:1"}
    cluster: Object = {"apiVersion": "cluster.karpor.io/v1beta1", "kind": "Cluster", "metadata": {"name": "c"}}
    await applied(api, f"{CLUSTERS}/c", {**cluster, "spec": {"access": access}}, "one", code=201)
    status: Object = {"healthy": True, "conditions": [{"type": "Ready", "status": "True"}]}
    await applied(api, f"{CLUSTERS}/c/status", {**cluster, "status": status}, "probe")
    found = managed(await api.get(f"{CLUSTERS}/c"))
    assert found[("one", "Apply", "")] == {"f:spec": {"f:access": {"f:endpoint": {}}}}
    assert found[("probe", "Apply", "status")] == {
        "f:status": {
            "f:healthy": {},
            "f:conditions": {'k:{"type":"Ready"}': {".": {}, "f:type": {}, "f:status": {}}},
        }
    }
    other = {**status, "healthy": False}
    refused = await applied(api, f"{CLUSTERS}/c/status", {**cluster, "status": other}, "second", code=409)
    assert 'conflict with "probe" with subresource "status": .status.healthy' in str(refused["message"])
    less = await applied(api, f"{CLUSTERS}/c/status", {**cluster, "status": {"healthy": True}}, "probe")
    assert less["status"] == {"healthy": True}
    # What a subresource owns, the object itself does not take.
    whole = await applied(api, f"{CLUSTERS}/c", {**cluster, "spec": {"access": access}, "status": other}, "one")
    assert whole["status"] == {"healthy": True}
    assert (await applied(api, f"{CLUSTERS}/none/status", {**cluster, "status": {}}, "probe", code=404))["code"] == 404


def member(token: str = "", **access: JSON) -> Object:
    credential: Object = {"type": "ServiceAccountToken", **({"serviceAccountToken": token} if token else {})}
    spec: Object = {"access": {"endpoint": "https://127.0.0.1:1", "credential": credential, **access}}
    return {"apiVersion": "cluster.karpor.io/v1beta1", "kind": "Cluster", "metadata": {"name": "c"}, "spec": spec}


async def test_a_credential_has_managers_and_is_told_nowhere(api: Api) -> None:
    path, store = f"{CLUSTERS}/c", api.stores["clusters.cluster.karpor.io"]
    first = await applied(api, path, member(TOKEN), "one", code=201)
    secret: JSON = {"f:credential": {"f:serviceAccountToken": {}, "f:type": {}}, "f:endpoint": {}}
    assert managed(first) == {("one", "Apply", ""): {"f:spec": {"f:access": secret}}}
    assert await applied(api, path, member(TOKEN), "one") == first
    # The same credential is shared, another one is a conflict.
    assert await store.secret("c", meta.uid(first)) is not None
    await applied(api, path, member(TOKEN), "two")
    refused = await applied(api, path, member("another-token-1"), "three", code=409)
    assert {cause["field"] for cause in cast(list[Object], meta.section(refused, "details")["causes"])} == {
        ".spec.access.credential.serviceAccountToken"
    }
    # A configuration without the credential leaves the stored one, and gives up its field.
    kept = await applied(api, path, member(), "one")
    assert managed(kept)[("one", "Apply", "")] == {"f:spec": {"f:access": {**secret, "f:credential": {"f:type": {}}}}}  # type: ignore[dict-item]
    assert b"canary" in (await store.secret("c", meta.uid(first)) or b"")
    # Without a word of it, a manager that still shares it loses nothing either.
    bare = member()
    meta.section(meta.section(bare, "spec"), "access").pop("credential")
    await applied(api, path, bare, "one")
    assert b"canary" in (await store.secret("c", meta.uid(first)) or b"")
    # When the last manager of the credential takes it back, it goes.
    gone = await applied(api, path, bare, "two")
    assert "credential" not in meta.section(meta.section(gone, "spec"), "access")
    assert await store.secret("c", meta.uid(first)) is None
    for told in (first, kept, gone, refused):
        assert TOKEN not in str(told)


async def test_kubectl_takes_over_from_its_client_side_apply(api: Api) -> None:
    last = '{"apiVersion":"v1","kind":"ServiceAccount","metadata":{"name":"robot","labels":{"a":"1","b":"1"}}}'
    annotated = robot({"a": "1", "b": "1"})
    meta.section(annotated, "metadata")["annotations"] = {"kubectl.kubernetes.io/last-applied-configuration": last}
    await api.send("POST", f"{ACCOUNTS}?fieldManager=kubectl-client-side-apply", annotated)
    await api.send("PATCH", f"{ROBOT}?fieldManager=hand", {"metadata": {"labels": {"b": "9"}}}, headers=MERGE)
    refused = await applied(api, ROBOT, robot({"a": "2", "b": "2"}), "kubectl", code=409)
    assert [cause["field"] for cause in cast(list[Object], meta.section(refused, "details")["causes"])] == [
        ".metadata.labels.b"
    ]
    taken = await applied(api, ROBOT, robot({"a": "2"}), "kubectl")
    assert meta.labels(taken) == {"a": "2", "b": "9"}
    written = yaml.safe_load(meta.annotations(taken)["kubectl.kubernetes.io/last-applied-configuration"])
    assert written == robot({"a": "2"})
    assert managed(taken)[("kubectl", "Apply", "")] == labelled("a")


DOUBLED = b'{"apiVersion":"v1","kind":"ServiceAccount","metadata":{"name":"robot","labels":{"a":"1","a":"2"}},"x":1}'
DOUBLED_YAML = b"metadata:\n  name: robot\n  labels:\n    a: '1'\n    a: '2'\nx: 1\n"
JSON_TYPE, YAML_TYPE = {"content-type": "application/json"}, {"content-type": "application/yaml"}


@pytest.mark.parametrize(
    ("body", "headers", "warnings", "told"),
    [
        (
            DOUBLED,
            JSON_TYPE,
            ['299 - "duplicate field \\"metadata.labels.a\\""', '299 - "unknown field \\"x\\""'],
            'strict decoding error: duplicate field "metadata.labels.a", unknown field "x"',
        ),
        (
            DOUBLED_YAML,
            YAML_TYPE,
            ['299 - "line 5: key \\"a\\" already set in map"', '299 - "unknown field \\"x\\""'],
            'strict decoding error: yaml: unmarshal errors:\n  line 5: key "a" already set in map, unknown field "x"',
        ),
    ],
    ids=["json", "yaml"],
)
async def test_what_is_odd_in_a_body_is_refused_told_or_let_be(
    api: Api, body: bytes, headers: Mapping[str, str], warnings: Sequence[str], told: str
) -> None:
    strict = await api.send("POST", f"{ACCOUNTS}?fieldValidation=Strict", body, headers=headers)
    assert (strict.status_code, strict.json()["reason"]) == (400, "BadRequest")
    prefix = 'ServiceAccount in version "v1" cannot be handled as a ServiceAccount: '
    assert strict.json()["message"] == prefix + told
    quiet = await api.send("POST", f"{ACCOUNTS}?fieldValidation=Ignore&dryRun=All", body, headers=headers)
    assert (quiet.status_code, quiet.headers.get_list("warning")) == (201, [])
    for query in ("", "?fieldValidation=Warn"):
        warned = await api.send("POST", ACCOUNTS + query, body, headers=headers)
        assert warned.headers.get_list("warning") == list(warnings)
        await api.send("DELETE", ROBOT)


@pytest.mark.parametrize(
    ("kind", "body", "code", "told"),
    [
        ("merge-patch+json", b'{"x":1,"x":2}', 422, 'duplicate field "x", unknown field "x"'),
        ("strategic-merge-patch+json", b'{"metadata":{"labels":{"a":"1","a":"2"}}}', 422, '"metadata.labels.a"'),
        ("json-patch+json", b'[{"op":"add","path":"/x","value":1,"y":2}]', 422, 'json patch unknown field "[0].y"'),
        (
            "apply-patch+yaml",
            b"apiVersion: v1\nkind: ServiceAccount\nmetadata:\n  name: robot\n  name: robot\n",
            400,
            'error strict decoding patch: error converting YAML to JSON: yaml: unmarshal errors:\n  line 5: key "name"',
        ),
        (
            "apply-patch+yaml",
            b'{"apiVersion":"v1","kind":"ServiceAccount","metadata":{"name":"robot","name":"robot"}}',
            400,
            'line 1: key "name" already set in map',
        ),
    ],
)
async def test_patches_are_read_strictly_too(api: Api, kind: str, body: bytes, code: int, told: str) -> None:
    made = await api.make(ACCOUNTS, robot())
    headers = {"content-type": f"application/{kind}"}
    path = f"{ROBOT}?fieldManager=a"
    refused = await api.send("PATCH", f"{path}&fieldValidation=Strict", body, headers=headers)
    assert refused.status_code == code, refused.text
    assert told in refused.json()["message"]
    assert await api.get(ROBOT) == made
    warned = await api.send("PATCH", f"{path}&fieldValidation=Warn", body, headers=headers)
    assert warned.status_code == 200
    assert warned.headers.get_list("warning")
    quiet = await api.send("PATCH", f"{path}&fieldValidation=Ignore", body, headers=headers)
    assert not quiet.headers.get_list("warning")


async def test_the_types_of_patches_are_named(api: Api) -> None:
    refused = await api.send("PATCH", ROBOT, robot(), headers={"content-type": "application/json"})
    assert refused.status_code == 415
    assert refused.json()["message"] == (
        "the body of the request was in an unknown format - accepted media types include: application/json-patch+json, "
        "application/merge-patch+json, application/strategic-merge-patch+json, application/apply-patch+yaml"
    )


async def test_questions_are_read_strictly(api: Api) -> None:
    path = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews"
    body: JSON = {"spec": {"nonResourceAttributes": {"path": "/", "verb": "get"}, "x": 1}}
    assert (await api.send("POST", f"{path}?fieldValidation=Strict", body)).status_code == 400
    assert (await api.send("POST", path, body)).headers.get_list("warning") == ['299 - "unknown field \\"spec.x\\""']
    assert not (await api.send("POST", f"{path}?fieldValidation=Ignore", body)).headers.get_list("warning")


async def test_what_is_applied_at_the_same_time_is_all_there(api: Api) -> None:
    """Also when all find nothing there, and one makes it for the others."""
    names = [f"m{number}" for number in range(12)]
    answers = await asyncio.gather(
        *[api.send("PATCH", f"{ROBOT}?fieldManager={n}", robot({n: "1"}), headers=APPLY) for n in names]
    )
    assert sorted(answer.status_code for answer in answers) == [200] * 11 + [201]
    found = await api.get(ROBOT)
    assert meta.labels(found) == dict.fromkeys(names, "1")
    assert {manager for manager, _, _ in managed(found)} == set(names)


async def test_nobody_applies_rights_that_they_do_not_hold(api: Api) -> None:
    verbs: JSON = ["create", "get", "patch"]
    rules: JSON = [{"apiGroups": ["rbac.authorization.k8s.io"], "resources": ["clusterroles"], "verbs": verbs}]
    await api.make(ROLES, {"metadata": {"name": "author"}, "rules": rules})
    subject: JSON = {"kind": "User", "name": "jane", "apiGroup": "rbac.authorization.k8s.io"}
    role: JSON = {"kind": "ClusterRole", "name": "author", "apiGroup": "rbac.authorization.k8s.io"}
    bindings = "/apis/rbac.authorization.k8s.io/v1/clusterrolebindings"
    await api.make(bindings, {"metadata": {"name": "author"}, "roleRef": role, "subjects": [subject]})
    more: JSON = [{"apiGroups": [""], "resources": ["secrets"], "verbs": ["get"]}]
    head: Object = {"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRole", "metadata": {"name": "mine"}}
    path = f"{ROLES}/mine?fieldManager=a&force=true"

    async def apply(config: Object) -> int:
        return (await api.send("PATCH", path, config, user="jane", headers=APPLY)).status_code

    assert await apply({**head, "rules": more}) == 403
    assert (await api.send("GET", f"{ROLES}/mine")).status_code == 404
    assert await apply({**head, "rules": rules}) == 201
    assert await apply({**head, "rules": more}) == 403
    assert (await api.get(f"{ROLES}/mine"))["rules"] == rules


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (b"{" + b'"a":{' * 500 + b"}" * 501, 400),
        (b"a: " + b"[" * 500 + b"]" * 500, 400),
        (b"a: &a [1]\nb: *c\n", 400),
        (b"\xff\xfe", 400),
        (b"", 400),
        (b'{"metadata":{"name":"robot"},"x":"' + b"y" * 300_000 + b'"}', 413),
    ],
    ids=["deep json", "deep yaml", "no such alias", "no text", "nothing", "large"],
)
async def test_bodies_that_are_no_configuration(api: Api, body: bytes, code: int) -> None:
    answer = await api.send("PATCH", f"{ROBOT}?fieldManager=a", body, headers=APPLY)
    assert answer.status_code == code, answer.text
    assert answer.json()["kind"] == "Status"
