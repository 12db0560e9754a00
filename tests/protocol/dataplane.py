"""A member cluster that tells what reached it, a data plane to reach it through, and what tests do with both."""

import asyncio
import contextlib
import json
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import h2.config
import h2.connection
import h2.events
import httpx2
import trustme

from onepass.access.policy import Policy
from onepass.gateway import bootstrap, ir, resources
from onepass.runtime import envoy
from onepass.xds import ads as ads_module
from onepass.xds.stream import Rejection

DEADLINE = 120.0  # of what takes a second at most
PATIENCE = 600.0  # which no test lasts

# Stands in for the gatekeeper: /m/NAME/... goes to a member, /deny is refused, /crash fails, the rest is for the API
# server. It says which policy it is (the only target's authority) in a header, so that a change of it can be seen.
STAND_IN = """
function envoy_on_request(h)
  local headers = h:headers()
  local path = headers:get(":path")
  if path == "/deny" then
    h:respond({[":status"] = "403", ["content-type"] = "application/json"}, '{"kind":"Status","code":403}')
    return
  end
  if path == "/crash" then error("crashed on purpose") end
  local name, rest = string.match(path, "^/m/([^/]+)(/.*)$")
  headers:replace("x-policy", "%s")
  if not name then
    headers:replace("x-onepass-route", "apiserver")
    return
  end
  local metadata = h:streamInfo():dynamicMetadata()
  metadata:set("onepass", "cluster", name)
  metadata:set("onepass", "request", { cluster = name })
  local claims = metadata:get("envoy.filters.http.jwt_authn")
  if claims and claims["jwt_payload"] then headers:replace("x-user", claims["jwt_payload"]["sub"]) end
  local stream = headers:get("upgrade") or string.find(rest, "watch=1", 1, true)
  headers:replace(":path", rest)
  headers:replace("x-onepass-route", stream and "stream" or "member")
  headers:replace("x-onepass-member", "member/" .. name)
end
"""


def stand_in(policy: Policy, _known: ir.Known) -> str:
    return STAND_IN.replace("%s", policy.targets["policy"].authority if policy.targets else "none")


@dataclass
class Seen:
    """A request as it reached the member."""

    protocol: str
    method: str
    path: str
    headers: dict[str, str]
    peer: str  # the common name of the client certificate

    def body(self) -> bytes:
        return json.dumps(self.__dict__).encode()


@dataclass
class Member:
    """TLS on loopback. Answers with what it saw; `?watch=1` streams until `more` is set; an upgrade echoes bytes."""

    port: int = 0
    seen: list[Seen] = field(default_factory=list)
    more: asyncio.Event = field(default_factory=asyncio.Event)
    connections: int = 0
    ready: bool = True  # what /readyz says
    forges: str = ""  # a header that each answer by HTTP/1.1 has besides

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        tls: ssl.SSLObject = writer.get_extra_info("ssl_object")
        names = [rdn[0] for rdn in (tls.getpeercert() or {}).get("subject", ()) if isinstance(rdn, tuple)]
        peer = "".join(str(name[1]) for name in names if name[0] == "commonName")
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            if tls.selected_alpn_protocol() == "h2":
                await self._http2(reader, writer, peer)
            else:
                while await self._http1(reader, writer, peer):
                    pass
        writer.close()

    async def _http1(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, peer: str) -> bool:
        head = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
        method, path, _ = head[0].split(" ")
        headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in head[1:] if line)}
        seen = Seen("http/1.1", method, path, headers, peer)
        self.seen.append(seen)
        if "upgrade" in headers:
            writer.write(b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\n")
            writer.write(f"Upgrade: {headers['upgrade']}\r\n\r\n".encode())
            while data := await reader.read(65536):
                writer.write(data)
            return False
        if "watch=1" in path:
            writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n6\r\nfirst\n\r\n")
            await self.more.wait()
            writer.write(b"5\r\nlast\n\r\n0\r\n\r\n")
            return True
        if path == "/hang":
            await self.more.wait()
        if path == "/break":
            return False
        code = b"500 Internal Server Error" if path == "/readyz" and not self.ready else b"200 OK"
        body = seen.body()
        forged = f"{self.forges}: true\r\n".encode() if self.forges else b""
        writer.write(b"HTTP/1.1 %s\r\n%sContent-Length: %d\r\n\r\n%s" % (code, forged, len(body), body))
        return True

    async def _http2(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, peer: str) -> None:
        connection = h2.connection.H2Connection(h2.config.H2Configuration(client_side=False, header_encoding="utf-8"))
        connection.initiate_connection()
        writer.write(connection.data_to_send())
        async with asyncio.TaskGroup() as group:
            while data := await reader.read(65536):
                for event in connection.receive_data(data):
                    if isinstance(event, h2.events.RequestReceived):
                        fields = {str(name): str(value) for name, value in event.headers or ()}
                        seen = Seen("h2", fields[":method"], fields[":path"], fields, peer)
                        self.seen.append(seen)
                        group.create_task(self._answer2(connection, writer, event.stream_id or 0, seen))
                writer.write(connection.data_to_send())

    async def _answer2(
        self, connection: h2.connection.H2Connection, writer: asyncio.StreamWriter, stream: int, seen: Seen
    ) -> None:
        connection.send_headers(stream, [(":status", "200")])
        if "watch=1" in seen.path:
            connection.send_data(stream, b"first\n")
            writer.write(connection.data_to_send())
            await self.more.wait()
        connection.send_data(stream, b"last\n" if "watch=1" in seen.path else seen.body(), end_stream=True)
        writer.write(connection.data_to_send())


@dataclass
class Authorities:
    """Throw-away authorities: of members' servers, of the gateway's server, of clients."""

    members: trustme.CA = field(default_factory=trustme.CA)
    serving: trustme.CA = field(default_factory=trustme.CA)
    clients: trustme.CA = field(default_factory=trustme.CA)


def pem(authority: trustme.CA) -> bytes:
    return authority.cert_pem.bytes()


StartMember = Callable[..., Awaitable[Member]]


@dataclass
class Refusals:
    refused: list[Rejection] = field(default_factory=list)

    def connected(self, node: str) -> None: ...

    def disconnected(self, node: str) -> None: ...

    def rejected(self, rejection: Rejection) -> None:
        self.refused.append(rejection)


@dataclass
class Plane:
    """A running Envoy with its discovery service."""

    gateway: ir.Gateway
    start: bootstrap.Start
    envoy: envoy.Envoy
    authorities: Authorities
    builder: resources.Builder = field(default_factory=lambda: resources.Builder(stand_in))
    refusals: Refusals = field(default_factory=Refusals)
    tasks: dict[str, asyncio.Task[None]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.ads = ads_module.Ads(self.refusals)

    def start_discovery(self) -> None:
        """A new discovery service, as after a restart of the control plane."""
        self.ads = ads_module.Ads(self.refusals)
        self.tasks["ads"] = asyncio.create_task(ads_module.serve(self.ads, self.start.ads))

    def start_envoy(self) -> None:
        self.tasks["envoy"] = asyncio.create_task(self.envoy.run())

    async def stop(self, *names: str) -> None:
        tasks = [self.tasks.pop(name) for name in names or tuple(self.tasks)]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def context(self, client: trustme.CA | None = None) -> ssl.SSLContext:
        """Trusts the gateway, may hold a certificate of `client`; a new one each time, as HTTP clients alter theirs."""
        context = ssl.create_default_context()
        self.authorities.serving.configure_trust(context)
        if client:
            client.issue_cert(common_name="alice").configure_cert(context)
        return context

    @property
    def port(self) -> int:
        return self.gateway.listener.port

    async def show(self, gateway: ir.Gateway) -> None:
        """Make `gateway` what Envoy does, and wait until it says so."""
        self.gateway = gateway
        generation = self.ads.set(self.builder.build(gateway))
        refused = await self.ads.acknowledged(generation, timeout=DEADLINE)
        assert refused == ()

    async def members(self, *members: ir.Member) -> None:
        await self.show(replace(self.gateway, members={member.name: member for member in members}))

    async def told(self, path: str) -> Any:
        """What Envoy tells of itself, as JSON, on its own socket."""
        transport = httpx2.AsyncHTTPTransport(uds=self.start.admin)
        async with httpx2.AsyncClient(transport=transport, timeout=DEADLINE) as admin:
            return (await admin.get(f"http://envoy{path}")).json()

    def http2(self) -> httpx2.AsyncClient:
        base_url = f"https://localhost:{self.port}"
        return httpx2.AsyncClient(http2=True, verify=self.context(), base_url=base_url, timeout=DEADLINE)

    async def connect(self, context: ssl.SSLContext | None = None) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        return await asyncio.open_connection(
            "127.0.0.1", self.port, ssl=context or self.context(), server_hostname="localhost"
        )


@dataclass
class Answer:
    code: int
    headers: dict[str, str]
    body: bytes

    def json(self) -> dict[str, object]:
        parsed = json.loads(self.body)
        assert isinstance(parsed, dict)
        return parsed


async def read_answer(reader: asyncio.StreamReader) -> Answer:
    """One HTTP/1.1 answer with a content-length."""
    async with asyncio.timeout(DEADLINE):
        head = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
        headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in head[1:] if line)}
        body = await reader.readexactly(int(headers.get("content-length", "0")))
    return Answer(int(head[0].split(" ")[1]), headers, body)


Ask = Callable[..., Awaitable[Answer]]


async def opened(plane: Plane) -> None:
    """Envoy acknowledges a listener a moment before it accepts."""
    while True:
        with contextlib.suppress(ConnectionRefusedError):
            _, writer = await plane.connect()
            writer.close()
            return
        await asyncio.sleep(0.01)


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


async def said(ask: "Ask", path: str, **request: object) -> tuple[int, str, str]:
    """Code, reason and message of an answer that must be a Status."""
    answer = await ask(path, **request)
    status = answer.json()
    assert answer.headers["content-type"] == "application/json"
    assert (status["kind"], status["apiVersion"], status["status"]) == ("Status", "v1", "Failure")
    assert status["code"] == answer.code
    return answer.code, str(status["reason"]), str(status["message"])
