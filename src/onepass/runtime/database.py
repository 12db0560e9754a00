"""The storage that an operator chose, opened; etcd is waited for, since it may be on its way."""

import asyncio
import ipaddress
import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import structlog

from onepass.pki import certificates
from onepass.runtime import datadir
from onepass.runtime.settings import EtcdAccess, Settings, SettingsError
from onepass.storage import address, etcd, sqlite
from onepass.storage.address import Etcd, Sqlite
from onepass.storage.etcdclient import Access
from onepass.storage.interface import Storage, Unavailable, Unusable

log = structlog.get_logger(__name__)

_PAUSE = 1.0  # seconds between tries while etcd does not answer


class Database(Storage, Protocol):
    """A storage that looks after its history while `run` runs."""

    async def run(self) -> None: ...


@dataclass(frozen=True, slots=True)
class Place:
    """Where the storage is, checked; `shared` says that other replicas may use it at the same time."""

    where: Sqlite | Etcd
    access: Access | None = None
    compaction: float = 0.0

    @property
    def shared(self) -> bool:
        return self.access is not None

    async def open(self, waiting: Callable[[str], None]) -> Database:
        """Raises StorageError with a sentence; says by `waiting`, once each, what keeps an etcd from being there."""
        if isinstance(self.where, Sqlite):
            return await sqlite.open_sqlite(self.where.path)
        assert self.access is not None
        told: set[str] = set()  # several servers may say different things in turns
        while True:
            try:
                return await etcd.open_etcd(self.access, self.where.prefix, etcd.Limits(history=self.compaction))
            except Unavailable as error:
                if str(error) not in told:
                    told.add(str(error))
                    log.info("waiting for etcd", error=str(error))
                    waiting(f"waiting for {self.where}: {error}")
            await asyncio.sleep(_PAUSE)


def place(settings: Settings) -> Place:
    """Raises SettingsError for what can be no storage."""
    try:
        where = address.parse(settings.storage_url)
    except Unusable as error:
        raise SettingsError(f"--storage: {error}") from error
    if isinstance(where, Etcd):
        return Place(where, _access(where, settings.etcd), settings.etcd.compaction)
    if settings.etcd != EtcdAccess():
        raise SettingsError("the --etcd options are of use with --storage etcd://... or etcds://... only")
    return Place(where)


def _access(where: Etcd, chosen: EtcdAccess) -> Access:
    """Every file is read once, so that a wrong one is told now. Raises SettingsError."""
    files = {"ca": chosen.ca, "cert": chosen.certificate, "key": chosen.key}
    if not where.tls and (given := [name for name, file in files.items() if file]):
        raise SettingsError(f"--etcd-{given[0]}file is of use with TLS only: write --storage etcds://...")
    if bool(chosen.certificate) != bool(chosen.key):
        raise SettingsError("--etcd-certfile and --etcd-keyfile: give both, or none of them")
    if chosen.ca and not re.search(rb"BEGIN CERTIFICATE", datadir.read(chosen.ca, "--etcd-cafile ")):
        raise SettingsError(f"--etcd-cafile {chosen.ca}: it has no certificate in PEM")
    if chosen.certificate and chosen.key:
        try:
            certificates.pair(
                datadir.read(chosen.certificate, "--etcd-certfile "),
                datadir.read(chosen.key, "--etcd-keyfile "),
                time.time(),
            )
        except SettingsError:
            raise
        except ValueError as error:
            raise SettingsError(f"--etcd-certfile {chosen.certificate}, --etcd-keyfile {chosen.key}: {error}") from None
    if bool(chosen.user) != bool(chosen.password):
        raise SettingsError("--etcd-user and --etcd-password-file: give both, or none of them")
    if chosen.password:
        datadir.read(chosen.password, "--etcd-password-file ")
        if not where.tls and not all(map(_loopback, where.servers)):
            raise SettingsError("--etcd-user: a password goes over TLS only: write --storage etcds://...")
    return Access(where.servers, where.tls, chosen.ca, chosen.certificate, chosen.key, chosen.user, chosen.password)


def _loopback(server: str) -> bool:
    host = server.rpartition(":")[0].removeprefix("[").removesuffix("]")
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
