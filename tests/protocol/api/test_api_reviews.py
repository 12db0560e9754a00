"""Reviews as the newest API has them, decisions on certificate requests, and the documents of the token issuer."""

import pytest
from tests.protocol.api.conftest import LONGEST_TOKEN, Api
from tests.protocol.api.test_api_access import AUTHZ, REQUESTS, SIGNER, allow, request_for, rule

from onepass.access.identity import AUTHENTICATED
from onepass.api.meta import JSON, Object

MERGE = {"content-type": "application/merge-patch+json"}
KEY: Object = {"key": "metadata.name", "operator": "In", "values": ["a"]}


@pytest.mark.parametrize("kind", ["fieldSelector", "labelSelector"])
async def test_selectors_of_the_request_in_question_must_be_selectors(api: Api, kind: str) -> None:
    cases: list[tuple[Object, str]] = [
        ({"rawSelector": "metadata.name=a"}, ""),
        ({"requirements": [KEY]}, ""),
        ({"requirements": [KEY | {"operator": "Gt"}]}, ""),
        ({"requirements": [{"key": "a", "operator": "Exists"}]}, ""),
        ({}, "requirements"),
        ({"rawSelector": "a=b", "requirements": [KEY]}, "rawSelector"),
        ({"requirements": [KEY | {"key": ""}]}, "requirements[0].key"),
        ({"requirements": [KEY | {"operator": ""}]}, "requirements[0].operator"),
        ({"requirements": [KEY | {"values": []}]}, "requirements[0].values"),
        ({"requirements": [KEY, KEY | {"operator": "DoesNotExist"}]}, "requirements[1].values"),
    ]
    for selector, wrong in cases:
        asked: Object = {"verb": "list", "group": "cluster.karpor.io", "resource": "clusters", kind: selector}
        answer = await api.send("POST", f"{AUTHZ}/selfsubjectaccessreviews", {"spec": {"resourceAttributes": asked}})
        assert answer.status_code == (422 if wrong else 201), (selector, answer.text)
        if wrong:
            causes = answer.json()["details"]["causes"]
            assert [cause["field"] for cause in causes] == [f"spec.resourceAttributes.{kind}.{wrong}"]
        else:
            assert answer.json()["status"]["allowed"] is True


async def test_a_review_has_no_metadata(api: Api) -> None:
    spec: Object = {"user": "bob", "resourceAttributes": {"verb": "list", "resource": "pods", "namespace": "default"}}
    body: Object = {"metadata": {"name": "x"}, "spec": spec}
    for path in (f"{AUTHZ}/subjectaccessreviews", f"{AUTHZ}/namespaces/default/localsubjectaccessreviews"):
        answer = await api.send("POST", path, body)
        assert (answer.status_code, answer.json()["details"]["causes"][0]["field"]) == (422, "metadata")
    local: Object = {"metadata": {"namespace": "default"}, "spec": spec}
    path = f"{AUTHZ}/namespaces/default/localsubjectaccessreviews"
    assert (await api.send("POST", path, local)).status_code == 201


def condition(kind: str, status: str = "True", message: str = "") -> Object:
    return {"type": kind, "status": status, "reason": "Tested", "message": message}


async def test_decisions_on_a_request_are_made_once_and_stand_once(api: Api) -> None:
    assert (await api.send("POST", REQUESTS, request_for("bob"))).status_code == 201
    cases: list[tuple[list[JSON], int, str]] = [
        ([condition("Approved", "False")], 422, "status.conditions[Approved].status"),
        ([condition("")], 422, "status.conditions[0].type"),
        ([condition("Approved"), condition("Denied")], 422, "status.conditions"),
        ([condition("Approved"), condition("Approved")], 422, "status.conditions[1].type"),
        ([condition("Revoked")], 422, "status.conditions"),
        ([condition("Approved")], 200, ""),
        ([condition("Approved"), condition("Denied")], 422, "status.conditions"),
        ([condition("Denied")], 422, "status.conditions"),
        ([], 422, "status.conditions"),
        ([condition("Approved", message="again")], 200, ""),
        ([condition("Approved"), condition("Noted", "Unknown")], 200, ""),
    ]
    for conditions, code, field in cases:
        change: Object = {"status": {"conditions": conditions}}
        answer = await api.send("PATCH", f"{REQUESTS}/asked/approval", change, headers=MERGE)
        assert answer.status_code == code, (conditions, answer.text)
        if field:
            assert field in [cause["field"] for cause in answer.json()["details"]["causes"]]
    # What goes to the object itself decides nothing, and what is not a decision is not for /approval.
    change = {"status": {"conditions": [condition("Denied")], "certificate": "Zm9v"}}
    answer = await api.send("PATCH", f"{REQUESTS}/asked", change, headers=MERGE)
    told = answer.json()["status"]
    assert ([each["type"] for each in told["conditions"]], "certificate" in told) == (["Approved", "Noted"], False)


async def test_who_signs_does_not_decide(api: Api) -> None:
    requests = rule("certificates.k8s.io", "certificatesigningrequests", "*")
    statuses = rule("certificates.k8s.io", "certificatesigningrequests/status", "*")
    await allow(api, "bob", requests, statuses, rule("certificates.k8s.io", "signers", "sign", names=(SIGNER,)))
    assert (await api.send("POST", REQUESTS, request_for("bob"), user="bob")).status_code == 201
    for kind, code in (("Approved", 422), ("Denied", 422), ("Revoked", 422), ("Failed", 200)):
        change: Object = {"status": {"conditions": [condition(kind)]}}
        answer = await api.send("PATCH", f"{REQUESTS}/asked/status", change, user="bob", headers=MERGE)
        assert answer.status_code == code, answer.text
        if code == 422:
            assert f'may not add a condition of type "{kind}"' in answer.json()["message"]


async def test_the_issuer_of_tokens_tells_who_it_is_to_service_accounts(api: Api) -> None:
    accounts = (AUTHENTICATED, "system:serviceaccounts")
    robot = "system:serviceaccount:default:robot"
    paths = {"/.well-known/openid-configuration": "application/json", "/openid/v1/jwks": "application/jwk-set+json"}
    for path, media in paths.items():
        answer = await api.send("GET", path, user=robot, groups=accounts)
        assert (answer.status_code, answer.headers["content-type"]) == (200, media)
        assert answer.headers["cache-control"] == "public, max-age=3600"
        assert (await api.send("GET", path, user="bob")).status_code == 403
        assert (await api.send("GET", path, user="nobody")).status_code == 401
        assert (await api.send("POST", path)).status_code in (404, 405)
    told = await api.get("/.well-known/openid-configuration")
    assert (told["issuer"], told["jwks_uri"]) == ("https://issuer", "https://gateway/openid/v1/jwks")


@pytest.mark.parametrize(
    ("body", "wrong"),
    [
        ({"metadata": {"name": "other"}}, "metadata.name"),
        ({"metadata": {"namespace": "other"}}, "metadata.namespace"),
        ({"spec": {"expirationSeconds": 599}}, "spec.expirationSeconds"),
        ({"spec": {"expirationSeconds": 1 << 33}}, "spec.expirationSeconds"),
        ({"spec": {"boundObjectRef": {"kind": "Pod", "apiVersion": "v1", "name": "a"}}}, "spec.boundObjectRef"),
    ],
)
async def test_token_requests_that_cannot_be(api: Api, body: Object, wrong: str) -> None:
    accounts = "/api/v1/namespaces/default/serviceaccounts"
    await api.make(accounts, {"metadata": {"name": "robot"}})
    answer = await api.send("POST", f"{accounts}/robot/token", body)
    assert (answer.status_code, [each["field"] for each in answer.json()["details"]["causes"]]) == (422, [wrong])


@pytest.mark.parametrize(("seconds", "given"), [(600, 600), (LONGEST_TOKEN, LONGEST_TOKEN), (10**6, LONGEST_TOKEN)])
async def test_a_token_that_is_shorter_than_asked_comes_with_a_warning(api: Api, seconds: int, given: int) -> None:
    accounts = "/api/v1/namespaces/default/serviceaccounts"
    await api.make(accounts, {"metadata": {"name": "robot"}})
    answer = await api.send("POST", f"{accounts}/robot/token", {"spec": {"expirationSeconds": seconds}})
    assert (answer.status_code, answer.json()["spec"]["expirationSeconds"]) == (201, given)
    told = f'299 - "requested expiration of {seconds} seconds shortened to {given} seconds"'
    assert answer.headers.get_list("warning") == ([told] if given < seconds else [])
