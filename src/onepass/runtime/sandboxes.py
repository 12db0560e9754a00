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
from onepass.access.policy import Policy
from onepass.apiserver import app, escalation, placement, reviewers, serving, tokenrequest
from onepass.apiserver.ports import Admission, Attempt, Connect, VersionInfo
from onepass.apiserver.reviewers import Verified
from onepass.controllers.sweep import Sweep
from onepass.pki import authority, keys
from onepass.pki.authority import Authority, Request
from onepass.registry import namespaces, serviceaccounts
from onepass.registry.store import Store
from onepass.registry.strategy import Actor
from onepass.runtime import datadir, kubeconfig
from onepass.runtime.accounts import Accounts
from onepass.runtime.memberkeys import MemberKeys
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
ADMIN = "sandbox-admin"  # as whom a person comes to it directly, by its own kubeconfig
ISSUER = "https://kubernetes.default.svc.cluster.local"  # of service-account tokens, as kubeadm sets it up

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
    """One member cluster. Its objects, its authority and its port last; what the gateway comes by is made anew at every
    start."""

    def __init__(self, name: str, folder: Path, storage: SqliteStorage, kept: MemberKeys) -> None:
        """`folder` is the member's own, for what its pods write; `open` makes one with its storage and keys."""
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
        self._listener = _listener(kept.port)
        kept.keep_port(self._listener.getsockname()[1])
        own = kept.own
        certificate, private_key = _client(own, GATEWAY.user, now)
        self._tls = _server_context(own, now)
        self.access = Access(
            name=name,
            endpoint=f"https://{_HOST}:{self._listener.getsockname()[1]}",
            ca=own.certificate.public_bytes(Encoding.PEM),
            certificate=certificate,
            private_key=private_key,
            token=secrets.token_urlsafe(32),
        )
        self._accounts = Accounts(kept.accounts, (ISSUER,), self._rights.policy)
        self._sign_in = SignIn({self.access.token: GATEWAY}, self._account)
        self.admin = kubeconfig.Entry(self.access.endpoint, self.access.ca, ADMIN, *_client(own, ADMIN, now))

    @classmethod
    async def open(cls, name: str, root: Path) -> "Sandbox":
        """The member `name` in `root`/NAME.db, `root`/NAME.keys and `root`/NAME. Raises storage.sqlitefile.Unusable.

        `root`/NAME.kubeconfig is its administrator's own, for what is done in it without the gateway.
        """
        folder = root / name
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        kept = MemberKeys.load(root / f"{name}.keys", name)
        made = cls(name, folder, await sqlite.open_sqlite(root / f"{name}.db"), kept)
        datadir.write_private(root / f"{name}.kubeconfig", kubeconfig.dump(kubeconfig.direct(name, made.admin)))
        return made

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
            admissions=(
                _but_masters(escalation.admission(self._policy)),
                placement.admission(self._by_key[namespaces.RESOURCE.key]),
            ),
        )

    async def _policy(self) -> Policy:
        return self._rights.policy()

    def _connects(self) -> Sequence[Connect]:
        streams = ("create", "get")
        return (
            tokenrequest.connect(self._by_key[serviceaccounts.STRATEGY.resource.key], self._accounts.sign),
            Connect(pods.RESOURCE, "log", "Pod", Logs(self._kubelet), methods=("GET",), verbs=("get",)),
            Connect(pods.RESOURCE, "exec", "PodExecOptions", Exec(self._kubelet), verbs=streams),
            Connect(pods.RESOURCE, "attach", "PodAttachOptions", Attach(self._kubelet), verbs=streams),
            Connect(pods.RESOURCE, "portforward", "PodPortForwardOptions", PortForward(self._kubelet), verbs=streams),
        )

    async def _verify(self, token: str, audiences: Sequence[str]) -> Verified | None:
        identity = self._sign_in.known(token)
        return Verified(identity, tuple(audiences)) if identity else await self._accounts.verify(token, audiences)

    async def _account(self, token: str) -> Identity | None:
        verified = await self._accounts.verify(token, ())
        return verified.identity if verified else None


def _but_masters(admission: Admission) -> Admission:
    """`system:masters` may give rights away whatever RBAC says of them (k8s.io/kubernetes/pkg/registry/rbac)."""

    async def admit(attempt: Attempt) -> None:
        if MASTERS not in attempt.identity.groups:
            await admission(attempt)

    return admit


def _listener(port: int) -> socket.socket:
    """On the port of the last start, so that it is found where it was joined; another when somebody has that one."""
    try:
        listener = socket.create_server((_HOST, port))
    except OSError:
        listener = socket.create_server((_HOST, 0))
    listener.setblocking(False)
    return listener


def _client(own: Authority, user: str, now: float) -> tuple[bytes, bytes]:
    """A certificate and key by which `user` may do everything in this member."""
    key = keys.generate()
    request = Request(user, (MASTERS,), key.public_key())
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
