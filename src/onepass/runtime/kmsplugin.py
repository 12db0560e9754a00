"""Key-encryption keys that a KMS v2 plugin keeps, asked over gRPC on a unix socket.

As kube-apiserver does: `Status` is asked every minute, or within ten seconds while something is wrong; a changed key_id
there makes a new seed; a seed is decrypted once, and stays in memory. Unlike kube-apiserver, a plugin that does not
answer keeps nothing from being sealed as long as this process has a seed: docs/decisions/sealing.md says why.
"""

import asyncio
import contextlib
import time
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import grpc
import structlog
from grpc import aio

from onepass.pki import kmsv2, sealing
from onepass.pki.kmsv2 import Fields, PluginRefused
from onepass.pki.sealing import Envelope, KeyAway, Seed, Wrapped

log = structlog.get_logger(__name__)

# kube-apiserver's kmsv2PluginHealthzPositiveInterval and -Negative-; the first pauses of an outage are shorter here.
WELL_SECONDS, UNWELL_SECONDS, FIRST_SECONDS = 60.0, 10.0, 0.5
MOST_SEEDS = 4096  # that are waited for; there is one for each start that sealed something
_AT_ONCE = 8
_UNTRIED = "is being asked"
_OPTIONS = (
    ("grpc.default_authority", "localhost"),  # else the path of the socket, which servers in Go refuse
    ("grpc.enable_http_proxy", 0),
    ("grpc.max_receive_message_length", kmsv2.LARGEST),
    ("grpc.initial_reconnect_backoff_ms", 500),
    ("grpc.max_reconnect_backoff_ms", 5000),  # else a plugin that is back is noticed after two minutes
)


class _Away(PluginRefused):
    """It does not answer."""


@dataclass(slots=True)
class Plugin:
    """A source that asks. `name` is its endpoint, `path` the socket, `timeout` the seconds that a call may take."""

    name: str
    path: str
    timeout: float
    pauses: tuple[float, float] = (WELL_SECONDS, UNWELL_SECONDS)
    why: str = field(default=_UNTRIED, init=False)
    calls: dict[str, int] = field(default_factory=lambda: dict.fromkeys(("Status", "Encrypt", "Decrypt"), 0))
    _seed: Seed | None = field(default=None, init=False, repr=False)
    _opened: dict[Wrapped, bytes] = field(default_factory=dict, init=False, repr=False)
    _wanted: dict[Wrapped, str] = field(default_factory=dict, init=False)  # why each is not opened yet
    _wake: asyncio.Event = field(default_factory=asyncio.Event, init=False)
    _quiet: asyncio.Event = field(default_factory=asyncio.Event, init=False)

    @property
    def keys(self) -> Sequence[str]:
        sealing_now = [self._seed.wrapped] if self._seed else []
        return tuple(dict.fromkeys(each.key for each in (*sealing_now, *self._opened)))

    @property
    def seed(self) -> Seed | None:
        return self._seed

    def open(self, envelope: Envelope) -> bytes | None:
        """What is not known yet is asked for, in `run`. Raises KeyAway."""
        wrapped = envelope.wrapped
        if wrapped.kind != sealing.KMS:
            return None
        opened = self._opened.get(wrapped)
        if opened is None:
            if wrapped not in self._wanted and len(self._wanted) < MOST_SEEDS:
                self._wanted[wrapped] = _UNTRIED
                self._quiet.clear()
                self._wake.set()
            why = self.why or self._wanted.get(wrapped, _UNTRIED)
            kept = f"the key {wrapped.key} is kept by the KMS plugin at {self.name}"
            raise KeyAway(f"{kept}, which {why}" + ("" if why == _UNTRIED else "; it is asked again"))
        return opened

    async def settled(self) -> None:
        await self._quiet.wait()

    async def run(self, changed: Callable[[], None]) -> None:
        """Until cancelled."""
        loop = asyncio.get_running_loop()
        async with aio.insecure_channel(f"unix:{self.path}", options=_OPTIONS) as channel:
            due, well, unwell = 0.0, self.pauses[0], FIRST_SECONDS
            while True:
                self._wake.clear()
                again = loop.time() >= due
                if again:
                    await self._look(channel, changed)
                    due = loop.time() + well
                await self._open_wanted(channel, changed, again=again)
                if self.why:
                    due = min(due, loop.time() + min(unwell, self.pauses[1]))
                unwell = (unwell * 2 if again else unwell) if self.why else FIRST_SECONDS
                if self.why or _UNTRIED not in self._wanted.values():
                    self._quiet.set()
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout_at(due):
                        await self._wake.wait()

    async def _look(self, channel: aio.Channel, changed: Callable[[], None]) -> None:
        """Ask how the plugin is, and make a seed when its key is another than before."""
        try:
            key_id = kmsv2.healthy_key(await self._call(channel, "Status", Fields()))
            if self._seed is None or self._seed.wrapped.key_id != key_id:
                self._take(await self._made(channel, key_id))
                changed()
            self._stands("")
        except PluginRefused as error:
            self._stands(str(error))

    def _stands(self, why: str) -> None:
        if why and why != self.why:
            log.warning("the KMS plugin is not well", endpoint=self.name, error=why)
        elif self.why and not why:
            log.info("the KMS plugin is well", endpoint=self.name)
        self.why = why

    async def _made(self, channel: aio.Channel, key_id: str) -> Seed:
        """Raises PluginRefused."""
        secret = sealing.new_seed()
        wrapped = kmsv2.wrapped(await self._call(channel, "Encrypt", Fields(plaintext=secret, uid=str(uuid.uuid4()))))
        if wrapped.key_id != key_id:
            raise PluginRefused("encrypts with another key than it says: that is right while its key changes only")
        return Seed(secret, wrapped)

    def _take(self, seed: Seed) -> None:
        log.info("credentials are sealed with a key of the KMS plugin", endpoint=self.name, key=seed.wrapped.key)
        self._seed = seed
        self._opened[seed.wrapped] = seed.secret

    async def _open_wanted(self, channel: aio.Channel, changed: Callable[[], None], *, again: bool) -> None:
        """Those that were never tried, and with `again` those that failed as well."""
        tried = [each for each, why in self._wanted.items() if again or why == _UNTRIED] if not self.why else []
        for first in range(0, len(tried), _AT_ONCE):
            few = tried[first : first + _AT_ONCE]
            found = await asyncio.gather(*(self._decrypt(channel, each) for each in few))
            if any(found):
                changed()
            if self.why:
                return

    async def _decrypt(self, channel: aio.Channel, wrapped: Wrapped) -> bool:
        told = Fields(
            ciphertext=wrapped.ciphertext,
            key_id=wrapped.key_id,
            annotations=dict(wrapped.annotations),
            uid=str(uuid.uuid4()),
        )
        try:
            self._opened[wrapped] = kmsv2.seed(await self._call(channel, "Decrypt", told))
        except _Away as error:
            self._stands(str(error))
            return False
        except PluginRefused as error:
            why = str(error)
            if self._wanted[wrapped] != why:
                log.warning("the KMS plugin does not decrypt a key", endpoint=self.name, key=wrapped.key, error=why)
            self._wanted[wrapped] = why
            return False
        del self._wanted[wrapped]
        return True

    async def _call(self, channel: aio.Channel, method: str, fields: Fields) -> Fields:
        """Raises PluginRefused."""
        self.calls[method] += 1
        ask = channel.unary_unary(f"/{kmsv2.SERVICE}/{method}", request_serializer=None, response_deserializer=None)
        began = time.monotonic()
        try:
            answer = await ask(kmsv2.encode(f"{method}Request", fields), timeout=self.timeout)
        except aio.AioRpcError as error:
            code = error.code()
            if code == grpc.StatusCode.DEADLINE_EXCEEDED:
                raise _Away(f"did not answer {method} within {time.monotonic() - began:.1f} s") from None
            if code == grpc.StatusCode.UNAVAILABLE:
                raise _Away("does not answer") from None
            raise PluginRefused(f"refuses {method}: {code.name} {_said(method, error)}".strip()) from None
        return kmsv2.decode(f"{method}Response", bytes(answer))


def _said(method: str, error: aio.AioRpcError) -> str:
    """What a plugin says of a refusal; not of Encrypt, where it could repeat the seed."""
    return "" if method == "Encrypt" else "".join(c for c in error.details() or "" if c.isprintable())[:200]
