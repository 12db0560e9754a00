"""Turns changes of the mirror into keys for a loop."""

import asyncio
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Protocol

from onepass.api import meta
from onepass.api.meta import Object
from onepass.controllers.loop import Loop
from onepass.registry.changes import Changes, Names, Version

_REST = 9.0  # times as long as it took to look through all, before the next look
_REST_LONGEST_SECONDS = 0.5
_NOTHING: Mapping[str, Version] = MappingProxyType({})


class Objects(Protocol):
    """What a controller reads: the mirror."""

    def follow(self, versions: Mapping[str, Version]) -> Changes: ...

    def count(self, key: str) -> int: ...

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
    version: Version = meta.resource_version,
    delay: Callable[[Object], float] = at_once,
    beside: Mapping[str, Version] = _NOTHING,
) -> None:
    """Run `loop` on the name of each object of `kind` whose `version` is new, `delay` seconds after that is seen, until
    cancelled. One that has gone is looked at once more, at once: what is remembered of it goes as well.

    A controller that writes status passes a `version` that its own writes leave alone, or it would never rest. Where
    `version` also looks at other objects, `beside` tells their kinds, and by what changes of them all are looked at.
    """
    async with asyncio.TaskGroup() as group:
        group.create_task(loop.run())
        group.create_task(_Feed(objects, kind, loop, version, delay, beside).follow())


@dataclass(slots=True)
class _Feed:
    objects: Objects
    kind: str
    loop: Loop
    version: Version
    delay: Callable[[Object], float]
    beside: Mapping[str, Version]
    _seen: dict[str, object] = field(default_factory=dict)

    async def follow(self) -> None:
        clock = asyncio.get_running_loop().time
        changes = self.objects.follow({self.kind: meta.resource_version, **self.beside})
        while True:
            changed = await changes.next()
            began = clock()
            for name in self._concerned(changed):
                self._look(name)
            # Thousands of objects that change one after the other are looked at together.
            await asyncio.sleep(min(_REST_LONGEST_SECONDS, _REST * (clock() - began)))

    def _concerned(self, changed: Names) -> Iterable[str]:
        if any(key in self.beside for key, _ in changed):
            return {meta.name(obj) for obj in self.objects.list(self.kind)} | self._seen.keys()
        return sorted(name for key, name in changed if key == self.kind)

    def _look(self, name: str) -> None:
        obj = self.objects.get(self.kind, name)
        if obj is None:
            if self._seen.pop(name, None) is not None:
                self.loop.forget(name)
                self.loop.add(name)
            return
        now = (meta.uid(obj), self.version(obj))
        if self._seen.get(name) != now:
            self._seen[name] = now
            self.loop.add(name, self.delay(obj))
