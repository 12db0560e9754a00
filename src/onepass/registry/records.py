"""Objects as bytes: their keys, their values, and the tokens that continue a list."""

import base64
import binascii

import orjson
import structlog

from onepass.api import errors, meta
from onepass.api.meta import Object, Resource
from onepass.storage.interface import Record

log = structlog.get_logger(__name__)

_TOKEN_VERSION = "meta.k8s.io/v1"  # noqa: S105 - the version that continue tokens carry, not a secret

NEWEST = -1  # the revision in a token that goes on with whatever is there now


def prefix(root: bytes, resource: Resource, namespace: str) -> bytes:
    """What the keys of a kind, or of one namespace of it, begin with: ROOT/GROUP/PLURAL/[NAMESPACE/]."""
    of_kind = root + f"/{resource.group or 'core'}/{resource.plural}/".encode()
    return of_kind + f"{namespace}/".encode() if resource.namespaced and namespace else of_kind


def encode(obj: Object) -> bytes:
    """The value to store. The resourceVersion is left out: it is the revision of the record."""
    metadata = {k: v for k, v in meta.section(obj, "metadata").items() if k != "resourceVersion"}
    return orjson.dumps({**obj, "metadata": metadata})


def decode(record: Record, revision: int = 0) -> Object:
    """The object in a record, at the revision of the record or at a later one, such as that of its deletion.

    Raises internal for what is no object, or another than its key says: the database may have been written by others.
    """
    try:
        obj = orjson.loads(record.value)
    except ValueError:
        obj = None
    metadata = obj.get("metadata") if isinstance(obj, dict) else None
    if not isinstance(obj, dict) or not isinstance(metadata, dict) or not record.key.endswith(_ending(obj)):
        raise errors.internal(f"what is stored under {record.key.decode(errors='replace')} cannot be read")
    metadata["resourceVersion"] = str(revision or record.modified)
    return obj


def readable(record: Record, revision: int = 0) -> Object | None:
    """As `decode`, and None with a line in the log for what cannot be read: the other objects are still to be had."""
    try:
        return decode(record, revision)
    except errors.ApiError as error:
        log.error("a record is passed over", error=error.message)  # noqa: TRY400 - a traceback would show its content
        return None


def _ending(obj: Object) -> bytes:
    """What the key of an object ends with."""
    namespace, name = meta.namespace(obj), meta.name(obj)
    if not name or "/" in name + namespace:
        return b"?/"  # as no key does
    return (f"/{namespace}/{name}" if namespace else f"/{name}").encode()


def token(revision: int, after: bytes) -> str:
    """A continue token: go on after the key `after` (without the kind's prefix), at `revision` or at NEWEST."""
    told = {"v": _TOKEN_VERSION, "rv": revision, "start": after.decode()}
    return base64.urlsafe_b64encode(orjson.dumps(told)).rstrip(b"=").decode()


def parse_token(text: str) -> tuple[int, bytes]:
    """Revision and last key of a continue token. Raises bad_request."""
    try:
        told = orjson.loads(base64.b64decode(text + "=" * (-len(text) % 4), b"-_", validate=True))
    except (ValueError, binascii.Error):
        raise _unusable("") from None
    if not isinstance(told, dict) or told.get("v") != _TOKEN_VERSION:
        raise _unusable(": server does not recognize this encoded version")
    revision, start = told.get("rv"), told.get("start")
    if type(revision) is not int or not (revision == NEWEST or 0 < revision < 2**62):
        raise _unusable(": incorrect encoded start resourceVersion (version meta.k8s.io/v1)")
    if not isinstance(start, str) or not start:
        raise _unusable(": encoded start key empty (version meta.k8s.io/v1)")
    return revision, start.encode()


def _unusable(why: str) -> errors.ApiError:
    return errors.bad_request(f"invalid continue token: continue key is not valid{why}")
