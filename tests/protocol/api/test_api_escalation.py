"""Nobody gives away what they do not hold: by roles, bindings, aggregation, passes, or the labels of clusters."""

from datetime import UTC, datetime

import pytest
from tests.protocol.api.conftest import NOW, Api
from tests.protocol.api.test_api_access import CLUSTERS, RBAC, allow, rule

from onepass.api.meta import JSON, Object

PASSES = "/apis/access.karpor.io/v1beta1/passes"
GROUP = "rbac.authorization.k8s.io"
MERGE = {"content-type": "application/merge-patch+json"}
ROLES, BINDINGS = f"{RBAC}/clusterroles", f"{RBAC}/clusterrolebindings"
NARROW_ROLES = f"{RBAC}/namespaces/default/roles"
NARROW_BINDINGS = f"{RBAC}/namespaces/default/rolebindings"
WRITES = ("get", "list", "create", "update", "patch")

LISTING = rule("cluster.karpor.io", "clusters", "get", "list")
PODS = rule("", "pods", "get", "list")


def writing(*more: Object) -> tuple[Object, ...]:
    """Rules of one who may write every kind that gives rights, without `escalate` and `bind`."""
    rbac: Object = {"apiGroups": [GROUP], "resources": ["*"], "verbs": [*WRITES]}
    return rbac, rule("access.karpor.io", "passes", *WRITES), rule("cluster.karpor.io", "clusters", *WRITES), *more


def role(*rules: JSON, name: str = "new", **more: JSON) -> Object:
    return {"metadata": {"name": name}, "rules": [*rules], **more}


def binding(to: str, kind: str = "ClusterRole", user: str = "carol") -> Object:
    return {
        "metadata": {"name": "new"},
        "roleRef": {"apiGroup": GROUP, "kind": kind, "name": to},
        "subjects": [{"apiGroup": GROUP, "kind": "User", "name": user}],
    }


def moment(seconds: float) -> str:
    return datetime.fromtimestamp(NOW + seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def spec(*rules: JSON, subject: str = "carol", **more: JSON) -> Object:
    told: Object = {
        "subjects": [{"apiGroup": GROUP, "kind": "User", "name": subject}],
        "clusters": {"names": ["prod"]},
        "rules": [*rules] or [PODS],
    }
    return told | more


def a_pass(*rules: JSON, name: str = "new", subject: str = "carol", **more: JSON) -> Object:
    return {"metadata": {"name": name}, "spec": spec(*rules) | {"subjects": spec(subject=subject)["subjects"]} | more}


GIVEN: list[tuple[str, Object, int]] = [
    (ROLES, role(LISTING), 201),
    (ROLES, role(rule("cluster.karpor.io", "clusters", "list", names=("a",))), 201),
    (ROLES, role(rule("cluster.karpor.io", "clusters", "delete")), 403),
    (ROLES, role(rule("cluster.karpor.io", "clusters", "*")), 403),
    (ROLES, role(rule("cluster.karpor.io", "*", "get")), 403),
    (ROLES, role(rule("*", "clusters", "get")), 403),
    (ROLES, role(rule("cluster.karpor.io", "clusters/proxy", "get")), 403),
    (ROLES, role(rule("", "users", "impersonate")), 403),
    (ROLES, role(rule(GROUP, "clusterroles", "escalate")), 403),
    (ROLES, role(rule(GROUP, "clusterroles", "bind")), 403),
    (ROLES, role({"nonResourceURLs": ["/metrics"], "verbs": ["get"]}), 403),
    (ROLES, role({"nonResourceURLs": ["*"], "verbs": ["get"]}), 403),
    (ROLES, role({"nonResourceURLs": ["/apis/*", "/version"], "verbs": ["get"]}), 201),
    (ROLES, role(aggregationRule={"clusterRoleSelectors": [{"matchLabels": {"a": "b"}}]}), 403),
    (NARROW_ROLES, role(rule("", "serviceaccounts", "get")), 403),
    (NARROW_ROLES, role(LISTING), 201),
    (BINDINGS, binding("cluster-admin"), 403),
    (BINDINGS, binding("system:discovery"), 201),
    (BINDINGS, binding("nothing"), 404),
    (NARROW_BINDINGS, binding("cluster-admin"), 403),
    (NARROW_BINDINGS, binding("nothing", "Role"), 404),
    (NARROW_BINDINGS, binding("system:basic-user"), 201),
]


async def test_rbac_gives_only_what_its_author_holds(api: Api) -> None:
    await allow(api, "bob", *writing(LISTING))
    for number, (path, body, code) in enumerate(GIVEN):
        named: Object = {**body, "metadata": {"name": f"new-{number}"}}
        answer = await api.send("POST", path, named, user="bob")
        assert answer.status_code == code, (body, answer.text)
        if code == 403:
            assert "not currently held:\n{" in answer.json()["message"]
            # An administrator may: it is not the object that is wrong.
            assert (await api.send("POST", path, named)).status_code == 201


async def test_what_is_lacking_is_told_as_kubernetes_does(api: Api) -> None:
    await allow(api, "bob", *writing(LISTING))
    secrets: Object = {"apiGroups": [""], "resources": ["secrets"], "verbs": ["watch", "get"]}
    answer = await api.send("POST", ROLES, {"metadata": {"name": "more"}, "rules": [secrets]}, user="bob")
    assert answer.json()["message"].endswith(
        'user "bob" (groups=["system:authenticated"]) is attempting to grant RBAC permissions not currently held:\n'
        '{APIGroups:[""], Resources:["secrets"], Verbs:["get" "watch"]}'
    )


async def test_escalate_and_bind_lift_the_check_for_what_they_name(api: Api) -> None:
    await allow(api, "bob", *writing(rule(GROUP, "clusterroles", "bind", names=("cluster-admin",))))
    await allow(api, "eve", *writing(rule(GROUP, "clusterroles", "escalate", names=("new",))), name="eves")
    everything = rule("*", "*", "*")
    assert (await api.send("POST", BINDINGS, binding("cluster-admin", user="carol"), user="bob")).status_code == 201
    assert (await api.send("POST", NARROW_BINDINGS, binding("onepass:cluster-user"), user="bob")).status_code == 403
    assert (await api.send("POST", ROLES, role(everything), user="bob")).status_code == 403
    assert (await api.send("POST", ROLES, role(everything), user="eve")).status_code == 201
    assert (await api.send("POST", ROLES, role(everything, name="other"), user="eve")).status_code == 403
    mine = binding("new", user="eve") | {"metadata": {"name": "mine"}}
    assert (await api.send("POST", BINDINGS, mine, user="eve")).status_code == 403


@pytest.mark.parametrize(
    ("path", "change", "code"),
    [
        (f"{ROLES}/granted", {"rules": [rule("*", "*", "*")]}, 403),
        (f"{ROLES}/onepass:cluster-user", {"metadata": {"labels": {"gathered": "yes"}}}, 403),
        (f"{ROLES}/onepass:cluster-user", {"metadata": {"ownerReferences": []}}, 200),
        (f"{ROLES}/system:discovery", {"metadata": {"labels": {"gathered": "yes"}}}, 200),
        (f"{ROLES}/gathering", {"aggregationRule": None}, 403),
        (f"{BINDINGS}/granted", {"roleRef": {"name": "cluster-admin"}}, 403),
        (f"{BINDINGS}/cluster-admin", {"subjects": binding("x")["subjects"]}, 403),
        (f"{BINDINGS}/granted", {"metadata": {"labels": {"a": "b"}}}, 200),
    ],
)
async def test_changes_of_rbac_give_no_more_either(api: Api, path: str, change: Object, code: int) -> None:
    await allow(api, "bob", *writing(LISTING))
    gathering: JSON = {"clusterRoleSelectors": [{"matchLabels": {"gathered": "yes"}}]}
    await api.make(ROLES, role(name="gathering", aggregationRule=gathering))
    answer = await api.send("PATCH", path, change, user="bob", headers=MERGE)
    assert answer.status_code == code, answer.text


async def test_a_role_that_is_bound_stays_the_one_it_was_for_administrators_too(api: Api) -> None:
    await allow(api, "bob", LISTING)
    change: Object = {"roleRef": {"name": "cluster-admin"}}
    answer = await api.send("PATCH", f"{BINDINGS}/granted", change, headers=MERGE)
    assert (answer.status_code, answer.json()["details"]["causes"][0]["field"]) == (422, "roleRef")


async def test_what_is_aggregated_must_be_held_to_be_bound(api: Api) -> None:
    await allow(api, "bob", *writing(LISTING))
    gathering: JSON = {"clusterRoleSelectors": [{"matchLabels": {"gathered": "yes"}}]}
    await api.make(ROLES, role(name="gathering", aggregationRule=gathering))
    part = role(rule("*", "*", "*"), name="part")
    part["metadata"] = {"name": "part", "labels": {"gathered": "yes"}}
    await api.make(ROLES, part)
    assert (await api.send("POST", BINDINGS, binding("gathering"), user="bob")).status_code == 403


@pytest.fixture
async def delegate(api: Api) -> Api:
    """Bob may write passes; he may read dev by RBAC on clusters/proxy, and do more by passes of his own."""
    access: JSON = {"endpoint": "https://member.example:6443"}
    for name, env in (("prod", "prod"), ("dev", "dev")):
        await api.make(CLUSTERS, {"metadata": {"name": name, "labels": {"env": env}}, "spec": {"access": access}})
    await allow(api, "bob", *writing(rule("cluster.karpor.io", "clusters/proxy", "get", names=("dev",))))
    held = rule("", "pods", "get", "list", "create")
    logs = rule("", "*/log", "get")
    default: Object = {**rule("apps", "deployments", "*"), "namespaces": ["web"]}
    paths: Object = {"nonResourceURLs": ["/metrics/*"], "verbs": ["get"]}
    await api.make(PASSES, a_pass(held, logs, default, paths, name="bobs", subject="bob", notAfter=moment(1000)))
    shown: JSON = {"mode": "Impersonate"}
    await api.make(PASSES, a_pass(rule("", "nodes", "get"), name="shown", subject="bob", identity=shown))
    chosen: JSON = {"selector": {"matchLabels": {"env": "dev"}}}
    await api.make(PASSES, a_pass(rule("", "events", "list"), name="selected", subject="bob", clusters=chosen))
    return api


SOON: Object = {"notAfter": moment(900)}
DEV: Object = {"clusters": {"names": ["dev"]}}


SPECS: list[tuple[Object, bool]] = [
    (spec(PODS) | SOON, True),
    (spec(PODS, notAfter=moment(1000), notBefore=moment(10)), True),
    (spec(PODS, notAfter=moment(1001)), False),
    (spec(PODS), False),
    (spec(rule("", "pods", "get", names=("web",))) | SOON, True),
    (spec(rule("", "pods", "delete")) | SOON, False),
    (spec(rule("", "pods", "*")) | SOON, False),
    (spec(rule("", "secrets", "get")) | SOON, False),
    (spec(rule("", "pods/log", "get")) | SOON, True),
    (spec(rule("", "pods/exec", "create")) | SOON, False),
    (spec({**rule("apps", "deployments", "delete"), "namespaces": ["web"]}) | SOON, True),
    (spec({**rule("apps", "deployments", "delete"), "namespaces": ["web", "db"]}) | SOON, False),
    (spec({**rule("apps", "deployments", "delete"), "namespaces": ["*"]}) | SOON, False),
    (spec(rule("apps", "deployments", "get")) | SOON, False),
    (spec({"nonResourceURLs": ["/metrics/cadvisor", "/version"], "verbs": ["get"]}) | SOON, True),
    (spec({"nonResourceURLs": ["/metrics*"], "verbs": ["get"]}) | SOON, False),
    (spec(rule("", "users", "impersonate")) | SOON, False),
    (spec(rule("", "nodes", "get"), identity={"mode": "Impersonate"}), True),
    (spec(rule("", "nodes", "get")), False),
    (spec(rule("", "nodes", "get")) | DEV, True),
    (spec(rule("", "nodes", "list"), {"nonResourceURLs": ["/x"], "verbs": ["get", "head"]}) | DEV, True),
    (spec(rule("", "nodes", "create")) | DEV, False),
    (spec(PODS, clusters={"names": ["prod", "dev", "absent"]}) | SOON, False),
    (spec(PODS, clusters={"names": ["*"]}) | SOON, False),
    (spec(PODS, clusters={"selector": {}}) | SOON, False),
    (spec(PODS, clusters={"selector": {"matchLabels": {"env": "prod"}}}) | SOON, False),
    (spec(PODS, clusters={"selector": {"matchLabels": {"env": "future"}}}) | SOON, False),
    (spec(rule("", "events", "list"), clusters={"selector": {"matchLabels": {"env": "dev"}}}), True),
    (spec(rule("", "events", "list"), clusters={"selector": {"matchLabels": {"env": "dev", "a": "b"}}}), True),
    (spec(rule("", "events", "list"), clusters={"selector": {"matchLabels": {"a": "b"}}}), False),
    (spec(PODS, suspended=True), False),
]


async def test_a_pass_gives_only_what_its_author_holds_there_for_as_long(delegate: Api) -> None:
    for number, (given, allowed) in enumerate(SPECS):
        body: Object = {"metadata": {"name": f"new-{number}"}, "spec": given}
        answer = await delegate.send("POST", PASSES, body, user="bob")
        assert answer.status_code == (201 if allowed else 403), (given, answer.text)
        if not allowed:
            assert "what they do not hold on " in answer.json()["message"]


CHANGES: list[tuple[Object, bool]] = [
    ({"suspended": True}, True),
    ({"notAfter": moment(10)}, True),
    ({"notBefore": moment(10)}, True),
    ({"rules": [rule("", "secrets", "get")]}, True),
    ({"rules": [{**rule("", "secrets", "get"), "namespaces": ["a"]}]}, True),
    ({"identity": {"mode": "Impersonate"}}, True),
    ({"clusters": {"names": ["prod"]}}, True),
    ({"subjects": spec()["subjects"]}, True),
    ({"subjects": spec(subject="bob")["subjects"]}, False),
    ({"clusters": {"names": ["prod", "dev", "test"]}}, False),
    ({"clusters": {"names": None, "selector": {}}}, False),
    ({"rules": [rule("", "secrets", "get", "delete")]}, False),
    ({"notAfter": None}, False),
    ({"notAfter": moment(3000)}, False),
]


async def test_who_does_not_hold_a_pass_may_narrow_it_and_no_more(delegate: Api) -> None:
    secrets = rule("", "secrets", "get", "list")
    where: JSON = {"names": ["prod", "dev"]}
    for number, (change, allowed) in enumerate(CHANGES):
        name = f"wide-{number}"
        await delegate.make(PASSES, a_pass(secrets, name=name, clusters=where, notAfter=moment(2000)))
        answer = await delegate.send("PATCH", f"{PASSES}/{name}", {"spec": change}, user="bob", headers=MERGE)
        assert answer.status_code == (200 if allowed else 403), (change, answer.text)


async def test_waking_a_pass_is_giving_it_and_escalate_allows_it(delegate: Api) -> None:
    await delegate.make(PASSES, a_pass(rule("", "secrets", "get"), name="asleep", suspended=True))
    wake: Object = {"spec": {"suspended": False}}
    for user, code in (("bob", 403), ("eve", 200)):
        if user == "eve":
            await allow(delegate, "eve", rule("access.karpor.io", "passes", "patch", "escalate"), name="eves")
        answer = await delegate.send("PATCH", f"{PASSES}/asleep", wake, user=user, headers=MERGE)
        assert answer.status_code == code, answer.text


@pytest.mark.parametrize(
    ("change", "allowed"),
    [
        ({"labels": {"env": "dev", "team": "a"}}, True),
        ({"labels": {"env": None}}, True),
        ({"labels": {"tier": "gold"}}, False),
        ({"labels": {"tier": "iron"}}, True),
        ({"annotations": {"tier": "gold"}}, True),
    ],
)
async def test_labels_open_a_cluster_only_to_what_their_author_holds(
    delegate: Api, change: Object, allowed: bool
) -> None:
    # Neither pass chooses any cluster yet.
    for tier, verb in (("gold", "create"), ("iron", "list")):
        where: JSON = {"selector": {"matchLabels": {"tier": tier}}}
        await delegate.make(PASSES, a_pass(rule("", "secrets", verb), name=tier, clusters=where))
    answer = await delegate.send("PATCH", f"{CLUSTERS}/dev", {"metadata": change}, user="bob", headers=MERGE)
    expected = allowed or 'pass "gold"' in answer.json()["message"]
    assert (answer.status_code, expected) == (200 if allowed else 403, True), answer.text


async def test_only_who_may_do_everything_there_lets_a_cluster_see_the_gateway_instead_of_users(delegate: Api) -> None:
    shown: Object = {"spec": {"access": {"identity": "Impersonate"}}}
    plain: Object = {"spec": {"access": {"identity": "Gateway"}}}
    path = f"{CLUSTERS}/prod"
    assert (await delegate.send("PATCH", path, shown, user="bob", headers=MERGE)).status_code == 200
    assert (await delegate.send("PATCH", path, plain, user="bob", headers=MERGE)).status_code == 403
    assert (await delegate.send("PATCH", path, plain, headers=MERGE)).status_code == 200
