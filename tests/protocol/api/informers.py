"""A server that can be restarted, and clients that keep a copy of what it has, as client-go's informers do."""

import asyncio
import json
import sys
from asyncio.subprocess import PIPE
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol, TypeAlias

import httpx2
from tests.machine import free_port
from tests.protocol.api.conftest import serving_api

from onepass.api import meta
from onepass.api.meta import JSON, Object
from onepass.apiserver.ports import Limits

_ROOT = Path(__file__).parents[3]
END = "zz-end"  # the name of the object that is made last
Told: TypeAlias = tuple[int, str, str]  # revision, type of the event, name

_AGAIN = (httpx2.TransportError, httpx2.StreamError, ConnectionError)


class Server(Protocol):
    """One API server at a time, on one port and one database."""

    port: int

    async def start(self) -> None: ...

    async def stop(self) -> None: ...


@dataclass
class Graceful:
    """A server in this process, which ends as it should."""

    folder: Path
    port: int = field(default_factory=free_port)
    _stack: AsyncExitStack = field(default_factory=AsyncExitStack)

    async def start(self) -> None:
        await self._stack.enter_async_context(serving_api(self.folder, Limits(), self.port))

    async def stop(self) -> None:
        await self._stack.aclose()


@dataclass
class Killed:
    """A server in a process of its own, which is killed in the middle of whatever it does."""

    folder: Path
    port: int = field(default_factory=free_port)
    _process: asyncio.subprocess.Process | None = None

    async def start(self) -> None:
        command = (sys.executable, "-m", "tests.programs.apiprogram", str(self.folder), str(self.port))
        with (self.folder / "log").open("ab") as log:
            self._process = await asyncio.create_subprocess_exec(*command, stdout=PIPE, stderr=log, cwd=_ROOT)
        assert self._process.stdout is not None
        while not (line := await self._process.stdout.readline()).strip().isdigit():
            assert line, (self.folder / "log").read_text()

    async def stop(self) -> None:
        assert self._process is not None
        self._process.kill()
        await self._process.communicate()


@asynccontextmanager
async def client_of(server: Server) -> AsyncIterator[httpx2.AsyncClient]:
    """A client of its own connections, as another process would be."""
    async with httpx2.AsyncClient(base_url=f"http://127.0.0.1:{server.port}", timeout=20) as client:
        yield client


async def asked(client: httpx2.AsyncClient, method: str, path: str, body: JSON = None) -> tuple[httpx2.Response, bool]:
    """The answer, asking again while the server is away; and whether a try before may have been done unheard."""
    unheard = False
    content = None if body is None else json.dumps(body).encode()
    headers = {"content-type": "application/merge-patch+json" if method == "PATCH" else "application/json"}
    while True:
        try:
            answer = await client.request(method, path, content=content, headers=headers)
        except _AGAIN:
            unheard = unheard or method != "GET"
            await asyncio.sleep(0.02)  # the server is away
            continue
        if answer.status_code != 503:
            return answer, unheard


@dataclass
class Informer:
    """A copy of one collection by list and watch. Checks that each event follows from what it holds."""

    client: httpx2.AsyncClient
    path: str
    options: Mapping[str, str] = field(default_factory=dict)  # of the list and of the watch: selectors
    limit: int = 0
    streamed: bool = False  # whether the list comes as the first events of the watch
    objects: dict[str, Object] = field(default_factory=dict)
    told: list[Told] = field(default_factory=list)
    began: int = 0  # the revision of the list
    at: int = 0
    synced: bool = False
    lists: int = 0

    async def run(self) -> None:
        """Returns once the object END is seen."""
        while END not in self.objects:
            if not self.synced and not self.streamed:
                await self._list()
            try:
                await self._watch()
            except _AGAIN:
                await asyncio.sleep(0.02)  # the server is away

    async def _list(self) -> None:
        self.objects, token = {}, ""
        while True:
            query = {**self.options, **({"limit": str(self.limit)} if self.limit else {}), "continue": token}
            answer, _ = await asked(self.client, "GET", f"{self.path}?{httpx2.QueryParams(query)}")
            assert answer.status_code == 200, answer.text
            page: Object = answer.json()
            items = page["items"]
            assert isinstance(items, list)
            for item in items:
                assert isinstance(item, dict)
                assert meta.name(item) not in self.objects, "an object came on two pages"
                typed: Object = {"apiVersion": page["apiVersion"], "kind": str(page["kind"]).removesuffix("List")}
                self.objects[meta.name(item)] = {**typed, **item}  # as client-go reads a list of Kubernetes' own kinds
            metadata = meta.section(page, "metadata")
            self.at = self.began = int(meta.text(metadata, "resourceVersion"))
            token = meta.text(metadata, "continue")
            if not token:
                break
        self.lists += 1
        self.synced = True

    async def _watch(self) -> None:
        query = {**self.options, "watch": "1", "allowWatchBookmarks": "true"}
        if self.streamed and not self.synced:
            self.objects = {}
            query |= {"sendInitialEvents": "true", "resourceVersionMatch": "NotOlderThan"}
        else:
            query["resourceVersion"] = str(self.at)
        async with self.client.stream("GET", self.path, params=query) as answer:
            assert answer.status_code == 200, await answer.aread()
            async for line in answer.aiter_lines():
                self._take(json.loads(line))
                if END in self.objects and self.synced:
                    return

    def _take(self, event: Object) -> None:
        kind, obj = event["type"], event["object"]
        assert isinstance(kind, str)
        assert isinstance(obj, dict)
        assert kind != "ERROR", obj
        name, revision = meta.name(obj), meta.resource_version(obj)
        if kind == "BOOKMARK":
            assert revision >= self.at, "a bookmark went back"
            self.at = revision
            if meta.annotations(obj).get("k8s.io/initial-events-end") == "true":
                assert not self.synced, "the initial events ended twice"
                self.synced, self.began, self.lists = True, revision, self.lists + 1
            return
        if not self.synced:
            assert kind == "ADDED"
            assert name not in self.objects
            self.objects[name] = obj
            return
        assert revision > self.at, f"{kind} of {name} at {revision} came after {self.at}"
        assert (name in self.objects) is (kind != "ADDED"), f"{kind} of {name}, held: {sorted(self.objects)}"
        self.at = revision
        self.told.append((revision, kind, name))
        if kind == "DELETED":
            del self.objects[name]
        else:
            self.objects[name] = obj
