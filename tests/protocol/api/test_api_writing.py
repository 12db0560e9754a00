"""Writes: bodies, options, patches, deletions, subresources, and the admission of each."""

import asyncio
import json

import pytest
from tests.protocol.api.conftest import Api

from onepass.api.meta import JSON, Object

ACCOUNTS = "/api/v1/namespaces/default/serviceaccounts"
ROBOT = f"{ACCOUNTS}/robot"
MERGE = {"content-type": "application/merge-patch+json"}
CLUSTERS = "/apis/cluster.karpor.io/v1beta1/clusters"


def robot(**labels: JSON) -> Object:
    return {"metadata": {"name": "robot", "labels": labels}}


async def test_kinds_fill_in_what_the_path_says(api: Api) -> None:
    made = await api.make(ACCOUNTS, robot())
    assert (made["apiVersion"], made["kind"]) == ("v1", "ServiceAccount")
    assert made["metadata"]["namespace"] == "default"  # type: ignore[index, call-overload]
    generated = await api.make(ACCOUNTS, {"metadata": {"generateName": "r-"}})
    assert str(generated["metadata"]["name"]).startswith("r-")  # type: ignore[index, call-overload]


async def test_yaml_bodies_are_taken(api: Api) -> None:
    answer = await api.send(
        "POST", ACCOUNTS, b"metadata:\n  name: robot\n", headers={"content-type": "application/yaml"}
    )
    assert answer.status_code == 201


@pytest.mark.parametrize(
    ("body", "kind", "code"),
    [
        (b"", "application/json", 400),
        (b"{", "application/json", 400),
        (b"[]", "application/json", 400),
        (b'{"metadata":{}}', "application/json", 422),
        (b'{"metadata":{"name":"No Name"}}', "application/json", 422),
        (b'{"kind":"Secret","metadata":{"name":"a"}}', "application/json", 400),
        (b'{"apiVersion":"v2","metadata":{"name":"a"}}', "application/json", 400),
        (b'{"metadata":{"name":"a","namespace":"other"}}', "application/json", 400),
        (b'{"metadata":{"name":1}}', "application/json", 400),
        (b'{"metadata":[1]}', "application/json", 400),
        (b'{"metadata":{"name":"a","resourceVersion":"1"}}', "application/json", 400),
        (b"<xml/>", "application/xml", 415),
        (b"{" + b'"a":{' * 500 + b"}" * 501, "application/json", 400),
        (b'{"metadata":{"name":"a"},"x":"' + b"y" * 300_000 + b'"}', "application/json", 413),
    ],
    ids=lambda value: str(value)[:30],
)
async def test_bad_bodies_are_refused_and_leave_nothing(api: Api, body: bytes, kind: str, code: int) -> None:
    answer = await api.send("POST", ACCOUNTS, body, headers={"content-type": kind})
    assert answer.status_code == code, answer.text
    assert answer.json()["kind"] == "Status"
    assert (await api.get(ACCOUNTS))["items"] == []


async def test_a_body_without_a_length_is_cut_off_at_the_limit(api: Api) -> None:
    async def endless() -> object:
        for _ in range(300):
            yield b" " * 1024

    answer = await api.client.request(
        "POST",
        ACCOUNTS,
        content=endless(),  # type: ignore[arg-type]
        headers={"content-type": "application/json"},
    )
    assert answer.status_code == 413


@pytest.mark.parametrize(
    "query",
    ["dryRun=Some", "fieldValidation=Perhaps", "fieldManager=" + "x" * 129, "fieldManager=%00"],
)
async def test_unknown_options_are_refused(api: Api, query: str) -> None:
    refused = await api.send("POST", f"{ACCOUNTS}?{query}", robot())
    assert (refused.status_code, refused.json()["details"]["kind"]) == (422, "CreateOptions")
    assert (await api.get(ACCOUNTS))["items"] == []


async def test_a_dry_run_changes_nothing(api: Api) -> None:
    assert (await api.send("POST", f"{ACCOUNTS}?dryRun=All", robot())).status_code == 201
    assert (await api.send("GET", ROBOT)).status_code == 404
    await api.make(ACCOUNTS, robot(a="1"))
    patched = await api.send("PATCH", f"{ROBOT}?dryRun=All", {"metadata": {"labels": {"a": "2"}}}, headers=MERGE)
    assert patched.json()["metadata"]["labels"] == {"a": "2"}
    assert (await api.send("DELETE", f"{ROBOT}?dryRun=All")).status_code == 200
    assert (await api.send("DELETE", ROBOT, {"dryRun": ["All"]})).status_code == 200
    assert (await api.get(ROBOT))["metadata"]["labels"] == {"a": "1"}  # type: ignore[index, call-overload]


async def test_an_update_needs_the_right_name_and_version(api: Api) -> None:
    made = await api.make(ACCOUNTS, robot())
    other = await api.send("PUT", ROBOT, {"metadata": {"name": "other"}})
    assert (other.status_code, other.json()["reason"]) == (400, "BadRequest")
    assert (await api.send("PUT", f"{ACCOUNTS}/nobody", {"metadata": {"name": "nobody"}})).status_code == 404
    assert (await api.send("PUT", ROBOT, robot(a="1"))).status_code == 200
    stale = await api.send("PUT", ROBOT, {**made, "metadata": {**made["metadata"], "labels": {"a": "2"}}})  # type: ignore[dict-item]
    assert (stale.status_code, stale.json()["reason"]) == (409, "Conflict")
    outdated = await api.send(
        "PATCH",
        ROBOT,
        {"metadata": {"resourceVersion": made["metadata"]["resourceVersion"], "labels": {"a": "3"}}},  # type: ignore[index, call-overload]
        headers=MERGE,
    )
    assert outdated.status_code == 409


async def test_patches_name_what_is_taken_when_they_are_of_no_known_kind(api: Api) -> None:
    await api.make(ACCOUNTS, robot())
    for kind in ("application/apply-patch+cbor", "application/json"):
        answer = await api.send("PATCH", ROBOT, {"metadata": {}}, headers={"content-type": kind})
        assert answer.status_code == 415
        assert "strategic-merge-patch+json" in answer.json()["message"]


async def test_a_deletion_tells_what_is_gone_and_minds_its_preconditions(api: Api) -> None:
    made = await api.make(ACCOUNTS, robot())
    uid = made["metadata"]["uid"]  # type: ignore[index, call-overload]
    assert (await api.send("DELETE", ROBOT, {"preconditions": {"uid": "another"}})).status_code == 409
    assert (await api.send("DELETE", ROBOT, {"preconditions": {"resourceVersion": "1"}})).status_code == 409
    assert (await api.send("DELETE", ROBOT, {"propagationPolicy": "Sideways"})).status_code == 422
    assert (await api.send("DELETE", ROBOT, {"gracePeriodSeconds": "soon"})).status_code == 400
    assert (await api.send("DELETE", ROBOT, {"kind": "Pod"})).status_code == 400
    gone = await api.send("DELETE", ROBOT, {"propagationPolicy": "Foreground", "preconditions": {"uid": uid}})
    # Of a service account kube-apiserver shows what it was, of a role it says that it is gone.
    assert (gone.json()["kind"], gone.json()["metadata"]["uid"]) == ("ServiceAccount", uid)
    assert (await api.send("DELETE", ROBOT)).status_code == 404
    roles = "/apis/rbac.authorization.k8s.io/v1/clusterroles"
    role = await api.make(roles, {"metadata": {"name": "reader"}, "rules": []})
    gone = await api.send("DELETE", f"{roles}/reader")
    assert gone.json()["status"] == "Success"
    told = {"name": "reader", "group": "rbac.authorization.k8s.io", "kind": "clusterroles"}
    assert gone.json()["details"] == told | {"uid": role["metadata"]["uid"]}  # type: ignore[index, call-overload]


async def test_an_object_with_a_finalizer_is_shown_as_it_goes(api: Api) -> None:
    await api.make(ACCOUNTS, {"metadata": {"name": "robot", "finalizers": ["example.org/wait"]}})
    going = await api.send("DELETE", ROBOT)
    assert (going.status_code, going.json()["kind"]) == (200, "ServiceAccount")
    assert going.json()["metadata"]["deletionTimestamp"]
    await api.send("PATCH", ROBOT, {"metadata": {"finalizers": None}}, headers=MERGE)
    assert (await api.send("GET", ROBOT)).status_code == 404


async def test_a_collection_is_deleted_as_far_as_it_is_selected(api: Api) -> None:
    for name in ("a", "b", "c"):
        await api.make(ACCOUNTS, {"metadata": {"name": name, "labels": {"keep": str(name == "b")}}})
    gone = await api.send("DELETE", f"{ACCOUNTS}?labelSelector=keep%3DFalse")
    assert [item["metadata"]["name"] for item in gone.json()["items"]] == ["a", "c"]
    left = await api.send("GET", ACCOUNTS)
    assert [item["metadata"]["name"] for item in left.json()["items"]] == ["b"]


async def test_nothing_is_made_in_a_namespace_that_is_not_there(api: Api) -> None:
    answer = await api.send("POST", "/api/v1/namespaces/nowhere/serviceaccounts", robot())
    assert (answer.status_code, answer.json()["message"]) == (404, 'namespaces "nowhere" not found')


async def test_warnings_travel_as_headers(api: Api) -> None:
    odd: Object = {**robot(), 'co"lour\u00e9': 1}
    answer = await api.send("POST", ACCOUNTS, odd)
    assert answer.status_code == 201
    (warning,) = answer.headers.get_list("warning")
    assert warning.startswith('299 - "unknown field ')
    assert warning.isascii()
    assert "colour" not in answer.text
    strict = await api.send("POST", f"{ACCOUNTS}?fieldValidation=Strict", {**odd, "metadata": {"name": "b"}})
    assert (strict.status_code, "unknown field" in strict.json()["message"]) == (400, True)
    quiet = await api.send("POST", f"{ACCOUNTS}?fieldValidation=Ignore", {**odd, "metadata": {"name": "c"}})
    assert "warning" not in quiet.headers


async def test_status_is_written_through_its_subresource_only(api: Api) -> None:
    spec: JSON = {"access": {"endpoint": "https://member.example:6443", "credential": {"type": "ServiceAccountToken",
                  "serviceAccountToken": "canary"}}}  # fmt: skip
    await api.make(CLUSTERS, {"metadata": {"name": "prod"}, "spec": spec, "status": {"healthy": True}})
    assert not (await api.get(f"{CLUSTERS}/prod")).get("status")
    await api.send("PATCH", f"{CLUSTERS}/prod", {"status": {"healthy": True}}, headers=MERGE)
    assert not (await api.get(f"{CLUSTERS}/prod")).get("status")
    told: JSON = {"status": {"healthy": True}, "spec": {"displayName": "no"}}
    assert (await api.send("PATCH", f"{CLUSTERS}/prod/status", told, headers=MERGE)).status_code == 200
    now = await api.get(f"{CLUSTERS}/prod/status")
    assert now["status"] == {"healthy": True}
    assert "displayName" not in now["spec"]  # type: ignore[operator]
    assert "canary" not in json.dumps(now)


async def test_writes_that_race_are_all_done(api: Api) -> None:
    await api.make(ACCOUNTS, robot())
    names = [f"l{number}" for number in range(12)]
    answers = await asyncio.gather(
        *(api.send("PATCH", ROBOT, {"metadata": {"labels": {name: "x"}}}, headers=MERGE) for name in names)
    )
    assert {answer.status_code for answer in answers} == {200}
    assert (await api.get(ROBOT))["metadata"]["labels"] == dict.fromkeys(names, "x")  # type: ignore[index, call-overload]


@pytest.mark.parametrize(
    ("kind", "patch", "code", "told"),
    [
        ("merge-patch", {"metadata": None}, 400, "name must be provided"),
        ("merge-patch", {"metadata": {"name": None}}, 400, "name must be provided"),
        ("merge-patch", {"metadata": {"labels": []}}, 422, "metadata.labels in body must be of type object"),
        ("strategic-merge-patch", {"$patch": "delete"}, 400, "name must be provided"),
        ("json-patch", [{"op": "replace", "path": "", "value": {}}], 400, "name must be provided"),
        ("json-patch", [{"op": "test", "path": "/metadata/name", "value": "x"}], 422, "operation 0, test at"),
        ("json-patch", [{"op": "remove", "path": "/metadata/x"}], 422, "leads nowhere in this object"),
        ("json-patch", [{"op": "turn", "path": "/metadata"}], 422, "invalid JSON patch"),
        ("json-patch", [{"op": "add", "path": "metadata", "value": 1}], 422, "invalid JSON patch"),
    ],
)
async def test_patches_that_cannot_be_leave_the_object_and_tell_nothing_of_it(
    api: Api, kind: str, patch: JSON, code: int, told: str
) -> None:
    made = await api.make(ACCOUNTS, {"metadata": {"name": "kept", "labels": {"a": "in-the-object"}}})
    answer = await api.send("PATCH", f"{ACCOUNTS}/kept", patch, headers={"content-type": f"application/{kind}+json"})
    assert (answer.status_code, told in answer.json()["message"]) == (code, True), answer.text
    assert "in-the-object" not in answer.text
    assert await api.get(f"{ACCOUNTS}/kept") == made
