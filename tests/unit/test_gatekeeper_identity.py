"""Who the gatekeeper takes a client for, and whom the member sees."""

import pytest
from tests.unit.gatepolicy import ADMIN, BOB, CLAIMS, DORA, EVE, GATE, NOW, POLICY, PROD, ROBOT, as_, refusal
from tests.unit.luagate import Certificate, Gate

from onepass.access.policy import Policy, Subjects


def test_a_user_with_a_certificate_and_a_bad_token_is_the_certificates() -> None:
    seen = GATE.request("GET", "/apis", ("authorization", "Bearer x"), certificate=BOB)
    assert seen.one("x-remote-user") == "bob"


@pytest.mark.parametrize(
    ("certificate", "why"),
    [
        (Certificate("bob", validated=False), "not one of this gateway's"),
        (Certificate("bob", serial="BAD1"), "has been revoked"),
        (Certificate("bob", serial="00bad1"), "has been revoked"),
        (Certificate("bob", expires=NOW), "has expired"),
        (Certificate(""), "names no user"),
        (Certificate(" admin"), "names no user"),
        (Certificate("admin\r\nx-remote-group: y"), "names no user"),
        (Certificate("system:admin"), "names a reserved user"),
        (Certificate("system:serviceaccount:ci:robot"), "names a reserved user"),
        (Certificate("onepass:administrators"), "names a reserved user"),
        (Certificate("bob", ("dev", "system:masters")), "names a reserved group"),
        (Certificate("bob", ("onepass:other",)), "names a reserved group"),
        (Certificate("bob", ("dev\n",)), "a group that is no name"),
        (Certificate("bob", ("",)), "a group that is no name"),
    ],
)
def test_a_certificate_that_does_not_hold_is_401(certificate: Certificate, why: str) -> None:
    for path in ("/apis", f"{PROD}/api/v1/pods", "/version"):
        code, reason, message = refusal(GATE.request("GET", path, certificate=certificate))
        assert (code, reason) == (401, "Unauthorized")
        assert why in message


def test_a_certificate_is_judged_anew_on_every_request() -> None:
    gate = Gate(POLICY, NOW)
    short = Certificate("bob", expires=NOW + 2)
    assert gate.request("GET", "/apis", certificate=short).code == 0
    gate.now = NOW + 2
    assert gate.request("GET", "/apis", certificate=short).code == 401


def test_a_token_makes_its_service_account_known() -> None:
    seen = GATE.request("GET", "/apis", claims=CLAIMS)
    assert (seen.one("x-remote-user"), seen.one("x-remote-uid")) == (ROBOT, "uid-1")
    assert seen.all("x-remote-group") == ["system:serviceaccounts", "system:serviceaccounts:ci", "system:authenticated"]
    assert GATE.request("GET", f"{PROD}/api/v1/pods", claims=CLAIMS).one("x-onepass-member") == "member/prod"


@pytest.mark.parametrize(
    "changed",
    [
        {"sub": "system:serviceaccount:kube-system:robot"},
        {"sub": "admin"},
        {"sub": "admin", "kubernetes.io": {}},
        {"kubernetes.io": None},
        {"kubernetes.io": "ci"},
        {"kubernetes.io": {"namespace": "ci", "serviceaccount": {"name": "robot", "uid": "uid-0"}}},
        {"kubernetes.io": {"namespace": "ci", "serviceaccount": {"name": "robot"}}},
        {"kubernetes.io": {"namespace": "ci", "serviceaccount": "robot"}},
        {
            "sub": "system:serviceaccount:ci:gone",
            "kubernetes.io": {"namespace": "ci", "serviceaccount": {"name": "gone", "uid": "uid-1"}},
        },
        {
            "sub": "system:serviceaccount:ci:gone",
            "kubernetes.io": {"namespace": "ci", "serviceaccount": {"name": "gone"}},
        },
    ],
)
def test_a_token_that_is_not_of_a_living_service_account_is_401(changed: dict[str, object]) -> None:
    assert refusal(GATE.request("GET", "/apis", claims=CLAIMS | changed))[0] == 401


def test_a_credential_that_was_not_verified_is_401_and_none_is_anonymous() -> None:
    assert refusal(GATE.request("GET", "/apis", ("authorization", "Bearer x")))[0] == 401
    assert refusal(GATE.request("GET", "/apis", ("authorization", "Basic x")))[0] == 401
    protocols = ("sec-websocket-protocol", "base64url.bearer.authorization.k8s.io.eHg, v5.channel.k8s.io")
    assert "Authorization" in refusal(GATE.request("GET", "/apis", protocols))[2]
    assert GATE.request("GET", "/version").one("x-remote-user") == "system:anonymous"
    assert GATE.request("GET", "/version").all("x-remote-group") == ["system:unauthenticated"]
    assert refusal(GATE.request("GET", f"{PROD}/version"))[0] == 401


@pytest.mark.parametrize(
    ("sent", "kept"),
    [
        (["v5.channel.k8s.io, v4.channel.k8s.io"], ["v5.channel.k8s.io, v4.channel.k8s.io"]),
        (["base64url.bearer.authorization.k8s.io.eHg, v5.channel.k8s.io"], ["v5.channel.k8s.io"]),
        (["v5.channel.k8s.io", "base64url.bearer.authorization.k8s.io.eHg"], ["v5.channel.k8s.io"]),
        (["base64url.bearer.authorization.k8s.io.eHg"], []),
    ],
)
def test_a_token_among_the_subprotocols_goes_no_further(sent: list[str], kept: list[str]) -> None:
    headers = [("sec-websocket-protocol", value) for value in sent]
    path = f"{PROD}/api/v1/namespaces/a/pods/p/exec"
    seen = GATE.request("GET", path, ("upgrade", "websocket"), *headers, certificate=ADMIN)
    assert seen.all("sec-websocket-protocol") == kept


def test_in_impersonate_mode_the_member_sees_the_user_without_system_groups() -> None:
    seen = GATE.request("DELETE", f"{PROD}/api/v1/namespaces/a/pods/p", certificate=DORA)
    assert seen.one("impersonate-user") == "dora"
    assert seen.all("impersonate-group") == ["dev", "ops"]
    spoofed = GATE.request(
        "DELETE",
        f"{PROD}/api/v1/namespaces/a/pods/p",
        ("x-remote-user", "x"),
        ("impersonate-bad", "y"),
        certificate=DORA,
    )
    assert sorted(spoofed.headers) == sorted(seen.headers)


def test_a_service_account_is_never_impersonated() -> None:
    policy = Policy(
        grants=POLICY.grants, granted=Subjects(users={ROBOT: (1,)}), targets=POLICY.targets, accounts=POLICY.accounts
    )
    code, _, message = refusal(Gate(policy, NOW).request("GET", f"{PROD}/api/v1/pods", claims=CLAIMS))
    assert code == 403
    assert 'users that begin with "system:" are never impersonated' in message


@pytest.mark.parametrize(
    "headers",
    [as_("carol"), as_("carol", "qa"), as_("carol", extra_scopes="view"), as_("carol", "qa", extra_Scopes="view")],
)
def test_a_client_may_act_as_whom_a_rule_lets_it(headers: list[tuple[str, str]]) -> None:
    lowered = [(name.lower(), value) for name, value in headers]
    seen = GATE.request("GET", f"{PROD}/api/v1/pods", *lowered, certificate=EVE)
    assert seen.code == 0
    assert [header for header in seen.headers if header[0].startswith("impersonate-")] == lowered


@pytest.mark.parametrize(
    ("headers", "code", "why"),
    [
        (as_("alice"), 403, 'users "alice" is forbidden: User "eve" cannot impersonate resource "users"'),
        (as_("carol", "dev"), 403, 'groups "dev" is forbidden'),
        (as_("carol", "qa", "system:masters"), 403, 'groups that begin with "system:" are never impersonated'),
        (as_("carol", "system:authenticated"), 403, 'groups that begin with "system:" are never impersonated'),
        (as_("system:admin"), 403, 'users "system:admin" is forbidden'),
        (as_("system:anonymous"), 403, "the anonymous user is never impersonated"),
        (as_("system:serviceaccount:a:b"), 403, 'serviceaccounts "b" is forbidden'),
        (as_("carol", uid="0"), 403, 'uids.authentication.k8s.io "0" is forbidden'),
        (as_("carol", extra_scopes="edit"), 403, 'userextras.authentication.k8s.io "edit" is forbidden'),
        ([*as_("carol"), ("impersonate-extra-a%2fb", "view")], 403, 'resource "userextras/a/b"'),
        (as_("", "qa"), 400, "needs a user"),
        (as_(extra_scopes="view"), 400, "needs a user"),
        (as_(uid="1"), 400, "needs a user"),
        ([("impersonate-user", ""), ("impersonate-group", "qa")], 400, "needs a user"),
        (as_("carol") + as_("admin"), 400, "more than once"),
    ],
)  # fmt: skip
def test_acting_as_another_is_refused(headers: list[tuple[str, str]], code: int, why: str) -> None:
    found, _, message = refusal(GATE.request("GET", f"{PROD}/api/v1/pods", *headers, certificate=EVE))
    assert found == code
    assert why in message


def test_who_may_act_as_another_still_needs_the_request_itself() -> None:
    assert refusal(GATE.request("GET", f"{PROD}/api/v1/secrets", *as_("carol"), certificate=EVE))[0] == 403
    assert refusal(GATE.request("GET", f"{PROD}/api/v1/pods", *as_("carol"), certificate=BOB))[0] == 403


def test_impersonation_at_the_gateway_itself_is_left_to_the_api_server() -> None:
    headers = as_("alice", "system:masters", uid="7")
    seen = GATE.request("GET", "/api", *headers, certificate=BOB)
    assert [header for header in seen.headers if header[0].startswith("impersonate-")] == headers
    assert seen.one("x-remote-user") == "bob"
