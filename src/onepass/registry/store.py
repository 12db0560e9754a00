"""Generic create, read, update, delete and watch of one kind, driven by its strategy. The only writer of objects."""

import secrets
import uuid
from collections.abc import AsyncGenerator, Callable, Iterator, Sequence
from contextlib import aclosing, contextmanager
from dataclasses import dataclass, replace

from onepass.api import errors, meta
from onepass.api.errors import ApiError
from onepass.api.meta import JSON, Object
from onepass.pki.sealing import SealError
from onepass.registry import causes, fieldowners, lifecycle, reads, records, schema, sealed
from onepass.registry.fieldowners import Write
from onepass.registry.fields import typedvalues
from onepass.registry.reads import Event, Listing, Selection
from onepass.registry.sealed import Sealer
from onepass.registry.strategy import Strategy
from onepass.storage.interface import Compacted, Conflict, Op, OutcomeUnknown, Record, Storage, StorageError, TooLarge

__all__ = ["Event", "Listing", "Sealer", "Selection", "Store", "Write", "Written"]

_SUFFIX = "bcdfghjklmnpqrstvwxz2456789"  # without vowels, so that no word comes out (k8s.io/apimachinery util/rand)
_GENERATED = 63 - 5  # what is kept of generateName, so that the name fits a label
_NAME_TRIES = 8
_WRITE_TRIES = 64  # reads and writes of one update that others overtake; each lost try is another's success


@dataclass(frozen=True, slots=True)
class Written:
    """The object as it now stands, and what to put into `Warning` headers."""

    obj: Object
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class _Checked:
    """An object that may be stored, and what becomes of its secret (see Concealed)."""

    obj: Object
    secret: bytes | None
    warnings: tuple[str, ...]
    known: bool = False
    merged: Callable[[bytes | None], bytes] | None = None


class Store:
    """One kind in one storage. Raises onepass.api.errors.ApiError, and storage errors only as `unavailable`."""

    def __init__(
        self, storage: Storage, strategy: Strategy, *, prefix: bytes = b"/registry", sealer: Sealer | None = None
    ) -> None:
        if strategy.conceal is not None and sealer is None:
            raise ValueError(f"{strategy.resource.key} has write-only fields: a sealer is needed")
        self.strategy = strategy
        self._storage = storage
        self._prefix = prefix
        self._secrets = sealed.Records(storage, sealer, strategy.bound) if sealer and strategy.conceal else None

    async def get(self, namespace: str, name: str) -> Object:
        """The object, with apiVersion and kind. Raises not_found."""
        return records.decode(await self._record(namespace, name))

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
        asked = reads.Asked(limit, continue_token, resource_version, resource_version_match)
        with _translated():
            return await reads.page(self._storage, self._within(namespace), self._narrowed(namespace, selection), asked)

    async def watch(
        self,
        namespace: str,
        selection: Selection,
        *,
        resource_version: str = "",
        bookmarks: bool = False,
        initial_events: bool = False,
    ) -> AsyncGenerator[Event, None]:
        """Events after `resource_version`; "" or "0" begin with an ADDED for each object that is there.

        An object that leaves the selection is told as DELETED, one that enters it as ADDED. Raises expired.
        """
        asked = reads.Following(self.strategy.resource, resource_version, bookmarks, initial_events)
        selection = self._narrowed(namespace, selection)
        with _translated():
            async with aclosing(reads.follow(self._storage, self._within(namespace), selection, asked)) as events:
                async for event in events:
                    yield event

    async def create(self, namespace: str, obj: Object, write: Write) -> Written:
        """Default, validate, conceal and store a new object. Raises already_exists, invalid."""
        schema.check_metadata(self.strategy.resource, obj, patched=write.form != "object")
        obj = lifecycle.typed(self.strategy, obj, namespace)
        metadata = meta.section(obj, "metadata")
        if meta.text(metadata, "resourceVersion"):
            raise errors.bad_request("resourceVersion should not be set on objects to be created")
        stem = meta.text(metadata, "generateName")
        if meta.text(metadata, "name"):
            return await self._create(namespace, obj, write)
        if not stem:
            told = [causes.required("metadata.name", "name or generateName is required")]
            raise errors.invalid(self.strategy.resource, "", told)
        for left in reversed(range(_NAME_TRIES)):
            name = stem[:_GENERATED] + "".join(secrets.choice(_SUFFIX) for _ in range(5))
            try:
                return await self._create(namespace, {**obj, "metadata": {**metadata, "name": name}}, write)
            except ApiError as refused:
                if refused.reason != "AlreadyExists" or not left:
                    raise
        raise AssertionError("the last try returns or raises")

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
        for _ in range(_WRITE_TRIES):
            try:
                record = await self._record(namespace, name)
            except ApiError as absent:
                if absent.code != 404 or not create_if_absent or write.subresource:
                    raise
                return await self._create(namespace, self._named(namespace, name, change({}), write), write)
            old = records.decode(record)
            new = self._named(namespace, name, change(records.decode(record)), write)
            checked = await self._merged(old, await self._settled(record.key, old, self._changed(old, new, write)))
            written = await self._replace(record, old, checked, write)
            if written is not None:
                return written
        raise errors.conflict(self.strategy.resource, name)

    async def delete(
        self,
        namespace: str,
        name: str,
        write: Write,
        *,
        uid: str = "",
        resource_version: str = "",
        grace_period: int | None = None,
    ) -> tuple[Object, bool]:
        """Delete, or mark for deletion while finalizers stand. Returns the last state, and whether it is gone now.

        `grace_period` is what the client asks for, in seconds; None leaves it to the strategy. An object with one
        stays, marked, until a deletion with 0.
        """
        for _ in range(_WRITE_TRIES):
            record = await self._record(namespace, name)
            old = records.decode(record)
            self._preconditions(old, uid, resource_version)
            grace = self.strategy.grace(old, grace_period)
            marked = lifecycle.dying(self.strategy.prepare_delete(old, write.actor), now=write.actor.now, grace=grace)
            gone = lifecycle.finished(marked)
            written = await self._replace(record, old, _Checked(marked, None, ()), write)
            if written is not None:
                return (lifecycle.unmarked(written.obj, old) if gone else written.obj), gone
        raise errors.conflict(self.strategy.resource, name)

    async def secret(self, name: str, uid: str, generation: JSON = None) -> bytes | None:
        """The write-only part of the object `name` (cluster-scoped kinds), unsealed; None when there is none.

        Raises onepass.pki.sealing.SealError when it cannot be opened; sealed.Outdated when the object is of another
        `generation` than that.
        """
        if self._secrets is None:
            return None
        with _translated():
            return await self._secrets.read(self._key("", name), uid, generation)

    async def _create(self, namespace: str, obj: Object, write: Write) -> Written:
        given = meta.section(obj, "metadata").get("managedFields")
        born = lifecycle.born(self.strategy, obj, uid=str(uuid.uuid4()), now=write.actor.now)
        checked = self._checked(born, None, given, write)
        if checked.merged:
            checked = replace(checked, secret=checked.merged(None))
        name = meta.name(checked.obj)
        key = self._key(namespace, name)
        ops = [Op(key, records.encode(checked.obj), 0), *self._secret_ops(key, checked.obj, checked.secret or b"")]
        try:
            with _translated():
                if not write.dry_run:
                    revision = await self._storage.commit(ops)
                    return Written(_at_revision(checked.obj, revision), checked.warnings)
                if await self._storage.get(key) is None:
                    return Written(checked.obj, checked.warnings)
        except Conflict as taken:
            raise errors.already_exists(self.strategy.resource, name) from taken
        raise errors.already_exists(self.strategy.resource, name)

    def _named(self, namespace: str, name: str, obj: Object, write: Write) -> Object:
        """The object under the name and in the namespace that the request is about. Raises bad_request, invalid."""
        schema.check_metadata(self.strategy.resource, obj, patched=write.form != "object")
        obj = lifecycle.typed(self.strategy, obj, namespace)
        given = meta.name(obj)
        if given and given != name:
            raise errors.bad_request(f"the name of the object ({given}) does not match the name on the URL ({name})")
        return {**obj, "metadata": {**meta.section(obj, "metadata"), "name": name}}

    def _expect(self, old: Object, uid: str, resource_version: str) -> None:
        """Raises conflict unless the stored object is the one that the client means; "" means any."""
        resource, name = self.strategy.resource, meta.name(old)
        if uid and uid != meta.uid(old):
            told = f"Precondition failed: UID in precondition: {uid}, UID in object meta: {meta.uid(old)}"
            raise errors.conflict(resource, name, told)
        if resource_version and resource_version != str(meta.resource_version(old)):
            raise errors.conflict(resource, name)

    def _preconditions(self, old: Object, uid: str, resource_version: str) -> None:
        """Raises conflict unless the preconditions of a deletion hold; "" means any."""
        told = ""
        if uid and uid != meta.uid(old):
            told = (
                f"the UID in the precondition ({uid}) does not match the UID in record ({meta.uid(old)}). "
                "The object might have been deleted and then recreated"
            )
        elif resource_version and resource_version != str(meta.resource_version(old)):
            told = (
                f"the ResourceVersion in the precondition ({resource_version}) does not match the ResourceVersion in "
                f"record ({meta.resource_version(old)}). The object might have been modified"
            )
        if told:
            # kube-apiserver names the kind here, where all other conflicts name the resource (rest.BeforeDelete).
            resource = self.strategy.resource
            raise errors.conflict(replace(resource, plural=resource.kind), meta.name(old), told)

    def _changed(self, old: Object, new: Object, write: Write) -> _Checked:
        self._expect(old, meta.uid(new), meta.text(meta.section(new, "metadata"), "resourceVersion"))
        given = meta.section(new, "metadata").get("managedFields")
        checked = self._checked(lifecycle.merged(self.strategy, old, new, write.subresource), old, given, write)
        obj = fieldowners.settled(old, lifecycle.counted(self.strategy, old, checked.obj))
        return replace(checked, obj=obj)

    async def _settled(self, key: bytes, old: Object, checked: _Checked) -> _Checked:
        """A secret that is stored already is not written again, unless what is stored cannot be opened.

        Then it heals what depends on it, and so it counts as a change of what is wanted.
        """
        if not checked.known or self._secrets is None:
            return checked
        with _translated():
            opens = await self._secrets.opens(key, meta.uid(old))
        if opens:
            return replace(checked, secret=None)
        return replace(checked, obj=lifecycle.recounted(self.strategy, old, checked.obj))

    async def _merged(self, old: Object, new: _Checked) -> _Checked:
        """With the secret made out of the stored one, where it is. No write between changes that: it changes the
        object's revision as well. Raises invalid when the stored one is needed and cannot be opened."""
        if not new.merged:
            return new
        before = None
        try:
            before = await self.secret(meta.name(old), meta.uid(old))
        except SealError as error:
            if new.secret is not None:
                return replace(new, obj=lifecycle.recounted(self.strategy, old, new.obj))
            told = f"what is stored cannot be opened ({error}): supply the credential and every password again"
            wrong = causes.forbidden("spec", told)
            raise errors.invalid(self.strategy.resource, meta.name(old), [wrong]) from error
        secret = new.merged(before)
        if secret == before:
            return replace(new, secret=None)
        return replace(new, secret=secret, obj=lifecycle.recounted(self.strategy, old, new.obj))

    def _checked(self, obj: Object, old: Object | None, given: JSON, write: Write) -> _Checked:
        """Run the strategy's functions in their order. `given` are managedFields. Raises bad_request and invalid."""
        strategy = self.strategy
        obj, unknown = schema.conform(strategy.model, strategy.resource, obj)
        odd = (*write.odd, *schema.warnings(unknown))
        if odd and write.field_validation == "Strict":
            raise schema.strict(strategy.resource, odd, write.form)
        warnings = odd if write.field_validation == "Warn" else ()
        secret, known, merged = None, False, None
        if strategy.conceal is not None and not write.subresource:
            concealed = strategy.conceal(obj, old, write.actor)
            obj, secret, known, merged = concealed.obj, concealed.secret, concealed.known, concealed.merged
        obj = fieldowners.owned(strategy, old, obj, given, write)
        if old is None:
            obj = strategy.prepare_create(obj, write.actor)
        else:
            obj = strategy.prepare_update(old, obj, write.actor)
        wrong = [*lifecycle.check(strategy, obj, old), *strategy.validate(obj, old)]
        if wrong:
            raise errors.invalid(strategy.resource, meta.name(obj), wrong)
        return _Checked(obj, secret, (*warnings, *strategy.warn(obj)), known, merged)

    async def _replace(self, record: Record, old: Object, new: _Checked, write: Write) -> Written | None:
        """Write what has become of a stored object, or delete it; None when another write came first."""
        gone = lifecycle.finished(new.obj)
        if not gone and new.secret is None and typedvalues.same(new.obj, old):
            return Written(old, new.warnings)
        if write.dry_run:
            return Written(new.obj, new.warnings)
        value = None if gone else records.encode(new.obj)
        secret = b"" if gone else new.secret
        ops = [Op(record.key, value, record.modified)]
        if secret is not None:
            ops += self._secret_ops(record.key, new.obj, secret)
        try:
            with _translated():
                revision = await self._storage.commit(ops)
        except Conflict:
            return None
        return Written(_at_revision(new.obj, revision), new.warnings)

    def _secret_ops(self, key: bytes, obj: Object, secret: bytes) -> Sequence[Op]:
        """The writes that keep a secret in step with its object: b"" removes it. Raises unavailable."""
        if self._secrets is None:
            return ()
        try:
            return (self._secrets.write(key, obj, secret),)
        except SealError as closed:
            raise errors.unavailable(f"the credential cannot be stored: {closed}") from closed

    async def _record(self, namespace: str, name: str) -> Record:
        # A name with a slash would reach the key of another object.
        record = None
        if "/" not in name and "/" not in namespace:
            with _translated():
                record = await self._storage.get(self._key(namespace, name))
        if record is None:
            raise errors.not_found(self.strategy.resource, name)
        return record

    def _narrowed(self, namespace: str, selection: Selection) -> Selection:
        """Across namespaces a name is no longer where a key begins."""
        across = self.strategy.resource.namespaced and not namespace
        return replace(selection, name="") if across else selection

    def _within(self, namespace: str) -> bytes:
        return records.prefix(self._prefix, self.strategy.resource, namespace)

    def _key(self, namespace: str, name: str) -> bytes:
        return self._within(namespace) + name.encode()


def _at_revision(obj: Object, revision: int) -> Object:
    return {**obj, "metadata": {**meta.section(obj, "metadata"), "resourceVersion": str(revision)}}


@contextmanager
def _translated() -> Iterator[None]:
    """Storage errors as clients know them. Conflict passes: what it means depends on the write."""
    try:
        yield
    except Conflict:
        raise
    except Compacted as gone:
        raise errors.expired(f"too old resource version: the oldest that can be told is {gone.oldest}") from gone
    except TooLarge as refused:
        raise errors.too_large(
            "Request entity too large: the storage does not take an object of this size"
        ) from refused
    except OutcomeUnknown as lost:
        # No Retry-After: client-go takes it as leave to send any request again, and what makes its name would be twice.
        raise errors.unavailable(
            "the storage did not answer in time, and whether the change was made is not known: look before trying again"
        ) from lost
    except StorageError as failed:
        raise errors.unavailable("the storage does not answer; please try again", retry_after=1) from failed
