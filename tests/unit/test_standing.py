"""Whether an open stream keeps its right: the same question as at its beginning, and what only a stream can lose."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import pytest

from onepass.access import standing
from onepass.access.attributes import Attributes
from onepass.access.identity import Identity
from onepass.access.policy import Binding, Grant, Policy, Rule, Subjects, Target
from onepass.access.standing import Claim

NOW = 1_700_000_000
PODS = Rule(frozenset({"watch", "create"}), frozenset({""}), frozenset({"pods", "pods/exec"}))
EVERYTHING = Rule(frozenset({"*"}), frozenset({"*"}), frozenset({"*"}), paths=("*",))
GRANT = Grant("p", (PODS,), frozenset({"prod"}), "Gateway", not_after=NOW + 60)
POLICY = Policy(
    bindings=(Binding("ClusterRoleBinding/root", (EVERYTHING,)),),
    bound=Subjects(users={"root": (0,)}),
    grants=(GRANT,),
    granted=Subjects(users={"bob": (0,), "system:serviceaccount:a:b": (0,)}),
    targets={"prod": Target("prod", "prod:6443", "", "Gateway")},
    accounts={"system:serviceaccount:a:b": "u1"},
)
WATCH = Claim("bob", ("system:authenticated",), "", "1a", "prod", "GET", "/api/v1/pods", "watch=1", False)
EXEC = replace(WATCH, path="/api/v1/namespaces/d/pods/x/exec", query="command=sh", upgrade=True)
ACCOUNT = replace(WATCH, user="system:serviceaccount:a:b", uid="u1", serial="")
HOME = Claim("root", (), "", "", "", "GET", "/api/v1/namespaces", "watch=1", False)


def acting(headers: standing.Headers) -> tuple[Identity, Sequence[Attributes]] | None:
    asked = Attributes("impersonate", "", True, "", "v1", "users", "", "", headers[1])
    return Identity(headers[1]), [asked]


def elsewhere(issuer: str, serial: str) -> bool:
    return (issuer, serial) == ("corp", "2b")


def with_grant(**changes: Any) -> Policy:  # a table of changes
    return replace(POLICY, grants=(replace(GRANT, **changes),))


@pytest.mark.parametrize("claim", [WATCH, EXEC, ACCOUNT])
def test_what_is_allowed_goes_on_until_its_pass_ends(claim: Claim) -> None:
    assert standing.judge(POLICY, claim, NOW, acting, elsewhere) == standing.Standing(until=NOW + 60)


def test_the_pass_that_lasts_longer_counts() -> None:
    longer = replace(GRANT, origin="q", not_after=NOW + 600)
    policy = replace(POLICY, grants=(GRANT, longer), granted=Subjects(users={"bob": (0, 1)}))
    assert standing.judge(policy, WATCH, NOW, acting, elsewhere).until == NOW + 600
    assert standing.judge(policy, WATCH, NOW + 61, acting, elsewhere) == standing.Standing(until=NOW + 600)


@pytest.mark.parametrize(
    ("policy", "claim", "why"),
    [
        (with_grant(not_after=NOW), WATCH, "cannot watch"),
        (with_grant(clusters=frozenset({"test"})), EXEC, "cannot create"),
        (with_grant(rules=()), WATCH, "cannot watch"),
        (with_grant(mode="Impersonate"), WATCH, "must now see the user"),
        (replace(POLICY, targets={}), WATCH, "cannot watch"),
        (replace(POLICY, granted=Subjects()), WATCH, "cannot watch"),
        (replace(POLICY, revoked=frozenset({"1a"})), WATCH, "certificate has been revoked"),
        (POLICY, replace(WATCH, issuer="corp", serial="2b"), "certificate has been revoked"),
        (replace(POLICY, accounts={}), ACCOUNT, "service account"),
        (replace(POLICY, accounts={ACCOUNT.user: "u2"}), ACCOUNT, "service account"),
        (replace(POLICY, bound=Subjects()), HOME, "may no longer watch namespaces"),
        (replace(POLICY, bound=Subjects()), replace(HOME, headers=("impersonate-user", "eve")), "no longer act as"),
        (POLICY, replace(HOME, headers=("impersonate-user", "eve")), "may no longer watch"),
        (POLICY, replace(WATCH, headers=("impersonate-user", "eve")), "cannot impersonate"),
    ],
)
def test_a_right_is_lost(policy: Policy, claim: Claim, why: str) -> None:
    assert why in standing.judge(policy, claim, NOW, acting, elsewhere).lost


@pytest.mark.parametrize(
    "change",
    [
        lambda: replace(WATCH, as_user=True),  # it was seen as itself all along
        lambda: replace(WATCH, serial=""),
        lambda: HOME,
        lambda: replace(HOME, headers=("impersonate-user", "root")),
    ],
)
def test_what_does_not_concern_a_stream_leaves_it_alone(change: Callable[[], Claim]) -> None:
    policy = replace(with_grant(mode="Impersonate"), revoked=frozenset({"2b"}))
    claim = change()
    if claim == replace(WATCH, serial=""):
        policy = replace(POLICY, revoked=frozenset({"", "2b"}))
    assert standing.judge(policy, claim, NOW, acting, elsewhere).lost == ""


def test_serial_numbers_are_an_authoritys_own() -> None:
    policy = replace(POLICY, revoked=frozenset({"1a"}))
    for issuer, serial in (("corp", "1a"), ("branch", "2b"), ("", "2b")):
        assert standing.judge(policy, replace(WATCH, issuer=issuer, serial=serial), NOW, acting, elsewhere).lost == ""


def test_headers_are_read_as_the_gatekeeper_reads_them() -> None:
    who = Rule(frozenset({"impersonate"}), frozenset({"", "authentication.k8s.io"}), frozenset({"*"}))
    policy = with_grant(rules=(PODS, who))
    named = {"user": "eve", "group": "dev", "uid": "7", "extra-a%2Fb": "x"}
    headers = tuple(part for name, value in named.items() for part in (f"impersonate-{name}", value))
    assert standing.judge(policy, replace(WATCH, headers=headers), NOW, acting, elsewhere).lost == ""
    bad = (*headers, "impersonate-group", "system:masters")
    assert "never impersonated" in standing.judge(policy, replace(WATCH, headers=bad), NOW, acting, elsewhere).lost


@pytest.mark.parametrize(
    ("change", "lost"),
    [
        ({}, ""),
        ({"cluster": ""}, ""),
        ({"user": "system:serviceaccount:host:account"}, ""),  # the host's, of which nothing is known here
        ({"method": "POST", "upgrade": True, "path": EXEC.path}, ""),
        ({"upgrade": True, "path": EXEC.path}, "cannot create"),  # the host judged it as a read
        ({"front": "narrow"}, "cannot watch"),
        ({"front": "narrow", "user": "bob"}, ""),
        ({"cluster": "gone"}, "not found"),
    ],
)
def test_what_a_host_cluster_has_let_in_is_the_hosts_to_judge(change: dict[str, Any], lost: str) -> None:
    claim = replace(WATCH, **{"user": "alice", "serial": "", "front": "ignore"} | change)
    found = standing.judge(POLICY, claim, NOW, acting, elsewhere).lost
    assert lost in found
    assert bool(lost) == bool(found)


def test_a_cluster_that_must_see_its_users_ends_what_it_saw_as_the_gateway() -> None:
    policy = replace(POLICY, targets={"prod": Target("prod", "prod:6443", "", "Impersonate")})
    claim = replace(WATCH, user="alice", serial="", front="ignore")
    assert "must now see" in standing.judge(policy, claim, NOW, acting, elsewhere).lost
    assert not standing.judge(policy, replace(claim, as_user=True), NOW, acting, elsewhere).lost
