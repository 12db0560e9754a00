"""Generic create, read, update, delete and watch of one kind, driven by its strategy. The only writer of objects."""

from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import Literal, Protocol

from onepass.api.meta import Object
from onepass.registry.strategy import Actor, Strategy
from onepass.storage.interface import Storage


class Sealer(Protocol):
    """Turns a write-only part into bytes that are safe in the database; `context` binds them to their object."""

    def seal(self, secret: bytes, context: bytes) -> bytes: ...

    def unseal(self, sealed: bytes, context: bytes) -> bytes: ...


@dataclass(frozen=True, slots=True)
class Write:
    """Options of a write (meta/v1 CreateOptions, UpdateOptions, PatchOptions)."""

    actor: Actor
    dry_run: bool = False
    field_validation: Literal["Strict", "Warn", "Ignore"] = "Warn"
    subresource: str = ""


@dataclass(frozen=True, slots=True)
class Written:
    """The object as it now stands, and what to put into `Warning` headers."""

    obj: Object
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Selection:
    """A compiled label and field selector. Build it with `onepass.registry.selection.parse`."""

    matches: Callable[[Object], bool]
    everything: bool = True


@dataclass(frozen=True, slots=True)
class Listing:
    """A page of a list. `continue_token` is "" on the last one; `remaining` None when it is not known."""

    items: list[Object]
    resource_version: str
    continue_token: str = ""
    remaining: int | None = None


@dataclass(frozen=True, slots=True)
class Event:
    """One event of a watch; a BOOKMARK carries only type and metadata.resourceVersion."""

    type: Literal["ADDED", "MODIFIED", "DELETED", "BOOKMARK"]
    obj: Object


class Store:
    """One kind in one storage. Raises onepass.api.errors.ApiError, and storage errors only as `unavailable`."""

    def __init__(
        self, storage: Storage, strategy: Strategy, *, prefix: bytes = b"/registry", sealer: Sealer | None = None
    ):
        self.strategy = strategy
        raise NotImplementedError(storage, prefix, sealer)

    async def get(self, namespace: str, name: str) -> Object:
        """The object, with apiVersion and kind. Raises not_found."""
        raise NotImplementedError

    async def list(
        self,
        namespace: str,
        selection: Selection,
        *,
        limit: int = 0,
        continue_token: str = "",
        resource_version: str = "",
        resource_version_match: str = "",
    ) -> Listing:
        """Objects of one namespace ("" for all), in key order. Raises bad_request and expired."""
        raise NotImplementedError

    def watch(
        self,
        namespace: str,
        selection: Selection,
        *,
        resource_version: str = "",
        bookmarks: bool = False,
        initial_events: bool = False,
    ) -> AsyncIterator[Event]:
        """Events after `resource_version`; "" or "0" begin with an ADDED for each object that is there.

        An object that leaves the selection is told as DELETED, one that enters it as ADDED. Raises expired.
        """
        raise NotImplementedError

    async def create(self, namespace: str, obj: Object, write: Write) -> Written:
        """Default, validate, conceal and store a new object. Raises already_exists, invalid."""
        raise NotImplementedError

    async def update(
        self,
        namespace: str,
        name: str,
        change: Callable[[Object], Object],
        write: Write,
        *,
        create_if_absent: bool = False,
    ) -> Written:
        """Read, change, check and write, again on a concurrent write unless the result names a resourceVersion.

        `change` gets a deep copy that it may alter, and may raise ApiError. An object that comes out as it went in is
        not written. An object whose deletionTimestamp is set goes when its last finalizer does.
        """
        raise NotImplementedError

    async def delete(
        self, namespace: str, name: str, write: Write, *, uid: str = "", resource_version: str = ""
    ) -> tuple[Object, bool]:
        """Delete, or mark for deletion while finalizers stand. Returns the last state, and whether it is gone now."""
        raise NotImplementedError

    async def secret(self, name: str, uid: str) -> bytes | None:
        """The write-only part of the object `name` (cluster-scoped kinds), unsealed; None when there is none."""
        raise NotImplementedError
