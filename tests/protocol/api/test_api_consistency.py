"""What clients of the API may rely on while others write and the server is restarted: generated scenarios.

A client that lists and then watches ends with what the store has, and is told every change once and in order; writers
that change one object at the same time never lose an update of one another.
"""

import asyncio
import gc
import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import httpx2
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.protocol.api.informers import END, Graceful, Informer, Killed, Server, Told, asked, client_of

from onepass.api import meta
from onepass.api.meta import Object

pytestmark = [
    # Connections that break off while the server goes down may be dropped unclosed by the client library.
    pytest.mark.filterwarnings("ignore:.*_SelectorTransport.__del__:pytest.PytestUnraisableExceptionWarning"),
    # And those that it has just taken by asyncio, which makes no transport for a server that is closed.
    pytest.mark.filterwarnings("ignore:.*<socket.socket :pytest.PytestUnraisableExceptionWarning"),
]
PATIENCE = 300.0
NAMES = ("a", "b", "c")
EXAMPLES = settings(
    max_examples=8, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)

Deed = tuple[str, str, str]  # what, to which object, with which label
DEEDS = st.tuples(
    st.sampled_from(("create", "label", "label", "replace", "delete")), st.sampled_from(NAMES), st.sampled_from("xy")
)


@pytest.fixture(autouse=True)
def collected() -> Iterator[None]:
    """What a test dropped is told while it is known whose it was."""
    yield
    gc.collect()


@pytest.fixture(scope="module")
def runner() -> Iterator[asyncio.Runner]:
    with asyncio.Runner() as made:
        yield made


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, runner: asyncio.Runner) -> Iterator[Graceful]:
    made = Graceful(tmp_path_factory.mktemp("graceful"))
    runner.run(made.start())
    yield made
    runner.run(made.stop())


@pytest.fixture
def killed(tmp_path: Path, runner: asyncio.Runner) -> Iterator[Killed]:
    made = Killed(tmp_path)
    runner.run(made.start())
    yield made
    runner.run(made.stop())


_numbers = itertools.count()


async def namespace(client: httpx2.AsyncClient) -> str:
    """The path of the accounts in a namespace that nobody has used yet."""
    name = f"n{next(_numbers)}"
    made, _ = await asked(client, "POST", "/api/v1/namespaces", {"metadata": {"name": name}})
    assert made.status_code == 201
    return f"/api/v1/namespaces/{name}/serviceaccounts"


async def restarted(server: Server) -> None:
    await server.stop()
    await server.start()


@dataclass
class Writer:
    """Does what it is told, and keeps what the server said was done, and what may have been done unheard."""

    client: httpx2.AsyncClient
    path: str
    deeds: Sequence[Deed]
    done: set[int] = field(default_factory=set)  # revisions
    unheard: int = 0

    async def run(self) -> None:
        for what, name, label in self.deeds:
            answer, unheard = await self._do(what, name, label)
            assert answer.status_code in (200, 201, 404, 409), answer.text
            self.unheard += unheard
            written = meta.resource_version(answer.json())
            if answer.status_code in (200, 201) and written:
                self.done.add(written)

    async def _do(self, what: str, name: str, label: str) -> tuple[httpx2.Response, bool]:
        labelled: Object = {"metadata": {"name": name, "labels": {"l": label}}}
        one = f"{self.path}/{name}"
        if what == "create":
            return await asked(self.client, "POST", self.path, labelled)
        if what == "label":
            return await asked(self.client, "PATCH", one, labelled)
        if what == "replace":
            found, _ = await asked(self.client, "GET", one)
            if found.status_code != 200:
                return found, False
            obj: Object = found.json()
            metadata: Object = {**meta.section(obj, "metadata"), "labels": {"l": label, "by": "replace"}}
            return await asked(self.client, "PUT", one, {**obj, "metadata": metadata})
        return await asked(self.client, "DELETE", one)


async def followed(server: Server, writers: Sequence[Sequence[Deed]], restarts: int, limit: int) -> None:
    async with client_of(server) as reading, client_of(server) as writing:
        path = await namespace(writing)
        pens = [Writer(writing, path, deeds) for deeds in writers]
        copies = [
            Informer(reading, path, limit=limit),
            Informer(reading, path, streamed=True),
            Informer(reading, path, {"labelSelector": "l=x"}),
        ]
        async with asyncio.timeout(PATIENCE), asyncio.TaskGroup() as group:
            for copy in copies:
                group.create_task(copy.run())
            async with asyncio.TaskGroup() as writing_group:
                for pen in pens:
                    writing_group.create_task(pen.run())
                for _ in range(restarts):
                    await restarted(server)
            last, _ = await asked(writing, "POST", path, {"metadata": {"name": END, "labels": {"l": "x"}}})
            assert last.status_code in (201, 409)
        found, _ = await asked(reading, "GET", path)
        typed = {"apiVersion": "v1", "kind": "ServiceAccount"}
        stored = {meta.name(item): {**typed, **item} for item in found.json()["items"]}
    for copy in copies[:2]:
        assert copy.objects == stored
        assert copy.lists == 1
        _complete(copy.told, copy.began, pens)
    assert copies[2].objects == {name: obj for name, obj in stored.items() if meta.labels(obj).get("l") == "x"}


def _complete(told: Sequence[Told], began: int, pens: Sequence[Writer]) -> None:
    """Every change that was said to be done has its event, and no other event is there than may be."""
    revisions = [revision for revision, _, _ in told]
    done = {revision for pen in pens for revision in pen.done}
    assert {revision for revision in done if revision > began} <= set(revisions)
    # END is the one that no writer knows of.
    assert len(set(revisions) - done) <= 1 + sum(pen.unheard for pen in pens)


@EXAMPLES
@given(
    writers=st.lists(st.lists(DEEDS, min_size=1, max_size=8), min_size=1, max_size=4),
    restarts=st.integers(0, 2),
    limit=st.integers(0, 2),
)
def test_list_then_watch_ends_in_the_state_of_the_store(
    runner: asyncio.Runner, server: Graceful, writers: list[list[Deed]], restarts: int, limit: int
) -> None:
    runner.run(followed(server, writers, restarts, limit))


async def counted(server: Server, writers: int, times: int, restarts: int, *, patching: bool) -> None:
    async with client_of(server) as client, asyncio.timeout(PATIENCE):
        path = await namespace(client)
        await asked(client, "POST", path, {"metadata": {"name": "counter", "labels": {"sum": "0"}}})
        async with asyncio.TaskGroup() as group:
            for number in range(writers):
                group.create_task(_count(client, f"{path}/counter", f"w{number}", times, patching=patching))
            for _ in range(restarts):
                await restarted(server)
        found, _ = await asked(client, "GET", f"{path}/counter")
        labels = meta.labels(found.json())
    assert labels == {"sum": str(writers * times), **{f"w{number}": str(times) for number in range(writers)}}


async def _count(client: httpx2.AsyncClient, path: str, own: str, times: int, *, patching: bool) -> None:
    """Adds 1 to the sum and to its own count, `times` times, as often as others come first."""
    while True:
        found, _ = await asked(client, "GET", path)
        obj: Object = found.json()
        metadata, labels = meta.section(obj, "metadata"), meta.labels(obj)
        mine = int(labels.get(own, "0"))
        if mine == times:
            return
        more: Object = {**labels, own: str(mine + 1), "sum": str(int(labels["sum"]) + 1)}
        if patching:
            patch: Object = {"metadata": {"resourceVersion": metadata["resourceVersion"], "labels": more}}
            answer, _ = await asked(client, "PATCH", path, patch)
        else:
            answer, _ = await asked(client, "PUT", path, {**obj, "metadata": {**metadata, "labels": more}})
        assert answer.status_code in (200, 409), answer.text


@EXAMPLES
@given(writers=st.integers(2, 5), times=st.integers(1, 5), restarts=st.integers(0, 2), patching=st.booleans())
def test_concurrent_writers_never_lose_an_update(
    runner: asyncio.Runner, server: Graceful, writers: int, times: int, restarts: int, patching: bool
) -> None:
    runner.run(counted(server, writers, times, restarts, patching=patching))


MANY: list[list[Deed]] = [
    [(what, name, label) for label in "xyx" for name in NAMES for what in ("create", "label", "replace", "delete")]
    for _ in range(3)
]


def test_neither_does_a_server_that_is_killed_lose_or_double_anything(runner: asyncio.Runner, killed: Killed) -> None:
    runner.run(followed(killed, MANY, 2, 2))
    runner.run(counted(killed, 4, 10, 2, patching=False))
