"""Shared by the tests of the registry: a real database, and somebody who writes."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from onepass.access.identity import Identity
from onepass.api.meta import Object
from onepass.registry.store import Write
from onepass.registry.strategy import Actor
from onepass.storage import sqlite
from onepass.storage.interface import Storage

NOW = 1_800_000_000.0  # 2027-01-15T08:00:00Z


@pytest.fixture
async def storage(tmp_path: Path) -> AsyncIterator[Storage]:
    opened = await sqlite.open_sqlite(tmp_path / "onepass.db")
    yield opened
    await opened.close()


def member(name: str) -> Object:
    """A Cluster, as somebody creates it."""
    access: Object = {"endpoint": "https://member.test:6443", "insecure": True}
    return {"metadata": {"name": name}, "spec": {"access": access}}


@pytest.fixture
def actor() -> Actor:
    return Actor(Identity("alice", ("dev",), "u-1", {"scopes": ("a", "b")}), NOW)


@pytest.fixture
def write(actor: Actor) -> Write:
    return Write(actor)
