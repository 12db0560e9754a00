"""Who asks, what they may, and the answers to questions about it."""

import asyncio
import base64

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID
from tests.protocol.api.conftest import DEADLINE, Api

from onepass.access.identity import ADMINISTRATORS, AUTHENTICATED
from onepass.api.meta import JSON, Object

REQUESTS = "/apis/certificates.k8s.io/v1/certificatesigningrequests"
RBAC = "/apis/rbac.authorization.k8s.io/v1"
CLUSTERS = "/apis/cluster.karpor.io/v1beta1/clusters"
AUTHN, AUTHZ = "/apis/authentication.k8s.io/v1", "/apis/authorization.k8s.io/v1"
ALIAS = "/apis/kusionstack.io/Cluster"
SIGNER = "kubernetes.io/kube-apiserver-client"


async def allow(api: Api, user: str, *rules: Object, name: str = "granted") -> None:
    await api.make(f"{RBAC}/clusterroles", {"metadata": {"name": name}, "rules": [*rules]})
    binding: Object = {
        "metadata": {"name": name},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": name},
        "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": user}],
    }
    await api.make(f"{RBAC}/clusterrolebindings", binding)


def rule(group: str, resource: str, *verbs: str, names: tuple[str, ...] = ()) -> Object:
    told: Object = {"apiGroups": [group], "resources": [resource], "verbs": [*verbs]}
    return {**told, "resourceNames": [*names]} if names else told


@pytest.mark.parametrize(
    "path", ["/", "/version", "/healthz", "/api", "/apis", "/openapi/v3", "/metrics", CLUSTERS, "/nothing", "/livez"]
)
async def test_nobody_gets_nothing(api: Api, path: str) -> None:
    answer = await api.send("GET", path, user="nobody")
    assert (answer.status_code, answer.json()["reason"]) == (401, "Unauthorized")


async def test_a_refusal_says_who_what_and_where(api: Api) -> None:
    refused = await api.send("DELETE", "/api/v1/namespaces/default/serviceaccounts/robot", user="bob")
    assert refused.status_code == 403
    assert refused.json()["message"].startswith(
        'serviceaccounts "robot" is forbidden: User "bob" cannot delete resource "serviceaccounts" in API group "" '
        'in the namespace "default"'
    )
    assert refused.json()["details"] == {"name": "robot", "kind": "serviceaccounts"}
    path = await api.send("GET", "/metrics", user="bob")
    assert path.json()["message"].startswith('forbidden: User "bob" cannot get path "/metrics"')
    assert (await api.send("GET", "/api", user="bob")).status_code == 200


async def test_rights_are_those_of_the_verb_the_path_and_the_query_make(api: Api) -> None:
    await allow(api, "bob", rule("cluster.karpor.io", "clusters", "get", "create", names=("prod",)))
    for method, path, code in (
        ("GET", f"{CLUSTERS}/prod", 404),
        ("HEAD", f"{CLUSTERS}/prod", 404),
        ("GET", f"{CLUSTERS}/test", 403),
        ("GET", CLUSTERS, 403),
        ("GET", f"{CLUSTERS}?watch=1", 403),
        ("GET", f"{CLUSTERS}?fieldSelector=metadata.name%3Dprod", 403),
        ("GET", f"{CLUSTERS}/prod/status", 403),
        ("DELETE", f"{CLUSTERS}/prod", 403),
    ):
        assert (await api.send(method, path, user="bob")).status_code == code, (method, path)


async def test_an_identity_comes_from_the_headers_of_the_proxy(api: Api) -> None:
    headers = {"x-remote-uid": "42", "x-remote-extra-example.org%2fteam": "a"}
    answer = await api.send(
        "POST", f"{AUTHN}/selfsubjectreviews", {}, user="bob", groups=(AUTHENTICATED, "dev"), headers=headers
    )
    assert answer.json()["status"]["userInfo"] == {
        "username": "bob",
        "uid": "42",
        "groups": [AUTHENTICATED, "dev"],
        "extra": {"example.org/team": ["a"]},
    }


@pytest.mark.parametrize(
    ("headers", "code"),
    [
        ({"impersonate-group": "dev"}, 400),
        ({"impersonate-uid": "0"}, 400),
        ({"impersonate-extra-a": "b"}, 400),
        ({"impersonate-user": "alice"}, 201),
        ({"impersonate-user": "carol"}, 403),
        ({"impersonate-user": "system:serviceaccount:default:robot"}, 403),
        ({"impersonate-user": "alice", "impersonate-group": "dev"}, 201),
        ({"impersonate-user": "alice", "impersonate-group": ADMINISTRATORS}, 403),
        ({"impersonate-user": "alice", "impersonate-group": "system:masters"}, 403),
        ({"impersonate-user": "alice", "impersonate-uid": "7"}, 403),
        ({"impersonate-user": "alice", "impersonate-extra-scopes": "read"}, 201),
        ({"impersonate-user": "alice", "impersonate-extra-scopes": "write"}, 403),
        ({"impersonate-user": "alice", "impersonate-extra-other": "read"}, 403),
    ],
)
async def test_each_value_that_is_impersonated_must_be_allowed(api: Api, headers: dict[str, str], code: int) -> None:
    await allow(
        api,
        "bob",
        rule("", "users", "impersonate", names=("alice",)),
        rule("", "groups", "impersonate", names=("dev",)),
        rule("authentication.k8s.io", "userextras/scopes", "impersonate", names=("read",)),
    )
    answer = await api.send("POST", f"{AUTHN}/selfsubjectreviews", {}, user="bob", headers=headers)
    assert answer.status_code == code, answer.text
    if code == 201:
        told = answer.json()["status"]["userInfo"]
        groups = ["dev"] if "impersonate-group" in headers else []
        assert (told["username"], told["groups"]) == ("alice", [*groups, AUTHENTICATED])


async def test_an_impersonated_service_account_is_in_its_groups(api: Api) -> None:
    headers = {"impersonate-user": "system:serviceaccount:default:robot"}
    answer = await api.send("POST", f"{AUTHN}/selfsubjectreviews", {}, headers=headers)
    assert answer.json()["status"]["userInfo"]["groups"] == [
        "system:serviceaccounts",
        "system:serviceaccounts:default",
        AUTHENTICATED,
    ]


async def test_access_reviews_answer_for_others(api: Api) -> None:
    await allow(api, "bob", rule("cluster.karpor.io", "clusters", "list"))
    asked: Object = {"verb": "list", "group": "cluster.karpor.io", "resource": "clusters"}
    for spec, allowed in (
        ({"user": "bob", "resourceAttributes": asked}, True),
        ({"user": "eve", "resourceAttributes": asked}, False),
        ({"user": "eve", "groups": [ADMINISTRATORS], "resourceAttributes": asked}, True),
        (
            {"user": "bob", "groups": [AUTHENTICATED], "nonResourceAttributes": {"verb": "get", "path": "/version"}},
            True,
        ),
        ({"user": "bob", "nonResourceAttributes": {"verb": "get", "path": "/metrics"}}, False),
    ):
        body: Object = {"spec": spec}  # type: ignore[dict-item]
        review = await api.make(f"{AUTHZ}/subjectaccessreviews", body)
        assert review["status"]["allowed"] is allowed, spec  # type: ignore[index, call-overload]
    for bad in ({}, {"user": "bob"}, {"resourceAttributes": asked}, {"user": "b", "resourceAttributes": 1}):
        wrong: JSON = {"spec": bad}  # type: ignore[dict-item]
        assert (await api.send("POST", f"{AUTHZ}/subjectaccessreviews", wrong)).status_code == 422
    elsewhere: Object = {"spec": {"user": "bob", "resourceAttributes": {**asked, "namespace": "other"}}}
    local = await api.send("POST", f"{AUTHZ}/namespaces/default/localsubjectaccessreviews", elsewhere)
    assert local.status_code == 422
    assert (await api.send("POST", f"{AUTHZ}/subjectaccessreviews", {"spec": {}}, user="bob")).status_code == 403


async def test_a_token_review_never_repeats_the_token(api: Api) -> None:
    good = await api.make(f"{AUTHN}/tokenreviews", {"spec": {"token": "good", "audiences": ["a"]}})
    assert good["status"]["user"]["username"] == "system:serviceaccount:default:robot"  # type: ignore[index, call-overload]
    bad = await api.make(f"{AUTHN}/tokenreviews", {"spec": {"token": "forged"}})
    assert bad["status"]["authenticated"] is False  # type: ignore[index, call-overload]
    assert "forged" not in str(bad)
    assert (await api.send("POST", f"{AUTHN}/tokenreviews", {"spec": {}})).status_code == 400


@pytest.mark.parametrize("base", [CLUSTERS, ALIAS])
async def test_questions_about_oneself_on_a_member_are_answered_by_the_rules_for_it(api: Api, base: str) -> None:
    access: JSON = {"endpoint": "https://member.example:6443"}
    await api.make(CLUSTERS, {"metadata": {"name": "prod"}, "spec": {"access": access}})
    granted: Object = {
        "subjects": [{"kind": "User", "name": "bob", "apiGroup": "rbac.authorization.k8s.io"}],
        "clusters": {"names": ["prod"]},
        "rules": [{"apiGroups": [""], "resources": ["pods"], "verbs": ["get"]}],
    }
    await api.make("/apis/access.karpor.io/v1beta1/passes", {"metadata": {"name": "bobs"}, "spec": granted})
    member = f"{base}/prod/proxy"
    who = await api.send("POST", f"{member}{AUTHN}/selfsubjectreviews", {}, user="bob")
    assert who.json()["status"]["userInfo"]["username"] == "bob"
    for verb, allowed in (("get", True), ("delete", False)):
        asked: JSON = {"spec": {"resourceAttributes": {"verb": verb, "resource": "pods", "namespace": "default"}}}
        answer = await api.send("POST", f"{member}{AUTHZ}/selfsubjectaccessreviews", asked, user="bob")
        assert answer.json()["status"]["allowed"] is allowed
    rules = await api.send("POST", f"{member}{AUTHZ}/selfsubjectrulesreviews", {"spec": {"namespace": "x"}}, user="bob")
    told = {"verbs": ["get"], "apiGroups": [""], "resources": ["pods"]}
    assert told in rules.json()["status"]["resourceRules"]
    for cluster in ("prod", "nothing"):
        refused = await api.send("POST", f"{base}/{cluster}/proxy{AUTHN}/selfsubjectreviews", {}, user="eve")
        assert (refused.status_code, f'of cluster "{cluster}"' in refused.json()["message"]) == (403, True)
    assert (await api.send("POST", f"{member}{AUTHN}/selfsubjectreviews", {}, user="nobody")).status_code == 401


@pytest.mark.parametrize("base", [CLUSTERS, ALIAS])
@pytest.mark.parametrize("tail", ["", "/", "/api/v1/pods", "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews"])
async def test_no_other_request_to_a_member_is_served_here(api: Api, base: str, tail: str) -> None:
    mine = await api.send("GET", f"{base}/prod/proxy{tail}")
    assert (mine.status_code, "data plane" in mine.json()["message"]) == (404, True)
    assert (await api.send("GET", f"{base}/prod/proxy{tail}", user="eve")).status_code == 403


def request_for(name: str, *groups: str) -> JSON:
    attributes = [x509.NameAttribute(NameOID.COMMON_NAME, name)]
    attributes += [x509.NameAttribute(NameOID.ORGANIZATION_NAME, group) for group in groups]
    builder = x509.CertificateSigningRequestBuilder().subject_name(x509.Name(attributes))
    pem = builder.sign(ec.generate_private_key(ec.SECP256R1()), hashes.SHA256()).public_bytes(Encoding.PEM)
    spec: JSON = {"request": base64.b64encode(pem).decode(), "signerName": SIGNER, "usages": ["client auth"]}
    return {"metadata": {"name": "asked"}, "spec": spec}


@pytest.mark.parametrize(
    ("name", "groups", "code"),
    [
        ("bob", (), 201),
        ("bob", ("dev",), 201),
        ("bob", ("ops",), 403),
        ("alice", (), 403),
        ("Bob", (), 403),
        ("bob", ("dev", "ops"), 403),
        ("bob", (AUTHENTICATED,), 422),
        ("system:admin", (), 403),
    ],
)
async def test_a_certificate_is_asked_for_in_ones_own_name(
    api: Api, name: str, groups: tuple[str, ...], code: int
) -> None:
    await allow(api, "bob", rule("certificates.k8s.io", "certificatesigningrequests", "*"))
    asked = request_for(name, *groups)
    answer = await api.send("POST", REQUESTS, asked, user="bob", groups=(AUTHENTICATED, "dev"))
    assert answer.status_code == code, answer.text


async def test_approving_and_asking_for_others_take_the_right_to_approve(api: Api) -> None:
    requests = rule("certificates.k8s.io", "certificatesigningrequests", "*")
    approvals = rule("certificates.k8s.io", "certificatesigningrequests/approval", "*")
    statuses = rule("certificates.k8s.io", "certificatesigningrequests/status", "*")
    await allow(api, "bob", requests, approvals, statuses)
    assert (await api.send("POST", REQUESTS, request_for("bob"), user="bob")).status_code == 201
    approved: JSON = {"status": {"conditions": [{"type": "Approved", "status": "True", "reason": "Sure"}]}}
    merge = {"content-type": "application/merge-patch+json"}
    refused = await api.send("PATCH", f"{REQUESTS}/asked/approval", approved, user="bob", headers=merge)
    assert (refused.status_code, SIGNER in refused.json()["message"]) == (403, True)
    signed: JSON = {"status": {"certificate": "Zm9v"}}
    assert (await api.send("PATCH", f"{REQUESTS}/asked/status", signed, user="bob", headers=merge)).status_code == 403
    await allow(api, "bob", rule("certificates.k8s.io", "signers", "approve", names=(SIGNER,)), name="approver")
    granted = await api.send("PATCH", f"{REQUESTS}/asked/approval", approved, user="bob", headers=merge)
    assert granted.status_code == 200, granted.text
    assert (await api.send("PATCH", f"{REQUESTS}/asked/status", signed, user="bob", headers=merge)).status_code == 403
    other = request_for("alice")
    assert isinstance(other, dict)
    other["metadata"] = {"name": "for-alice"}
    assert (await api.send("POST", REQUESTS, other, user="bob")).status_code == 201


async def test_kubectl_approves_a_request(api: Api) -> None:
    assert (await api.send("POST", REQUESTS, request_for("bob"))).status_code == 201
    assert "approved" in await api.kubectl("certificate", "approve", "asked")
    assert "Approved" in (await api.kubectl("get", "csr", "asked")).splitlines()[1].split()
    assert "denied" not in await api.kubectl("certificate", "deny", "asked", fails=True)


async def upgrade(api: Api, path: str, protocol: str, user: str = "") -> int:
    """The code that a request to change protocols is answered with."""
    reader, writer = await asyncio.open_connection("127.0.0.1", api.port)
    key = base64.b64encode(bytes(16)).decode()
    lines = [f"GET {path} HTTP/1.1", "Host: x", f"Upgrade: {protocol}", "Connection: Upgrade"]
    lines += ["Sec-WebSocket-Version: 13", f"Sec-WebSocket-Key: {key}"]
    lines += [f"X-Remote-User: {user}"] if user else []
    writer.write("\r\n".join([*lines, "", ""]).encode())
    async with asyncio.timeout(DEADLINE):
        head = await reader.readline()
    writer.close()
    return int(head.split()[1])


@pytest.mark.parametrize("protocol", ["websocket", "SPDY/3.1"])
@pytest.mark.parametrize(
    ("path", "user", "code"),
    [
        ("/api/v1/namespaces", "", 400),
        ("/api/v1/namespaces", "eve", 403),
        ("/api/v1/namespaces", "nobody", 401),
        ("/version", "nobody", 401),
        (f"{CLUSTERS}/prod/proxy/api/v1/namespaces/x/pods/y/exec", "", 404),
        (f"{CLUSTERS}/prod/proxy/api/v1/namespaces/x/pods/y/exec", "eve", 403),
        ("/api/v1/namespaces/default/serviceaccounts/robot/token", "", 405),
        ("/api//v1", "", 400),
    ],
)
async def test_an_upgrade_that_leads_nowhere_is_refused_as_http(
    api: Api, protocol: str, path: str, user: str, code: int
) -> None:
    assert await upgrade(api, path, protocol, user) == code


async def test_an_offer_of_http2_is_not_an_upgrade(api: Api) -> None:
    assert await upgrade(api, "/api/v1/namespaces", "h2c") == 200
