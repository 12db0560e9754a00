"""The real Envoy, fed by the real discovery service, in front of small TLS members."""

import asyncio
import contextlib
import json
import os
import ssl
import stat
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import httpx2
import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from onepass.access.policy import Policy, Target
from onepass.gateway import ir, replies, routing

if TYPE_CHECKING:
    from tests.protocol.conftest import Ask, Authorities, Member, Plane, StartMember

DEADLINE = 20.0


def x509(authorities: "Authorities", name: str = "onepass-gateway") -> ir.Credential:
    issued = authorities.clients.issue_cert(common_name=name)
    chain = b"".join(blob.bytes() for blob in issued.cert_chain_pems)
    return ir.Credential(certificate=chain, private_key=issued.private_key_pem.bytes())


def described(member: "Member", authorities: "Authorities", name: str = "prod") -> ir.Member:
    return ir.Member(
        name=name,
        host="127.0.0.1",
        port=member.port,
        server_name="127.0.0.1",
        ca=authorities.members.cert_pem.bytes(),
        insecure=False,
        http2=False,
    )


def lines(path: str) -> list[str]:
    return Path(path).read_text().splitlines()


class Stream:
    """A watch over HTTP/1.1 that is open."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    async def expect(self, data: bytes) -> None:
        async with asyncio.timeout(DEADLINE):
            got = await self.reader.readuntil(data)
        assert got.endswith(data)


@contextlib.asynccontextmanager
async def watching(plane: "Plane", path: str = "/m/prod/api/v1/pods?watch=1") -> AsyncIterator[Stream]:
    reader, writer = await plane.connect()
    writer.write(f"GET {path} HTTP/1.1\r\nhost: gateway\r\n\r\n".encode())
    stream = Stream(reader, writer)
    await stream.expect(b"first\n\r\n")
    yield stream
    writer.close()


@contextlib.asynccontextmanager
async def upgraded(plane: "Plane", kind: str, method: str = "GET") -> AsyncIterator[Stream]:
    reader, writer = await plane.connect()
    writer.write(
        f"{method} /m/prod/exec HTTP/1.1\r\nhost: g\r\nconnection: Upgrade\r\nupgrade: {kind}\r\n\r\n".encode()
    )
    stream = Stream(reader, writer)
    await stream.expect(b"\r\n\r\n")
    writer.write(b"ping")
    await stream.expect(b"ping")
    yield stream
    writer.close()


async def test_a_member_gets_the_request_and_nothing_that_a_client_forged(
    plane: "Plane", ask: "Ask", start_member: "StartMember", authorities: "Authorities"
) -> None:
    member = await start_member()
    await plane.members(described(member, authorities))
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
    plane: "Plane", ask: "Ask", start_member: "StartMember", authorities: "Authorities", kind: str, http2: bool
) -> None:
    member = await start_member(alpn=("h2", "http/1.1") if http2 else ("http/1.1",))
    credential = replace(x509(authorities), token="member-token")
    await plane.members(replace(described(member, authorities), credential=credential, http2=http2))
    assert (await ask("/m/prod/api", headers={"authorization": "Bearer mine"})).code == 200
    async with upgraded(plane, kind, "POST" if kind.startswith("SPDY") else "GET"):
        pass
    assert [seen.peer for seen in member.seen] == ["onepass-gateway"] * 2
    assert [seen.headers["authorization"] for seen in member.seen] == ["Bearer member-token"] * 2
    assert [seen.protocol for seen in member.seen] == ["http/1.1"] * 2


@pytest.mark.parametrize("http2", [False, True])
async def test_http2_goes_on_as_http2_where_the_member_offers_it(
    plane: "Plane", start_member: "StartMember", authorities: "Authorities", http2: bool
) -> None:
    member = await start_member(alpn=("h2", "http/1.1"))
    await plane.members(replace(described(member, authorities), http2=http2, credential=ir.Credential(token="t")))
    async with httpx2.AsyncClient(
        http2=True, verify=plane.context(), base_url=f"https://localhost:{plane.port}"
    ) as client:
        answer = await client.get("/m/prod/api")
    assert (answer.http_version, answer.status_code) == ("HTTP/2", 200)
    assert [seen.protocol for seen in member.seen] == ["h2" if http2 else "http/1.1"]
    assert member.seen[0].headers["authorization"] == "Bearer t"


async def said(ask: "Ask", path: str, **request: object) -> tuple[int, str, str]:
    """Code, reason and message of an answer that must be a Status."""
    answer = await ask(path, **request)
    status = answer.json()
    assert answer.headers["content-type"] == "application/json"
    assert (status["kind"], status["apiVersion"], status["status"]) == ("Status", "v1", "Failure")
    assert status["code"] == answer.code
    return answer.code, str(status["reason"]), str(status["message"])


async def test_a_member_is_held_to_its_name_and_authority(
    plane: "Plane", ask: "Ask", start_member: "StartMember", authorities: "Authorities"
) -> None:
    member = await start_member(identity="api.prod.example")
    right = replace(described(member, authorities), server_name="api.prod.example")
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
        code, reason, message = await said(ask, f"/m/{name}/api")
        assert (code, reason) == (503, "ServiceUnavailable")
        assert message.startswith(f'cluster "{name}" shows a certificate that is not trusted')


async def test_a_member_that_fails_is_named_with_the_cause(
    plane: "Plane", ask: "Ask", start_member: "StartMember", authorities: "Authorities", closed_port: int
) -> None:
    alive = described(await start_member(), authorities)
    dead = replace(alive, name="dead", port=closed_port)
    await plane.members(alive, dead, replace(alive, name="nameless", host="no-such-name.invalid"))
    assert await said(ask, "/m/dead/x") == (
        503,
        "ServiceUnavailable",
        'cluster "dead" is unreachable: nothing listens at its endpoint',
    )
    code, reason, message = await said(ask, "/m/nameless/x")
    assert (code, reason) == (503, "ServiceUnavailable")
    assert message.startswith('cluster "nameless" is unreachable: its name does not resolve')
    assert await said(ask, "/m/unheard-of/x") == (
        503,
        "ServiceUnavailable",
        'cluster "unheard-of" is being set up; try again in a moment',
    )
    code, reason, message = await said(ask, "/m/prod/break")
    assert (code, reason) == (502, "BadGateway")
    assert message.startswith('cluster "prod" broke off the connection')
    assert (await ask("/m/prod/x")).code == 200


async def test_a_member_that_says_nothing_is_given_up(
    plane: "Plane",
    ask: "Ask",
    start_member: "StartMember",
    authorities: "Authorities",
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(routing, "_REQUEST_IDLE", 0.2)
    await plane.members(described(await start_member(), authorities))
    assert await said(ask, "/m/prod/hang") == (504, "Timeout", 'cluster "prod" did not answer in time')


async def test_a_member_by_name_and_one_by_address_both_serve(
    plane: "Plane", ask: "Ask", start_member: "StartMember", authorities: "Authorities"
) -> None:
    member = await start_member(identity="localhost")
    await plane.members(replace(described(member, authorities), host="localhost", server_name="localhost"))
    async with asyncio.timeout(DEADLINE):
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
    plane: "Plane", ask: "Ask", path: str, request_: dict[str, object], code: int, message: str
) -> None:
    answer = await said(ask, path, **request_)
    assert answer[0] == code
    assert answer[2].startswith(message)


async def test_the_gatekeepers_own_refusal_passes_unchanged(plane: "Plane", ask: "Ask") -> None:
    answer = await ask("/deny")
    assert (answer.code, answer.body) == (403, b'{"kind":"Status","code":403}')
    assert answer.headers["content-type"] == "application/json"


async def test_no_stream_is_cut_when_clusters_policy_or_credentials_change(
    plane: "Plane", ask: "Ask", start_member: "StartMember", authorities: "Authorities"
) -> None:
    member, other = await start_member(alpn=("h2", "http/1.1")), await start_member()
    first = replace(described(member, authorities), credential=x509(authorities, "before"))
    await plane.members(first)
    async with (
        watching(plane) as watch,
        upgraded(plane, "websocket") as shell,
        httpx2.AsyncClient(http2=True, verify=plane.context(), base_url=f"https://localhost:{plane.port}") as client,
        client.stream("GET", "/m/prod/api?watch=1") as watch2,
    ):
        watch2_data = watch2.aiter_bytes()
        assert b"first" in await anext(watch2_data)

        changed = replace(first, credential=x509(authorities, "after"), http2=True)
        await plane.members(changed, described(other, authorities, "other"))
        assert (await ask("/m/other/x")).code == 200
        policy = Policy(targets={"policy": Target("policy", "second", "", "Gateway")})
        await plane.show(replace(plane.gateway, policy=policy))
        assert (await ask("/m/prod/after")).code == 200
        await plane.members(described(other, authorities, "other"))  # even without its cluster

        shell.writer.write(b"still here")
        await shell.expect(b"still here")
        member.more.set()
        await watch.expect(b"last\n\r\n0\r\n\r\n")
        assert b"last" in await anext(watch2_data)
    assert [seen.headers.get("x-policy") for seen in member.seen] == ["none", "none", "none", "second"]
    # New requests use the new credential at once, although connections with the old one were open.
    assert [seen.peer for seen in member.seen] == ["before", "before", "before", "after"]


async def test_http2_to_a_member_is_kept_through_a_change_of_credential(
    plane: "Plane", start_member: "StartMember", authorities: "Authorities"
) -> None:
    member = await start_member(alpn=("h2", "http/1.1"))
    first = replace(described(member, authorities), http2=True, credential=x509(authorities, "before"))
    await plane.members(first)
    async with (
        httpx2.AsyncClient(http2=True, verify=plane.context(), base_url=f"https://localhost:{plane.port}") as client,
        client.stream("GET", "/m/prod/api?watch=1") as watch,
    ):
        lines = watch.aiter_bytes()
        assert b"first" in await anext(lines)
        await plane.members(replace(first, credential=x509(authorities, "after")))
        assert (await client.get("/m/prod/x")).status_code == 200
        member.more.set()
        assert b"last" in await anext(lines)
    assert [(seen.protocol, seen.peer) for seen in member.seen] == [("h2", "before"), ("h2", "after")]


async def test_a_new_token_is_used_from_the_next_request_on(
    plane: "Plane", ask: "Ask", start_member: "StartMember", authorities: "Authorities"
) -> None:
    member = await start_member()
    cluster = described(member, authorities)
    for token in ("one", "two"):
        await plane.members(replace(cluster, credential=ir.Credential(token=token)))
        assert (await ask("/m/prod/x")).code == 200
    assert [seen.headers["authorization"] for seen in member.seen] == ["Bearer one", "Bearer two"]
    assert member.connections == 1


async def test_a_removed_cluster_is_no_longer_reached(
    plane: "Plane", ask: "Ask", start_member: "StartMember", authorities: "Authorities"
) -> None:
    member = await start_member()
    await plane.members(described(member, authorities))
    assert (await ask("/m/prod/x")).code == 200
    await plane.members()
    assert (await ask("/m/prod/x")).code == 503
    assert len(member.seen) == 1


async def test_lua_that_does_not_compile_is_refused_and_the_policy_before_goes_on(
    plane: "Plane", ask: "Ask", start_member: "StartMember", authorities: "Authorities"
) -> None:
    await plane.members(described(await start_member(), authorities))
    broken = Policy(targets={"policy": Target("policy", '" then', "", "Gateway")})
    generation = plane.ads.set(plane.builder.build(replace(plane.gateway, policy=broken)))
    (rejection,) = await plane.ads.acknowledged(generation, timeout=DEADLINE)
    assert rejection.names == ("gatekeeper",)
    assert plane.refusals.refused == [rejection]
    assert (await ask("/m/prod/x")).code == 200


@pytest.mark.parametrize("wrong", ["ca", "credential"])
async def test_one_bad_member_holds_up_no_other(
    plane: "Plane", ask: "Ask", start_member: "StartMember", authorities: "Authorities", wrong: str
) -> None:
    good = replace(described(await start_member(), authorities), credential=x509(authorities))
    bad = {
        "ca": replace(good, ca=b"not a certificate"),
        "credential": replace(good, credential=ir.Credential(certificate=b"not", private_key=b"these")),
    }[wrong]
    several = [replace(bad, name="bad0"), good, replace(bad, name="bad1")]
    members = {member.name: member for member in several}
    generation = plane.ads.set(plane.builder.build(replace(plane.gateway, members=members)))
    await plane.ads.acknowledged(generation, timeout=DEADLINE)
    assert any("bad0" in name for name in plane.refusals.refused[0].names)
    assert (await ask("/m/prod/x")).code == 200


async def test_client_certificates_are_optional_but_never_false(
    plane: "Plane", ask: "Ask", start_member: "StartMember", authorities: "Authorities"
) -> None:
    await plane.members(described(await start_member(), authorities))

    assert (await ask("/m/prod/x", context=plane.context(authorities.clients))).code == 200
    with pytest.raises((ssl.SSLError, ConnectionError, asyncio.IncompleteReadError)):
        await ask("/m/prod/x", context=plane.context(authorities.members))


async def test_a_token_is_verified_and_taken_off_or_left_for_the_gatekeeper(
    plane: "Plane", ask: "Ask", start_member: "StartMember", authorities: "Authorities"
) -> None:
    member = await start_member()
    await plane.members(described(member, authorities))
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

    assert await arrives(token()) == ("robot", False)
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
    plane: "Plane", start_member: "StartMember", authorities: "Authorities"
) -> None:
    member = await start_member()
    await plane.members(replace(described(member, authorities), credential=replace(x509(authorities), token="t")))
    path = plane.gateway.sockets.probe
    assert stat.S_IMODE(os.stat(path).st_mode) == 0o600  # noqa: PTH116  a look at the local disk
    transport = httpx2.AsyncHTTPTransport(uds=path)
    async with httpx2.AsyncClient(transport=transport, base_url="http://probe") as client:
        answer = await client.get("/version", headers={"x-onepass-member": "member/prod", "host": "prod.example"})
        assert answer.status_code == 200
        assert replies.UNKNOWN_MEMBER not in answer.headers
        unknown = await client.get("/version", headers={"x-onepass-member": "member/none"})
        assert (unknown.status_code, unknown.headers[replies.UNKNOWN_MEMBER]) == (503, "true")
    (seen,) = member.seen
    assert seen.peer == "onepass-gateway"
    assert seen.headers["authorization"] == "Bearer t"
    assert seen.headers["host"] == "prod.example"
    assert not any(name.startswith("x-onepass") for name in seen.headers)


async def test_the_data_plane_goes_on_without_the_control_plane_and_is_sent_only_news_after(
    plane: "Plane", ask: "Ask", start_member: "StartMember", authorities: "Authorities"
) -> None:
    prod = described(await start_member(), authorities)
    await plane.members(prod)
    await plane.stop("ads")
    assert (await ask("/m/prod/x")).code == 200

    plane.start_discovery()
    other = described(await start_member(), authorities, "other")
    async with watching(plane):
        await plane.members(prod, other)
        assert (await ask("/m/other/x")).code == 200


async def test_the_access_log_tells_what_was_asked_and_by_whom(
    plane: "Plane", ask: "Ask", start_member: "StartMember", authorities: "Authorities"
) -> None:
    await plane.members(described(await start_member(), authorities))
    async with upgraded(plane, "websocket"):
        pass
    await ask("/m/prod/x")
    await plane.stop("envoy")  # which flushes
    events = [json.loads(line) for line in lines(plane.gateway.access_log)]
    assert [(event["event"], event["cluster"], event["code"]) for event in events if "cluster" in event] == [
        ("DownstreamTunnelSuccessfullyEstablished", "prod", 101),
        ("DownstreamEnd", "prod", 101),
        ("DownstreamEnd", "prod", 200),
    ]
