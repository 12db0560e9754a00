"""What rules allow: Kubernetes' RBAC for the gateway's own API, RBAC and passes for members."""

from dataclasses import replace

import pytest

from onepass.access import refusals, requestinfo, rules
from onepass.access.attributes import Attributes
from onepass.access.identity import Identity
from onepass.access.policy import Binding, Grant, Mode, Policy, Rule, Subjects, Target
from onepass.access.rules import Decision

NOW = 1000
BOB = Identity("bob", ("dev", "system:authenticated"))


def rule(verbs: str = "", groups: str | None = None, resources: str = "", names: str = "", *paths: str) -> Rule:
    """Words separated by blanks; `groups` None for a rule about paths; `core` is the core group."""
    given = frozenset("" if group == "core" else group for group in (groups or "").split())
    return Rule(frozenset(verbs.split()), given, frozenset(resources.split()), frozenset(names.split()), paths=paths)


def asked(line: str, *, upgrade: bool = False) -> Attributes:
    method, target = line.split(" ")
    path, _, query = target.partition("?")
    return requestinfo.parse(method, path, query, upgrade)


@pytest.mark.parametrize(
    ("given", "line", "expected"),
    [
        (rule("get", "core", "pods"), "GET /api/v1/pods/a", True),
        (rule("get", "core", "pods"), "GET /api/v1/pods", False),
        (rule("*", "core", "pods"), "GET /api/v1/pods", True),
        (rule("get", "apps", "pods"), "GET /api/v1/pods/a", False),
        (rule("get", "*", "pods"), "GET /apis/apps/v1/pods/a", True),
        (rule("get", "core", "pods"), "GET /api/v1/pods/a/log", False),
        (rule("get", "core", "pods/log"), "GET /api/v1/pods/a/log", True),
        (rule("get", "core", "pods/log"), "GET /api/v1/pods/a", False),
        (rule("get", "core", "*"), "GET /api/v1/pods/a/log", True),
        (rule("get", "core", "*/log"), "GET /api/v1/pods/a/log", True),
        (rule("get", "core", "*/log"), "GET /api/v1/pods/a", False),
        (rule("get", "core", "pods/*"), "GET /api/v1/pods/a/log", False),
        (rule("get", "core", "pods", "a b"), "GET /api/v1/pods/a", True),
        (rule("get", "core", "pods", "a b"), "GET /api/v1/pods/c", False),
        (rule("list", "core", "pods", "a"), "GET /api/v1/pods", False),
        (rule("list", "core", "pods", "a"), "GET /api/v1/pods?fieldSelector=metadata.name=a", True),
        (rule("create", "core", "pods", "a"), "POST /api/v1/pods", False),
        (rule("get", None, "", "", "/metrics"), "GET /metrics", True),
        (rule("get", None, "", "", "/metrics"), "GET /metrics/", False),
        (rule("get", None, "", "", "/metrics*"), "GET /metrics/x", True),
        (rule("get", None, "", "", "*"), "GET /anything", True),
        (rule("get", None, "", "", "/metrics"), "POST /metrics", False),
        (rule("*", "*", "*"), "GET /metrics", False),
        (rule("get", None, "", "", "*"), "GET /api/v1/pods/a", False),
        (rule("get list", "core", "pods"), "GET /api/v1/pods/a/exec", False),
        (rule("create", "core", "pods/exec"), "GET /api/v1/pods/a/exec", True),
        (rule(), "OPTIONS /api/v1/pods", False),
    ],
)
def test_a_rule_matches_as_kubernetes_matches(given: Rule, line: str, expected: bool) -> None:
    assert rules.matches(given, asked(line)) is expected


def test_namespaces_of_a_pass_leave_out_what_has_none() -> None:
    narrow = Rule(frozenset("*"), frozenset("*"), frozenset("*"), namespaces=frozenset({"dev"}), paths=("*",))
    assert rules.matches(narrow, asked("GET /api/v1/namespaces/dev/pods"))
    assert rules.matches(narrow, asked("GET /api/v1/namespaces/dev"))
    for line in ("GET /api/v1/pods", "GET /api/v1/nodes", "GET /api/v1/namespaces/prod/pods", "GET /metrics"):
        assert not rules.matches(narrow, asked(line))


def test_bindings_count_in_their_namespace() -> None:
    reading = (rule("get list", "core", "pods"),)
    policy = Policy(
        bindings=(
            Binding("RoleBinding/a/r", reading, "a"),
            Binding("ClusterRoleBinding/w", (rule("get", "core", "nodes"),)),
        ),
        bound=Subjects({"bob": (0,)}, {"dev": (1,)}),
    )
    assert rules.allows(policy, BOB, asked("GET /api/v1/namespaces/a/pods")) == rules.Verdict(
        True, "RBAC: allowed by RoleBinding/a/r"
    )
    for line in ("GET /api/v1/namespaces/b/pods", "GET /api/v1/pods", "DELETE /api/v1/namespaces/a/pods/x"):
        assert not rules.allows(policy, BOB, asked(line)).allowed
    assert rules.allows(policy, BOB, asked("GET /api/v1/nodes/n")).allowed
    assert not rules.allows(policy, Identity("eve"), asked("GET /api/v1/nodes/n")).allowed
    assert rules.rules_for(policy, BOB, "a") == (reading[0], rule("get", "core", "nodes"))
    assert rules.rules_for(policy, BOB, "b") == (rule("get", "core", "nodes"),)


TARGETS: dict[str, Target] = {"prod": Target("prod", "h", "", "Gateway"), "own": Target("own", "h", "", "Impersonate")}


def granted(*grants: Grant, bindings: tuple[Binding, ...] = ()) -> Policy:
    """Everything is bob's."""
    return Policy(
        bindings,
        Subjects({"bob": tuple(range(len(bindings)))}),
        grants,
        Subjects({"bob": tuple(range(len(grants)))}),
        TARGETS,
    )


def grant(
    origin: str,
    given: Rule,
    mode: Mode = "Gateway",
    cluster: str = "prod",
    begin: int | None = None,
    end: int | None = None,
) -> Grant:
    return Grant(origin, (given,), frozenset({cluster}), mode, begin, end)


PODS = rule("get list watch", "core", "pods")


def decide(
    policy: Policy, line: str, cluster: str = "prod", wanted: Identity | None = None, upgrade: bool = False
) -> Decision:
    attributes = asked(line, upgrade=upgrade)
    return rules.decide(policy, BOB, cluster, line.split(" ")[0], attributes, upgrade, NOW, wanted)


@pytest.mark.parametrize(
    ("begin", "end", "code"),
    [
        (None, None, 200),
        (NOW, None, 200),
        (NOW + 1, None, 403),
        (None, NOW, 403),
        (None, NOW + 1, 200),
        (NOW, NOW, 403),
    ],
)
def test_a_pass_holds_from_its_beginning_to_just_before_its_end(begin: int | None, end: int | None, code: int) -> None:
    policy = granted(grant("p", PODS, begin=begin, end=end))
    assert decide(policy, "GET /api/v1/pods").code == code
    assert decide(policy, "GET /version").code == code


def test_the_right_lasts_as_long_as_its_longest_grant_for_this_request() -> None:
    short, longer = grant("short", PODS, end=NOW + 5), grant("longer", PODS, end=NOW + 9)
    other = grant("other", rule("*", "core", "secrets"))
    assert decide(granted(short, longer, other), "GET /api/v1/pods") == Decision(200, "", "longer", "Gateway", NOW + 9)
    endless = granted(short, longer, other, grant("endless", PODS))
    assert decide(endless, "GET /api/v1/pods") == Decision(200, "", "endless")


def test_the_gateway_carries_where_it_may_and_else_the_user() -> None:
    gateway, own = grant("g", PODS, end=NOW + 5), grant("o", PODS, "Impersonate")
    assert decide(granted(own, gateway), "GET /api/v1/pods") == Decision(200, "", "g", "Gateway", NOW + 5)
    assert decide(granted(own), "GET /api/v1/pods").mode == "Impersonate"
    assert decide(granted(grant("g", PODS, cluster="*")), "GET /api/v1/pods", "own").mode == "Impersonate"


PROXY = "cluster.karpor.io"


@pytest.mark.parametrize(
    ("verbs", "line", "upgrade", "code"),
    [
        ("get", "GET /api/v1/secrets?watch=1", False, 200),
        ("get", "POST /api/v1/pods", False, 403),
        ("create", "POST /api/v1/pods", False, 200),
        ("update", "PUT /api/v1/pods/a", False, 200),
        ("patch", "PATCH /api/v1/pods/a", False, 200),
        ("delete", "DELETE /api/v1/pods", False, 200),
        ("get", "GET /api/v1/pods/a/exec", True, 403),
        ("create", "GET /api/v1/pods/a/exec", True, 200),
        ("get create", "OPTIONS /api/v1/pods", False, 403),
        ("*", "OPTIONS /api/v1/pods", False, 200),
        ("create", "GET /version", False, 200),
    ],
)
def test_clusters_proxy_grants_everything_inside_by_method(verbs: str, line: str, upgrade: bool, code: int) -> None:
    policy = granted(bindings=(Binding("ClusterRoleBinding/x", (rule(verbs, PROXY, "clusters/proxy", "prod"),)),))
    assert decide(policy, line, upgrade=upgrade).code == code
    assert decide(policy, line, "own", upgrade=upgrade).code == 403
    narrow = granted(bindings=(Binding("RoleBinding/a/x", (rule("*", "*", "*"),), "a"),))
    assert decide(narrow, line, upgrade=upgrade).code == 403


def test_an_unknown_cluster_is_404_only_for_those_who_may_list_or_get_it() -> None:
    denied = decide(granted(), "GET /api/v1/pods", "none")
    assert denied.code == 403
    assert denied.message == decide(granted(), "GET /api/v1/pods").message.replace("prod", "none")
    for allowed in (rule("list", PROXY, "clusters"), rule("get", PROXY, "clusters", "none")):
        policy = granted(bindings=(Binding("ClusterRoleBinding/x", (allowed,)),))
        assert decide(policy, "GET /api/v1/pods", "none").code == 404
        assert decide(policy, "GET /api/v1/pods").code == 403
    other = granted(bindings=(Binding("ClusterRoleBinding/x", (rule("get", PROXY, "clusters", "other"),)),))
    assert decide(other, "GET /api/v1/pods", "none").code == 403


def test_denials_speak_kubernetes() -> None:
    empty = granted()
    how = "ask an administrator for a pass: onepass pass issue bob --cluster prod --verbs"
    for line, expected in (
        (
            "GET /api/v1/namespaces/default/pods",
            'pods is forbidden: User "bob" cannot list resource "pods" in API group "" in the namespace "default" of '
            f'cluster "prod": {how} list --resource pods --namespace default -o FILE',
        ),
        (
            "GET /api/v1/namespaces/a$b/pods",
            'pods is forbidden: User "bob" cannot list resource "pods" in API group "" in the namespace "a$b" of '
            'cluster "prod": ask an administrator for a pass',
        ),
        (
            "GET /api/v1/nodes/n/proxy",
            'nodes "n" is forbidden: User "bob" cannot get resource "nodes/proxy" in API group "" at the cluster scope '
            f'of cluster "prod": {how} get --resource nodes/proxy -o FILE',
        ),
        (
            "GET /logs",
            'forbidden: User "bob" cannot get path "/logs" of cluster "prod": ask an administrator for a pass',
        ),
        (
            "GET /api/v1/$(reboot)",
            '$(reboot) is forbidden: User "bob" cannot list resource "$(reboot)" in API group "" at the cluster scope '
            'of cluster "prod": ask an administrator for a pass',
        ),
    ):
        assert decide(empty, line).message == expected
    account = Identity("system:serviceaccount:ci:deployer")  # who can be given no certificate
    told = rules.decide(empty, account, "prod", "GET", asked("GET /api/v1/pods"), False, NOW).message
    assert told.endswith(": ask an administrator for a pass")


def test_acting_as_another_needs_each_value_and_the_request() -> None:
    acting = rule(
        "impersonate", "core authentication.k8s.io", "users groups uids userextras/scopes", "carol qa u-1 view"
    )
    policy = granted(grant("p", PODS), grant("i", acting, end=NOW + 7))
    whole = Identity("carol", ("qa",), "u-1", {"scopes": ("view",)})
    assert decide(policy, "GET /api/v1/pods", wanted=whole) == Decision(200, "", "p", "Gateway", NOW + 7)
    for wanted in (
        Identity("alice"),
        Identity("carol", ("qa", "dev")),
        Identity("carol", (), "u-2"),
        Identity("carol", extra={"scopes": ("view", "edit")}),
        Identity("carol", extra={"other": ("view",)}),
        Identity("carol", ("system:masters",)),
        Identity("system:serviceaccount:a:b"),
    ):
        assert decide(policy, "GET /api/v1/pods", wanted=wanted).code == 403
    assert decide(policy, "GET /api/v1/secrets", wanted=whole).code == 403
    assert decide(policy, "GET /api/v1/pods", wanted=Identity("", ("qa",))).code == 400


def test_whoever_may_impersonate_all_still_never_gets_a_system_group_nor_nobody() -> None:
    policy = granted(bindings=(Binding("ClusterRoleBinding/x", (rule("*", "*", "*"),)),))
    for wanted in (Identity("a", ("system:masters",)), Identity("a", ("system:nodes",)), Identity("system:anonymous")):
        assert decide(policy, "GET /api/v1/pods", wanted=wanted).code == 403
    assert decide(policy, "GET /api/v1/pods", wanted=Identity("system:serviceaccount:a:b", ("x",))).code == 200


def test_a_system_user_is_never_impersonated_by_mode() -> None:
    policy = Policy(grants=(grant("p", PODS, "Impersonate"),), granted=Subjects({"system:x": (0,)}), targets=TARGETS)
    found = rules.decide(policy, Identity("system:x"), "prod", "GET", asked("GET /api/v1/pods"), False, NOW)
    assert found.code == 403
    assert "never impersonated" in found.message


def test_questions_about_oneself_are_answered_here_in_gateway_mode() -> None:
    line = "POST /apis/authorization.k8s.io/v1/selfsubjectaccessreviews"
    assert decide(granted(grant("p", PODS)), line).here
    assert not decide(granted(grant("p", PODS, "Impersonate")), line).here
    assert decide(granted(grant("p", PODS, "Impersonate")), line).code == 200
    assert decide(granted(), line).code == 403


def test_a_review_answers_what_decide_would_do() -> None:
    policy = granted(
        grant("p", PODS),
        grant("i", rule("impersonate", "core", "users", "carol")),
        bindings=(Binding("ClusterRoleBinding/x", (rule("delete", PROXY, "clusters/proxy"),)),),
    )

    def may(verb: str, resource: str, name: str = "", cluster: str = "prod") -> bool:
        return rules.review(
            policy, BOB, cluster, Attributes(verb, "", True, "", "v1", resource, "", "", name), NOW
        ).allowed

    assert may("list", "pods")
    assert may("deletecollection", "secrets")
    assert may("impersonate", "users", "carol")
    assert not may("impersonate", "users", "dora")
    assert not may("list", "secrets")
    assert not may("list", "pods", cluster="none")
    assert rules.review(policy, BOB, "prod", Attributes("get", "/version", False), NOW).allowed
    assert not rules.review(policy, BOB, "prod", Attributes("get", "/metrics", False), NOW).allowed


def test_the_rules_on_a_member_are_those_of_grants_in_force_and_of_clusters_proxy() -> None:
    narrow = Rule(frozenset({"get"}), frozenset({""}), frozenset({"secrets"}), namespaces=frozenset({"dev"}))
    policy = granted(
        grant("p", PODS),
        grant("n", narrow),
        grant("late", rule("*", "*", "*"), begin=NOW + 1),
        bindings=(Binding("ClusterRoleBinding/x", (rule("get delete", PROXY, "clusters/proxy"),)),),
    )
    found, bounded = rules.member_rules(policy, BOB, "prod", "dev", NOW)
    assert not bounded
    everything = frozenset("*")
    verbs = frozenset({"get", "list", "watch", "delete", "deletecollection"})
    assert found[:3] == (Rule(verbs, everything, everything, paths=("*",)), PODS, narrow)
    assert narrow not in rules.member_rules(policy, BOB, "prod", "prod", NOW)[0]
    assert any("selfsubjectreviews" in each.resources for each in found)
    assert rules.member_rules(policy, Identity("eve"), "prod", "dev", NOW) == ((), "")
    assert rules.member_rules(policy, BOB, "none", "dev", NOW) == ((), "")


def test_rules_that_the_member_bounds_too_say_so() -> None:
    shown = grant("shown", PODS, "Impersonate")
    policy = Policy(grants=(shown,), granted=Subjects({"bob": (0,)}), targets=TARGETS)
    found, bounded = rules.member_rules(policy, BOB, "prod", "dev", NOW)
    assert (PODS in found, bounded) == (True, refusals.BOUNDED)


def test_what_lies_in_no_namespace_is_not_allowed_by_a_rule_for_one() -> None:
    policy = granted(grant("p", replace(rule("get", "*", "*"), namespaces=frozenset({"dev"}))))
    for resource, group, allowed in (
        ("pods", "", True),
        ("nodes", "", False),
        ("clusterroles", "rbac.authorization.k8s.io", False),
    ):
        asked = Attributes("get", "", True, group, "v1", resource, "", "dev")
        assert rules.review(policy, BOB, "prod", asked, NOW).allowed is allowed, resource
