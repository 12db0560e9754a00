"""Whom the gatekeeper takes for whom by the authorities and issuers of others, and what it takes off a request."""

from collections.abc import Mapping

import lupa.luajit21
import pytest
from tests.unit.gatepolicy import CLAIMS, NOW, POLICY, PROD, refusal
from tests.unit.luagate import Certificate, Gate

from onepass.gateway import httpfilters, ir

KNOWN = ir.Known(
    own=frozenset({"own", "older"}),
    others={"corp": frozenset({"c0ffee"}), "listless": frozenset()},
    elsewhere=frozenset({"dead"}),
    issuers={
        "https://idp.example": ir.Claims("sub", "idp:", "groups", "idp:", (("tenant", "acme"),)),
        "https://plain.example": ir.Claims("email"),
    },
)
GATE = Gate(POLICY, NOW, KNOWN)
IDP = {"iss": "https://idp.example", "sub": "alice", "tenant": "acme", "exp": NOW + 60}
PLAIN = {"iss": "https://plain.example", "email": "bob@example.com"}


def test_serial_numbers_are_an_authoritys_own() -> None:
    taken_back = {("own", "bad1"), ("older", "bad1"), ("corp", "c0ffee"), ("below-corp", "dead")}
    for issuer in ("own", "older", "corp", "listless", "below-corp"):
        for serial in ("bad1", "c0ffee", "dead", "01"):
            outcome = GATE.request("GET", "/apis", certificate=Certificate("bob", serial=serial, issuer=issuer))
            assert (outcome.code == 401) == ((issuer, serial) in taken_back), (issuer, serial)


def test_only_our_own_authorities_make_administrators() -> None:
    for issuer in ("own", "older"):
        certificate = Certificate("admin", ("onepass:administrators",), issuer=issuer)
        assert GATE.request("GET", "/apis", certificate=certificate).code == 0
    for issuer in ("corp", "below-corp", ""):
        certificate = Certificate("admin", ("onepass:administrators",), issuer=issuer)
        assert "reserved group" in refusal(GATE.request("GET", "/apis", certificate=certificate))[2]


def test_claims_become_user_and_groups() -> None:
    seen = GATE.request("GET", "/apis", claims=IDP | {"groups": ["dev", "qa team"]})
    assert seen.one("x-remote-user") == "idp:alice"
    assert seen.all("x-remote-group") == ["idp:dev", "idp:qa team", "system:authenticated"]
    assert seen.one("x-remote-uid") is None
    assert GATE.request("GET", "/apis", claims=IDP | {"groups": "dev"}).all("x-remote-group")[0] == "idp:dev"
    seen = GATE.request("GET", "/apis", claims=PLAIN | {"groups": ["dev"]})
    assert (seen.one("x-remote-user"), seen.all("x-remote-group")) == ("bob@example.com", ["system:authenticated"])


@pytest.mark.parametrize(
    ("claims", "why"),
    [
        (IDP | {"tenant": "other"}, 'claim "tenant"'),
        ({k: v for k, v in IDP.items() if k != "tenant"}, 'claim "tenant"'),
        ({k: v for k, v in IDP.items() if k != "sub"}, 'no claim "sub"'),
        (IDP | {"sub": ""}, 'no claim "sub"'),
        (IDP | {"sub": 7}, 'no claim "sub"'),
        (IDP | {"sub": {"a": "b"}}, 'no claim "sub"'),
        (IDP | {"sub": "a\r\nx-remote-group: y"}, "names no user"),
        (IDP | {"groups": 7}, "is no list"),
        (IDP | {"groups": ["dev\n"]}, "a group that is no name"),
        (PLAIN | {"email": "system:admin"}, "a reserved user"),
        (PLAIN | {"email": "onepass:administrators"}, "a reserved user"),
        (PLAIN | {"email": "onepass:x"}, "a reserved user"),
        (PLAIN | {"email_verified": False}, "not verified"),
        (PLAIN | {"email_verified": "true"}, "not verified"),
        ({"iss": "https://unknown.example", "sub": "alice"}, "not a service account's"),
        (CLAIMS | {"aud": ["https://onepass", "https://elsewhere"]}, "for others too"),
    ],
)
def test_a_token_that_does_not_hold_is_401(claims: Mapping[str, object], why: str) -> None:
    for path in ("/apis", f"{PROD}/api/v1/pods", "/version"):
        code, reason, message = refusal(GATE.request("GET", path, claims=claims))
        assert (code, reason) == (401, "Unauthorized")
        assert why in message


def test_a_reserved_group_refuses_the_whole_token() -> None:
    gate = Gate(POLICY, NOW, ir.Known(issuers={"i": ir.Claims("sub", groups="groups")}))
    for group in ("system:masters", "onepass:administrators", "onepass:x"):
        message = refusal(gate.request("GET", "/apis", claims={"iss": "i", "sub": "a", "groups": ["dev", group]}))[2]
        assert "reserved group" in message


def test_a_token_that_is_too_long_or_given_twice_is_401() -> None:
    long = ("authorization", "Bearer " + "x" * 16384)
    assert "too long" in refusal(GATE.request("GET", "/apis", long, claims=CLAIMS))[2]
    twice = [("authorization", "Bearer x")] * 2
    assert "more than one" in refusal(GATE.request("GET", "/apis", *twice, claims=CLAIMS))[2]


@pytest.mark.parametrize(
    ("query", "kept"),
    [
        ("access_token=x", ""),
        ("access_token", ""),
        ("limit=1&access_token=x&watch=0", "?limit=1&watch=0"),
        ("access%5Ftoken=x&limit=1", "?limit=1"),
        ("%61ccess_token=x&access_token=y", ""),
        ("limit=access_token", "?limit=access_token"),
        ("my_access_token=x", "?my_access_token=x"),
    ],
)
def test_a_token_in_the_query_goes_no_further(query: str, kept: str) -> None:
    seen = GATE.request("GET", f"{PROD}/api/v1/pods?{query}", claims=CLAIMS)
    assert seen.one(":path") == f"/api/v1/pods{kept}"
    assert GATE.request("GET", f"/version?{query}").one(":path") == f"/version{kept}"


HANDLE = """
function run(upgrade, protocols, authorization)
  local values = { upgrade = upgrade, ["sec-websocket-protocol"] = protocols, authorization = authorization }
  local headers = {
    get = function(_, name) return values[name] end,
    replace = function(_, name, value) values[name] = value end,
  }
  local answered
  envoy_on_request({
    headers = function() return headers end,
    base64Decode = function(_, text) return decode(text) end,
    respond = function(_, with, body) answered = with[":status"] .. " " .. body end,
  })
  return answered, values.authorization, values["sec-websocket-protocol"]
end
"""
PREFIX = "base64url.bearer.authorization.k8s.io."


@pytest.mark.parametrize(
    ("upgrade", "protocols", "authorization", "refused", "token", "kept"),
    [
        ("websocket", f"{PREFIX}YS5iLWM_, v5", None, "", "Bearer a.b-c?", "v5"),
        ("WebSocket", f"v5, {PREFIX}YQ, v4", None, "", "Bearer a", "v5, v4"),
        ("websocket", f"{PREFIX}YQ, v5", "Bearer a", "", "Bearer a", "v5"),
        ("websocket", f"{PREFIX}YQ, v5", "Bearer b", "differ", "Bearer b", None),
        ("websocket", f"{PREFIX}YQ, v5", "Basic a", "differ", "Basic a", None),
        ("websocket", f"{PREFIX}YQ, {PREFIX}YQ, v5", None, "more than one", None, None),
        ("websocket", f"{PREFIX}YQ", None, "the protocol to speak", None, None),
        ("websocket", f"{PREFIX}, v5", None, "not base64url", None, None),
        ("websocket", f"{PREFIX}Y+Q, v5", None, "not base64url", None, None),
        ("websocket", f"{PREFIX}YQ==, v5", None, "not base64url", None, None),
        ("websocket", f"{PREFIX}YQ0K, v5", None, "not base64url", None, None),  # a line end
        ("websocket", f"{PREFIX}Y, v5", None, "not base64url", None, None),
        ("spdy/3.1", f"{PREFIX}YQ, v5", None, "", None, f"{PREFIX}YQ, v5"),
        (None, f"{PREFIX}YQ, v5", None, "", None, f"{PREFIX}YQ, v5"),
        ("websocket", "v5", None, "", None, "v5"),
    ],
)
def test_a_token_among_the_subprotocols_becomes_the_authorization_header(
    upgrade: str | None, protocols: str, authorization: str | None, refused: str, token: str | None, kept: str | None
) -> None:
    import base64
    import binascii

    def decode(text: str) -> str | None:
        try:
            return base64.b64decode(text, validate=True).decode("latin-1")
        except binascii.Error:
            return None

    lua = lupa.luajit21.LuaRuntime(encoding="latin-1", unpack_returned_tuples=True)
    lua.globals().decode = decode
    lua.execute(httpfilters.script("websockettoken"))
    lua.execute(HANDLE)
    answered, sent, protocol = lua.globals().run(upgrade, protocols, authorization)
    assert (refused in answered and answered.startswith("401 {")) if refused else answered is None
    assert sent == token
    assert kept is None or protocol == kept
