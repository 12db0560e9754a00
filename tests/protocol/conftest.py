"""Members, and a running Envoy before them."""

import asyncio
import contextlib
import ssl
import tempfile
from collections.abc import AsyncIterator, Iterator, Mapping
from pathlib import Path

import pytest
from tests.machine import free_port
from tests.protocol import dataplane
from tests.protocol.dataplane import DEADLINE, Answer, Ask, Authorities, Member, Plane, StartMember

from onepass.access.policy import Policy
from onepass.gateway import bootstrap, ir, upstreams
from onepass.pki import certificates
from onepass.runtime import envoy


@pytest.fixture(scope="session")
def authorities() -> Authorities:
    return Authorities()


@pytest.fixture
async def start_member(authorities: Authorities) -> AsyncIterator[StartMember]:
    """Starts members: `await start_member(alpn=("h2",), identity="127.0.0.1", address="127.0.0.1", port=0)`."""
    async with contextlib.AsyncExitStack() as stack:

        async def start(
            alpn: tuple[str, ...] = ("http/1.1",),
            identity: str = "127.0.0.1",
            address: str = "127.0.0.1",
            port: int = 0,
        ) -> Member:
            context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
            authorities.members.issue_cert(identity).configure_cert(context)
            authorities.clients.configure_trust(context)
            context.verify_mode = ssl.CERT_OPTIONAL
            context.set_alpn_protocols(list(alpn))
            member = Member()
            server = await asyncio.start_server(member.serve, address, port, ssl=context)
            stack.callback(member.more.set)
            stack.push_async_callback(server.wait_closed)
            stack.callback(server.close)
            member.port = server.sockets[0].getsockname()[1]
            return member

        yield start


@pytest.fixture
def ask(plane: Plane) -> Ask:
    """One HTTP/1.1 request on a connection of its own."""

    async def send(
        path: str, method: str = "GET", headers: Mapping[str, str] | None = None, context: ssl.SSLContext | None = None
    ) -> Answer:
        reader, writer = await plane.connect(context)
        lines = [f"{method} {path} HTTP/1.1", "host: gateway", *(f"{k}: {v}" for k, v in (headers or {}).items())]
        writer.write("\r\n".join([*lines, "", ""]).encode("latin-1"))
        answer = await dataplane.read_answer(reader)
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()
        return answer

    return send


@pytest.fixture
def short_dir() -> Iterator[Path]:
    """A directory whose path leaves room for the name of a unix socket."""
    with tempfile.TemporaryDirectory(prefix="onepass-") as name:
        yield Path(name)


@pytest.fixture
async def plane(authorities: Authorities, short_dir: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Plane]:
    """It waits for connections as long as the test lasts, as a member in this process may be slow to answer, and ends
    when its log is written."""
    monkeypatch.setattr(upstreams, "_CONNECT", dataplane.PATIENCE)
    monkeypatch.setattr(envoy, "STOP_SECONDS", DEADLINE)
    serving = authorities.serving.issue_cert("localhost")
    listener = ir.Listener(
        host="127.0.0.1",
        port=free_port(),
        certificate=b"".join(blob.bytes() for blob in serving.cert_chain_pems),
        private_key=serving.private_key_pem.bytes(),
        client_ca=dataplane.pem(authorities.clients),
        known=ir.Known(own=frozenset(map(certificates.digest, certificates.chain(dataplane.pem(authorities.clients))))),
    )
    sockets = ir.Sockets(apiserver=str(short_dir / "api.sock"), probe=str(short_dir / "probe.sock"))
    gateway = ir.Gateway(listener, sockets, Policy(), audit_log=str(short_dir / "access.log"))
    start = bootstrap.Start("test", ads=str(short_dir / "ads.sock"), admin=str(short_dir / "admin.sock"))
    running = envoy.Envoy(short_dir, bootstrap.document(start), concurrency=1)
    made = Plane(gateway, start, running, authorities)
    made.start_discovery()
    made.start_envoy()
    try:
        await made.show(gateway)
        async with asyncio.timeout(DEADLINE):
            await dataplane.opened(made)
        yield made
    finally:
        await made.stop()


@pytest.fixture
def closed_port() -> int:
    """A port that nothing listens on."""
    return free_port()
