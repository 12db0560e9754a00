"""Turns changes of the mirror into keys for a loop."""

import asyncio
from collections.abc import Callable, Sequence
from typing import Protocol

from onepass.api import meta
from onepass.api.meta import Object
from onepass.controllers.loop import Loop

_REST = 9.0  # times as long as it took to look through all, before the next look
_REST_LONGEST_SECONDS = 0.5


class Objects(Protocol):
    """What a controller reads: the mirror."""

    @property
    def generation(self) -> int: ...

    async def changed(self, after: int) -> int: ...

    def get(self, key: str, name: str, namespace: str = "") -> Object | None: ...

    def list(self, key: str) -> Sequence[Object]: ...


def generation(obj: Object) -> object:
    """A `version` for `run` that changes with what is wanted, and not with status."""
    return meta.section(obj, "metadata").get("generation")


def at_once(_obj: Object) -> float:
    return 0.0


async def run(
    objects: Objects,
    kind: str,
    loop: Loop,
    version: Callable[[Object], object] = meta.resource_version,
    delay: Callable[[Object], float] = at_once,
) -> None:
    """Run `loop` on the name of each object of `kind` whose `version` is new, `delay` seconds after that is seen, until
    cancelled.

    A controller that writes status passes a `version` that its own writes leave alone, or it would never rest.
    """
    async with asyncio.TaskGroup() as group:
        group.create_task(loop.run())
        group.create_task(_follow(objects, kind, loop, version, delay))


async def _follow(
    objects: Objects, kind: str, loop: Loop, version: Callable[[Object], object], delay: Callable[[Object], float]
) -> None:
    seen: dict[str, object] = {}
    generation, clock = -1, asyncio.get_running_loop().time
    while True:
        began = clock()
        found = objects.list(kind)
        now = {meta.name(obj): (meta.uid(obj), version(obj)) for obj in found}
        for obj in found:
            name = meta.name(obj)
            if seen.get(name) != now[name]:
                loop.add(name, delay(obj))
        for name in seen.keys() - now.keys():
            loop.forget(name)
        seen = dict(now)
        # Thousands of objects that change one after the other are looked through together.
        await asyncio.sleep(min(_REST_LONGEST_SECONDS, _REST * (clock() - began)))
        generation = await objects.changed(generation)
