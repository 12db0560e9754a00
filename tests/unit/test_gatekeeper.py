"""The gatekeeper's whole way with a request: headers, identity, decision, rewriting, refusals."""

import json

import pytest
from tests.unit import luagate
from tests.unit.luagate import Certificate, Gate, Outcome

from onepass.access.policy import Binding, Grant, Policy, Rule, Subjects, Target

NOW = 1_700_000_000
PROD = "/apis/cluster.karpor.io/v1beta1/clusters/prod/proxy"
ALIAS = "/apis/kusionstack.io/Cluster/prod/proxy"
ROBOT = "system:serviceaccount:ci:robot"
EVERYTHING = Rule(frozenset("*"), frozenset("*"), frozenset("*"), paths=("*",))
READING = Rule(frozenset({"get", "list", "watch"}), frozenset({""}), frozenset({"pods", "pods/log"}))
IMPERSONATING = Rule(
    frozenset({"impersonate"}), frozenset("*"), frozenset({"users", "groups", "userextras/scopes"}),
    frozenset({"carol", "qa", "view"}),
)  # fmt: skip
POLICY = Policy(
    bindings=(Binding("ClusterRoleBinding/admins", (EVERYTHING,)),),
    bound=Subjects(groups={"onepass:administrators": (0,)}),
    grants=(
        Grant("reader", (READING,), frozenset({"prod"}), "Gateway", None, NOW + 60),
        Grant("as-self", (EVERYTHING,), frozenset({"*"}), "Impersonate"),
        Grant("acting", (READING, IMPERSONATING), frozenset({"prod"}), "Gateway"),
    ),
    granted=Subjects(users={"bob": (0,), "dora": (1,), "eve": (2,), ROBOT: (0,)}, groups={"selves": (1,)}),
    targets={
        "prod": Target("prod", "prod.example:6443", "", "Gateway"),
        "test": Target("test", "[::1]", "/k8s/c-1", "Gateway"),
    },
    accounts={ROBOT: "uid-1"},
    revoked=frozenset({"bad1"}),
)
GATE = Gate(POLICY, NOW)
ADMIN = Certificate("admin", ("onepass:administrators",))
BOB = Certificate("bob", ("dev", "qa team"))
DORA = Certificate("dora", ("dev", "ops"))
EVE = Certificate("eve")
CLAIMS = {
    "iss": "https://onepass", "sub": ROBOT, "exp": NOW + 600,
    "kubernetes.io": {"namespace": "ci", "serviceaccount": {"name": "robot", "uid": "uid-1"}},
}  # fmt: skip


def refusal(outcome: Outcome) -> tuple[int, str, str]:
    """Code, reason and message, after checking that it is a whole Status."""
    status = json.loads(outcome.body)
    assert outcome.answer["content-type"] == "application/json"
    assert (status["kind"], status["apiVersion"], status["status"]) == ("Status", "v1", "Failure")
    assert status["code"] == outcome.code
    assert not outcome.logged
    return outcome.code, status["reason"], status["message"]


def test_a_member_request_goes_to_the_member_with_its_inner_path_and_query() -> None:
    seen = GATE.request("GET", f"{PROD}/api/v1/namespaces/default/pods?limit=500&labelSelector=a%3Db", certificate=BOB)
    assert seen.code == 0
    assert seen.one(":path") == "/api/v1/namespaces/default/pods?limit=500&labelSelector=a%3Db"
    assert seen.one(":authority") == "prod.example:6443"
    assert seen.one("x-onepass-member") == "member/prod"
    assert seen.one("x-onepass-route") == "member"
    assert seen.one("x-envoy-upstream-stream-duration-ms") == "59500"
    assert seen.all("x-remote-user") == seen.all("impersonate-user") == []
    assert seen.metadata == {
        "user": "bob", "groups": "dev,qa team,system:authenticated", "cluster": "prod", "verb": "list",
        "path": "/api/v1/namespaces/default/pods", "decision": "allow", "pass": "reader",
    }  # fmt: skip


def test_the_alias_path_leads_to_the_same_member() -> None:
    seen = GATE.request("GET", f"{ALIAS}/api/v1/pods", certificate=BOB)
    assert (seen.one(":path"), seen.one("x-onepass-member")) == ("/api/v1/pods", "member/prod")


def test_an_endpoint_with_a_prefix_gets_its_prefix() -> None:
    path = "/apis/cluster.karpor.io/v1beta1/clusters/test/proxy"
    assert GATE.request("GET", f"{path}/api/v1/pods", certificate=ADMIN).one(":path") == "/k8s/c-1/api/v1/pods"
    assert GATE.request("GET", path, certificate=ADMIN).one(":path") == "/k8s/c-1/"
    assert GATE.request("GET", f"{path}?watch", certificate=ADMIN).one(":path") == "/k8s/c-1/?watch"


@pytest.mark.parametrize(
    ("method", "inner", "headers", "route"),
    [
        ("GET", "/api/v1/pods", (), "member"),
        ("GET", "/api/v1/pods?watch=true", (), "stream"),
        ("GET", "/api/v1/watch/pods", (), "stream"),
        ("GET", "/api/v1/namespaces/a/pods/p/log?follow=true", (), "stream"),
        ("GET", "/api/v1/namespaces/a/pods/p/log?follow=false", (), "member"),
        ("GET", "/api/v1/namespaces/a/pods/p/log", (), "member"),
        ("GET", "/api/v1/namespaces/a/pods/p/exec?command=sh", (("upgrade", "websocket"),), "stream"),
        ("POST", "/api/v1/namespaces/a/pods/p/portforward", (("upgrade", "SPDY/3.1"),), "stream"),
    ],
)
def test_long_running_requests_take_the_stream_route(
    method: str, inner: str, headers: tuple[tuple[str, str], ...], route: str
) -> None:
    assert GATE.request(method, PROD + inner, *headers, certificate=ADMIN).one("x-onepass-route") == route


def test_a_request_for_the_gateway_goes_to_the_api_server_with_who_asks() -> None:
    seen = GATE.request("GET", "/apis/cluster.karpor.io/v1beta1/clusters?limit=5", certificate=BOB)
    assert seen.code == 0
    assert seen.one(":path") == "/apis/cluster.karpor.io/v1beta1/clusters?limit=5"
    assert seen.one("x-onepass-route") == "apiserver"
    assert seen.one("x-remote-user") == "bob"
    assert seen.all("x-remote-group") == ["dev", "qa team", "system:authenticated"]
    assert seen.one("x-onepass-member") is None


HOSTILE = [
    ("impersonate-foo", "x"),
    ("x-remote-user", "admin"),
    ("x-remote-group", "system:masters"),
    ("x-remote-extra-scopes", "all"),
    ("x-remote-uid", "0"),
    ("x-onepass-route", "apiserver"),
    ("x-onepass-member", "member/test"),
    ("x-envoy-original-path", "/"),
    ("x-envoy-upstream-rq-timeout-ms", "1"),
    ("x-envoy-upstream-stream-duration-ms", "1"),
    ("x-forwarded-client-cert", "Subject=admin"),
    ("authorization", "Bearer stolen"),
    ("proxy-authorization", "Basic x"),
    ("cookie", "a=b"),
    ("cookie", "c=d"),
]


@pytest.mark.parametrize("path", [f"{PROD}/api/v1/pods", f"{PROD}/api/v1/pods?watch=1", "/apis"])
def test_no_header_of_the_client_speaks_for_the_gateway(path: str) -> None:
    plain = GATE.request("GET", path, certificate=EVE)
    hostile = GATE.request("GET", path, *HOSTILE, certificate=EVE)
    given = sorted(header for header in hostile.headers if header != ("impersonate-foo", "x"))
    assert given == sorted(plain.headers)
    assert hostile.all("impersonate-foo") == ([] if path.startswith(PROD) else ["x"])


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


def test_an_upgrade_passes_on_no_header_that_the_client_calls_hop_by_hop() -> None:
    upgrade = [("connection", "Upgrade, Impersonate-User, Authorization"), ("upgrade", "websocket")]
    seen = GATE.request("GET", f"{PROD}/api/v1/namespaces/a/pods/p/exec", *upgrade, certificate=ADMIN)
    assert seen.all("connection") == ["Upgrade"]


@pytest.mark.parametrize("inner", ["exec?command=id", "attach", "portforward"])
def test_a_reader_gets_no_session(inner: str) -> None:
    for headers in ([("upgrade", "websocket"), ("connection", "Upgrade")], []):
        path = f"{PROD}/api/v1/namespaces/a/pods/p/{inner}"
        code, _, message = refusal(GATE.request("GET", path, *headers, certificate=BOB))
        assert code == 403
        assert f'User "bob" cannot create resource "pods/{inner.split("?")[0]}"' in message


def test_a_denial_says_what_and_how() -> None:
    outcome = GATE.request("GET", f"{PROD}/apis/apps/v1/namespaces/default/deployments/web", certificate=BOB)
    assert refusal(outcome) == (
        403,
        "Forbidden",
        'deployments.apps "web" is forbidden: User "bob" cannot get resource "deployments" in API group "apps" in the '
        'namespace "default" of cluster "prod": ask an administrator for a pass: onepass pass issue bob --cluster prod '
        "--verbs get --resource deployments",
    )
    assert json.loads(outcome.body)["details"] == {"name": "web", "group": "apps", "kind": "deployments"}
    assert outcome.metadata["decision"] == "deny"


def test_whether_a_cluster_exists_is_told_only_to_those_who_may_list_clusters() -> None:
    absent = PROD.replace("prod", "none")
    known = refusal(GATE.request("GET", f"{PROD}/api/v1/secrets", certificate=BOB))
    unknown = refusal(GATE.request("GET", f"{absent}/api/v1/secrets", certificate=BOB))
    assert unknown == (403, "Forbidden", known[2].replace("prod", "none"))
    assert refusal(GATE.request("GET", f"{absent}/api", certificate=ADMIN)) == (
        404, "NotFound", 'clusters.cluster.karpor.io "none" not found',
    )  # fmt: skip


@pytest.mark.parametrize(
    "path",
    [
        "/namespaces/default%2Fsecrets", "/namespaces/default%2fsecrets", "/namespaces/default%5Csecrets", "/x;y=z",
        "/namespaces/..%2f..%2fapi", "/../../c2/proxy/api", "/%2e%2e/%2e%2e/c2", "/..;/", "/.;/", "//", "/a//b", "/%00",
        "\\..\\", "#frag", "/%zz", "/%", "/a b", "/\u00e9", "/%ff", "/%0d%0a", "/pods?watch=1;x", "/pods?limit=%",
    ],
)  # fmt: skip
def test_a_path_that_can_be_read_in_two_ways_is_400(path: str) -> None:
    assert refusal(GATE.request("GET", f"{PROD}/api/v1{path}", certificate=ADMIN))[:2] == (400, "BadRequest")


def test_only_the_decoded_path_goes_on() -> None:
    for sent, went in (
        ("/api/v1/%73ecrets", "/api/v1/secrets"),
        ("/api/v1/n%61mespaces/default/p%6Fds", "/api/v1/namespaces/default/pods"),
        ("/api/v1/namespaces/a%252Fb", "/api/v1/namespaces/a%252Fb"),
        ("/api/v1/nodes/%C3%A9%3F", "/api/v1/nodes/%C3%A9%3F"),
        ("/api/v1/nodes/a%20b[x]", "/api/v1/nodes/a%20b%5Bx%5D"),
    ):
        assert GATE.request("GET", PROD + sent, certificate=ADMIN).one(":path") == went
    assert refusal(GATE.request("GET", f"{PROD}/api/v1/%73ecrets", certificate=BOB))[0] == 403


def test_a_member_name_is_never_more_than_a_name() -> None:
    for name in ("prod%22", "%5D%5D", "prod%0a", "PROD", "prod%20", "x" * 300, ".*"):
        path = PROD.replace("prod", name)
        outcome = GATE.request("GET", f"{path}/api/v1/pods", certificate=BOB)
        assert refusal(outcome)[0] in (400, 403)
    assert GATE.request("GET", f"{PROD.replace('prod', '%70rod')}/api/v1/pods", certificate=BOB).code == 0


@pytest.mark.parametrize("method", ["OPTIONS", "TRACE", "get", "PROPFIND"])
def test_an_unknown_method_needs_every_verb(method: str) -> None:
    assert refusal(GATE.request(method, f"{PROD}/api/v1/pods", certificate=BOB))[0] == 403
    assert GATE.request(method, f"{PROD}/api/v1/pods", certificate=ADMIN).code == 0


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


def as_(user: str = "", *groups: str, **extra: str) -> list[tuple[str, str]]:
    headers = [("impersonate-user", user)] if user else []
    headers += [("impersonate-group", group) for group in groups]
    return headers + [(f"impersonate-{name.replace('_', '-')}", value) for name, value in extra.items()]


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


WHOAMI = "/apis/authentication.k8s.io/v1/selfsubjectreviews"


def test_a_question_about_oneself_is_answered_by_the_gateway_when_the_member_would_see_the_gateway() -> None:
    for path in (PROD, ALIAS):
        seen = GATE.request("POST", path + WHOAMI, certificate=BOB)
        assert (seen.code, seen.one(":path"), seen.one("x-onepass-route")) == (0, path + WHOAMI, "apiserver")
        assert (seen.one("x-remote-user"), seen.one("x-onepass-member")) == ("bob", None)
    assert GATE.request("POST", PROD + WHOAMI, certificate=DORA).one("x-onepass-member") == "member/prod"
    assert GATE.request("POST", PROD + WHOAMI, *as_("carol"), certificate=EVE).one("x-onepass-member") == "member/prod"
    assert refusal(GATE.request("POST", PROD + WHOAMI, certificate=Certificate("nobody")))[0] == 403
    assert refusal(GATE.request("GET", PROD + WHOAMI, certificate=BOB))[0] == 403


def test_discovery_is_open_to_whoever_may_do_anything_on_the_member() -> None:
    for path in ("/api", "/apis", "/apis/apps/v1", "/version", "/openapi/v3", "/readyz", "/livez"):
        assert GATE.request("GET", PROD + path, certificate=BOB).code == 0
        assert refusal(GATE.request("POST", PROD + path, certificate=BOB))[0] == 403
        assert refusal(GATE.request("GET", PROD + path, ("upgrade", "websocket"), certificate=BOB))[0] == 403
        assert refusal(GATE.request("GET", PROD + path, certificate=Certificate("nobody")))[0] == 403
    assert refusal(GATE.request("GET", f"{PROD}/metrics", certificate=BOB))[0] == 403


def test_a_pass_ends_on_its_second() -> None:
    gate = Gate(POLICY, NOW + 59)
    assert (
        gate.request("GET", f"{PROD}/api/v1/pods", certificate=BOB).one("x-envoy-upstream-stream-duration-ms") == "500"
    )
    gate.now = NOW + 60
    assert refusal(gate.request("GET", f"{PROD}/api/v1/pods", certificate=BOB))[0] == 403


def test_a_failure_of_the_gatekeeper_lets_nothing_pass() -> None:
    gate = Gate(POLICY, NOW)
    gate.lua.execute("policy.targets.prod.authority = nil")
    outcome = gate.request("GET", f"{PROD}/api/v1/pods", certificate=BOB)
    assert (outcome.code, json.loads(outcome.body)["reason"]) == (500, "InternalError")
    assert "authority" not in outcome.body
    assert outcome.logged


@pytest.mark.parametrize("code", ["300", "301", "302", "303", "307", "308"])
def test_a_redirect_of_a_member_becomes_a_502(code: str) -> None:
    known = {"decision": "allow", "cluster": "prod"}
    headers = [("location", "http://169.254.169.254/"), ("content-length", "3"), ("content-encoding", "gzip")]
    seen = GATE.response(code, *headers, metadata=known)
    assert seen.headers == [(":status", "502"), ("content-type", "application/json")]
    assert json.loads(seen.body)["message"] == 'cluster "prod" answered with a redirect, which is not followed'
    assert GATE.response(code, *headers, metadata=known, method="HEAD").body == ""


@pytest.mark.parametrize("code", ["101", "200", "304", "404", "500"])
def test_other_answers_of_a_member_pass_unchanged(code: str) -> None:
    headers = [("location", "/api/v1/x"), ("content-length", "3")]
    assert GATE.response(code, *headers, metadata={"decision": "allow", "cluster": "prod"}).headers[1:] == headers
    assert GATE.response("301", *headers, metadata={"user": "bob"}).headers[1:] == headers


def test_any_name_is_data_in_the_tables() -> None:
    names = ['"', "\\", "]]", "a\nb", "--", "%s", "é", "\x00", "end policy = nil --", "\udcff", "\\065"]
    grants = tuple(Grant(name, (EVERYTHING,), frozenset({name, "prod"}), "Gateway") for name in names)
    policy = Policy(
        grants=grants,
        granted=Subjects(users={name: (index,) for index, name in enumerate(names)}),
        targets={name: Target(name, "x", "", "Gateway") for name in names},
        accounts=dict.fromkeys(names, "u"),
    )
    gate = Gate(policy, NOW)
    users = gate.globals.policy.granted.users
    for index, name in enumerate(names):
        assert list(users[luagate.raw(name)].values()) == [index + 1]
        assert gate.globals.policy.targets[luagate.raw(name)].cluster == luagate.raw(f"member/{name}")


def test_ten_thousand_subjects_and_five_thousand_clusters_load() -> None:
    clusters = [f"c{number}" for number in range(5000)]
    grants = tuple(
        Grant(f"p{number}", (READING,), frozenset({clusters[number % 5000]}), "Gateway") for number in range(10_000)
    )
    many = frozenset(clusters)
    policy = Policy(
        grants=(*grants, Grant("all", (READING,), many, "Gateway")),
        granted=Subjects(
            users={f"u{number}": (number,) for number in range(10_000)},
            groups={"all": tuple(range(10_001)), "one": (10_000,)},
        ),
        targets={name: Target(name, name, "", "Gateway") for name in clusters},
    )
    gate = Gate(policy, NOW)
    path = "/apis/cluster.karpor.io/v1beta1/clusters/c4999/proxy/api/v1/pods"
    assert gate.request("GET", path, certificate=Certificate("u9999")).one("x-onepass-member") == "member/c4999"
    assert gate.request("GET", path, certificate=Certificate("x", ("one",))).metadata["pass"] == "all"
    assert gate.request("GET", path, certificate=Certificate("x", ("all",))).metadata["pass"] == "p4999"
    assert refusal(gate.request("GET", path, certificate=Certificate("u9998")))[0] == 403
