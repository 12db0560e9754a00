"""The gateway's API on a loopback socket, with its own storage and RBAC; users are told by header, as Envoy does."""

import asyncio
import json
import os
import socket
import sys
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import httpx2
import pytest
import pytest_asyncio
from starlette.applications import Starlette
from starlette.requests import HTTPConnection

from onepass.access import compile as compiler
from onepass.access import rules
from onepass.access.attributes import Attributes
from onepass.access.identity import ADMINISTRATORS, AUTHENTICATED, Identity
from onepass.access.policy import Policy, Rule
from onepass.api.meta import JSON, Object
from onepass.apiserver import (
    app,
    approval,
    authentication,
    escalation,
    issuer,
    memberreviews,
    placement,
    reviewers,
    serving,
    tokenrequest,
)
from onepass.apiserver.ports import Limits, VersionInfo
from onepass.registry import catalog, clusters, defaults, selection
from onepass.registry.destinations import Bounds
from onepass.registry.store import Store, Write
from onepass.registry.strategy import Actor
from onepass.storage.sqlite import SqliteStorage, open_sqlite

NOW = 1_800_000_000.0
DEADLINE = 120.0
ADMIN = Identity("admin", (ADMINISTRATORS, AUTHENTICATED))


class Plain:
    """A sealer that does not: what is sealed, and with what, is tested elsewhere."""

    def seal(self, secret: bytes, context: bytes) -> bytes:
        return secret

    def unseal(self, sealed: bytes, context: bytes) -> bytes:
        return sealed


@dataclass
class Judge:
    """RBAC as the stores have it at the moment of asking; the rules on a member when `cluster` is given."""

    stores: Mapping[str, Store]
    cluster: str = ""

    async def policy(self) -> Policy:
        objects = {key: (await store.list("", selection.EVERYTHING)).items for key, store in self.stores.items()}
        return compiler.compile(objects)

    async def allows(self, identity: Identity, attributes: Attributes) -> rules.Verdict:
        policy = await self.policy()
        if self.cluster:
            return rules.review(policy, identity, self.cluster, attributes, NOW)
        return rules.allows(policy, identity, attributes)

    async def rules(self, identity: Identity, namespace: str) -> tuple[Sequence[Rule], str]:
        policy = await self.policy()
        if self.cluster:
            return rules.member_rules(policy, identity, self.cluster, namespace, NOW)
        return rules.rules_for(policy, identity, namespace), ""


async def administrator_unless_named(connection: HTTPConnection) -> Identity | None:
    if connection.headers.get("x-remote-user") == "nobody":
        return None
    return await authentication.front_proxy(connection) or ADMIN


async def verify(token: str, audiences: Sequence[str]) -> reviewers.Verified | None:
    if token != "good":
        return None
    return reviewers.Verified(Identity("system:serviceaccount:default:robot"), tuple(audiences) or ("onepass",))


LONGEST_TOKEN = 86_400  # seconds


def sign(account: tokenrequest.Account, audiences: Sequence[str], seconds: int, now: float) -> tokenrequest.Token:
    named = f"{account.namespace}/{account.name}/{account.uid}"
    return tokenrequest.Token(f"token-of-{named}", tuple(audiences) or ("onepass",), now + min(seconds, LONGEST_TOKEN))


@dataclass
class Api:
    """The running server, and two ways to talk to it."""

    port: int
    home: Path
    client: httpx2.AsyncClient
    application: Starlette
    stores: Mapping[str, Store]
    storage: SqliteStorage
    ill: list[str] = field(default_factory=list)  # what the check "storage" says

    async def send(
        self,
        method: str,
        path: str,
        body: "JSON | bytes" = None,
        *,
        user: str = "",
        groups: Sequence[str] = (AUTHENTICATED,),
        headers: Mapping[str, str] | None = None,
    ) -> httpx2.Response:
        named = [("x-remote-user", user), *(("x-remote-group", group) for group in groups)] if user else []
        content = body if isinstance(body, bytes) else None if body is None else json.dumps(body).encode()
        given = list((headers or {}).items())
        if content is not None and "content-type" not in (headers or {}):
            given.append(("content-type", "application/json"))
        return await self.client.request(method, path, content=content, headers=[*named, *given])

    async def get(self, path: str, *, user: str = "", accept: str = "application/json") -> Object:
        answer = await self.send("GET", path, user=user, headers={"accept": accept})
        assert answer.status_code == 200, answer.text
        told: Object = answer.json()
        return told

    async def make(self, path: str, body: Object) -> Object:
        answer = await self.send("POST", path, body)
        assert answer.status_code == 201, answer.text
        made: Object = answer.json()
        return made

    def command(self, *arguments: str, user: str = "") -> tuple[str, ...]:
        kubectl = str(Path(sys.executable).parent / "kubectl")
        acting = ("--as", user) if user else ()
        return (kubectl, "--server", f"http://127.0.0.1:{self.port}", *acting, *arguments)

    @property
    def environment(self) -> dict[str, str]:
        kept = {key: value for key, value in os.environ.items() if not key.startswith("KUBE")}
        return {**kept, "HOME": str(self.home), "KUBECONFIG": str(self.home / "none")}

    async def kubectl(self, *arguments: str, user: str = "", given: str = "", fails: bool = False) -> str:
        """What kubectl prints, on either stream when it has to fail."""
        process = await asyncio.create_subprocess_exec(
            *self.command(*arguments, user=user),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            env=self.environment,
        )
        async with asyncio.timeout(DEADLINE):
            out, err = await process.communicate(given.encode())
        told = f"kubectl {' '.join(arguments)}: {process.returncode}\n{out.decode()}\n{err.decode()}"
        assert (process.returncode != 0) is fails, told
        return (err if fails else out).decode()


@pytest.fixture
def limits() -> Limits:
    return Limits(body=200_000)


@asynccontextmanager
async def serving_api(folder: Path, limits: Limits, port: int = 0) -> AsyncIterator[Api]:
    """The API over the database in `folder`, which may be that of a server that is gone."""
    storage = await open_sqlite(folder / "onepass.db")
    stores = {
        strategy.resource.key: Store(storage, strategy, sealer=Plain())
        for strategy in catalog.gateway(bounds=lambda: Bounds(loopback=True))
    }
    await defaults.ensure(stores, Actor(ADMIN, NOW))
    judge = Judge(stores)
    ill: list[str] = []

    async def check() -> str:
        return ill[0] if ill else ""

    application = app.build(
        stores=[*stores.values()],
        authenticate=administrator_unless_named,
        authorize=judge,
        version=VersionInfo("1", "36", "v1.36.0+onepass"),
        connects=[
            tokenrequest.connect(stores["serviceaccounts"], sign),
            memberreviews.connect(clusters.RESOURCE, judge, lambda name: Judge(stores, name)),
        ],
        kindless=reviewers.every(judge, verify),
        admissions=[
            placement.admission(stores["namespaces"]),
            approval.admission(judge),
            escalation.admission(judge.policy, lambda: NOW),
        ],
        checks={"storage": check},
        aliases=memberreviews.ALIASES,
        documents=issuer.routes("https://issuer", "https://gateway/openid/v1/jwks", lambda: '{"keys":[]}'),
        limits=limits,
    )
    listener = socket.create_server(("127.0.0.1", port))
    listener.setblocking(False)
    bound = listener.getsockname()[1]
    ready = asyncio.Event()
    task = asyncio.create_task(serving.serve(application, listener, ready=ready))
    home = folder / "home"
    home.mkdir(exist_ok=True)
    try:
        await asyncio.wait_for(ready.wait(), DEADLINE)
        async with httpx2.AsyncClient(base_url=f"http://127.0.0.1:{bound}", timeout=DEADLINE) as client:
            yield Api(bound, home, client, application, stores, storage, ill)
    finally:
        task.cancel()
        await asyncio.wait([task])
        await storage.close()


@pytest.fixture
async def api(tmp_path: Path, limits: Limits) -> AsyncIterator[Api]:
    async with serving_api(tmp_path, limits) as made:
        yield made


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def shared(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Api]:
    """One server for the tests of a module, which must not mind each other's objects."""
    async with serving_api(tmp_path_factory.mktemp("shared"), Limits(body=200_000)) as made:
        yield made


@pytest.fixture
def write() -> Write:
    return Write(Actor(ADMIN, NOW))
