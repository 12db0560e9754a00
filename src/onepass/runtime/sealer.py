"""Seals and opens credentials with keys from several sources: the first one seals, all of them open.

Neither ever waits. A source that has to ask somebody else does so in its own task, and until it knows, sealing and
opening fail with a sentence; `changed` is called when that has become different.
"""

import asyncio
import contextlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import structlog

from onepass.pki import sealing
from onepass.pki.sealing import Envelope, KeyAway, KeyMissing, Seed

log = structlog.get_logger(__name__)


class Source(Protocol):
    """Where key-encryption keys come from."""

    @property
    def name(self) -> str:
        """As the operator wrote it."""
        ...

    @property
    def keys(self) -> Sequence[str]:
        """The names of the keys that it has now; the first seals."""
        ...

    @property
    def seed(self) -> Seed | None:
        """What seals now."""
        ...

    @property
    def why(self) -> str:
        """The end of a sentence about the source: why it is of no use now; "" when it is."""
        ...

    def open(self, envelope: Envelope) -> bytes | None:
        """The seed that an envelope needs; None when its key is none of this source's. Raises SealError."""
        ...

    async def run(self, changed: Callable[[], None]) -> None:
        """Keep up with the keys, until cancelled."""
        ...

    async def settled(self) -> None:
        """Returns once nothing is left that could still become known at once."""
        ...


@dataclass(slots=True)
class Sealer:
    """The registry's sealer."""

    sources: Sequence[Source]
    changed: Callable[[], None] = lambda: None

    def seal(self, secret: bytes, context: bytes) -> bytes:
        """Raises KeyAway when there is no key to seal with now."""
        seed = self.sources[0].seed
        if seed is None:
            raise KeyAway(f"there is no key to seal it with: {self.sources[0].name} {self.sources[0].why}")
        return sealing.seal(seed, secret, context)

    def unseal(self, sealed: bytes, context: bytes) -> bytes:
        """Raises SealError."""
        envelope = sealing.parse(sealed)
        away: list[str] = []
        for source in self.sources:
            try:
                seed = source.open(envelope)
            except KeyAway as error:
                away.append(str(error))
                continue
            if seed is not None:
                return sealing.unseal(envelope, seed, context)
        if away:
            raise KeyAway("; ".join(away))
        raise KeyMissing(f"it is sealed with the key {envelope.wrapped.key}, which is not at hand")

    def at_hand(self, sealed: bytes) -> bool:
        """Whether there is a key to open it with now. If not, the sources find out what they can. Raises Damaged."""
        envelope = sealing.parse(sealed)
        for source in self.sources:
            with contextlib.suppress(KeyAway):
                if source.open(envelope) is not None:
                    return True
        return False

    def key(self, sealed: bytes) -> str:
        """The name of the key that something is sealed with. Raises Damaged."""
        return sealing.parse(sealed).wrapped.key

    def fresh(self, sealed: bytes) -> bool:
        """Whether it is sealed as it would be now; true also when nothing can be sealed now. Raises Damaged."""
        seed, envelope = self.sources[0].seed, sealing.parse(sealed)
        if seed is None:
            return True
        same = (envelope.wrapped.kind, envelope.wrapped.key_id) == (seed.wrapped.kind, seed.wrapped.key_id)
        return same and not envelope.old

    async def run(self) -> None:
        """Until cancelled."""
        async with asyncio.TaskGroup() as group:
            for source in self.sources:
                group.create_task(source.run(lambda: self.changed()), name=f"seal {source.name}")

    async def settled(self, seconds: float) -> None:
        """Returns when each source knows what it can know, or after so many seconds."""
        try:
            async with asyncio.timeout(seconds):
                for source in self.sources:
                    await source.settled()
        except TimeoutError:
            log.warning("not every credential can be opened yet", seconds=seconds)
