"""The storage backends that the contract suite runs on, and how its tests look at a store."""

import asyncio
import os
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Coroutine, Iterator
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
from tests.programs import etcds
from tests.programs.debian import DebianMissing

from onepass.storage import etcd, sqlite
from onepass.storage.etcdclient import Access
from onepass.storage.interface import Change, Op, Page, Progress, Storage

DEADLINE = 120


async def until_progress(watch: AsyncGenerator[Change | Progress]) -> list[Change]:
    """What a watch tells up to its next Progress."""
    told: list[Change] = []
    async with asyncio.timeout(DEADLINE):
        async for event in watch:
            if isinstance(event, Progress):
                break
            told.append(event)
    return told


async def take(watch: AsyncGenerator[Change | Progress], count: int) -> list[Change]:
    """The next `count` changes, whatever Progress lies between them."""
    told: list[Change] = []
    async with asyncio.timeout(DEADLINE):
        while len(told) < count:
            event = await anext(watch)
            if isinstance(event, Change):
                told.append(event)
    return told


def told(changes: list[Change]) -> list[tuple[int, bytes, bytes | None]]:
    return [(c.revision, c.key, None if c.record is None else c.record.value) for c in changes]


def keys(page: Page) -> list[bytes]:
    return [record.key for record in page.records]


async def fill(storage: Storage, *names: bytes) -> list[int]:
    return [await storage.commit([Op(name, b"value of " + name)]) for name in names]


Opener = Callable[[Path, bool], Coroutine[None, None, Storage]]


async def open_sqlite(path: Path, tight: bool) -> Storage:
    return await sqlite.open_sqlite(path, sqlite.Limits(batch=3, queue=2, stretch=2, quiet=0.001) if tight else None)


async def open_etcd(path: Path, tight: bool) -> Storage:
    """Each path is a prefix in the one etcd of the session, whose address programs that tests start find here too."""
    access = Access([os.environ["ONEPASS_TEST_ETCD"]])
    return await etcd.open_etcd(access, str(path), etcd.Limits(queue=2, page=2, quiet=0.001) if tight else None)


OPENERS: dict[str, Opener] = {"sqlite": open_sqlite, "etcd": open_etcd}


@pytest.fixture(scope="session")
def etcd_server() -> Iterator[etcds.Etcd]:
    try:
        with etcds.running() as [server]:
            os.environ["ONEPASS_TEST_ETCD"] = server.server
            yield server
            del os.environ["ONEPASS_TEST_ETCD"]
    except DebianMissing as missing:
        pytest.skip(str(missing))


@pytest.fixture(params=OPENERS)
def kind(request: pytest.FixtureRequest) -> str:
    """The name of a backend that is there."""
    if request.param == "etcd":
        request.getfixturevalue("etcd_server")
    return str(request.param)


class Backend:
    """One store that tests open, close and open again. `tight` makes every bound so small that tests reach it."""

    def __init__(self, opener: Opener, path: Path, stack: AsyncExitStack) -> None:
        self._opener = opener
        self._path = path
        self._stack = stack

    async def open(self, *, tight: bool = False) -> Storage:
        storage = await self._opener(self._path, tight)
        self._stack.push_async_callback(storage.close)
        return storage


@pytest.fixture
async def backend(kind: str, tmp_path: Path) -> AsyncIterator[Backend]:
    async with AsyncExitStack() as stack:
        yield Backend(OPENERS[kind], tmp_path / "store", stack)


@pytest.fixture
async def storage(backend: Backend) -> Storage:
    return await backend.open()
