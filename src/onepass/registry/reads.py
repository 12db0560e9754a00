"""Lists and watches of one kind (https://kubernetes.io/docs/reference/using-api/api-concepts/#resource-versions)."""

from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from dataclasses import dataclass
from typing import Literal

from onepass.api import errors
from onepass.api.errors import ApiError, Cause
from onepass.api.meta import Object, Resource
from onepass.registry import records
from onepass.storage.interface import Change, Compacted, FutureRevision, Progress, Record, Storage

_INCONSISTENT = (
    "The provided continue parameter is too old to display a consistent list result. You can start a new list without "
    "the continue parameter, or use the continue token in this response to retrieve the remainder of the results. "
    "Continuing with the provided token results in an inconsistent list - objects that were created, modified, or "
    "deleted between the time the first chunk was returned and now may show up in the list."
)
_CHUNK = 500  # records read at a time, so that a long list never holds the event loop for long


@dataclass(frozen=True, slots=True)
class Selection:
    """A compiled label and field selector. Build it with `onepass.registry.selection.parse`."""

    matches: Callable[[Object], bool]
    everything: bool = True
    name: str = ""  # the one name that can match, when a field selector says so


@dataclass(frozen=True, slots=True)
class Listing:
    """A page of a list. `continue_token` is "" on the last one; `remaining` None when it is not known."""

    items: list[Object]
    resource_version: str
    continue_token: str = ""
    remaining: int | None = None


@dataclass(frozen=True, slots=True)
class Event:
    """One event of a watch; a BOOKMARK carries only type and metadata.resourceVersion.

    The BOOKMARK that ends the initial events has the annotation `k8s.io/initial-events-end` too.
    """

    type: Literal["ADDED", "MODIFIED", "DELETED", "BOOKMARK"]
    obj: Object


@dataclass(frozen=True, slots=True)
class Asked:
    """The options of a list, as they came (meta/v1 ListOptions)."""

    limit: int
    continue_token: str
    resource_version: str
    resource_version_match: str


@dataclass(frozen=True, slots=True)
class Following:
    """The options of a watch, as they came."""

    resource: Resource
    resource_version: str
    bookmarks: bool
    initial_events: bool


def too_large(wanted: int, current: int) -> ApiError:
    """The refusal of a resourceVersion that is not there yet."""
    message = f"Too large resource version: {wanted}, current: {current}"
    cause = Cause("ResourceVersionTooLarge", "Too large resource version", "")
    return ApiError(504, "Timeout", f"Timeout: {message}", causes=[cause], retry_after=1)


def version(text: str) -> int:
    """A resourceVersion as a revision; "" and "0", which mean any, are 0. Raises bad_request."""
    if not text:
        return 0
    if not (text.isascii() and text.isdigit()) or len(text) > 18:
        told = f'strconv.ParseUint: parsing "{text[:64]}": invalid syntax'
        raise errors.bad_request(f'invalid resource version: resourceVersion: Invalid value: "{text[:64]}": {told}')
    return int(text)


async def page(storage: Storage, prefix: bytes, selection: Selection, asked: Asked) -> Listing:
    """One page of a list. Raises bad_request, expired and too_large."""
    revision, after = await _start(storage, asked)
    items: list[Object] = []
    last = after
    while True:
        size = min(asked.limit - len(items), _CHUNK) if asked.limit and selection.everything else _CHUNK
        start = prefix + last if last else b""
        try:
            found = await storage.range(prefix + selection.name.encode(), after=start, limit=size, revision=revision)
        except Compacted as gone:
            if not asked.continue_token:
                raise errors.expired("The resourceVersion for the provided list is too old.") from gone
            raise errors.expired(_INCONSISTENT, records.token(records.NEWEST, last)) from gone
        except FutureRevision as early:
            raise too_large(revision, early.current) from early
        revision = found.revision
        for index, record in enumerate(found.records):
            last = record.key.removeprefix(prefix)
            obj = records.readable(record)
            if obj is not None and selection.matches(obj):
                items.append(obj)
            left = found.remaining + len(found.records) - index - 1
            if asked.limit and len(items) == asked.limit and left:
                # How many are left is known only when none of them can be passed over.
                remaining = left if selection.everything else None
                return Listing(items, str(revision), records.token(revision, last), remaining)
        if not found.remaining:
            return Listing(items, str(revision))


async def _start(storage: Storage, asked: Asked) -> tuple[int, bytes]:
    """The revision to read at (0: the current one) and the key to go on after."""
    if asked.continue_token:
        revision, after = records.parse_token(asked.continue_token)
        if asked.resource_version not in ("", "0"):
            raise errors.bad_request("specifying resource version is not allowed when using continue")
        return (0 if revision == records.NEWEST else revision), after
    wanted, match = version(asked.resource_version), asked.resource_version_match
    if not wanted or match == "Exact" or (not match and asked.limit > 0):
        return wanted, b""
    current = await storage.revision()
    if wanted > current:
        raise too_large(wanted, current)
    return 0, b""


async def follow(
    storage: Storage, prefix: bytes, selection: Selection, asked: Following
) -> AsyncGenerator[Event, None]:
    """The events of a watch, without end. Raises bad_request, expired, and too_large for initial events."""
    told = version(asked.resource_version)
    current = await storage.revision()
    if told > current and asked.initial_events:
        raise too_large(told, current)
    if told > current:
        # The client has seen a store that is no more (a restored backup): only a new list helps it.
        raise errors.expired(f"too old resource version: {told} is not of this storage, which is at {current}")
    if asked.initial_events or not told:
        listing = await page(storage, prefix, selection, Asked(0, "", "", ""))
        for obj in listing.items:
            yield Event("ADDED", obj)
        told = int(listing.resource_version)
        if asked.bookmarks:
            yield bookmark(asked.resource, told, {"k8s.io/initial-events-end": "true"})
    try:
        async with aclosing(storage.watch(prefix + selection.name.encode(), told)) as changes:
            async for change in changes:
                if isinstance(change, Progress):
                    if asked.bookmarks and change.revision > told:
                        told = change.revision
                        yield bookmark(asked.resource, told, {})
                    continue
                told = change.revision
                event = _event(change, selection)
                if event is not None:
                    yield event
    except Compacted as gone:
        raise errors.expired(f"too old resource version: {told} ({gone.oldest})") from gone


def _event(change: Change, selection: Selection) -> Event | None:
    """What a change is to a watcher that sees only what is selected."""
    now = _selected(change.record, selection, change.revision)
    before = _selected(change.previous, selection, change.revision)
    if now is not None:
        return Event("ADDED" if before is None else "MODIFIED", now)
    return None if before is None else Event("DELETED", before)


def _selected(record: Record | None, selection: Selection, revision: int) -> Object | None:
    if record is None:
        return None
    obj = records.readable(record, revision)
    return obj if obj is not None and selection.matches(obj) else None


def bookmark(resource: Resource, revision: int, annotations: dict[str, str]) -> Event:
    metadata: Object = {"resourceVersion": str(revision), "creationTimestamp": None}
    if annotations:
        metadata["annotations"] = dict(annotations)
    return Event("BOOKMARK", {"apiVersion": resource.api_version, "kind": resource.kind, "metadata": metadata})
