"""The gateway's own keys in a storage that several replicas share: files by name, sealed like members' credentials.

They lie beside the sealed records of objects, so that they are counted and sealed anew with these.
"""

from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import aclosing
from dataclasses import dataclass

from onepass.registry.sealed import OWN, Sealer
from onepass.storage.interface import Change, Conflict, Op, Storage


@dataclass(frozen=True, slots=True)
class OwnKeys:
    """Files are only ever added: a key that was once used is not to be lost."""

    storage: Storage
    sealer: Sealer
    known: Callable[[str], object]  # whether a name is that of such a file; no other record is looked at

    async def read(self) -> Mapping[str, bytes]:
        """By name. Raises StorageError, and SealError when one of them cannot be opened."""
        named = {
            each.key.removeprefix(OWN).decode(errors="replace"): each
            for each in (await self.storage.range(OWN)).records
        }
        return {name: self.sealer.unseal(each.value, each.key)[1:] for name, each in named.items() if self.known(name)}

    async def add(self, files: Mapping[str, bytes]) -> bool:
        """All of them, or none and False when there is one of that name. Raises StorageError and SealError."""
        # A byte before each, since what is sealed must not be empty and some files are.
        ops = [
            Op(OWN + name.encode(), self.sealer.seal(b"=" + content, OWN + name.encode()), 0)
            for name, content in sorted(files.items())
        ]
        try:
            await self.storage.commit(ops)
        except Conflict:
            return False
        return True

    async def changes(self) -> AsyncGenerator[None]:
        """Once at first, and then whenever something was added. Raises StorageError."""
        after = await self.storage.revision()
        yield
        async with aclosing(self.storage.watch(OWN, after)) as watch:
            async for event in watch:
                if isinstance(event, Change):
                    yield
