"""Sandbox members: the API server once more, with pods behind it, served by TLS on loopback."""

import asyncio
import secrets
import socket
import ssl
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from cryptography.hazmat.primitives.serialization import Encoding
from starlette.applications import Starlette

from onepass.access.identity import AUTHENTICATED, Identity
from onepass.apiserver import app, placement, reviewers, serving
from onepass.apiserver.ports import Connect, VersionInfo
from onepass.apiserver.reviewers import Verified
from onepass.controllers.sweep import Sweep
from onepass.pki import authority, keys
from onepass.pki.authority import Authority, Request
from onepass.registry import namespaces
from onepass.registry.store import Store
from onepass.registry.strategy import Actor
from onepass.sandbox import groundwork, kinds, objects, pods, tlspeer
from onepass.sandbox.kubelet import Kubelet
from onepass.sandbox.memberrights import MASTERS, Rights
from onepass.sandbox.recorder import Recorder
from onepass.sandbox.signin import SignIn
from onepass.sandbox.streams.logrequests import Logs
from onepass.sandbox.streams.portforward import PortForward
from onepass.sandbox.streams.terminals import Attach, Exec
from onepass.storage import sqlite
from onepass.storage.sqlite import SqliteStorage

GATEWAY = Identity("onepass-gateway", (MASTERS, AUTHENTICATED))  # as whom the gateway comes to its members

_HOST = "127.0.0.1"
_YEAR = 365 * 86400.0


@dataclass(frozen=True, slots=True)
class Access:
    """How the gateway reaches a member: a URL, PEM, and two credentials of which either will do."""

    name: str
    endpoint: str
    ca: bytes
    certificate: bytes
    private_key: bytes = field(repr=False)
    token: str = field(repr=False)


class Sandbox:
    """One member cluster. Its objects last; its port, keys and token are made anew at every start."""

    def __init__(self, name: str, folder: Path, storage: SqliteStorage) -> None:
        """`folder` is the member's own, for what its pods write; `open` makes one with its storage."""
        now = time.time()
        self.ready = asyncio.Event()  # set once the member answers
        self._storage = storage
        self._node = f"{name}-node"
        self._stores = [Store(storage, strategy) for strategy in kinds.member(self._node)]
        self._by_key = {store.strategy.resource.key: store for store in self._stores}
        self._rights = Rights(self._by_key)
        self._kubelet = Kubelet(
            node=self._node,
            pods=self._by_key[pods.RESOURCE.key],
            config_maps=self._by_key[objects.CONFIG_MAP.key],
            secrets=self._by_key[objects.SECRET.key],
            events=Recorder(self._by_key[objects.EVENT.key], self._node),
            home=folder,
        )
        self._listener = socket.create_server((_HOST, 0))
        self._listener.setblocking(False)
        own = authority.create(f"sandbox {name}", now)
        certificate, private_key = _client(own, now)
        self._tls = _server_context(own, now)
        self.access = Access(
            name=name,
            endpoint=f"https://{_HOST}:{self._listener.getsockname()[1]}",
            ca=own.certificate.public_bytes(Encoding.PEM),
            certificate=certificate,
            private_key=private_key,
            token=secrets.token_urlsafe(32),
        )
        self._sign_in = SignIn({self.access.token: GATEWAY})

    @classmethod
    async def open(cls, name: str, root: Path) -> "Sandbox":
        """The member `name` in `root`/NAME.db and `root`/NAME. Raises storage.sqlitefile.Unusable."""
        folder = root / name
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        return cls(name, folder, await sqlite.open_sqlite(root / f"{name}.db"))

    async def run(self) -> None:
        """Serve until cancelled; that ends every container, and `close` does not have to be called any more."""
        try:
            await groundwork.lay(self._by_key, self._node, Actor(GATEWAY, time.time()))
            async with asyncio.TaskGroup() as group:
                for part in (self._storage, self._rights, Sweep(self._by_key), self._kubelet):
                    group.create_task(part.run(), name=f"sandbox {self.access.name}: {type(part).__name__}")
                # A task like the others: cancelled together with the kubelet, it finds its streams ended.
                group.create_task(self._serve(), name=f"sandbox {self.access.name}: serve")
        finally:
            await self.close()

    async def close(self) -> None:
        """Let go of the port and the storage."""
        self._listener.close()
        await self._storage.close()

    async def _serve(self) -> None:
        await self._rights.synced()
        await serving.serve(
            self._app(),
            self._listener,
            ready=self.ready,
            tls=self._tls,
            http=tlspeer.Http,
            websockets=tlspeer.WebSockets,
        )

    def _app(self) -> Starlette:
        return app.build(
            stores=self._stores,
            authenticate=self._sign_in,
            authorize=self._rights,
            version=VersionInfo("1", "36", groundwork.VERSION),
            connects=self._connects(),
            kindless=reviewers.every(self._rights, self._verify),
            admissions=(placement.admission(self._by_key[namespaces.RESOURCE.key]),),
        )

    def _connects(self) -> Sequence[Connect]:
        streams = ("create", "get")
        return (
            Connect(pods.RESOURCE, "log", "Pod", Logs(self._kubelet), methods=("GET",), verbs=("get",)),
            Connect(pods.RESOURCE, "exec", "PodExecOptions", Exec(self._kubelet), verbs=streams),
            Connect(pods.RESOURCE, "attach", "PodAttachOptions", Attach(self._kubelet), verbs=streams),
            Connect(pods.RESOURCE, "portforward", "PodPortForwardOptions", PortForward(self._kubelet), verbs=streams),
        )

    async def _verify(self, token: str, audiences: Sequence[str]) -> Verified | None:
        identity = self._sign_in.known(token)
        return None if identity is None else Verified(identity, tuple(audiences))


def _client(own: Authority, now: float) -> tuple[bytes, bytes]:
    """The gateway's certificate and key for this member."""
    key = keys.generate()
    request = Request(GATEWAY.user, (MASTERS,), key.public_key())
    issued = authority.issue_client(own, request, now, _YEAR)
    return issued.public_bytes(Encoding.PEM), keys.to_pem(key)


def _server_context(own: Authority, now: float) -> ssl.SSLContext:
    """TLS that asks for a client certificate of this member's authority, and goes on without one."""
    key = keys.generate()
    issued = authority.issue_serving(own, key.public_key(), [_HOST, "localhost"], now, _YEAR)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(["http/1.1"])
    context.verify_mode = ssl.CERT_OPTIONAL
    context.load_verify_locations(cadata=own.certificate.public_bytes(Encoding.PEM).decode())
    # The ssl module reads keys from files only; this one is gone as soon as it is read.
    with tempfile.NamedTemporaryFile() as pem:
        pem.write(keys.to_pem(key) + issued.public_bytes(Encoding.PEM))
        pem.flush()
        context.load_cert_chain(pem.name)
    return context
