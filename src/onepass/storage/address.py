"""Storage addresses as a person writes them: `sqlite:///var/lib/onepass/onepass.db`."""

from pathlib import Path
from urllib.parse import unquote, urlsplit

from onepass.storage.interface import Unusable


def sqlite_path(address: str) -> Path:
    """The absolute path of the database file that a `sqlite:///PATH` address names.

    As in every URL (RFC 3986) the path begins at the third slash and is absolute; a fourth slash changes nothing, and
    percent escapes are decoded. Raises Unusable for anything else, with a sentence that says what to write.
    """
    wanted = "write sqlite:///PATH with an absolute path, for example sqlite:///var/lib/onepass/onepass.db"
    try:
        parts = urlsplit(address)
    except ValueError as error:
        raise Unusable(f"the storage address {address!r} is not a URL: {wanted}") from error
    if parts.scheme == "etcd":
        raise Unusable(f"etcd storage is not supported by this version: {wanted}")
    if parts.scheme != "sqlite":
        # The address may hold a password, as those of other databases do: only its scheme is repeated.
        named = f"{parts.scheme} storage is not supported" if parts.scheme else f"{address!r} is not a storage address"
        raise Unusable(f"{named}: {wanted}")
    if parts.netloc or not address.lower().startswith("sqlite://"):
        raise Unusable(f"the storage address {address!r} names no absolute path: {wanted}")
    if parts.query or parts.fragment or "?" in address or "#" in address:
        raise Unusable(f"the storage address {address!r} has options, and there are none: {wanted}")
    path = unquote(parts.path)
    if not path.strip("/") or path.endswith("/") or "\0" in path:
        raise Unusable(f"the storage address {address!r} names no file: {wanted}")
    return Path("/" + path.lstrip("/"))
