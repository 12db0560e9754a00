"""Which certificate signing requests are deleted, and when."""

import asyncio

import pytest
from tests.unit.conftest import NOW
from tests.unit.test_registry_mirror import running

from onepass.api import meta
from onepass.api.meta import JSON, Object
from onepass.controllers import clean
from onepass.controllers.clean import REQUESTS, Clean
from onepass.registry import namespaces
from onepass.registry.mirror import Mirror
from onepass.registry.store import Store, Write
from onepass.runtime.statuses import Statuses
from onepass.storage.interface import Storage

CREATED, LATER = "2027-01-15T08:00:00Z", "2027-01-15T09:00:00Z"


def request(*conditions: JSON) -> Object:
    return {"metadata": {"name": "asked", "creationTimestamp": CREATED}, "status": {"conditions": [*conditions]}}


@pytest.mark.parametrize(
    ("obj", "end", "after"),
    [
        (request(), None, clean.PENDING_SECONDS),
        (request({"type": "Denied", "lastUpdateTime": LATER}), None, 3600 + clean.SETTLED_SECONDS),
        (request({"type": "Failed"}), None, clean.SETTLED_SECONDS),
        (request({"type": "Approved", "lastUpdateTime": LATER}), None, 3600 + clean.SETTLED_SECONDS),
        (request({"type": "Approved", "lastUpdateTime": LATER}), NOW + 9e6, 9e6),
    ],
)
def test_a_request_goes_when_it_has_no_use(obj: Object, end: float | None, after: float) -> None:
    assert clean.due(obj, lambda _: end) - NOW == after


async def test_what_is_due_is_deleted_and_nothing_else(storage: Storage, write: Write) -> None:
    # Any kind will do: when an object is due is told by `ends`.
    store = Store(storage, namespaces.STRATEGY)
    for name in ("kept", "old", "older"):
        await store.create("", {"metadata": {"name": name}}, write)
    mirror = Mirror({REQUESTS: store})

    def ends(obj: Object) -> float:
        return NOW + (9 if meta.name(obj) == "kept" else 0)

    async with running(mirror):
        task = asyncio.create_task(Clean(mirror, Statuses(store), ends, lambda: NOW).run())
        try:
            while [meta.name(obj) for obj in mirror.list(REQUESTS)] != ["kept"]:
                await mirror.changed(mirror.generation)
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
