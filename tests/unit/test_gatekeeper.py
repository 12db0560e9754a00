"""The gatekeeper's way with a request: headers, decision, rewriting, refusals; and with a member's answer."""

import json
from dataclasses import replace

import pytest
from tests.unit.gatepolicy import ADMIN, ALIAS, BOB, DORA, EVE, GATE, NOW, POLICY, PROD, as_, refusal
from tests.unit.luagate import Certificate, Gate


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
        "cluster": "prod",
        "request": {
            "requestURI": f"{PROD}/api/v1/namespaces/default/pods?limit=500&labelSelector=a%3Db",
            "verb": "list",
            "user": {
                "username": "bob",
                "groups": ["dev", "qa team", "system:authenticated"],
                "extra": {"authentication.kubernetes.io/credential-id": ["X509SERIAL=1ab"]},
            },
            "objectRef": {"resource": "pods", "namespace": "default", "apiVersion": "v1"},
            "cluster": "prod",
            "decision": "allow",
            "reason": 'allowed by Pass "reader"',
            "pass": "reader",
        },
    }


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
        ("GET", "/api/v1/namespaces/a/services/s:http/proxy/events", (), "stream"),
        ("POST", "/api/v1/namespaces/a/pods/p/proxy", (), "stream"),
        ("GET", "/api/v1/nodes/n/proxy/containerLogs/a/p/c?follow=true", (), "stream"),
        ("GET", "/api/v1/proxy/nodes/n/logs/", (), "stream"),
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
        "--verbs get --resource deployments --namespace default -o FILE",
    )
    assert json.loads(outcome.body)["details"] == {"name": "web", "group": "apps", "kind": "deployments"}
    told = outcome.metadata["request"]
    assert (told["decision"], told["reason"]) == ("forbid", json.loads(outcome.body)["message"])
    assert "pass" not in told


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
        "/%E2%80%C3%A9%AE",
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


def test_a_redirect_to_the_schema_of_today_leads_back_through_the_gateway() -> None:
    known = {"decision": "allow", "cluster": "prod"}
    to = "/openapi/v3/apis/stable.example.com/v1?hash=0A1B"
    assert GATE.response("301", ("location", to), metadata=known).headers == [
        (":status", "301"),
        ("location", f"/apis/cluster.karpor.io/v1beta1/clusters/prod/proxy{to}"),
    ]


@pytest.mark.parametrize(
    "to",
    [
        "https://evil.example.com/openapi/v3/api/v1?hash=0A",
        "//evil.example.com/openapi/v3/api/v1?hash=0A",
        "/openapi/v3/../../api/v1/secrets?hash=0A",
        "/openapi/v3//evil?hash=0A",
        "/openapi/v3/%2e%2e/x?hash=0A",
        "/openapi/v3/api/v1?hash=0A&x=1",
        "/openapi/v3/api/v1?hash=0A\r\nx: y",
        "/openapi/v3/api/v1",
        "/api/v1/secrets?hash=0A",
    ],
)
def test_a_redirect_to_anywhere_else_does_not(to: str) -> None:
    seen = GATE.response("301", ("location", to), metadata={"decision": "allow", "cluster": "prod"})
    assert seen.headers == [(":status", "502"), ("content-type", "application/json")]


@pytest.mark.parametrize("code", ["101", "200", "304", "404", "500"])
def test_other_answers_of_a_member_pass_unchanged(code: str) -> None:
    headers = [("location", "/api/v1/x"), ("content-length", "3")]
    assert GATE.response(code, *headers, metadata={"decision": "allow", "cluster": "prod"}).headers[1:] == headers
    assert GATE.response("301", *headers, metadata={"user": "bob"}).headers[1:] == headers


@pytest.mark.parametrize(
    ("query", "shown"),
    [
        ("", ""),
        ("?", ""),
        ("?watch=1&resourceVersion=5", "?watch=1&resourceVersion=5"),
        ("?command=sh&command=-c&command=pw&container=c&stdin=true", "?container=c&stdin=true"),
        ("?access_token=t&limit=1&token=u", "?limit=1"),
        ("?%6cimit=1&limit2=3&LIMIT=4&limit", "?limit"),
        ("?watchx=secret&watch", "?watch"),
        ('?labelSelector="a b"&\u00e9=1', '?labelSelector="a%20b"'),
        ("?" + "&".join(["limit=1"] * 1000), "?" + "&".join(["limit=1"] * 64)),
        ("?secret", ""),
    ],
)
def test_the_audit_record_shows_parameters_that_say_what_is_asked_for(query: str, shown: str) -> None:
    seen = GATE.request("GET", f"{PROD}/api/v1/namespaces/default/pods{query}", certificate=BOB)
    assert seen.metadata["request"]["requestURI"] == f"{PROD}/api/v1/namespaces/default/pods{shown}"


def test_what_goes_into_the_audit_record_is_bounded() -> None:
    for path in ("/" + "a" * 50_000, "/x?labelSelector=" + "b" * 50_000, "/" + "\u00e9" * 5000):
        seen = GATE.request("GET", path, certificate=BOB)
        told = seen.metadata["request"]
        assert len(told["requestURI"]) <= 4096
        assert told["requestURI"].isascii()
    refused = GATE.request("GET", f"{PROD}/api/v1/namespaces/{'n' * 5000}/secrets", certificate=BOB)
    assert len(refused.metadata["request"]["reason"]) <= 512


@pytest.mark.parametrize(
    ("path", "told"),
    [
        (
            f"{PROD}/api/v1/namespaces/default/pods?watch=1",
            {"cluster": "prod", "path": "/api/v1/namespaces/default/pods", "query": "watch=1", "upgrade": False},
        ),
        (
            "/api/v1/namespaces?watch=true",
            {"path": "/api/v1/namespaces", "query": "watch=true", "upgrade": False},
        ),
    ],
)
def test_a_stream_is_announced_with_all_that_it_takes_to_judge_it(path: str, told: dict[str, object]) -> None:
    seen = GATE.request("GET", path, certificate=BOB)
    assert seen.metadata["stream"] == {"method": "GET", "serial": "1ab", "as_user": False} | told
    assert "stream" not in GATE.request("GET", path.partition("?")[0], certificate=BOB).metadata


def test_whom_somebody_acts_as_is_text_that_the_control_plane_can_read() -> None:
    """Else the companion of a stream could not be told of it, and nobody could end the stream."""
    for path in (f"{PROD}/api/v1/pods?watch=1", "/api/v1/namespaces?watch=1"):
        outcome = GATE.request("GET", path, ("impersonate-user", "\udcff"), certificate=ADMIN)
        assert outcome.code == 400
        assert "not UTF-8" in outcome.body


def test_a_serial_number_of_another_authority_is_announced_with_its_issuer() -> None:
    """Alone it would be looked up among what the gateway itself has taken back."""
    seen = GATE.request("GET", f"{PROD}/api/v1/pods?watch=1", certificate=replace(BOB, issuer="another"))
    assert seen.metadata["stream"].items() >= {"serial": "1ab", "issuer": "another"}.items()
    extra = seen.metadata["request"]["user"]["extra"]
    assert extra == {"authentication.kubernetes.io/credential-id": ["X509SERIAL=1ab"]}
