"""Key-encryption keys from files and from the environment, and which sources a gateway has.

A source that gives no key keeps no gateway from starting: what it sealed stays closed, and the rest is served.
"""

import asyncio
import ctypes
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import structlog

from onepass.pki import sealkeys
from onepass.pki.sealing import Envelope, Seed
from onepass.pki.sealkeys import Keyring, NoKey
from onepass.runtime import aside, datadir
from onepass.runtime.datadir import DataDir
from onepass.runtime.kmsplugin import Plugin
from onepass.runtime.sealer import Sealer, Source
from onepass.runtime.settings import SealKey, Settings

log = structlog.get_logger(__name__)

LOOK_SECONDS = 2.0
HANG_SECONDS = 10.0  # of a read, after which it is told


@dataclass(slots=True)
class Keys:
    """A source that holds its keys. `read` gives their text, or raises OSError or NoKey."""

    name: str
    read: Callable[[], str] = field(repr=False)
    fixed: bool = False  # it never changes while the gateway runs
    why: str = field(default="", init=False)
    _ring: Keyring | None = field(default=None, init=False, repr=False)
    _seed: Seed | None = field(default=None, init=False, repr=False)

    def __post_init__(self) -> None:
        self.look()

    @property
    def keys(self) -> Sequence[str]:
        return self._ring.ids if self._ring else ()

    @property
    def seed(self) -> Seed | None:
        return self._seed

    def open(self, envelope: Envelope) -> bytes | None:
        return self._ring.unwrap(envelope) if self._ring else None

    def look(self) -> bool:
        """Read again; whether something has changed. Keys that cannot be read any more stay in use."""
        return self._learn(self._attempt())

    def _attempt(self) -> "str | OSError | NoKey":
        try:
            return self.read()
        except (OSError, NoKey) as error:
            return error

    def _learn(self, read: "str | OSError | NoKey") -> bool:
        try:
            if not isinstance(read, str):
                raise read
            found = Keyring.parse(read)
        except (OSError, NoKey) as error:
            self._lack(str((isinstance(error, OSError) and error.strerror) or error))
            return False
        self.why = ""
        if found == self._ring:
            return False
        self._ring, self._seed = found, found.seed()
        return True

    def _lack(self, told: str) -> None:
        why = f"gives no key ({told})"
        if why != self.why:
            log.warning("a seal key cannot be read", source=self.name, error=why, kept=bool(self._ring))
        self.why = why

    async def run(self, changed: Callable[[], None]) -> None:
        while not self.fixed:
            await asyncio.sleep(LOOK_SECONDS)
            reading = aside.started(self._attempt)
            if not (await asyncio.wait({reading}, timeout=HANG_SECONDS))[0]:
                self._lack("it is being read, and that does not end")
            if self._learn(await reading):
                log.info("seal keys have changed", source=self.name, keys=list(self.keys))
                changed()

    async def settled(self) -> None:
        return


def build(settings: Settings, data: DataDir, sealed: bool) -> Sealer:
    """The sealer of a gateway; `sealed` says that its database has something sealed.

    Without --seal-key it is the data directory's own key file, made when nothing needs an old one. With --seal-key that
    file still opens what it sealed, as long as it is there.
    """
    own = data.pki / "seal.key"
    if not settings.seal_keys and not sealed and not own.exists():
        datadir.write_private(own, f"{sealkeys.generate()}\n".encode())
    sources: list[Source] = [_source(each, settings.kms_timeout) for each in settings.seal_keys]
    if not sources or (own.exists() and all(each.place != str(own) for each in settings.seal_keys)):
        sources.append(_file(own))
    return Sealer(sources)


def _source(chosen: SealKey, timeout: float) -> Source:
    if chosen.scheme == "env":
        text = take(chosen.place)
        return Keys(str(chosen), lambda: _given(text), fixed=True)
    if chosen.scheme == "unix":
        return Plugin(str(chosen), chosen.place, timeout)
    return _file(Path(chosen.place))


def _file(path: Path) -> Keys:
    return Keys(f"file:{path}", lambda: _text(path.read_bytes()))


def _text(content: bytes) -> str:
    return content.decode(errors="replace")


def _given(text: str | None) -> str:
    if text is None:
        raise NoKey("the variable is not set")
    return text


def take(name: str) -> str | None:
    """The value of a variable of the environment, which no program that is started from now on gets to see.

    What /proc/PID/environ shows is the memory that the process began with: the value is wiped there as well.
    """
    value = os.environ.get(name)
    if value is None:
        return None
    libc = ctypes.CDLL(None)
    libc.getenv.restype = ctypes.c_void_p
    where = libc.getenv(os.fsencode(name))
    if where:
        ctypes.memset(where, 0, len(os.fsencode(value)))
    del os.environ[name]
    return value
