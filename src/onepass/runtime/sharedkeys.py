"""Keeps the keys in the data directory those of all replicas that share a storage.

What the storage has is right. The first replica puts there what its data directory has; the others take that over. An
authority that is made later, by a replica or by `onepass ca rotate` on its machine, goes to all of them the same way.
"""

import asyncio
import contextlib
import re
import time
from collections.abc import Callable, Mapping
from contextlib import aclosing
from dataclasses import dataclass
from pathlib import Path

import structlog

from onepass.pki.sealing import KeyAway, KeyMissing, SealError
from onepass.registry.ownkeys import OwnKeys
from onepass.runtime import authorities, datadir
from onepass.runtime.settings import SettingsError
from onepass.storage.interface import StorageError

log = structlog.get_logger(__name__)

_PAUSE = 1.0  # seconds between tries while the storage does not answer
_ACCOUNTS = "accounts.key"
# What every gateway has, and by which it is told from another.
_FIRST = {f"{name}.{part}" for name in (authorities.CLIENT, authorities.SERVING) for part in ("crt", "key")}
_BASE = frozenset({*_FIRST, _ACCOUNTS})
_AUTHORITY = re.compile(rf"(?:{authorities.CLIENT}|{authorities.SERVING})(?:-\d{{1,4}})?")
_MARKER = re.compile(rf"{authorities.SERVING}-\d{{1,4}}\.serves")


class NotShared(Exception):
    """The keys could not be brought in step now; the text is the end of a sentence. It heals by itself."""


def known(name: str) -> bool:
    """Whether a file of this name is shared."""
    stem, _, part = name.rpartition(".")
    authority = part in ("crt", "key") and _AUTHORITY.fullmatch(stem)
    return name == _ACCOUNTS or bool(authority or _MARKER.fullmatch(name))


@dataclass(slots=True)
class SharedKeys:
    """`folder` is where this replica has them."""

    kept: OwnKeys
    folder: Path
    moment: Callable[[], float] = time.time
    _begun: bool = False  # whether what we have is in use

    def begin(self) -> None:
        """From now on nobody takes our first keys for those of another gateway."""
        self._begun = True

    async def share(self, *, unused: bool = False) -> None:
        """Bring both in step; `unused` says that nothing was issued by our keys yet.

        Raises NotShared, and SettingsError for what a person must mend.
        """
        try:
            await self._share(unused)
        except KeyAway as error:
            raise NotShared(str(error)) from error
        except KeyMissing as error:
            raise SettingsError(
                "the gateway's own keys in the storage cannot be opened: give the --seal-key of its other replicas, "
                "or, for another gateway, --storage with a prefix of its own "
                f"({error})"
            ) from error
        except SealError as error:
            raise SettingsError(f"the gateway's own keys in the storage cannot be opened: {error}") from error
        except StorageError as error:
            raise NotShared(str(error)) from error

    async def follow(self, changed: Callable[[], None]) -> None:
        """Say when the storage may have others than we do, until cancelled."""
        while True:
            with contextlib.suppress(StorageError):
                async with aclosing(self.kept.changes()) as changes:
                    async for _ in changes:
                        changed()
            await asyncio.sleep(_PAUSE)

    def none(self) -> bool:
        """Whether this replica has none."""
        return not _files(self.folder, lone=True)

    async def _share(self, unused: bool) -> None:
        for _ in range(2):
            there, here = await self.kept.read(), _files(self.folder)
            if any(there[name] != here[name] for name in _BASE & there.keys() & here.keys()):
                if self._begun:
                    raise SettingsError("the storage has keys of another gateway now, which count after a restart only")
                self._give_up(here, unused)
                here = {}
            ours = {name: content for name, content in here.items() if name not in there}
            # The first keys of a gateway come all at once: where one is missing later, nobody may make another.
            if not ours or not (there or here.keys() >= _BASE) or await self.kept.add(ours):
                break
            # Another replica was faster: what it has made counts.
        there = await self.kept.read()
        lost = _BASE - there.keys()
        if there and lost:
            raise NotShared(f"the storage has lost {', '.join(sorted(lost))}, which a replica that has it gives back")
        # An authority is there when its certificate is: keys come first.
        for name in sorted(there, key=lambda name: (not name.endswith(".key"), name)):
            if _files(self.folder, lone=True).get(name) != there[name]:
                datadir.write_private(self.folder / name, there[name])

    def _give_up(self, here: Mapping[str, bytes], unused: bool) -> None:
        """The data directory was another gateway's: its keys are kept, and not used; but what was just made goes."""
        if unused:
            for name in here:
                (self.folder / name).unlink()
            log.info("another replica was faster: its keys are the gateway's")
            return
        aside = self.folder / f"of-another-gateway-{int(self.moment())}"
        aside.mkdir(mode=0o700, exist_ok=True)
        for name in here:
            (self.folder / name).replace(aside / name)
        log.warning("the storage has the keys of another gateway, ours are set aside", where=str(aside))


def _files(folder: Path, *, lone: bool = False) -> dict[str, bytes]:
    """What is to be shared: of authorities those that are whole, or with `lone` what there is of them."""
    names = {path.name for path in folder.iterdir() if path.is_file()}
    pairs = {name.rpartition(".")[0] for name in names if name.endswith((".crt", ".key"))}
    chosen = {_ACCOUNTS} & names | {name for name in names if _MARKER.fullmatch(name)}
    for each in filter(_AUTHORITY.fullmatch, pairs):
        both = {f"{each}.crt", f"{each}.key"}
        chosen |= both & names if lone or both <= names else set()
    return {name: datadir.read(folder / name) for name in chosen}
