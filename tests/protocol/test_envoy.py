"""The real Envoy, fed by the real discovery service, in front of small TLS members."""

import asyncio
import json
import os
import ssl
import stat
from dataclasses import replace

import httpx2
import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from tests.protocol import dataplane
from tests.protocol.dataplane import Ask, Authorities, Plane, StartMember

from onepass.gateway import ir, replies, routing


async def test_a_member_gets_the_request_and_nothing_that_a_client_forged(
    plane: Plane, ask: Ask, start_member: StartMember, authorities: Authorities
) -> None:
    member = await start_member()
    await plane.members(dataplane.described(member, authorities))
    forged = {
        "X-Remote-User": "admin",
        "x-remote-group": "system:masters",
        "X-Remote-Extra-Scopes": "x",
        "X-Forwarded-For": "1.2.3.4",
        "X-Forwarded-Client-Cert": "Hash=abc",
        "x-envoy-internal": "true",
        "x-envoy-original-path": "/x",
        "x-envoy-upstream-rq-timeout-ms": "1",
        "x-onepass-member": "member/other",
        "x-onepass-route": "apiserver",
    }
    answer = await ask("/m/prod/api?x=1&y=%2F", headers=forged)
    assert answer.code == 200
    (seen,) = member.seen
    assert (seen.method, seen.path) == ("GET", "/api?x=1&y=%2F")
    assert seen.headers.keys() == {"host", "x-forwarded-for", "x-forwarded-proto", "x-request-id", "x-policy"}
    assert "1.2.3.4" not in seen.headers["x-forwarded-for"]
    assert "server" not in answer.headers
    assert not any(name.startswith("x-envoy") for name in answer.headers)


@pytest.mark.parametrize("kind", ["websocket", "SPDY/3.1"])
@pytest.mark.parametrize("http2", [False, True])
async def test_a_client_certificate_and_a_token_also_serve_upgrades(
    plane: Plane, ask: Ask, start_member: StartMember, authorities: Authorities, kind: str, http2: bool
) -> None:
    member = await start_member(alpn=("h2", "http/1.1") if http2 else ("http/1.1",))
    credential = replace(dataplane.x509(authorities), token="member-token")
    await plane.members(replace(dataplane.described(member, authorities), credential=credential, http2=http2))
    assert (await ask("/m/prod/api", headers={"authorization": "Bearer mine"})).code == 200
    async with dataplane.upgraded(plane, kind, "POST" if kind.startswith("SPDY") else "GET"):
        pass
    assert [seen.peer for seen in member.seen] == ["onepass-gateway"] * 2
    assert [seen.headers["authorization"] for seen in member.seen] == ["Bearer member-token"] * 2
    assert [seen.protocol for seen in member.seen] == ["http/1.1"] * 2


@pytest.mark.parametrize("http2", [False, True])
async def test_http2_goes_on_as_http2_where_the_member_offers_it(
    plane: Plane, start_member: StartMember, authorities: Authorities, http2: bool
) -> None:
    member = await start_member(alpn=("h2", "http/1.1"))
    await plane.members(
        replace(dataplane.described(member, authorities), http2=http2, credential=ir.Credential(token="t"))
    )
    async with plane.http2() as client:
        answer = await client.get("/m/prod/api")
    assert (answer.http_version, answer.status_code) == ("HTTP/2", 200)
    assert [seen.protocol for seen in member.seen] == ["h2" if http2 else "http/1.1"]
    assert member.seen[0].headers["authorization"] == "Bearer t"


async def test_a_member_is_held_to_its_name_and_authority(
    plane: Plane, ask: Ask, start_member: StartMember, authorities: Authorities
) -> None:
    member = await start_member(identity="api.prod.example")
    right = replace(dataplane.described(member, authorities), server_name="api.prod.example")
    await plane.members(
        right,
        replace(right, name="wrong", server_name="api.other.example"),
        replace(right, name="insecure", server_name="api.other.example", insecure=True),
        replace(right, name="stranger", ca=authorities.serving.cert_pem.bytes()),
        replace(right, name="system", ca=b""),
    )
    assert (await ask("/m/prod/api")).code == 200
    assert (await ask("/m/insecure/api")).code == 200
    for name in ("wrong", "stranger", "system"):
        code, reason, message = await dataplane.said(ask, f"/m/{name}/api")
        assert (code, reason) == (503, "ServiceUnavailable")
        assert message.startswith(f'cluster "{name}" shows a certificate that is not trusted')


async def test_a_member_that_fails_is_named_with_the_cause(
    plane: Plane, ask: Ask, start_member: StartMember, authorities: Authorities, closed_port: int
) -> None:
    alive = dataplane.described(await start_member(), authorities)
    dead = replace(alive, name="dead", port=closed_port)
    await plane.members(alive, dead, replace(alive, name="nameless", host="no-such-name.invalid"))
    assert await dataplane.said(ask, "/m/dead/x") == (
        503,
        "ServiceUnavailable",
        'cluster "dead" is unreachable: nothing listens at its endpoint',
    )
    code, reason, message = await dataplane.said(ask, "/m/nameless/x")
    assert (code, reason) == (503, "ServiceUnavailable")
    assert message.startswith('cluster "nameless" is unreachable: its name does not resolve')
    assert await dataplane.said(ask, "/m/unheard-of/x") == (
        503,
        "ServiceUnavailable",
        'cluster "unheard-of" is being set up; try again in a moment. If it stays so, its conditions say why',
    )
    code, reason, message = await dataplane.said(ask, "/m/prod/break")
    assert (code, reason) == (502, "BadGateway")
    assert message.startswith('cluster "prod" broke off the connection')
    assert (await ask("/m/prod/x")).code == 200


async def test_a_member_that_says_nothing_is_given_up(
    plane: Plane,
    ask: Ask,
    start_member: StartMember,
    authorities: Authorities,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(routing, "_REQUEST_IDLE", 0.2)
    await plane.members(dataplane.described(await start_member(), authorities))
    assert await dataplane.said(ask, "/m/prod/hang") == (504, "Timeout", 'cluster "prod" did not answer in time')


async def test_a_member_by_name_and_one_by_address_both_serve(
    plane: Plane, ask: Ask, start_member: StartMember, authorities: Authorities
) -> None:
    member = await start_member(identity="localhost")
    await plane.members(replace(dataplane.described(member, authorities), host="localhost", server_name="localhost"))
    async with asyncio.timeout(dataplane.DEADLINE):
        while (await ask("/m/prod/x")).code == 503:  # while the name is being resolved
            pass
    assert (await ask("/m/prod/x")).code == 200


@pytest.mark.parametrize(
    ("path", "request_", "code", "message"),
    [
        ("/a%2Fb", {}, 400, "the path must not contain encoded slashes"),
        ("/a%5cb", {}, 400, "the path must not contain encoded slashes"),
        ("/x", {"headers": {"a_b": "1"}}, 400, "the request is malformed"),
        ("/x", {"method": "BREW"}, 400, "the request is malformed"),
        ("/x", {"headers": {"content-length": "3", "transfer-encoding": "chunked"}}, 400, "the request is malformed"),
        ("/x", {"headers": {"connection": "Upgrade", "upgrade": "foo"}}, 403, "the connection can be upgraded to"),
        ("/x", {"headers": {"long": "x" * 99_000}}, 431, "the headers of the request are too large"),
        ("/x", {"headers": {f"h{n}": "x" for n in range(250)}}, 431, "the headers of the request are too large"),
        ("/crash", {}, 500, "the gateway could not judge this request"),
        ("/apis", {}, 503, "the API server of OnePass does not answer"),
    ],
)
async def test_what_the_gateway_refuses_by_itself_is_a_status(
    plane: Plane, ask: Ask, path: str, request_: dict[str, object], code: int, message: str
) -> None:
    answer = await dataplane.said(ask, path, **request_)
    assert answer[0] == code
    assert answer[2].startswith(message)


async def test_the_gatekeepers_own_refusal_passes_unchanged(plane: Plane, ask: Ask) -> None:
    answer = await ask("/deny")
    assert (answer.code, answer.body) == (403, b'{"kind":"Status","code":403}')
    assert answer.headers["content-type"] == "application/json"


async def test_client_certificates_are_optional_but_never_false(
    plane: Plane, ask: Ask, start_member: StartMember, authorities: Authorities
) -> None:
    await plane.members(dataplane.described(await start_member(), authorities))

    assert (await ask("/m/prod/x", context=plane.context(authorities.clients))).code == 200
    with pytest.raises((ssl.SSLError, ConnectionError, asyncio.IncompleteReadError)):
        await ask("/m/prod/x", context=plane.context(authorities.members))


async def test_a_token_is_verified_and_left_for_the_gatekeeper(
    plane: Plane, ask: Ask, start_member: StartMember, authorities: Authorities
) -> None:
    member = await start_member()
    await plane.members(dataplane.described(member, authorities))
    key = ec.generate_private_key(ec.SECP256R1())
    jwk = json.loads(jwt.algorithms.ECAlgorithm.to_jwk(key.public_key())) | {"kid": "k", "alg": "ES256"}
    issuer = ir.Issuer("https://gateway", ("https://gateway",), json.dumps({"keys": [jwk]}))
    await plane.show(replace(plane.gateway, listener=replace(plane.gateway.listener, issuers=(issuer,))))

    claims = {"iss": "https://gateway", "aud": ["https://gateway"], "sub": "robot", "exp": 4_000_000_000}

    def token(**other: object) -> str:
        return jwt.encode({k: v for k, v in (claims | other).items() if v}, key, "ES256", {"kid": "k"})

    async def arrives(bearer: str) -> tuple[str | None, bool]:
        assert (await ask("/m/prod/x", headers={"Authorization": f"Bearer {bearer}"})).code == 200
        seen = member.seen[-1].headers
        return seen.get("x-user"), "authorization" in seen

    assert await arrives(token()) == ("robot", True)
    for bad in (
        token(iss="https://other"),
        token(aud=["other"]),
        token(aud=None),
        token(exp=None),
        token(exp=1_000_000_000),
        token(nbf=4_000_000_000),
        token()[:-4] + "AAAA",
        "not-a-token",
    ):
        assert await arrives(bad) == (None, True)


async def test_the_prober_reaches_members_by_a_socket_of_its_own(
    plane: Plane, start_member: StartMember, authorities: Authorities
) -> None:
    member = await start_member()
    member.forges = replies.WHY  # which is for Envoy alone to say
    await plane.members(
        replace(dataplane.described(member, authorities), credential=replace(dataplane.x509(authorities), token="t"))
    )
    path = plane.gateway.sockets.probe
    assert stat.S_IMODE(os.stat(path).st_mode) == 0o600  # noqa: PTH116  a look at the local disk
    transport = httpx2.AsyncHTTPTransport(uds=path)
    async with httpx2.AsyncClient(transport=transport, base_url="http://probe", timeout=dataplane.DEADLINE) as client:
        answer = await client.get("/version", headers={"x-onepass-member": "member/prod", "host": "prod.example"})
        assert answer.status_code == 200
        assert replies.WHY not in answer.headers
        unknown = await client.get("/version", headers={"x-onepass-member": "member/none"})
        assert (unknown.status_code, unknown.headers[replies.WHY]) == (503, replies.NOT_PUBLISHED)
    (seen,) = member.seen
    assert seen.peer == "onepass-gateway"
    assert seen.headers["authorization"] == "Bearer t"
    assert seen.headers["host"] == "prod.example"
    assert not any(name.startswith("x-onepass") for name in seen.headers)


async def test_the_audit_log_tells_what_was_asked_and_by_whom(
    plane: Plane, ask: Ask, start_member: StartMember, authorities: Authorities
) -> None:
    await plane.members(dataplane.described(await start_member(), authorities))
    async with dataplane.upgraded(plane, "websocket"):
        pass
    await ask("/m/prod/x")
    await plane.stop("envoy")  # which flushes
    events = [json.loads(line) for line in dataplane.lines(plane.gateway.audit_log)]
    told = [(e["stage"], e["annotations"].get("access.karpor.io/cluster"), e["responseStatus"]["code"]) for e in events]
    assert [event for event in told if event[1]] == [
        ("ResponseStarted", "prod", 101),
        ("ResponseComplete", "prod", 101),
        ("ResponseComplete", "prod", 200),
    ]
