"""What differs between kinds: a small table of functions on one generic store, one strategy a kind."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from pydantic import BaseModel

from onepass.access.identity import Identity
from onepass.api.errors import Cause
from onepass.api.meta import JSON, Object, Resource


@dataclass(frozen=True, slots=True)
class Actor:
    """Who writes, when (Unix seconds), and under which field manager."""

    identity: Identity
    now: float
    manager: str = ""


@dataclass(frozen=True, slots=True)
class Column:
    """A column of `kubectl get` (meta/v1 TableColumnDefinition). `cell` gets the object and the time of asking."""

    name: str
    cell: Callable[[Object, float], JSON]
    type: str = "string"  # string, integer, date, boolean
    format: str = ""  # "name" for the name column
    priority: int = 0  # above 0: only with -o wide
    description: str = ""


@dataclass(frozen=True, slots=True)
class Concealed:
    """An object without its write-only part, and that part: None leaves what is stored, b"" removes it.

    `known` says that it is what is stored already, as far as that can be told from the object. `merged`, when there is
    one, makes that part out of what is stored.
    """

    obj: Object
    secret: bytes | None
    known: bool = False
    merged: Callable[[bytes | None], bytes] | None = None


def unchanged(obj: Object, _actor: Actor) -> Object:
    return obj


def unchanged_from(_old: Object, new: Object, _actor: Actor) -> Object:
    return new


def as_it_is(obj: Object) -> Object:
    return obj


def nothing(_obj: Object) -> bytes:
    return b""


def nothing_wrong(_obj: Object, _old: Object | None) -> Sequence[Cause]:
    return ()


def nothing_odd(_obj: Object) -> Sequence[str]:
    return ()


def at_once(_obj: Object, _asked: int | None) -> int:
    return 0


@dataclass(frozen=True, slots=True)
class Strategy:
    """One kind. Every function is pure; the store calls them in the order in which they stand here."""

    resource: Resource
    model: type[BaseModel]  # structure, defaults, pruning, and the schema that OpenAPI tells
    columns: tuple[Column, ...]  # after the name column, before the age column; the store's caller adds those two
    verbs: tuple[str, ...] = ("create", "delete", "deletecollection", "get", "list", "patch", "update", "watch")
    # How a subresource that shares the object is written: "status" takes only .status from the new object.
    # A write to the object itself takes everything but the fields that the subresources own.
    subresources: Mapping[str, tuple[str, ...]] = field(default_factory=dict)  # name -> top-level fields it owns
    # Takes write-only fields out; gets the new object and the stored (already concealed) one if any, and returns what
    # may be seen. Raises ApiError to refuse (for example an endpoint changed without them).
    conceal: Callable[[Object, Object | None, Actor], Concealed] | None = None
    # What of an object its secret is sealed for: only an object with the same opens it. What `conceal` lets change
    # without the secret must not change this, and fields that are absent or empty must not be in it.
    bound: Callable[[Object], bytes] = nothing
    # The (concealed) object with a mark, never the value, where each write-only field stands, so that it can be told
    # who manages the field and whether it has changed.
    marked: Callable[[Object], Object] = as_it_is
    unmanaged: tuple[str, ...] = ()  # fields that the server decides, so that nobody manages them
    prepare_create: Callable[[Object, Actor], Object] = unchanged
    prepare_update: Callable[[Object, Object, Actor], Object] = unchanged_from
    validate: Callable[[Object, Object | None], Sequence[Cause]] = nothing_wrong
    warn: Callable[[Object], Sequence[str]] = nothing_odd
    # May raise ApiError to keep the object, and may alter the last state of one that has to wait for its finalizers.
    prepare_delete: Callable[[Object, Actor], Object] = unchanged
    # Seconds that a deleted object stays, marked, for whoever has to take it down; gets what the client asked for.
    grace: Callable[[Object, int | None], int] = at_once
    # A deletion is answered with the object as it last was, not with a Status: so kube-apiserver does for some kinds
    # (ReturnDeletedObject in its registry), and clients in typed languages read the answer as what it is there.
    tells_deleted: bool = False
    # Which fields a fieldSelector may name beside metadata.name and metadata.namespace: JSON path -> reader.
    selectable: Mapping[str, Callable[[Object], str]] = field(default_factory=dict)
    # Whether metadata.generation counts the changes of what is wanted; of many of Kubernetes' own kinds it does not.
    generations: bool = True
    name_rule: Literal["subdomain", "label", "path", "rbac"] = "subdomain"
