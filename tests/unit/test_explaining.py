"""Why somebody may or may not: what allows it, what comes near, who else may, and the least that would do."""

import pytest

from onepass.access import compile as compiler
from onepass.access import explaining, rules
from onepass.access.attributes import Attributes
from onepass.access.explaining import Question
from onepass.access.identity import Identity
from onepass.access.policy import Policy, Rule
from onepass.api.meta import JSON, Object

NOW = 1_800_000_000.0
SOON, PAST = "2027-01-15T09:00:00Z", "2027-01-15T07:00:00Z"
RBAC = "rbac.authorization.k8s.io"
ALICE = Identity("alice", ("dev", "system:authenticated"))


def rule(*verbs: str, resource: str = "pods", group: str = "", **more: JSON) -> Object:
    return {"verbs": [*verbs], "apiGroups": [group], "resources": [resource], **more}


def a_pass(name: str, *given: JSON, kind: str = "User", who: str = "alice", **more: JSON) -> Object:
    subject: JSON = {"kind": kind, "name": who, "apiGroup": RBAC}
    spec: Object = {"subjects": [subject], "clusters": {"names": ["prod"]}, "rules": [*given]}
    return {"metadata": {"name": name}, "spec": spec | more}


def cluster(name: str, **labels: str) -> Object:
    return {"metadata": {"name": name, "labels": {**labels}}, "spec": {"access": {"endpoint": "https://member:6443"}}}


OBJECTS: dict[str, list[Object]] = {
    "clusters.cluster.karpor.io": [cluster("prod", env="prod"), cluster("dev")],
    "passes.access.karpor.io": [
        a_pass("reader", rule("get", "list", namespaces=["web"]), notAfter=SOON),
        a_pass("group", rule("get", "delete"), kind="Group", who="dev", identity={"mode": "Impersonate"}),
        a_pass("ops", rule("delete", resource="nodes"), kind="Group", who="ops"),
        a_pass("asleep", rule("create", resource="pods/exec"), suspended=True),
        a_pass("over", rule("create", resource="pods/attach"), notAfter=PAST),
        a_pass("elsewhere", rule("get", resource="secrets"), clusters={"names": ["dev"]}),
        a_pass("named", rule("get", resource="configmaps", resourceNames=["a"])),
        a_pass("paths", {"verbs": ["get"], "nonResourceURLs": ["/metrics"]}),
        {"metadata": {"name": "broken"}, "spec": {"subjects": 7}},
    ],
    f"clusterroles.{RBAC}": [
        {"metadata": {"name": "lister"}, "rules": [rule("list", resource="clusters", group="cluster.karpor.io")]},
        {"metadata": {"name": "user"}, "rules": [rule("*", resource="clusters/proxy", group="cluster.karpor.io")]},
    ],
    f"clusterrolebindings.{RBAC}": [
        {
            "metadata": {"name": name},
            "roleRef": {"kind": "ClusterRole", "name": role},
            "subjects": [{"kind": "User", "name": who}],
        }
        for name, role, who in (("lists", "lister", "alice"), ("root", "user", "root"))
    ],
}


def asking(
    verb: str, resource: str, namespace: str = "", name: str = "", on: str = "prod", group: str = ""
) -> Question:
    if resource.startswith("/"):
        return Question(ALICE, on, Attributes(verb, resource, False))
    parent, _, sub = resource.partition("/")
    return Question(ALICE, on, Attributes(verb, "", True, group, "", parent, sub, namespace, name))


@pytest.mark.parametrize(
    ("asked", "origins"),
    [
        (asking("get", "pods", "web"), {"Pass/reader": "User alice", "Pass/group": "Group dev"}),
        (asking("get", "pods", "db"), {"Pass/group": "Group dev"}),
        (asking("list", "clusters", on="", group="cluster.karpor.io"), {"ClusterRoleBinding/lists": "User alice"}),
        (asking("get", "/metrics"), {"Pass/paths": "User alice"}),
    ],
)
def test_what_allows_it_is_named_with_the_name_it_comes_by(asked: Question, origins: dict[str, str]) -> None:
    answer = explaining.explain(OBJECTS, asked, NOW)
    assert {right.origin: right.through for right in answer.rights} == origins
    assert answer.allowed


@pytest.mark.parametrize(
    ("asked", "near"),
    [
        (asking("list", "pods", "db"), {"Pass/reader": "it is for the namespaces web, not db"}),
        (asking("watch", "pods", "web"), {"Pass/reader": "it allows get, list there, not watch"}),
        (asking("create", "pods/exec"), {"Pass/asleep": "it is suspended"}),
        (asking("create", "pods/attach"), {"Pass/over": f"it ended at {PAST}"}),
        (asking("get", "secrets"), {"Pass/elsewhere": "it does not open cluster prod"}),
        (asking("get", "configmaps", name="b"), {"Pass/named": "it is for the names a"}),
        (asking("post", "/metrics"), {"Pass/paths": "it allows get there, not post"}),
        (asking("get", "services"), {}),
    ],
)
def test_a_refusal_names_the_passes_that_almost_allow_it(asked: Question, near: dict[str, str]) -> None:
    answer = explaining.explain(OBJECTS, asked, NOW)
    told = {each.origin: each.why for each in answer.near}
    assert not answer.allowed
    assert {origin: told.get(origin) for origin in near} == near
    assert bool(told) is bool(near)


def test_groups_that_would_do_are_told_to_who_did_not_name_them() -> None:
    answer = explaining.explain(OBJECTS, asking("delete", "nodes"), NOW)
    assert [(right.origin, right.through) for right in answer.groups] == [("Pass/ops", "Group ops")]


def test_who_can_tells_everybody_and_how() -> None:
    found = explaining.who_can(OBJECTS, asking("get", "pods", "web"), NOW)
    assert {(each.through, each.origin, each.mode) for each in found} == {
        ("User alice", "Pass/reader", "Gateway"),
        ("Group dev", "Pass/group", "Impersonate"),
        ("User root", "ClusterRoleBinding/root", "Gateway"),
    }
    assert {each.until for each in found} == {None, int(NOW) + 3600}
    own = explaining.who_can(OBJECTS, asking("list", "clusters", on="", group="cluster.karpor.io"), NOW)
    assert [each.through for each in own] == ["User alice"]
    assert explaining.who_can(OBJECTS, asking("get", "pods", on="gone"), NOW) == ()


def every_rule(policy: Policy) -> set[Rule]:
    by_pass = {rule for each in policy.grants for rule in each.rules}
    return by_pass | {rule for each in policy.bindings for rule in each.rules}


@pytest.mark.parametrize(
    "asked",
    [
        asking("patch", "pods", "web", "web-1"),
        asking("create", "pods/exec", "web"),
        asking("get", "nodes"),
        asking("put", "/configz"),
        asking("update", "clusters", on="", group="cluster.karpor.io"),
        asking("create", "serviceaccounts/token", "default", "robot", on=""),
        asking("get", "/metrics/slis", on=""),
        Question(Identity("system:serviceaccount:a:b"), "prod", Attributes("get", "", True, "", "", "pods")),
    ],
)
def test_the_least_that_would_allow_it_does_and_allows_nothing_else(asked: Question) -> None:
    objects = {**OBJECTS}
    assert not explaining.explain(objects, asked, NOW).allowed
    made = explaining.smallest(asked, "new")
    for obj in made:
        kind = str(obj["kind"]).lower()
        key = "passes.access.karpor.io" if kind == "pass" else f"{kind}s.{RBAC}"
        objects[key] = [*objects.get(key, []), obj]
    assert explaining.explain(objects, asked, NOW).allowed
    before, after = compiler.compile(OBJECTS), compiler.compile(objects)
    given = every_rule(after) - every_rule(before)
    assert len(given) == 1
    assert all(rules.matches(rule, asked.attributes) for rule in given)
    assert all("*" not in {*rule.verbs, *rule.groups, *rule.resources, *rule.paths} for rule in given)
