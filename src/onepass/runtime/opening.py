"""Joins the controllers that open members' credentials to the keys that open them."""

import asyncio
import contextlib
from dataclasses import dataclass

from onepass.controllers.publish import Publish
from onepass.controllers.reseal import PAGE, Reseal
from onepass.controllers.rotate import Rotate
from onepass.pki.sealing import SealError
from onepass.registry.mirror import Mirror
from onepass.registry.sealed import Resealing
from onepass.registry.store import Store
from onepass.runtime.leader import Leader
from onepass.runtime.plane import Asker, Plane
from onepass.runtime.sealer import Sealer
from onepass.runtime.statuses import Statuses
from onepass.storage.interface import Storage, Unavailable

WAIT_SECONDS = 10.0  # for keys that have to be asked for, before the rest is served without what they open

_PAUSE = 1.0  # seconds between tries while the storage does not answer


@dataclass(frozen=True, slots=True)
class Opening:
    """These run once the keys are known, as far as that is possible: see `known`.

    Members are published first, so that what a lost key gives the others to do holds up no other member.
    """

    publish: Publish
    rotate: Rotate
    reseal: Reseal
    records: Resealing
    sealer: Sealer
    published: asyncio.Event
    leader: Leader

    @classmethod
    def build(
        cls, storage: Storage, store: Store, mirror: Mirror, plane: Plane, sealer: Sealer, asker: Asker, leader: Leader
    ) -> "Opening":
        """Whatever changes about the keys is followed from now on."""
        records = Resealing(storage, store.strategy, sealer)
        published = asyncio.Event()
        publish = Publish(mirror, store, plane, published.set)
        rotate = Rotate(mirror, store, Statuses(store), asker.post)
        reseal = Reseal(records, lambda: leader.leading)

        def changed() -> None:
            publish.again()
            rotate.again()
            reseal.again()
            mirror.stir()

        sealer.changed = changed
        return cls(publish, rotate, reseal, records, sealer, published, leader)

    async def follow(self) -> None:
        """Run all of them, until cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self.publish.run(), name="publish")
            await self.published.wait()
            group.create_task(self.leader.during(self.rotate.run), name="rotate")
            group.create_task(self.reseal.run(), name="reseal")

    async def known(self) -> None:
        """Ask for every key that is needed, once each, and wait for the answers, but not long."""
        after: bytes | None = b""
        while after is not None:
            try:
                page = await self.records.page(after, PAGE)
            except Unavailable:
                await asyncio.sleep(_PAUSE)
                continue
            for record in page:
                with contextlib.suppress(SealError):
                    self.sealer.at_hand(record.value)
            after = page[-1].key if page else None
        await self.sealer.settled(WAIT_SECONDS)
