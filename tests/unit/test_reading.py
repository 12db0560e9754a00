"""A large body is read beside the event loop."""

import asyncio
import threading

import pytest

from onepass.apiserver import reading

DEADLINE = 120


async def test_a_large_body_does_not_keep_others_waiting() -> None:
    going = threading.Event()

    def how(body: bytes) -> int:
        assert going.wait(DEADLINE), "nothing else ran while the body was read"
        return len(body)

    async def others() -> None:
        going.set()

    read, _ = await asyncio.gather(reading.read(b"x" * reading.LARGE, how), others())
    assert read == reading.LARGE


async def test_a_small_body_is_read_where_it_is() -> None:
    assert await reading.read(b"x", lambda _: threading.current_thread()) is threading.current_thread()


@pytest.mark.parametrize("size", [1, reading.LARGE])
async def test_what_is_wrong_with_it_is_raised(size: int) -> None:
    def how(body: bytes) -> None:
        raise ValueError(len(body))

    with pytest.raises(ValueError, match=str(size)):
        await reading.read(b"x" * size, how)
