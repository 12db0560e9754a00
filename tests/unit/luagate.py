"""Runs the gatekeeper's Lua in this process, with a stand-in for the handle that Envoy gives it.

Text crosses into Lua as its UTF-8 bytes. The handle is written in Lua, as Envoy's is a Lua object; it is as strict as
Envoy about what may be changed during a walk over the headers.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any  # what comes out of Lua has no other type

import lupa.luajit21

from onepass.access.identity import Identity
from onepass.access.policy import Policy
from onepass.gateway import httpfilters, ir, tables

OWN = ir.Known(own=frozenset({"own"}))

HANDLE = r"""
local walking = 0
local function headers(list)
  local h = {}
  function h:get(name)
    local values = {}
    for _, pair in ipairs(list) do if pair[1] == name then values[#values + 1] = pair[2] end end
    return #values > 0 and table.concat(values, ",") or nil
  end
  function h:remove(name)
    assert(walking == 0, "headers changed during a walk")
    for i = #list, 1, -1 do if list[i][1] == name then table.remove(list, i) end end
  end
  function h:add(name, value)
    assert(walking == 0 and type(value) == "string", "headers changed during a walk")
    assert(not value:find("[%z\r\n]"), "invalid header value")
    list[#list + 1] = { name, value }
  end
  function h:replace(name, value)
    assert(walking == 0 and type(value) == "string", "headers changed during a walk")
    assert(not value:find("[%z\r\n]"), "invalid header value")
    for _, pair in ipairs(list) do
      if pair[1] == name then self:remove(name) break end
    end
    list[#list + 1] = { name, value }
  end
  h.walk = function()
    local i = 0
    walking = walking + 1
    return function()
      i = i + 1
      if list[i] then return list[i][1], list[i][2] end
      walking = walking - 1
    end
  end
  return h
end

local plain_pairs = pairs
function pairs(t) -- Envoy's LuaJIT knows __pairs, the one of the tests does not
  if type(t) == "table" and rawget(t, "walk") then return t.walk() end
  return plain_pairs(t)
end

function handle(list, certificate, claims, metadata, now_ms)
  local h, answer = {}, nil
  local head = headers(list)
  local all = metadata
  all["envoy.filters.http.jwt_authn"] = claims and { jwt_payload = claims } or nil
  local dynamic = {}
  function dynamic:get(name) return all[name] end
  function dynamic:set(name, key, value)
    all[name] = all[name] or {}
    all[name][key] = value
  end
  local tls = certificate and {
    peerCertificatePresented = function() return certificate.presented ~= false end,
    peerCertificateValidated = function() return certificate.validated end,
    sha256PeerCertificateDigest = function() return certificate.digest end,
    sha256PeerCertificateIssuerDigest = function() return certificate.issuer end,
    serialNumberPeerCertificate = function() return certificate.serial end,
    expirationPeerCertificate = function() return certificate.expires end,
    parsedSubjectPeerCertificate = function()
      return { commonName = function() return certificate.user end,
               organizationName = function() return certificate.groups end }
    end,
  }
  local info = {}
  function info:downstreamSslConnection() return tls end
  function info:dynamicMetadata() return dynamic end
  function h:headers() return head end
  function h:streamInfo() return info end
  function h:timestamp() return now_ms end
  function h:logErr(text) h.logged = text end
  function h:respond(with, body) h.answer = { headers = with, body = body } end
  function h:requestHeaders() return { get = function() return h.method end } end
  function h:body(always)
    assert(always, "an empty body is nil")
    return { setBytes = function(_, bytes) h.replaced = bytes end }
  end
  return h
end
"""


def raw(text: str) -> str:
    """Text as lupa hands it to Lua: one character a byte."""
    return text.encode("utf-8", "surrogatepass").decode("latin-1")


def cooked(text: str) -> str:
    return text.encode("latin-1").decode("utf-8", "replace")


def plain(value: Any) -> Any:
    """A Lua value as JSON would have it, as Envoy makes a protobuf Value of it."""
    if isinstance(value, str):
        return cooked(value)
    if lupa.luajit21.lua_type(value) != "table":
        return value
    if list(value) == list(range(1, len(value) + 1)) and len(value):
        return [plain(item) for item in value.values()]
    return {cooked(key): plain(item) for key, item in value.items()}


@dataclass(frozen=True)
class Certificate:
    """A client certificate as Envoy tells of it."""

    user: str
    groups: Sequence[str] = ()
    serial: str = "01ab"
    expires: int = 4_000_000_000
    validated: bool = True
    issuer: str = "own"

    def lua(self, to: Any) -> Any:
        named = {"user": raw(self.user), "serial": self.serial, "expires": self.expires, "validated": self.validated}
        named |= {"issuer": self.issuer}
        return to(named | {"digest": repr(self), "groups": to([raw(group) for group in self.groups])})


@dataclass
class Outcome:
    """What became of one request: the headers it went on with, or the answer that ended it."""

    headers: list[tuple[str, str]]
    metadata: dict[str, Any]
    code: int = 0  # 0: it went on
    body: str = ""
    answer: dict[str, str] = field(default_factory=dict)
    logged: str = ""

    def all(self, name: str) -> list[str]:
        return [value for key, value in self.headers if key == name]

    def one(self, name: str) -> str | None:
        values = self.all(name)
        assert len(values) <= 1, values
        return values[0] if values else None


class Gate:
    """The gatekeeper with one policy. `now` is what its clock shows."""

    def __init__(self, policy: Policy, now: int = 1_700_000_000, known: ir.Known = OWN) -> None:
        self.lua = lupa.luajit21.LuaRuntime(encoding="latin-1", unpack_returned_tuples=True)
        self.lua.execute(HANDLE)
        self.now = now
        self.lua.globals().os.time = lambda: self.now
        self.lua.execute(raw(tables.source(policy, known)))
        self.lua.execute(httpfilters.script("answers"))
        self.globals = self.lua.globals()

    def request(
        self,
        method: str,
        path: str,
        *headers: tuple[str, str],
        certificate: Certificate | None = None,
        claims: Mapping[str, Any] | None = None,
    ) -> Outcome:
        to = self.lua.table_from
        first = [(":method", method), (":path", path), (":authority", "gateway"), ("accept", "application/json")]
        listed = to([to([raw(name), raw(value)]) for name, value in (*first, *headers)])
        metadata = to({})
        given = certificate.lua(to) if certificate else None
        handle = self.globals.handle(listed, given, self._nested(claims), metadata, self.now * 1000 + 500)
        self.globals.envoy_on_request(handle)
        outcome = Outcome(
            [(cooked(pair[1]), cooked(pair[2])) for pair in listed.values()],
            plain(metadata["onepass"] or to({})),
            logged=handle.logged or "",
        )
        if handle.answer:
            outcome.answer = dict(handle.answer.headers.items())
            outcome.code, outcome.body = int(outcome.answer[":status"]), cooked(handle.answer.body)
        return outcome

    def response(
        self, status: str, *headers: tuple[str, str], metadata: Mapping[str, str] | None = None, method: str = "GET"
    ) -> Outcome:
        """What becomes of an answer; `body` is what replaces its own, if anything does."""
        to = self.lua.table_from
        listed = to([to([name, value]) for name, value in ((":status", status), *headers)])
        known = to({"onepass": to(dict(metadata))} if metadata else {})
        handle = self.globals.handle(listed, None, None, known, 0)
        handle.method = method
        self.globals.envoy_on_response(handle)
        return Outcome([(pair[1], pair[2]) for pair in listed.values()], {}, body=cooked(handle.replaced or ""))

    def parse(self, method: str, path: str, query: str, upgrade: bool) -> dict[str, Any] | str:
        """The attributes, as Lua has them; or why there are none."""
        info = self.globals.onepass.requestinfo
        decoded, why = info.decode(raw(path))
        if decoded is None:
            return cooked(why)
        found = info.attributes(method, decoded, raw(query), upgrade)
        if isinstance(found, tuple):
            return cooked(found[1])
        return {key: cooked(value) if isinstance(value, str) else value for key, value in found.items()}

    def decide(
        self,
        identity: Identity,
        cluster: str,
        method: str,
        inner: str,
        query: str,
        upgrade: bool,
        now: int,
        impersonation: Identity | None,
    ) -> tuple[Any, ...]:
        """code, message, origin, as_user, until, here."""
        attributes = self.globals.onepass.requestinfo.attributes(method, raw(inner), raw(query), upgrade)
        given = self._identity(identity)
        wanted = self._identity(impersonation) if impersonation else None
        code, message, *rest = self.globals.onepass.rules.decide(
            given, raw(cluster), method, attributes, upgrade, now, wanted
        )
        return (code, cooked(message), *rest)

    def _identity(self, identity: Identity) -> Any:
        to = self.lua.table_from
        extra = {raw(key): to([raw(value) for value in values]) for key, values in identity.extra.items()}
        groups = to([raw(group) for group in identity.groups])
        return to({"user": raw(identity.user), "groups": groups, "uid": raw(identity.uid), "extra": to(extra)})

    def _nested(self, value: Any) -> Any:
        if isinstance(value, Mapping):
            return self.lua.table_from({raw(key): self._nested(item) for key, item in value.items()})
        if isinstance(value, list):
            return self.lua.table_from([self._nested(item) for item in value])
        return raw(value) if isinstance(value, str) else value
