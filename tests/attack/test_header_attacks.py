"""Attacks by headers: whom one claims to be, whom one acts as, tokens, and what is hop by hop (THREATS 1 to 4, 16)."""

import base64

import pytest
from tests.attack.conftest import C1, C2, EVERYTHING, PASSES, READING, TOKEN_1, Person, Site, granting
from tests.attack.rawhttp import request
from tests.waiting import eventually

pytestmark = pytest.mark.e2e

ACTING = {"apiGroups": ["*"], "resources": ["users", "groups", "userextras/scopes"], "verbs": ["impersonate"]}
AS_CAROL = ACTING | {"resourceNames": ["carol", "qa", "view"]}


@pytest.mark.parametrize("target", [C1, C2])
@pytest.mark.parametrize("http2", [False, True])
def test_what_a_client_says_of_itself_never_reaches_a_member(
    site: Site, reader: Person, target: str, http2: bool
) -> None:
    marker = f"/api/v1/forged-{http2}-{target[-8:-6]}"
    answer = site.ask(
        reader,
        target + marker,
        ("x-remote-user", "admin"),
        ("x-remote-group", "system:masters"),
        ("x-remote-uid", "0"),
        ("x-remote-extra-scopes", "all"),
        ("x-forwarded-client-cert", "Subject=CN=admin"),
        ("x-forwarded-for", "127.0.0.9"),
        ("x-real-ip", "127.0.0.9"),
        ("forwarded", "for=127.0.0.9"),
        ("x-forwarded-host", "evil.example"),
        ("x-forwarded-prefix", "/evil.example"),
        ("x-envoy-original-path", "/x"),
        ("x-envoy-internal", "true"),
        ("x-onepass-member", "member/c2"),
        ("x-onepass-route", "apiserver"),
        http2=http2,
    )
    assert answer.code == 200
    member = site.c1 if target == C1 else site.c2
    (seen,) = member.requests(marker)
    names = {name.lower() for name, _ in seen.headers}
    assert not {name for name in names if name.startswith(("x-remote-", "x-envoy-", "x-onepass-", "impersonate-"))}
    assert "x-forwarded-client-cert" not in names
    assert "127.0.0.9" not in str(seen.headers)
    assert "evil.example" not in str(seen.headers)
    assert seen.all("authorization") == ([f"Bearer {TOKEN_1}"] if target == C1 else [])
    assert seen.peer == ("" if target == C1 else "gateway-to-c2")


@pytest.mark.parametrize("path", ["/apis/cluster.karpor.io/v1beta1/clusters", "/api/v1/namespaces"])
@pytest.mark.parametrize("name", ["x-remote-user", "X-Remote-User", "x-Remote-user", "X-REMOTE-GROUP"])
def test_nobody_becomes_somebody_on_the_gateway_itself(site: Site, reader: Person, path: str, name: str) -> None:
    value = "system:masters" if "GROUP" in name else "admin"
    assert site.ask(reader, path, (name, value)).code == 403
    assert site.ask(None, path, (name, value)).code == 401


ALL_AT_ONCE = (
    ("Impersonate-User", "system:admin"),
    ("Impersonate-Group", "system:masters"),
    ("Impersonate-Uid", "0"),
    ("Impersonate-Extra-scopes", "x"),
    ("IMPERSONATE-EXTRA-A%2fb", "y"),
)


@pytest.mark.parametrize(
    ("headers", "code"),
    [
        (ALL_AT_ONCE, 403),
        ((*ALL_AT_ONCE, ("impersonate-user", "carol")), 400),
        ((("Impersonate-User", "carol"),), 403),
        ((("Impersonate-Group", "qa"),), 400),
        ((("Impersonate-Uid", "7"),), 400),
        ((("Impersonate-Extra-scopes", "view"),), 400),
    ],
)
def test_acting_as_another_without_the_right(
    site: Site, reader: Person, headers: tuple[tuple[str, str], ...], code: int
) -> None:
    before = len(site.c1.requests())
    for method in ("GET", "POST"):
        path = C1 + "/apis/authentication.k8s.io/v1/selfsubjectreviews"
        assert site.ask(reader, path, *headers, method=method, body=b"{}" if method == "POST" else b"").code == code
    assert site.ask(reader, C1 + "/api/v1/pods", *headers).code == code
    assert len(site.c1.requests()) == before


@pytest.mark.parametrize(
    ("headers", "code"),
    [
        ([("impersonate-user", "carol"), ("impersonate-group", "qa"), ("impersonate-extra-scopes", "view")], 200),
        ([("impersonate-user", "carol"), ("impersonate-group", "qa"), ("impersonate-group", "ops")], 403),
        ([("impersonate-user", "carol"), ("impersonate-extra-scopes", "edit")], 403),
        ([("impersonate-user", "carol"), ("impersonate-extra-other", "view")], 403),
        ([("impersonate-user", "carol"), ("impersonate-uid", "7")], 403),
        ([("impersonate-user", "admin")], 403),
        ([("impersonate-user", "carol"), ("impersonate-group", "system:masters")], 403),
        ([("impersonate-user", "carol"), ("impersonate-user", "carol")], 400),
    ],
)
def test_each_value_that_one_acts_as_needs_its_right(site: Site, headers: list[tuple[str, str]], code: int) -> None:
    actor = site.person("actor", READING, AS_CAROL)
    before = len(site.c1.requests())
    assert site.ask(actor, C1 + "/api/v1/pods", *headers).code == code
    seen = site.c1.requests()[before:]
    assert len(seen) == (code == 200)
    for each in seen:
        assert sorted(h for h in each.headers if h[0].startswith("impersonate-")) == sorted(headers)


def test_whoever_is_impersonated_by_the_gateway_appears_once_and_as_nobody_else(site: Site) -> None:
    ina = site.person("ina", EVERYTHING, identity={"mode": "Impersonate"})
    marker = "/api/v1/as-ina"
    assert site.ask(ina, C1 + marker, ("x-remote-user", "admin"), ("impersonate-userx", "admin")).code == 200
    (seen,) = site.c1.requests(marker)
    assert [h for h in seen.headers if h[0].startswith("impersonate-")] == [("impersonate-user", "ina")]


MALFORMED = {
    "underscore": b"Impersonate_User: admin\r\n",
    "underscore of the front proxy": b"X_Remote_User: admin\r\n",
    "space before the colon": b"Impersonate-User : admin\r\n",
    "tab before the colon": b"Impersonate-User\t: admin\r\n",
    "folded line": b"Accept: */*\r\n Impersonate-User: admin\r\n",
    "folded name": b"Impersonate-\r\n User: admin\r\n",
    "bare line feed": b"Accept: */*\nImpersonate-User: admin\r\n",
    "bare carriage return": b"Accept: */*\rImpersonate-User: admin\r\n",
    "nul in a value": b"Accept: a\x00b\r\nX-Remote-User: admin\r\n",
    "nul in a name": b"Impersonate-User\x00: admin\r\n",
    "no ASCII in a name": b"Imp\xc3\xa9rsonate-User: admin\r\n",
    "no name": b": admin\r\n",
    "no colon": b"Impersonate-User admin\r\n",
}


@pytest.mark.parametrize("line", MALFORMED.values(), ids=MALFORMED.keys())
def test_a_header_that_is_none_makes_nobody_else(site: Site, reader: Person, line: bytes) -> None:
    before = len(site.c1.requests())
    with site.wire(reader) as wire:
        wire.send(b"GET " + C1.encode() + b"/api/v1/pods HTTP/1.1\r\nhost: gateway\r\n" + line + b"\r\n")
        answer = wire.answer()
    seen = site.c1.requests()[before:]
    if answer.code == 200:  # read as RFC 9112 allows (5.2, 2.2); a lone carriage return is cut out of the value
        assert line in [MALFORMED[each] for each in ("folded line", "bare line feed", "bare carriage return")]
    else:
        assert answer.code in (400, 403)
        assert not seen
    for each in seen:
        assert b"\rI" not in each.raw
        assert not [name for name, _ in each.headers if "mpersonate" in name or "emote" in name]
        assert each.all("authorization") == [f"Bearer {TOKEN_1}"]


HOPS = "Impersonate-User, Impersonate-Group, Authorization, X-Remote-User, Sec-WebSocket-Protocol"


@pytest.mark.parametrize("target", [C1, C2])
def test_no_client_says_what_is_hop_by_hop(site: Site, target: str) -> None:
    ida = site.person("ida", EVERYTHING, identity={"mode": "Impersonate"})
    member = site.c1 if target == C1 else site.c2
    expected = [f"Bearer {TOKEN_1}"] if target == C1 else []
    plain = f"/api/v1/hops-{member.name}"
    assert (
        site.ask(ida, target + plain, ("connection", HOPS), ("keep-alive", "x"), ("proxy-connection", "x")).code == 200
    )
    (seen,) = member.requests(plain)
    assert seen.all("impersonate-user") == ["ida"]
    assert seen.all("authorization") == expected
    assert not seen.all("connection")
    assert not seen.all("keep-alive")
    for kind in ("websocket", "SPDY/3.1"):
        path = f"/api/v1/namespaces/d/pods/hops-{kind[:4].lower()}/exec"
        with site.wire(ida) as wire:
            wire.send(request("GET", target + path, ("connection", f"Upgrade, {HOPS}"), ("upgrade", kind)))
            assert wire.answer().code == 101
        (seen,) = member.requests(path)
        assert seen.all("connection") == ["Upgrade"]
        assert seen.all("impersonate-user") == ["ida"]
        assert seen.all("authorization") == expected


def account_token(site: Site) -> str:
    """A service account that may read on c1, and a token for it."""
    accounts = "/api/v1/namespaces/default/serviceaccounts"
    if site.api("GET", "/api/v1/namespaces/default").code == 404:
        site.made("/api/v1/namespaces", {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "default"}})
    if site.api("GET", f"{accounts}/robot").code == 404:
        site.made(accounts, {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "robot"}})
        user = "system:serviceaccount:default:robot"
        site.made(PASSES, granting("robot", [READING], user=user))
    body = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {}}
    return str(site.made(f"{accounts}/robot/token", body)["status"]["token"])


def test_no_token_of_a_client_reaches_a_member_wherever_it_stands(site: Site) -> None:
    token = account_token(site)
    bearer = ("authorization", f"Bearer {token}")
    eventually(lambda: site.ask(None, C1 + "/version", bearer).code == 200)
    protocol = "base64url.bearer.authorization.k8s.io." + base64.urlsafe_b64encode(token.encode()).decode().rstrip("=")
    marker = "/api/v1/token-places"
    assert site.ask(None, C1 + marker, bearer, ("cookie", f"t={token}"), ("proxy-authorization", token)).code == 200
    (seen,) = site.c1.requests(marker)
    assert seen.all("authorization") == [f"Bearer {TOKEN_1}"]
    assert not seen.all("cookie")
    assert not seen.all("proxy-authorization")
    twice = site.ask(None, C1 + marker, bearer, ("Authorization", f"Bearer {token}x"))
    assert twice.code == 401
    for query in ("access_token", "token"):
        assert site.ask(None, f"{C1}{marker}?{query}={token}").code == 401
    assert site.ask(None, C1 + marker, ("cookie", f"access_token={token}")).code == 401
    assert site.ask(None, C1 + marker, ("authorization", f"Basic {token}")).code == 401
    upgrade = (("connection", "Upgrade"), ("upgrade", "websocket"), ("sec-websocket-version", "13"))
    offered = ("sec-websocket-protocol", f"{protocol}, v5.channel.k8s.io")
    path = "/api/v1/namespaces/d/pods/p/log?follow=1"
    with site.wire(None) as wire:
        wire.send(request("GET", C1 + path, *upgrade, offered, ("sec-websocket-key", "x3JJHMbDL1EzLkh9GBhXDw==")))
        alone = wire.answer()
    assert alone.code in (101, 401, 403)
    assert token.encode() not in site.c1.everything()
    assert protocol.encode() not in site.c1.everything()
