"""The other kinds: passes, roles, requests for certificates, namespaces, and what is there from the start."""

import base64
import json
import time
from collections.abc import Callable
from dataclasses import replace

import pytest
import yaml
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID

from onepass.access.identity import Identity
from onepass.api import meta
from onepass.api.errors import ApiError
from onepass.api.meta import JSON, Object
from onepass.pki import authority
from onepass.registry import catalog, certificatesigningrequests, defaults, namespaces, passes, rbac, selection
from onepass.registry.store import Store, Write
from onepass.registry.strategy import Actor
from onepass.storage.interface import Storage


class Passthrough:
    def seal(self, secret: bytes, context: bytes) -> bytes:
        return secret

    def unseal(self, sealed: bytes, context: bytes) -> bytes:
        return sealed


async def refusal(call: object) -> ApiError:
    with pytest.raises(ApiError) as caught:
        await call  # type: ignore[misc]
    return caught.value


def from_yaml(text: str) -> Object:
    obj: Object = yaml.safe_load(text)
    return obj


@pytest.fixture
def stores(storage: Storage) -> dict[str, Store]:
    return {s.resource.key: Store(storage, s, sealer=Passthrough()) for s in catalog.GATEWAY}


def test_the_catalog_names_each_kind_once() -> None:
    assert [s.resource.key for s in catalog.GATEWAY] == [
        "namespaces",
        "serviceaccounts",
        "certificatesigningrequests.certificates.k8s.io",
        "clusterrolebindings.rbac.authorization.k8s.io",
        "clusterroles.rbac.authorization.k8s.io",
        "rolebindings.rbac.authorization.k8s.io",
        "roles.rbac.authorization.k8s.io",
        "clusters.cluster.karpor.io",
        "passes.access.karpor.io",
    ]


def test_every_field_of_every_kind_is_described() -> None:
    bare: list[str] = []

    def look(schema: Object, path: str) -> None:
        for key, inner in meta.section(schema, "properties").items():
            if isinstance(inner, dict) and not inner.get("description"):
                bare.append(f"{path}.{key}")

    for strategy in catalog.GATEWAY:
        schema: Object = strategy.model.model_json_schema(by_alias=True)
        look(schema, strategy.resource.kind)
        for name, inner in meta.section(schema, "$defs").items():
            assert isinstance(inner, dict)
            look(inner, name)
    assert bare == []


# Passes

PASS = """
apiVersion: access.karpor.io/v1beta1
kind: Pass
metadata: {name: dev-read}
spec:
  subjects:
  - {kind: User, name: alice}
  - {kind: Group, name: dev}
  - {kind: ServiceAccount, name: bot, namespace: ci}
  clusters:
    names: [prod, staging]
    selector: {matchLabels: {env: dev}}
  rules:
  - {verbs: [get, list, watch], apiGroups: [""], resources: [pods, pods/log], namespaces: [web]}
  - {verbs: [get], nonResourceURLs: [/metrics, /logs/*]}
  identity: {mode: Impersonate}
  notBefore: "2027-01-15T07:00:00Z"
  notAfter: "2027-01-15T09:00:00+00:00"
"""


@pytest.fixture
def book(stores: dict[str, Store]) -> Store:
    return stores["passes.access.karpor.io"]


async def test_a_pass_is_kept_and_told(book: Store, write: Write) -> None:
    made = await book.create("", from_yaml(PASS), write)
    assert [told.partition(":")[0] for told in made.warnings] == ["spec.subjects[2]"]  # shown to no member
    subjects = meta.section(made.obj, "spec")["subjects"]
    assert isinstance(subjects, list)
    assert subjects[0] == {"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": "alice"}
    assert subjects[2] == {"kind": "ServiceAccount", "name": "bot", "namespace": "ci"}
    assert {column.name: column.cell(made.obj, write.actor.now) for column in passes.STRATEGY.columns} == {
        "Subjects": "alice,group:dev,serviceaccount:ci/bot",
        "Clusters": "prod,staging,env=dev",
        "Until": "2027-01-15T09:00:00+00:00",
        "In Force": "True",
        "Last Used": "<unknown>",
        "Identity": "Impersonate",
    }


def test_a_cluster_that_is_not_there_is_told_of() -> None:
    kind = passes.strategy(lambda name: name == "prod")
    told = kind.warn({"spec": {"clusters": {"names": ["prod", "pord", "*"]}}})
    assert told == ['spec.clusters.names[1]: there is no cluster "pord" so far']


@pytest.mark.parametrize(
    ("spec", "now", "why"),
    [
        ({}, 0, ""),
        ({"suspended": True}, 0, "Suspended"),
        ({"suspended": False}, 0, ""),
        ({"notBefore": "2027-01-15T08:00:00Z"}, 1_799_999_999.9, "NotYet"),
        ({"notBefore": "2027-01-15T08:00:00Z"}, 1_800_000_000, ""),
        ({"notAfter": "2027-01-15T08:00:00Z"}, 1_799_999_999.9, ""),
        ({"notAfter": "2027-01-15T08:00:00Z"}, 1_800_000_000, "Expired"),
        ({"notAfter": "2027-01-15T09:00:00+02:00"}, 1_799_999_999, "Expired"),
    ],
)
def test_when_a_pass_is_in_force(spec: Object, now: float, why: str) -> None:
    assert passes.in_force({"spec": spec}, now) == why


def without(key: str) -> Callable[[Object], None]:
    return lambda spec: spec.__delitem__(key)


def put(key: str, value: JSON) -> Callable[[Object], None]:
    return lambda spec: spec.__setitem__(key, value)


def rule(**changes: JSON) -> Callable[[Object], None]:
    base: Object = {"verbs": ["get"], "apiGroups": [""], "resources": ["pods"]}
    return put("rules", [{k: v for k, v in {**base, **changes}.items() if v is not None}])


def subject(**fields: JSON) -> Callable[[Object], None]:
    return put("subjects", [fields])


@pytest.mark.parametrize(
    ("change", "field", "told"),
    [
        (without("subjects"), "spec.subjects", "needs at least one user"),
        (put("subjects", []), "spec.subjects", "needs at least one user"),
        (subject(kind="Robot", name="x"), "spec.subjects[0].kind", "supported values"),
        (subject(kind="user", name="x"), "spec.subjects[0].kind", "supported values"),
        (subject(kind="User", name=""), "spec.subjects[0].name", "Required value"),
        (subject(kind="User"), "spec.subjects[0].name", "Required value"),
        (subject(kind="User", name="x", apiGroup="v1"), "spec.subjects[0].apiGroup", "supported values"),
        (subject(kind="User", name="system:anonymous"), "spec.subjects[0].name", "who does not say who they are"),
        (subject(kind="Group", name="system:unauthenticated"), "spec.subjects[0].name", "who does not say"),
        (subject(kind="ServiceAccount", name="bot"), "spec.subjects[0].namespace", "Required value"),
        (subject(kind="ServiceAccount", name="B", namespace="n"), "spec.subjects[0].name", "RFC 1123"),
        (without("clusters"), "spec.clusters", "names or a selector are needed"),
        (put("clusters", {"names": []}), "spec.clusters", "names or a selector are needed"),
        (put("clusters", {"names": ["a*"]}), "spec.clusters.names[0]", "RFC 1123"),
        (put("clusters", {"selector": {"matchLabels": {"a": "b c"}}}), "spec.clusters.selector.matchLabels", "label"),
        (
            put("clusters", {"selector": {"matchExpressions": [{"key": "a", "operator": "in", "values": ["b"]}]}}),
            "spec.clusters.selector.matchExpressions[0].operator",
            "not a valid selector operator",
        ),
        (without("rules"), "spec.rules", "allows nothing"),
        (rule(verbs=[]), "spec.rules[0].verbs", "at least one value"),
        (rule(verbs=None), "spec.rules[0].verbs", "at least one value"),
        (rule(verbs=["gets"]), "spec.rules[0].verbs[0]", "supported values"),
        (rule(verbs=["GET"]), "spec.rules[0].verbs[0]", "supported values"),
        (rule(verbs=["exec"]), "spec.rules[0].verbs[0]", "supported values"),
        (rule(apiGroups=None), "spec.rules[0].apiGroups", "at least one api group"),
        (rule(apiGroups=["core"]), "spec.rules[0].apiGroups[0]", "the core group is the empty string"),
        (rule(apiGroups=["apps/v1"]), "spec.rules[0].apiGroups[0]", "without its version"),
        (rule(resources=[]), "spec.rules[0].resources", "at least one resource"),
        (rule(resources=["pods/logs"]), "spec.rules[0].resources[0]", "did you mean pods/log?"),
        (rule(resources=["Pods"]), "spec.rules[0].resources[0]", "lower case"),
        (rule(resources=["pods/"]), "spec.rules[0].resources[0]", "RESOURCE/SUBRESOURCE"),
        (rule(resources=["/log"]), "spec.rules[0].resources[0]", "RESOURCE/SUBRESOURCE"),
        (rule(resources=["pods/log/x"]), "spec.rules[0].resources[0]", "RESOURCE/SUBRESOURCE"),
        (rule(resources=["pods,secrets"]), "spec.rules[0].resources[0]", "RESOURCE/SUBRESOURCE"),
        (rule(resources=["pod*"]), "spec.rules[0].resources[0]", "RESOURCE/SUBRESOURCE"),
        (rule(resources=["pods/*"]), "spec.rules[0].resources[0]", "named one by one"),
        (rule(verbs=["create"], resourceNames=["a"]), "spec.rules[0].resourceNames", "has no name yet"),
        (rule(verbs=["impersonate"]), "spec.rules[0].resources", "supported values"),
        (
            rule(verbs=["impersonate"], resources=["groups"], resourceNames=["system:masters"]),
            "spec.rules[0].resourceNames[0]",
            "nobody may ever act as this one",
        ),
        (
            rule(apiGroups=[""], resources=["nodes"], namespaces=["a"]),
            "spec.rules[0].namespaces",
            "would match nothing",
        ),
        (
            put("rules", [{"verbs": ["get"], "nonResourceURLs": ["/api/v1/pods*"]}]),
            "spec.rules[0].nonResourceURLs[0]",
            "for resources",
        ),
        (subject(kind="User", name="system:admin"), "spec.subjects[0].name", "refused at login"),
        (subject(kind="Group", name="system:masters"), "spec.subjects[0].name", "refused at login"),
        (subject(kind="ServiceAccount", name="bot", namespace="n"), "spec.identity.mode", "use Gateway"),
        (rule(namespaces=[]), "spec.rules[0].namespaces", "leave it out for every namespace"),
        (rule(namespaces=["a b"]), "spec.rules[0].namespaces[0]", "RFC 1123"),
        (rule(nonResourceURLs=["/x"]), "spec.rules[0].nonResourceURLs", "cannot apply to both"),
        (
            put("rules", [{"verbs": ["get"], "nonResourceURLs": ["x"]}]),
            "spec.rules[0].nonResourceURLs[0]",
            "must begin with '/'",
        ),
        (
            put("rules", [{"verbs": ["get"], "nonResourceURLs": ["/a/*/b"]}]),
            "spec.rules[0].nonResourceURLs[0]",
            "only the last character",
        ),
        (
            put("rules", [{"verbs": ["list"], "nonResourceURLs": ["/a"]}]),
            "spec.rules[0].verbs[0]",
            "supported values",
        ),
        (
            put("rules", [{"verbs": ["get"], "nonResourceURLs": ["/a"], "namespaces": ["x"]}]),
            "spec.rules[0].namespaces",
            "lie in no namespace",
        ),
        (put("identity", {"mode": "impersonate"}), "spec.identity.mode", "supported values"),
        (put("notAfter", "2027-01-15T07:00:00Z"), "spec.notAfter", "must lie in the future"),
        (put("notBefore", "2027-01-15T10:00:00Z"), "spec.notAfter", "must lie after notBefore"),
        (put("notAfter", "tomorrow"), "spec.notAfter", "RFC 3339"),
        (put("notAfter", "2027-01-16"), "spec.notAfter", "RFC 3339"),
        (put("notAfter", "2027-01-16T00:00:00"), "spec.notAfter", "RFC 3339"),
        (put("notAfter", "2027-W02-6T00:00:00Z"), "spec.notAfter", "RFC 3339"),
        (put("notAfter", "2027-02-30T00:00:00Z"), "spec.notAfter", "RFC 3339"),
    ],
)
async def test_a_pass_that_can_never_match_is_refused(
    book: Store, write: Write, change: Callable[[Object], None], field: str, told: str
) -> None:
    given = from_yaml(PASS)
    change(meta.section(given, "spec"))
    refused = await refusal(book.create("", given, write))
    assert refused.code == 422
    assert [cause.field for cause in refused.causes] == [field]
    assert told in refused.message


@pytest.mark.parametrize(
    "change",
    [
        put("clusters", {"names": ["*"]}),
        put("clusters", {"selector": {}}),
        rule(verbs=["*"], apiGroups=["*"], resources=["*"]),
        rule(resources=["*/scale", "deployments/scale"]),
        rule(verbs=["impersonate"], resources=["users"], resourceNames=["bob"]),
        rule(namespaces=["*"]),
        put("rules", [{"verbs": ["*"], "nonResourceURLs": ["*"]}]),
        without("identity"),
        without("notAfter"),
    ],
)
async def test_passes_that_are_taken(book: Store, write: Write, change: Callable[[Object], None]) -> None:
    given = from_yaml(PASS)
    change(meta.section(given, "spec"))
    await book.create("", given, write)


async def test_a_pass_that_has_ended_can_still_be_suspended(book: Store, write: Write) -> None:
    await book.create("", from_yaml(PASS), write)
    later = replace(write, actor=replace(write.actor, now=write.actor.now + 86400))

    def suspend(obj: Object) -> Object:
        meta.section(obj, "spec")["suspended"] = True
        return obj

    assert meta.section((await book.update("", "dev-read", suspend, later)).obj, "spec")["suspended"] is True


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (rule(resources=["pods/exec"], verbs=["get"]), "are the verb create"),
        (rule(resourceNames=["a"], verbs=["get", "list"]), "list with resourceNames only matches"),
        (rule(resourceNames=["a"], verbs=["get", "create"]), "create has no name yet"),
    ],
)
async def test_rules_that_match_less_than_they_seem_to_are_warned_of(
    book: Store, write: Write, change: Callable[[Object], None], told: str
) -> None:
    given = from_yaml(PASS)
    change(meta.section(given, "spec"))
    assert [warning for warning in (await book.create("", given, write)).warnings if told in warning]


async def test_everything_everywhere_is_warned_of(book: Store, write: Write) -> None:
    given = from_yaml(PASS)
    rule(verbs=["*"], apiGroups=["*"], resources=["*"])(meta.section(given, "spec"))
    put("clusters", {"names": ["*"]})(meta.section(given, "spec"))
    assert [told for told in (await book.create("", given, write)).warnings if "secrets and exec among it" in told]


async def test_likely_mistakes_in_a_pass_are_warned_of(book: Store, write: Write) -> None:
    given = from_yaml(PASS)
    rule(resources=["pod", "deploy/scale"])(meta.section(given, "spec"))
    subject(kind="Group", name="system:authenticated")(meta.section(given, "spec"))
    warnings = (await book.create("", given, write)).warnings
    assert len(warnings) == 3
    assert "everyone who can log in" in warnings[0]
    assert '"pods", not "pod"' in warnings[1]


# Roles

ROLE: Object = {
    "metadata": {"name": "system:a:b"},
    "rules": [{"verbs": ["get"], "apiGroups": [""], "resources": ["x"]}],
}
BINDING: Object = {
    "metadata": {"name": "b"},
    "roleRef": {"kind": "ClusterRole", "name": "r"},
    "subjects": [{"kind": "User", "name": "alice"}, {"kind": "ServiceAccount", "name": "sa", "namespace": "n"}],
}


async def test_bindings_get_their_groups_and_keep_their_role(stores: dict[str, Store], write: Write) -> None:
    store = stores["clusterrolebindings.rbac.authorization.k8s.io"]
    made = (await store.create("", BINDING, write)).obj
    assert meta.section(made, "roleRef")["apiGroup"] == "rbac.authorization.k8s.io"
    assert [column.cell(made, 0) for column in store.strategy.columns] == ["ClusterRole/r", "alice", "", "n/sa"]
    other: Object = {**BINDING, "roleRef": {"kind": "ClusterRole", "name": "cluster-admin"}}
    refused = await refusal(store.update("", "b", lambda _: other, write))
    assert refused.code == 422
    assert "cannot change roleRef" in refused.message
    await store.update("", "b", lambda _: {**BINDING, "subjects": []}, write)


@pytest.mark.parametrize(
    ("kind", "change", "field"),
    [
        ("clusterroles", {"rules": [{"verbs": []}]}, "rules[0].verbs"),
        ("clusterroles", {"rules": [{"verbs": ["get"], "nonResourceURLs": ["a"]}]}, "rules[0].nonResourceURLs[0]"),
        ("clusterroles", {"aggregationRule": {}}, "aggregationRule.clusterRoleSelectors"),
        ("roles", {"rules": [{"verbs": ["get"], "nonResourceURLs": ["/a"]}]}, "rules[0].nonResourceURLs"),
        ("roles", {"metadata": {"name": "a%b"}}, "metadata.name"),
        ("roles", {"metadata": {"name": ".."}}, "metadata.name"),
        ("roles", {"metadata": {"name": "a\nb"}}, "metadata.name"),
        ("clusterrolebindings", {"roleRef": {"kind": "Role", "name": "r"}}, "roleRef.kind"),
        ("clusterrolebindings", {"roleRef": {"kind": "ClusterRole", "name": ""}}, "roleRef.name"),
        ("clusterrolebindings", {"roleRef": {"apiGroup": "x", "kind": "ClusterRole", "name": "r"}}, "roleRef.apiGroup"),
        ("clusterrolebindings", {"subjects": [{"kind": "ServiceAccount", "name": "x"}]}, "subjects[0].namespace"),
        ("rolebindings", {"subjects": [{"kind": "Users", "name": "x"}]}, "subjects[0].kind"),
    ],
)
async def test_bad_roles_and_bindings_are_refused(
    stores: dict[str, Store], write: Write, kind: str, change: Object, field: str
) -> None:
    store = stores[f"{kind}.rbac.authorization.k8s.io"]
    base: Object = BINDING if "bindings" in kind else ROLE
    namespace = "n" if store.strategy.resource.namespaced else ""
    refused = await refusal(store.create(namespace, {**base, **change}, write))
    assert refused.code == 422
    assert field in {cause.field for cause in refused.causes}
    await store.create(namespace, base, write)


# Requests for certificates


def request(common_name: str = "alice", *organizations: str, bits: ec.EllipticCurve | None = None) -> str:
    key = ec.generate_private_key(bits or ec.SECP256R1())
    name = x509.Name(
        [
            *(x509.NameAttribute(NameOID.ORGANIZATION_NAME, organization) for organization in organizations),
            x509.NameAttribute(NameOID.COMMON_NAME, common_name),
        ]
    )
    made = x509.CertificateSigningRequestBuilder().subject_name(name).sign(key, hashes.SHA256())
    return base64.b64encode(made.public_bytes(Encoding.PEM)).decode()


def asking(**spec: JSON) -> Object:
    base: Object = {
        "request": request("alice", "dev"),
        "signerName": "kubernetes.io/kube-apiserver-client",
        "usages": ["client auth"],
    }
    return {
        "metadata": {"name": "alice@example.com"},
        "spec": {k: v for k, v in {**base, **spec}.items() if v is not None},
    }


def deciding(*conditions: Object, certificate: str = "") -> Callable[[Object], Object]:
    def change(obj: Object) -> Object:
        status: Object = {"conditions": [dict(condition) for condition in conditions]}
        return {**obj, "status": {**status, "certificate": certificate} if certificate else status}

    return change


APPROVED: Object = {"type": "Approved", "status": "True", "reason": "ByTest", "message": "go on"}
DENIED: Object = {"type": "Denied", "status": "True"}
REVOKED: Object = {"type": "Revoked", "status": "True"}
NAME = "alice@example.com"


@pytest.fixture
def desk(stores: dict[str, Store]) -> Store:
    return stores["certificatesigningrequests.certificates.k8s.io"]


def issued(now: float) -> str:
    ours = authority.create("test", now)
    asked = authority.parse_request(base64.b64decode(request()))
    return base64.b64encode(authority.issue_client(ours, asked, now, 3600).public_bytes(Encoding.PEM)).decode()


async def test_a_request_is_by_who_made_it(desk: Store, write: Write) -> None:
    forged = asking(username="admin", groups=["onepass:administrators"], uid="0", extra={"a": ["b"]})
    spec = meta.section((await desk.create("", forged, write)).obj, "spec")
    assert "generation" not in meta.section(await desk.get("", NAME), "metadata")
    assert spec["username"] == "alice"
    assert spec["groups"] == ["dev"]
    assert spec["uid"] == "u-1"
    assert spec["extra"] == {"scopes": ["a", "b"]}
    plain = replace(write, actor=Actor(Identity("bob"), write.actor.now))
    given: Object = {**forged, "metadata": {"name": "bob"}}
    spec = meta.section((await desk.create("", given, plain)).obj, "spec")
    assert spec["username"] == "bob"
    assert not {"groups", "uid", "extra"} & set(spec)


@pytest.mark.parametrize(
    ("spec", "field", "told"),
    [
        ({"signerName": "kubernetes.io/kubelet-serving"}, "spec.signerName", "supported values"),
        ({"signerName": None}, "spec.signerName", "Required"),
        ({"usages": None}, "spec.usages", "Required"),
        ({"usages": ["digital signature"]}, "spec.usages", "must contain client auth"),
        ({"usages": ["client auth", "server auth"]}, "spec.usages[1]", "supported values"),
        ({"usages": ["client auth", "client auth"]}, "spec.usages[1]", "Duplicate"),
        ({"expirationSeconds": 599}, "spec.expirationSeconds", "less than 600 seconds"),
        ({"request": "!"}, "spec.request", "PEM in base64"),
        ({"request": "aGk="}, "spec.request", "CERTIFICATE REQUEST"),
        ({"request": request("system:admin")}, "spec.request", "common name must not begin with"),
        ({"request": request("onepass:x")}, "spec.request", "common name must not begin with"),
        ({"request": request("alice", "system:masters")}, "spec.request", "organization must not begin with"),
        ({"request": request("alice", "onepass:administrators")}, "spec.request", "organization must not begin"),
        ({"request": request("al\nice")}, "spec.request", "printable ASCII"),
    ],
)
async def test_bad_requests_are_refused(desk: Store, write: Write, spec: Object, field: str, told: str) -> None:
    refused = await refusal(desk.create("", asking(**spec), write))
    assert refused.code == 422
    assert [cause.field for cause in refused.causes] == [field]
    assert told in refused.message


async def test_a_request_cannot_be_changed(desk: Store, write: Write) -> None:
    given = asking()
    made = (await desk.create("", given, write)).obj
    assert (await desk.update("", NAME, lambda _: given, write)).obj == made
    for change in ({"request": request("bob")}, {"usages": ["client auth", "digital signature"]}):
        refused = await refusal(desk.update("", NAME, lambda _, c=change: asking(**c), write))  # type: ignore[misc]
        assert "a request cannot be changed" in refused.message
    forged = {**made, "spec": {**meta.section(made, "spec"), "username": "admin"}}
    assert (await desk.update("", NAME, lambda _: forged, write)).obj == made


async def test_decisions_come_through_approval_only_and_stay(desk: Store, write: Write) -> None:
    await desk.create("", {**asking(), "status": {"conditions": [APPROVED]}}, write)
    approval, status = replace(write, subresource="approval"), replace(write, subresource="status")
    plain = (await desk.update("", NAME, deciding(APPROVED), write)).obj
    assert "conditions" not in meta.section(plain, "status")
    early = await refusal(desk.update("", NAME, deciding(certificate=issued(write.actor.now)), status))
    assert "must be approved before" in early.message
    approved = (await desk.update("", NAME, deciding(APPROVED), approval)).obj
    moment = "2027-01-15T08:00:00Z"
    timed: Object = {**APPROVED, "lastUpdateTime": moment, "lastTransitionTime": moment}
    assert meta.section(approved, "status")["conditions"] == [timed]
    for bad in ([], [APPROVED, DENIED], [{**APPROVED, "status": "False"}], [APPROVED, APPROVED]):
        assert (await refusal(desk.update("", NAME, deciding(*bad), approval))).code == 422
    sneaky = (await desk.update("", NAME, deciding(APPROVED, certificate="AAAA"), approval)).obj
    assert "certificate" not in meta.section(sneaky, "status")


async def test_a_certificate_comes_once(desk: Store, write: Write) -> None:
    await desk.create("", asking(), write)
    approval, status = replace(write, subresource="approval"), replace(write, subresource="status")
    await desk.update("", NAME, deciding(APPROVED), approval)
    bad = await refusal(desk.update("", NAME, deciding(APPROVED, certificate="AAAA"), status))
    assert "certificates in PEM" in bad.message
    certificate = issued(write.actor.now)
    made = (await desk.update("", NAME, deciding(APPROVED, certificate=certificate), status)).obj
    assert [column.cell(made, 0) for column in desk.strategy.columns] == [
        "<invalid>",  # made after that moment
        "kubernetes.io/kube-apiserver-client",
        "alice",
        "<none>",
        "Approved,Issued",
    ]
    other = await refusal(desk.update("", NAME, deciding(APPROVED, certificate=issued(1.0)), status))
    assert "cannot be changed" in other.message


async def test_a_revocation_outlives_its_request(desk: Store, write: Write) -> None:
    await desk.create("", asking(), write)
    approval, status = replace(write, subresource="approval"), replace(write, subresource="status")
    early = await refusal(desk.update("", NAME, deciding(REVOKED), approval))
    assert "only what was approved can be revoked" in early.message
    await desk.update("", NAME, deciding(APPROVED), approval)
    await desk.update("", NAME, deciding(APPROVED, certificate=issued(write.actor.now)), status)
    await desk.update("", NAME, deciding(APPROVED, REVOKED), approval)
    assert (await refusal(desk.update("", NAME, deciding(APPROVED), approval))).code == 422
    kept = await refusal(desk.delete("", NAME, write))
    assert kept.code == 403
    assert "would be good again without this record" in kept.message
    later = replace(write, actor=replace(write.actor, now=write.actor.now + 3601))
    assert (await desk.delete("", NAME, later))[1]


@pytest.mark.parametrize(
    ("seconds", "told"), [(600, "10m"), (3600, "60m"), (7200, "2h"), (86400, "24h"), (31536000, "365d")]
)
def test_durations_are_told_short(seconds: int, told: str) -> None:
    column = next(c for c in certificatesigningrequests.STRATEGY.columns if c.name == "RequestedDuration")
    assert column.cell({"spec": {"expirationSeconds": seconds}}, 0) == told


# Namespaces, and what is there from the start


async def test_a_namespace_is_labelled_with_its_name(stores: dict[str, Store], write: Write) -> None:
    store = stores["namespaces"]
    made = (await store.create("", {"metadata": {"name": "web"}}, write)).obj
    assert meta.labels(made) == {"kubernetes.io/metadata.name": "web"}
    assert made["status"] == {"phase": "Active"}
    bare = (await store.update("", "web", lambda _: {"metadata": {"name": "web"}}, write)).obj
    assert bare == made
    assert (await refusal(store.create("", {"metadata": {"name": "a.b"}}, write))).code == 422


def test_a_phase_cannot_be_written_but_one_that_is_wrong_holds_up_nothing() -> None:
    def phased(phase: str, **more: JSON) -> Object:
        return {"metadata": {"name": "web", **more}, "status": {"phase": phase}}

    judge, going = namespaces.STRATEGY.validate, "2027-01-15T08:00:00Z"
    assert not judge(phased("Active"), phased("Active"))
    assert [cause.field for cause in judge(phased("Odd"), phased("Active"))] == ["status.Phase"]
    assert not judge(phased("Odd", labels={"a": "b"}), phased("Odd"))
    assert not judge(phased("Terminating", deletionTimestamp=going), phased("Active"))
    assert judge(phased("Active", deletionTimestamp=going), phased("Terminating"))


async def test_some_namespaces_stay(stores: dict[str, Store], write: Write) -> None:
    await defaults.ensure(stores, write.actor)
    for name in ("default", "kube-system"):
        refused = await refusal(stores["namespaces"].delete("", name, write))
        assert (refused.code, refused.message) == (
            403,
            f'namespaces "{name}" is forbidden: this namespace may not be deleted',
        )


async def test_a_deleted_namespace_is_swept(stores: dict[str, Store], write: Write) -> None:
    accounts, spaces = stores["serviceaccounts"], stores["namespaces"]
    for name in ("kept", "gone"):
        await spaces.create("", {"metadata": {"name": name}}, write)
        await accounts.create(name, {"metadata": {"name": "bot"}}, write)
    await spaces.delete("", "gone", write)
    assert await namespaces.sweep(spaces, list(stores.values()), write.actor) == 1
    left = (await accounts.list("", selection.EVERYTHING)).items
    assert [meta.namespace(obj) for obj in left] == ["kept"]
    assert await namespaces.sweep(spaces, list(stores.values()), write.actor) == 0


async def test_defaults_are_made_once_and_restored(stores: dict[str, Store], storage: Storage, write: Write) -> None:
    await defaults.ensure(stores, write.actor)
    before = await storage.revision()
    await defaults.ensure(stores, write.actor)
    assert await storage.revision() == before
    bindings = stores["clusterrolebindings.rbac.authorization.k8s.io"]
    extra: Object = {"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": "root"}
    await bindings.update("", "cluster-admin", lambda obj: {**obj, "subjects": [extra]}, write)
    await defaults.ensure(stores, write.actor)
    told = json.dumps((await bindings.get("", "cluster-admin"))["subjects"])
    assert "onepass:administrators" in told
    assert "root" in told


async def test_defaults_that_an_administrator_took_over_stay(stores: dict[str, Store], write: Write) -> None:
    await defaults.ensure(stores, write.actor)
    roles = stores["clusterroles.rbac.authorization.k8s.io"]

    def take_over(obj: Object) -> Object:
        meta.section(meta.section(obj, "metadata"), "annotations")["rbac.authorization.kubernetes.io/autoupdate"] = (
            "false"
        )
        return {**obj, "rules": []}

    mine = (await roles.update("", "system:discovery", take_over, write)).obj
    await defaults.ensure(stores, write.actor)
    assert await roles.get("", "system:discovery") == mine


async def test_a_default_binding_of_another_role_is_made_anew(stores: dict[str, Store], write: Write) -> None:
    await defaults.ensure(stores, write.actor)
    bindings = stores["clusterrolebindings.rbac.authorization.k8s.io"]
    await bindings.delete("", "system:discovery", write)
    reference: JSON = {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "cluster-admin"}
    await bindings.create("", {"metadata": {"name": "system:discovery"}, "roleRef": reference}, write)
    await defaults.ensure(stores, write.actor)
    restored = await bindings.get("", "system:discovery")
    assert meta.text(meta.section(restored, "roleRef"), "name") == "system:discovery"


async def test_aggregated_defaults_get_their_labels_and_selectors_back(stores: dict[str, Store], write: Write) -> None:
    await defaults.ensure(stores, write.actor)
    roles = stores["clusterroles.rbac.authorization.k8s.io"]
    before = await roles.get("", "view")
    mine: Object = {"clusterRoleSelectors": [{"matchLabels": {"mine": "yes"}}]}

    def change(obj: Object) -> Object:
        return {**obj, "metadata": {"name": "view", "labels": {"mine": "too"}}, "aggregationRule": mine}

    await roles.update("", "view", change, write)
    await defaults.ensure(stores, write.actor)
    after = await roles.get("", "view")
    assert meta.labels(after) == meta.labels(before) | {"mine": "too"}
    selectors = meta.section(after, "aggregationRule")["clusterRoleSelectors"]
    assert selectors == [
        *mine["clusterRoleSelectors"],
        *meta.section(before, "aggregationRule")["clusterRoleSelectors"],
    ]  # type: ignore[misc]


def test_nobody_unauthenticated_is_given_anything() -> None:
    given = json.dumps([obj for strategy, obj in defaults.OBJECTS if strategy is rbac.CLUSTER_ROLE_BINDINGS])
    assert "system:unauthenticated" not in given
    assert "system:anonymous" not in given


async def test_a_label_without_a_value_does_not_open_every_cluster(stores: dict[str, Store]) -> None:
    """`matchLabels: {env: }` in YAML. A map of strings has the empty string there, as kube-apiserver reads it."""
    text = """
    apiVersion: access.karpor.io/v1beta1
    kind: Pass
    metadata: {name: typo}
    spec:
      subjects: [{kind: User, name: alice}]
      clusters: {selector: {matchLabels: {env: }}}
      rules: [{apiGroups: [""], resources: [pods], verbs: [get]}]
    """
    write = Write(Actor(Identity("admin"), 1_700_000_000.0))
    written = await stores[passes.RESOURCE.key].create("", from_yaml(text), write)
    assert meta.section(written.obj, "spec")["clusters"] == {"selector": {"matchLabels": {"env": ""}}}


async def test_no_metadata_keeps_the_server_from_others(stores: dict[str, Store]) -> None:
    """What one write costs must not grow with the square of a list that a client may make as long as it likes."""
    store, write = stores["namespaces"], Write(Actor(Identity("admin"), 1_700_000_000.0))
    finalizers: list[JSON] = [f"example.com/f{number}" for number in range(10_000)]
    entry: Object = {"operation": "Update", "apiVersion": "v1", "fieldsType": "FieldsV1"}
    managed: list[JSON] = [
        {**entry, "manager": f"m{n}", "fieldsV1": {"f:spec": {f"f:x{n}": {}}}} for n in range(10_000)
    ]
    began = time.process_time()
    await store.create("", {"metadata": {"name": "long", "finalizers": finalizers}}, write)
    changes: list[Object] = [{"labels": {"a": "b"}}, {"managedFields": managed}]
    for change in changes:

        def changed(old: Object, said: Object = change) -> Object:
            return {**old, "metadata": {**meta.section(old, "metadata"), **said}}

        await store.update("", "long", changed, write)
    assert time.process_time() - began < 5
