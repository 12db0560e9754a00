"""Attacks 20 and 21: giving oneself what one does not hold, and the groups that nobody may have."""

import pytest
from tests.attack.conftest import C1, CLUSTERS, PASSES, Person, Site, granting
from tests.waiting import eventually

from onepass.api.meta import JSON, Object

pytestmark = pytest.mark.e2e

RBAC = "/apis/rbac.authorization.k8s.io/v1"
GROUP = "rbac.authorization.k8s.io"
ME = "trudy"
MERGE = "merge-patch+json"
SECRETS = "/api/v1/namespaces/default/secrets"
ROLES, BINDINGS = f"{RBAC}/clusterroles", f"{RBAC}/clusterrolebindings"


def rule(group: str, resources: list[JSON], verbs: list[JSON]) -> Object:
    return {"apiGroups": [group], "resources": resources, "verbs": verbs}


def binding(name: str, to: str, user: str = ME) -> Object:
    return {
        "metadata": {"name": name},
        "roleRef": {"apiGroup": GROUP, "kind": "ClusterRole", "name": to},
        "subjects": [{"apiGroup": GROUP, "kind": "User", "name": user}],
    }


PODS = rule("", ["pods"], ["get", "list"])
READS = rule("", ["secrets"], ["get", "list"])
EVERYTHING = rule("*", ["*"], ["*"])


@pytest.fixture(scope="module")
def trudy(site: Site) -> Person:
    """May write roles, bindings, passes and clusters, without `escalate` and `bind`, and read pods of c1."""
    writes: list[JSON] = ["get", "list", "create", "update", "patch"]
    mine: Object = {
        "metadata": {"name": "trudys"},
        "rules": [
            rule(GROUP, ["clusterroles", "clusterrolebindings", "roles", "rolebindings"], writes),
            rule("access.karpor.io", ["passes"], writes),
            rule("cluster.karpor.io", ["clusters"], writes),
        ],
    }
    site.made(ROLES, mine)
    site.made(BINDINGS, binding("trudys", "trudys"))
    gathering: Object = {
        "metadata": {"name": "gathering"},
        "aggregationRule": {"clusterRoleSelectors": [{"matchLabels": {"gathered": "yes"}}]},
    }
    site.made(ROLES, gathering)
    site.made(BINDINGS, binding("gathers", "gathering"))
    site.made(PASSES, granting("asleep", [READS], user=ME, suspended=True))
    golden = granting("golden", [READS], user=ME)
    golden["spec"]["clusters"] = {"selector": {"matchLabels": {"tier": "gold"}}}
    site.made(PASSES, golden)
    person = site.person(ME, PODS, clusters=("c1",))
    eventually(lambda: site.api("GET", ROLES, person=person).code == 200)
    return person


def mine(**more: JSON) -> Object:
    """A pass for oneself."""
    spec: Object = {"subjects": binding("x", "x")["subjects"], "clusters": {"names": ["c1"]}, "rules": [READS], **more}
    return {"metadata": {"name": "taken"}, "spec": spec}


ESCALATIONS: list[tuple[str, str, Object]] = [
    ("POST", BINDINGS, binding("taken", "cluster-admin")),
    ("POST", BINDINGS, binding("taken", "onepass:cluster-user")),
    ("POST", BINDINGS, binding("taken", "onepass:pass-manager")),
    ("POST", f"{RBAC}/namespaces/default/rolebindings", binding("taken", "cluster-admin")),
    ("POST", ROLES, {"metadata": {"name": "taken"}, "rules": [EVERYTHING]}),
    ("POST", ROLES, {"metadata": {"name": "taken", "labels": {"gathered": "yes"}}, "rules": [EVERYTHING]}),
    ("PATCH", f"{ROLES}/trudys", {"rules": [EVERYTHING]}),
    ("PATCH", f"{ROLES}/trudys", {"rules": [rule("", ["users", "groups"], ["impersonate"])]}),
    ("PATCH", f"{ROLES}/trudys", {"rules": [{"nonResourceURLs": ["*"], "verbs": ["*"]}]}),
    ("PATCH", f"{ROLES}/trudys", {"rules": [rule(GROUP, ["clusterroles"], ["escalate", "bind"])]}),
    ("PATCH", f"{ROLES}/trudys", {"rules": [rule("access.karpor.io", ["passes"], ["escalate"])]}),
    ("PATCH", f"{ROLES}/trudys", {"rules": [rule("cluster.karpor.io", ["clusters/proxy"], ["get"])]}),
    ("PATCH", f"{ROLES}/cluster-admin", {"metadata": {"labels": {"gathered": "yes"}}}),
    ("PATCH", f"{ROLES}/gathering", {"aggregationRule": {"clusterRoleSelectors": [{}]}}),
    ("PATCH", f"{ROLES}/gathering", {"rules": [EVERYTHING]}),
    ("PATCH", f"{BINDINGS}/trudys", {"roleRef": {"name": "cluster-admin"}}),
    ("PATCH", f"{BINDINGS}/cluster-admin", {"subjects": binding("x", "x")["subjects"]}),
    ("POST", PASSES, mine()),
    ("POST", PASSES, mine(rules=[rule("", ["*"], ["get"])])),
    ("POST", PASSES, mine(rules=[rule("", ["pods"], ["*"])])),
    ("POST", PASSES, mine(rules=[PODS], clusters={"names": ["*"]})),
    ("POST", PASSES, mine(rules=[PODS], clusters={"names": ["c1", "c2"]})),
    ("POST", PASSES, mine(rules=[PODS], clusters={"selector": {"matchLabels": {"later": "mine"}}})),
    ("POST", PASSES, mine(rules=[rule("", ["users"], ["impersonate"])])),
    ("PATCH", f"{PASSES}/{ME}", {"spec": {"rules": [PODS, READS]}}),
    ("PATCH", f"{PASSES}/{ME}", {"spec": {"clusters": {"names": ["c1", "c2"]}}}),
    ("PATCH", f"{PASSES}/reader", {"spec": {"subjects": binding("x", "x")["subjects"]}}),
    ("PATCH", f"{PASSES}/asleep", {"spec": {"suspended": False}}),
    ("PATCH", f"{CLUSTERS}/c1", {"metadata": {"labels": {"tier": "gold"}}}),
]


def test_nobody_gives_themselves_what_they_do_not_hold(site: Site, reader: Person, trudy: Person) -> None:
    del reader  # her pass must be there
    for method, path, body in ESCALATIONS:
        answer = site.api(method, path, body, person=trudy, kind=MERGE if method == "PATCH" else "json")
        assert answer.code in (403, 422), (method, path, body, answer.body)
        assert answer.json()["kind"] == "Status"
    assert site.ask(trudy, C1 + SECRETS).code == 403
    assert not site.c1.requests(SECRETS)
    assert site.api("POST", CLUSTERS, {"metadata": {"name": "Bad"}}, person=trudy).code == 422  # she may write


def test_escalate_and_bind_are_what_allows_it(site: Site, trudy: Person) -> None:
    lifted: Object = {
        "metadata": {"name": "lifted"},
        "rules": [
            rule(GROUP, ["clusterroles"], ["bind"]) | {"resourceNames": ["onepass:cluster-viewer"]},
            rule("access.karpor.io", ["passes"], ["escalate"]) | {"resourceNames": ["by-trudy"]},
        ],
    }
    site.made(ROLES, lifted)
    site.made(BINDINGS, binding("lifted", "lifted"))
    viewer, other = binding("by-trudy", "onepass:cluster-viewer", "olga"), binding("not", "onepass:pass-viewer", "olga")
    given = mine(subjects=binding("x", "x", "olga")["subjects"])
    try:
        eventually(lambda: site.api("POST", BINDINGS, viewer, person=trudy).code in (201, 409))
        assert site.api("POST", BINDINGS, other, person=trudy).code == 403
        assert site.api("POST", PASSES, given, person=trudy).code == 403
        given["metadata"] = {"name": "by-trudy"}
        assert site.api("POST", PASSES, given, person=trudy).code == 201
    finally:
        for path in (f"{BINDINGS}/by-trudy", f"{BINDINGS}/lifted", f"{ROLES}/lifted", f"{PASSES}/by-trudy"):
            site.gone(path)


def test_no_member_ever_hears_of_a_group_of_the_systems(site: Site) -> None:
    marker = "/api/v1/namespaces/reserved/pods"
    shown = site.person("shown")
    site.made(PASSES, granting("shown", [PODS], user="shown", identity={"mode": "Impersonate"}))
    try:
        eventually(lambda: site.ask(shown, C1 + marker).code == 200)
        for seen in site.c1.requests(marker):
            assert seen.all("impersonate-user") == ["shown"]
            assert not [group for group in seen.all("impersonate-group") if group.startswith("system:")]
    finally:
        site.gone(f"{PASSES}/shown")


@pytest.mark.parametrize(
    "headers",
    [
        [("impersonate-user", "x"), ("impersonate-group", "system:masters")],
        [("impersonate-user", "x"), ("impersonate-group", "system:nodes")],
        [("impersonate-user", "x"), ("impersonate-group", "dev"), ("impersonate-group", "system:kube-controller")],
        [("impersonate-user", "system:anonymous")],
        [("impersonate-group", "system:masters")],
    ],
)
def test_administrators_cannot_act_as_the_system_on_a_member(site: Site, headers: list[tuple[str, str]]) -> None:
    marker = f"/api/v1/namespaces/acted-{len(headers)}-{headers[-1][1].replace(':', '-')}/pods"
    answer = site.ask(site.admin, C1 + marker, *headers)
    assert answer.code in (400, 403), answer.body
    assert not site.c1.requests(marker)


@pytest.mark.parametrize(
    "subject",
    [
        {"kind": "Group", "name": "system:masters"},
        {"kind": "Group", "name": "system:unauthenticated"},
        {"kind": "User", "name": "system:anonymous"},
        {"kind": "User", "name": "system:admin"},
    ],
)
def test_no_pass_is_for_somebody_whom_nobody_can_be(site: Site, subject: Object) -> None:
    assert site.api("POST", PASSES, mine(subjects=[subject])).code == 422
