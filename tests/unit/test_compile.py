"""Objects as a policy: what each kind says, what cannot be read, and that order and memory do not matter."""

import base64
import random

import pytest
import trustme
from cryptography import x509

from onepass.access import compile as compiler
from onepass.access import rules
from onepass.access.attributes import Attributes
from onepass.access.compile import Compiler
from onepass.access.identity import Identity
from onepass.access.policy import Policy, Rule, Target
from onepass.api.meta import JSON, Object

RBAC = "rbac.authorization.k8s.io"
PASSES, CLUSTERS, CSRS = (
    "passes.access.karpor.io",
    "clusters.cluster.karpor.io",
    "certificatesigningrequests.certificates.k8s.io",
)


def named(name: str, namespace: str = "", labels: dict[str, JSON] | None = None, **rest: JSON) -> Object:
    metadata: Object = {"name": name, "labels": dict(labels or {})}
    if namespace:
        metadata["namespace"] = namespace
    return {"metadata": metadata, **rest}


def cluster(
    name: str, labels: dict[str, JSON] | None = None, endpoint: str = "https://h:6443", **access: JSON
) -> Object:
    return named(name, labels=labels, spec={"access": {"endpoint": endpoint, **access}})


READ: Object = {"verbs": ["get"], "apiGroups": [""], "resources": ["pods"]}
READING = (Rule(frozenset({"get"}), frozenset({""}), frozenset({"pods"})),)
BOB: Object = {"kind": "User", "name": "bob"}


def a_pass(name: str, **spec: JSON) -> Object:
    default: Object = {"subjects": [BOB], "clusters": {"names": ["prod"]}, "rules": [READ]}
    return named(name, spec=default | spec)


def of(*passes: Object, clusters: tuple[Object, ...] = ()) -> Policy:
    return compiler.compile({PASSES: passes, CLUSTERS: clusters})


def test_a_pass_becomes_a_grant_of_its_subjects() -> None:
    subjects: list[JSON] = [
        BOB,
        {"kind": "Group", "name": "dev"},
        {"kind": "ServiceAccount", "name": "robot", "namespace": "ci"},
    ]
    policy = of(
        a_pass(
            "p",
            subjects=subjects,
            identity={"mode": "Impersonate"},
            notBefore="2026-01-01T00:00:00.5Z",
            notAfter="2026-01-01T02:00:00.5+01:00",
        )
    )
    (grant,) = policy.grants
    assert (grant.origin, grant.rules, grant.clusters) == ("p", READING, frozenset({"prod"}))
    assert grant.mode == "Impersonate"
    assert (grant.not_before, grant.not_after) == (1767225601, 1767229200)
    assert policy.granted.users == {"bob": (0,), "system:serviceaccount:ci:robot": (0,)}
    assert policy.granted.groups == {"dev": (0,)}


def test_a_rule_keeps_every_field() -> None:
    rule: Object = {
        "verbs": ["get"], "apiGroups": ["apps"], "resources": ["deployments"], "resourceNames": ["web"],
        "namespaces": ["dev"], "nonResourceURLs": ["/z", "/a"],
    }  # fmt: skip
    (grant,) = of(a_pass("p", rules=[rule])).grants
    verbs, groups, resources, names, namespaces = (
        frozenset({value}) for value in ("get", "apps", "deployments", "web", "dev")
    )
    assert grant.rules == (Rule(verbs, groups, resources, names, namespaces, ("/a", "/z")),)


@pytest.mark.parametrize(
    "spec",
    [
        {"suspended": True},
        {"suspended": "no"},
        {"subjects": []},
        {"subjects": [{"kind": "Robot", "name": "x"}]},
        {"subjects": [{"kind": "User"}]},
        {"subjects": [{"kind": "ServiceAccount", "name": "x"}]},
        {"subjects": "bob"},
        {"subjects": [BOB, 7]},
        {"rules": []},
        {"rules": [{"verbs": "get"}]},
        {"rules": [{"verbs": ["get", 7]}]},
        {"rules": {"verbs": ["get"]}},
        {"clusters": {}},
        {"clusters": {"names": []}},
        {"clusters": {"selector": "prod"}},
        {"clusters": {"selector": {"matchLabels": {"a": 7}}}},
        {"clusters": {"selector": {"matchExpressions": [{"key": "a", "operator": "Near"}]}}},
        {"clusters": {"selector": {"matchExpressions": {"key": "a"}}}},
        {"clusters": {"selector": {"matchExpressions": ["a"]}}},
        {"identity": {"mode": "Root"}},
        {"notBefore": "soon"},
        {"notAfter": "2026-01-01T00:00:00"},
        {"notAfter": 7},
        {"notAfter": ""},
    ],
)
def test_a_pass_that_is_suspended_or_cannot_be_read_grants_nothing_and_harms_none(spec: Object) -> None:
    policy = of(a_pass("bad", **spec), a_pass("good"), clusters=(cluster("prod", {"a": "7"}),))
    assert [grant.origin for grant in policy.grants] == ["good"]
    assert policy.granted.users == {"bob": (0,)}


def test_a_pass_that_is_being_deleted_grants_nothing() -> None:
    going = a_pass("p")
    going["metadata"] = {"name": "p", "deletionTimestamp": "2026-01-01T00:00:00Z"}
    assert of(going).grants == ()


@pytest.mark.parametrize(
    ("selector", "chosen"),
    [
        ({}, {"*"}),
        ({"matchLabels": {}}, {"*"}),
        ({"matchLabels": {"env": "prod"}}, {"a", "b"}),
        ({"matchLabels": {"env": "prod", "zone": "1"}}, {"a"}),
        ({"matchExpressions": [{"key": "env", "operator": "In", "values": ["prod", "test"]}]}, {"a", "b", "c"}),
        ({"matchExpressions": [{"key": "env", "operator": "NotIn", "values": ["prod"]}]}, {"c", "d"}),
        ({"matchExpressions": [{"key": "zone", "operator": "Exists"}]}, {"a", "c"}),
        ({"matchExpressions": [{"key": "env", "operator": "DoesNotExist"}]}, {"d"}),
        (
            {
                "matchLabels": {"zone": "1"},
                "matchExpressions": [{"key": "env", "operator": "NotIn", "values": ["prod"]}],
            },
            {"c"},
        ),
    ],
)
def test_a_selector_chooses_clusters_by_label(selector: Object, chosen: set[str]) -> None:
    clusters = (
        cluster("a", {"env": "prod", "zone": "1"}),
        cluster("b", {"env": "prod"}),
        cluster("c", {"env": "test", "zone": "1"}),
        cluster("d"),
    )
    (grant,) = of(a_pass("p", clusters={"selector": selector}), clusters=clusters).grants
    assert grant.clusters == chosen
    (both,) = of(a_pass("p", clusters={"selector": selector, "names": ["x"]}), clusters=clusters).grants
    assert both.clusters == chosen | {"x"}


@pytest.mark.parametrize(
    ("endpoint", "authority", "prefix"),
    [
        ("https://h", "h", ""),
        ("https://h:6443/", "h:6443", ""),
        ("https://h/k8s/clusters/c-1/", "h", "/k8s/clusters/c-1"),
        ("https://[2001:db8::1]:6443", "[2001:db8::1]:6443", ""),
        ("https://10.0.0.1", "10.0.0.1", ""),
    ],
)
def test_a_cluster_becomes_a_target(endpoint: str, authority: str, prefix: str) -> None:
    assert of(clusters=(cluster("c", endpoint=endpoint),)).targets == {"c": Target("c", authority, prefix, "Gateway")}
    impersonating = cluster("c", endpoint=endpoint, identity="Impersonate")
    assert of(clusters=(impersonating,)).targets["c"].mode == "Impersonate"


@pytest.mark.parametrize(
    "bad",
    [
        cluster("bad", endpoint=endpoint)
        for endpoint in (
            "", "http://h", "https://", "https://u:p@h", "https://h x", "https://h:port", "https://[::1",
            "https://h/a b", "h:1",
        )
    ]
    + [cluster("bad", identity="Root"), named("bad"), named("bad", spec={"access": []})],
)  # fmt: skip
def test_a_cluster_that_cannot_be_read_is_no_target(bad: Object) -> None:
    assert set(of(clusters=(bad, cluster("good"))).targets) == {"good"}


def role(name: str, *given: Object, namespace: str = "", labels: dict[str, JSON] | None = None, **rest: JSON) -> Object:
    return named(name, namespace, labels, rules=list(given), **rest)


def binding(name: str, kind: str, to: str, *subjects: JSON, namespace: str = "") -> Object:
    return named(
        name, namespace, subjects=list(subjects or (BOB,)), roleRef={"apiGroup": RBAC, "kind": kind, "name": to}
    )


def test_bindings_bring_roles_to_subjects() -> None:
    write: Object = {"verbs": ["update"], "apiGroups": [""], "resources": ["pods"]}
    policy = compiler.compile(
        {
            f"clusterroles.{RBAC}": [role("reader", READ)],
            f"roles.{RBAC}": [role("writer", write, namespace="a")],
            f"clusterrolebindings.{RBAC}": [
                binding("all", "ClusterRole", "reader", {"kind": "Group", "name": "dev"}),
                binding("dangling", "ClusterRole", "none"),
                binding("wrong", "Role", "writer"),
            ],
            f"rolebindings.{RBAC}": [
                binding("w", "Role", "writer", {"kind": "ServiceAccount", "name": "robot"}, namespace="a"),
                binding("r", "ClusterRole", "reader", namespace="b"),
                binding("elsewhere", "Role", "writer", namespace="b"),
            ],
        }
    )
    assert [(each.origin, each.namespace) for each in policy.bindings] == [
        ("ClusterRoleBinding/all", ""), ("RoleBinding/a/w", "a"), ("RoleBinding/b/r", "b"),
    ]  # fmt: skip
    assert policy.bound.groups == {"dev": (0,)}
    assert policy.bound.users == {"bob": (2,), "system:serviceaccount:a:robot": (1,)}
    get = Attributes("get", "", True, "", "v1", "pods", "", "b", "x")
    assert rules.allows(policy, Identity("bob"), get).allowed


def test_aggregated_roles_have_the_rules_of_what_they_select_and_not_their_own() -> None:
    def aggregated(name: str, label: str, labels: dict[str, JSON] | None = None) -> Object:
        selectors: Object = {"clusterRoleSelectors": [{"matchLabels": {label: "true"}}]}
        stale: Object = {"verbs": ["*"], "apiGroups": ["*"], "resources": ["*"]}
        return role(name, stale, labels=labels, aggregationRule=selectors)

    def of_roles(*roles: Object) -> dict[str, frozenset[str]]:
        bindings = [binding(str(index), "ClusterRole", name) for index, name in enumerate(("admin", "edit", "loop"))]
        policy = compiler.compile({f"clusterroles.{RBAC}": roles, f"clusterrolebindings.{RBAC}": bindings})
        return {
            each.origin.partition("/")[2]: frozenset(verb for rule in each.rules for verb in rule.verbs)
            for each in policy.bindings
        }

    found = of_roles(
        aggregated("admin", "to-admin"),
        aggregated("edit", "to-edit", {"to-admin": "true"}),
        aggregated("loop", "to-loop", {"to-loop": "true", "to-edit": "true"}),
        role("part", {"verbs": ["get"]}, labels={"to-edit": "true"}),
        role("more", {"verbs": ["list"]}, labels={"to-admin": "true", "to-loop": "true"}),
        role("other", {"verbs": ["delete"]}),
        role("broken", {"verbs": "all"}, labels={"to-edit": "true"}),
    )
    assert found == {"0": {"get", "list"}, "1": {"get", "list"}, "2": {"list"}}
    assert of_roles(role("admin", READ, aggregationRule={"clusterRoleSelectors": "all"})) == {}


def test_service_accounts_are_known_by_uid() -> None:
    account: Object = {"metadata": {"name": "robot", "namespace": "ci", "uid": "u-1"}}
    assert compiler.compile({"serviceaccounts": [account]}).accounts == {"system:serviceaccount:ci:robot": "u-1"}


def test_a_service_account_that_is_being_deleted_is_gone() -> None:
    metadata: Object = {"name": "robot", "namespace": "ci", "uid": "u-1", "finalizers": ["example.com/stay"]}
    dying: Object = {"metadata": metadata | {"deletionTimestamp": "2026-01-01T00:00:00Z"}}
    assert compiler.compile({"serviceaccounts": [dying]}).accounts == {}


def test_only_certificates_taken_back_are_revoked() -> None:
    pem = trustme.CA().issue_cert("bob.example").cert_chain_pems[0].bytes()
    serial = f"{x509.load_pem_x509_certificate(pem).serial_number:x}"
    encoded = base64.b64encode(pem).decode()

    def csr(name: str, *conditions: JSON, certificate: str = encoded) -> Object:
        return named(name, status={"certificate": certificate, "conditions": list(conditions)})

    revoked: Object = {"type": "Revoked", "status": "True"}
    approved: Object = {"type": "Approved", "status": "True"}
    broken = csr("c", revoked, certificate="bm8="), csr("d", revoked, certificate=""), csr("e", "Revoked"), named("f")
    assert compiler.compile({CSRS: [csr("a", approved)]}).revoked == frozenset()
    assert compiler.compile({CSRS: [csr("a", {"type": "Revoked", "status": "False"})]}).revoked == frozenset()
    assert compiler.compile({CSRS: [*broken, csr("a", approved, revoked)]}).revoked == {serial}


def test_the_order_of_objects_and_what_was_compiled_before_change_nothing() -> None:
    clusters = [cluster(f"c{number}", {"n": str(number % 3)}) for number in range(9)]
    passes = [
        a_pass(f"p{number}", clusters={"selector": {"matchLabels": {"n": str(number % 3)}}}, suspended=number == 4)
        for number in range(9)
    ]
    expected = compiler.compile({CLUSTERS: clusters, PASSES: passes})
    memory = Compiler()
    for seed in range(4):
        shuffled = random.Random(seed)
        shuffled.shuffle(clusters)
        shuffled.shuffle(passes)
        assert memory.compile({CLUSTERS: clusters, PASSES: passes}) == expected
    fewer = {CLUSTERS: clusters[1:], PASSES: [*passes[1:], a_pass("new")]}
    assert memory.compile(fewer) == compiler.compile(fewer)
    assert memory.compile({CLUSTERS: clusters, PASSES: passes}) == expected
