"""A copy of some kinds in memory, kept by watch. Hot paths read it and never the database."""

import asyncio
from collections.abc import Mapping, Sequence
from contextlib import aclosing
from weakref import WeakSet

from onepass.api import meta
from onepass.api.errors import ApiError
from onepass.api.meta import Object
from onepass.registry import selection
from onepass.registry.changes import Changes, Version
from onepass.registry.store import Store

_PAUSE = 1.0  # seconds between tries while the storage does not answer


class Mirror:
    """Objects of several kinds at one moment, without managedFields. They are shared: never alter them."""

    def __init__(self, stores: Mapping[str, Store]) -> None:
        """`stores` by Resource.key, for example {"clusters.cluster.karpor.io": store}."""
        self._stores = stores
        self._objects: dict[str, dict[str, Object]] = {key: {} for key in stores}
        self._sorted: dict[str, tuple[Object, ...]] = {}
        self._unlisted = set(stores)
        self._followers: WeakSet[Changes] = WeakSet()  # a controller that has ended follows nothing
        self._generation = 0
        self._moved = asyncio.Event()
        self._listed = asyncio.Event()
        if not stores:
            self._listed.set()

    async def run(self) -> None:
        """Follow every store until cancelled; begins again from a list when a watch expires."""
        async with asyncio.TaskGroup() as tasks:
            for key, store in self._stores.items():
                tasks.create_task(self._follow(key, store), name=f"mirror {key}")

    async def synced(self) -> None:
        """Returns once every store has been listed."""
        await self._listed.wait()

    @property
    def generation(self) -> int:
        """Grows with every change of any object."""
        return self._generation

    async def changed(self, after: int) -> int:
        """Waits until the generation is greater than `after`, and returns it."""
        while self._generation <= after:
            await self._moved.wait()
        return self._generation

    def follow(self, versions: Mapping[str, Version]) -> Changes:
        """What changes from now on of the kinds in `versions`; what is there already is new to who begins."""
        changes = Changes(versions)
        self._followers.add(changes)
        self._stir(changes)
        return changes

    def stir(self) -> None:
        """Wake whoever follows: what is made of the objects may come out differently, though none has changed."""
        for changes in self._followers:
            self._stir(changes)
        self._wake()

    def count(self, key: str) -> int:
        """How many objects there are of a kind."""
        return len(self._objects[key])

    def get(self, key: str, name: str, namespace: str = "") -> Object | None:
        return self._objects[key].get(_place(namespace, name))

    def list(self, key: str) -> Sequence[Object]:
        """Every object of a kind, in key order."""
        found = self._sorted.get(key)
        if found is None:
            objects = self._objects[key]
            found = self._sorted[key] = tuple(objects[place] for place in sorted(objects))
        return found

    async def _follow(self, key: str, store: Store) -> None:
        while True:
            try:
                listing = await store.list("", selection.EVERYTHING)
                self._replace(key, listing.items)
                watch = store.watch("", selection.EVERYTHING, resource_version=listing.resource_version, bookmarks=True)
                async with aclosing(watch) as events:
                    async for event in events:
                        if event.type != "BOOKMARK":
                            self._apply(key, event.obj, gone=event.type == "DELETED")
            except ApiError as refused:
                if refused.reason == "Expired":
                    continue
            # The watch has ended, or the storage does not answer: what was seen last stays until it does.
            await asyncio.sleep(_PAUSE)

    def _replace(self, key: str, items: Sequence[Object]) -> None:
        objects = {_place(meta.namespace(obj), meta.name(obj)): _lean(obj) for obj in items}
        before, self._objects[key] = self._objects[key], objects
        self._unlisted.discard(key)
        if not self._unlisted:
            self._listed.set()
        if objects != before:
            for place in before.keys() | objects.keys():
                self._note(key, before.get(place), objects.get(place))
            self._tell(key)

    def _apply(self, key: str, obj: Object, *, gone: bool) -> None:
        place = _place(meta.namespace(obj), meta.name(obj))
        before, after = self._objects[key].pop(place, None) if gone else self._objects[key].get(place), None
        if not gone:
            after = self._objects[key][place] = _lean(obj)
        self._note(key, before, after)
        self._tell(key)

    def _note(self, key: str, before: Object | None, after: Object | None) -> None:
        for changes in self._followers:
            changes.note(key, before, after)

    def _stir(self, changes: Changes) -> None:
        for key, objects in self._objects.items():
            for obj in objects.values():
                changes.stir(key, obj)

    def _tell(self, key: str) -> None:
        self._sorted.pop(key, None)
        self._wake()

    def _wake(self) -> None:
        self._generation += 1
        # Wakes whoever waits now; whoever comes later waits on a new event.
        self._moved.set()
        self._moved = asyncio.Event()


def _lean(obj: Object) -> Object:
    """The object without its managedFields, which are as large as the rest, and which nobody here reads."""
    return {**obj, "metadata": {k: v for k, v in meta.section(obj, "metadata").items() if k != "managedFields"}}


def _place(namespace: str, name: str) -> str:
    return f"{namespace}/{name}"
