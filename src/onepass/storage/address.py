"""Storage addresses as a person writes them: `sqlite:///var/lib/onepass/onepass.db`, `etcds://etcd-0:2379/onepass`."""

import re
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import SplitResult, unquote, urlsplit

from onepass.storage.interface import Unusable

PREFIX = "onepass"  # what the keys in etcd begin with, when the address says nothing else

_SQLITE = "write sqlite:///PATH with an absolute path, for example sqlite:///var/lib/onepass/onepass.db"
_ETCD = "write etcd://HOST:PORT,HOST:PORT/PREFIX, or etcds:// for TLS, for example etcds://etcd-0:2379,etcd-1:2379"
_SERVER = re.compile(r"(?:[A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\]):(\d{1,5})", re.ASCII)
_PREFIX = re.compile(r"[A-Za-z0-9._/-]*", re.ASCII)


@dataclass(frozen=True, slots=True)
class Sqlite:
    """A database file."""

    path: Path

    def __str__(self) -> str:
        return str(self.path)


@dataclass(frozen=True, slots=True)
class Etcd:
    """Servers of one etcd, as HOST:PORT each, and what the keys in it begin with."""

    servers: tuple[str, ...]
    prefix: str = PREFIX
    tls: bool = False

    def __str__(self) -> str:
        return f"etcd at {', '.join(self.servers)}"


def parse(address: str) -> Sqlite | Etcd:
    """What an address names. Raises Unusable, with a sentence that says what to write and repeats no password.

    The path of a database file begins at the third slash and is absolute (RFC 3986); a fourth slash changes nothing,
    and percent escapes are decoded.
    """
    scheme = address.partition(":")[0].lower()
    wanted = _ETCD if scheme in ("etcd", "etcds") else _SQLITE
    try:
        parts = urlsplit(address)
    except ValueError as error:
        raise Unusable(f"the storage address is not a URL: {wanted}") from error
    if parts.scheme not in ("sqlite", "etcd", "etcds"):
        # The address may hold a password, as those of other databases do: only its scheme is repeated.
        named = f"{parts.scheme} storage is not supported" if parts.scheme else f"{address!r} is not a storage address"
        raise Unusable(f"{named}: {_SQLITE}; or, for several replicas, {_ETCD}")
    if "@" in parts.netloc:
        raise Unusable(f"the storage address has a user in it, and those have options of their own: {wanted}")
    if parts.query or parts.fragment or "?" in address or "#" in address:
        raise Unusable(f"the storage address {address!r} has options, and there are none: {wanted}")
    return _sqlite(address, parts) if parts.scheme == "sqlite" else _etcd(address, parts)


def _sqlite(address: str, parts: SplitResult) -> Sqlite:
    if parts.netloc or not address.lower().startswith("sqlite://"):
        raise Unusable(f"the storage address {address!r} names no absolute path: {_SQLITE}")
    path = unquote(parts.path)
    if not path.strip("/") or path.endswith("/") or "\0" in path:
        raise Unusable(f"the storage address {address!r} names no file: {_SQLITE}")
    return Sqlite(Path("/" + path.lstrip("/")))


def _etcd(address: str, parts: SplitResult) -> Etcd:
    servers = tuple(dict.fromkeys(parts.netloc.split(",")))
    for server in servers:
        match = _SERVER.fullmatch(server)
        if not match or not 0 < int(match[1]) < 65536:
            raise Unusable(f"the storage address {address!r}: {server!r} is no HOST:PORT: {_ETCD}")
    prefix = parts.path.strip("/")
    if not _PREFIX.fullmatch(prefix) or "//" in prefix:
        raise Unusable(f"the storage address {address!r}: the prefix may have letters, digits and ._-/ only: {_ETCD}")
    return Etcd(servers, prefix or PREFIX, parts.scheme == "etcds")
