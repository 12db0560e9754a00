"""One end of a pipe or a terminal, read and written without blocking the loop."""

import asyncio
import contextlib
import errno
import fcntl
import os
import struct
import termios
from collections.abc import Callable

CHUNK = 1 << 15  # bytes a read; what kubectl sends in a message too


class Descriptor:
    """Owns a file descriptor. At most one task reads at a time."""

    def __init__(self, number: int) -> None:
        os.set_blocking(number, False)
        self._number = number
        self._waiting: set[asyncio.Future[None]] = set()
        self._writing = asyncio.Lock()  # several clients may be attached to one terminal

    async def read(self) -> bytes:
        """What is there, at most CHUNK bytes; b"" at the end, and after close."""
        loop = asyncio.get_running_loop()
        while self._number >= 0:
            try:
                return os.read(self._number, CHUNK)
            except BlockingIOError:
                await self._ready(loop.add_reader, loop.remove_reader)
            except OSError as error:
                if error.errno == errno.EIO:  # a terminal whose other side is gone
                    return b""
                raise
        return b""

    async def write(self, data: bytes) -> None:
        """Raises BrokenPipeError when nobody reads any more, and after close."""
        async with self._writing:
            await self._write(data)

    async def _write(self, data: bytes) -> None:
        loop = asyncio.get_running_loop()
        rest = memoryview(data)
        while rest:
            if self._number < 0:
                raise BrokenPipeError(errno.EPIPE, "closed")
            try:
                rest = rest[os.write(self._number, rest) :]
            except BlockingIOError:
                await self._ready(loop.add_writer, loop.remove_writer)
            except OSError as error:
                if error.errno == errno.EIO:
                    raise BrokenPipeError(errno.EPIPE, "the terminal is gone") from error
                raise

    def resize(self, rows: int, columns: int) -> None:
        """Tell a terminal its size in characters."""
        if self._number >= 0:
            size = struct.pack("HHHH", rows & 0xFFFF, columns & 0xFFFF, 0, 0)
            with contextlib.suppress(OSError):
                fcntl.ioctl(self._number, termios.TIOCSWINSZ, size)

    def close(self) -> None:
        """Let go; whoever waits is woken. Closing twice is closing once."""
        for waiter in self._waiting:
            if not waiter.done():
                waiter.set_result(None)
        if self._number >= 0:
            # A waiter of the same round would remove its watch only after the number is free for others.
            loop = asyncio.get_running_loop()
            loop.remove_reader(self._number)
            loop.remove_writer(self._number)
            os.close(self._number)
            self._number = -1

    async def _ready(self, watch: Callable[..., None], unwatch: Callable[[int], bool]) -> None:
        number = self._number
        if number < 0:
            return
        waiter = asyncio.get_running_loop().create_future()
        self._waiting.add(waiter)
        watch(number, _wake, waiter)
        try:
            await waiter
        finally:
            self._waiting.discard(waiter)
            if self._number == number:
                unwatch(number)


def _wake(waiter: asyncio.Future[None]) -> None:
    if not waiter.done():
        waiter.set_result(None)
