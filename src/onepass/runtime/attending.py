"""The keeper of open streams, put together."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from starlette.datastructures import Headers

from onepass.access import standing
from onepass.access.attributes import Attributes
from onepass.access.identity import Identity
from onepass.api.errors import ApiError
from onepass.apiserver import authentication
from onepass.controllers.attend import Attend
from onepass.gateway import ir
from onepass.registry import currentpolicy
from onepass.registry.changes import Changes
from onepass.registry.currentpolicy import CurrentPolicy
from onepass.registry.mirror import Mirror
from onepass.registry.streams import Open


@dataclass(frozen=True, slots=True)
class _Concerns:
    mirror: Mirror
    changes: Changes

    async def synced(self) -> None:
        await self.mirror.synced()

    async def next(self) -> object:
        return await self.changes.next()


def build(mirror: Mirror, current: CurrentPolicy, known: Callable[[], ir.Known]) -> Attend:
    """`known` tells what the data plane knows of other authorities at that moment."""

    def elsewhere(issuer: str, serial: str) -> bool:  # as `is_taken_back` of gatekeeper.lua
        return serial in known().others.get(issuer, known().elsewhere)

    # Revisions of this run are greater than those of any run before, so that no watch goes on across a restart.
    concerns = _Concerns(mirror, mirror.follow(currentpolicy.CONCERNS))
    return Attend(concerns, current.get, _acting, elsewhere, Open(time.time_ns() // 1000), time.time)


def _acting(headers: standing.Headers) -> tuple[Identity, Sequence[Attributes]] | None:
    """As the API server itself reads these headers."""
    pairs = [(name.encode(), value.encode()) for name, value in zip(headers[::2], headers[1::2], strict=True)]
    given = Headers(raw=pairs)
    try:
        other = authentication.impersonated(given)
        return None if other is None else (other, tuple(authentication.needed(given)))
    except ApiError:
        return None  # refused before the stream began
