"""What the streams need of the kubelet."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Protocol

from onepass.sandbox import containerlogs
from onepass.sandbox.descriptors import Descriptor
from onepass.sandbox.processes import Command


@dataclass(frozen=True, slots=True)
class Place:
    """Where a command is to be run beside a running container, until that ends."""

    command: Command
    ended: asyncio.Event


class Attachment(Protocol):
    """A client at the streams of a running container."""

    terminal: Descriptor | None
    stdin: Descriptor | None
    closes_stdin: bool  # whether the container's input ends with this client's

    def output(self) -> AsyncIterator[tuple[str, bytes]]:
        """("stdout" or "stderr", bytes) from now on, until the container ends."""
        ...

    def close(self) -> None: ...


class Containers(Protocol):
    """The containers of a member. An empty container name is the first one's. Each raises ApiError."""

    async def place(self, namespace: str, pod: str, container: str) -> Place: ...

    async def attach(self, namespace: str, pod: str, container: str) -> Attachment: ...

    async def log(self, namespace: str, pod: str, container: str, *, previous: bool) -> containerlogs.Log: ...

    async def reachable(self, namespace: str, pod: str) -> None:
        """Returns when the pod runs, so that its ports may be connected to."""
        ...
