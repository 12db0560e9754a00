"""A watch as one long answer: a JSON event a line until the client goes, time is up or the server closes."""

import asyncio
from collections.abc import AsyncGenerator, Callable
from dataclasses import dataclass

import anyio
import orjson
from starlette.types import Receive, Scope, Send

from onepass.api.errors import ApiError
from onepass.api.meta import Object
from onepass.registry.store import Event

Turn = Callable[[Event], Object]


@dataclass(frozen=True, slots=True)
class Stream:
    """An ASGI answer made of `events`, each object shown as `turn` has it, for at most `seconds`."""

    events: AsyncGenerator[Event, None]
    turn: Turn
    seconds: float
    closing: asyncio.Event

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers = [(b"content-type", b"application/json"), (b"cache-control", b"no-cache, private")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        # An empty piece sends the headers: a client waits for them before it waits for events.
        await send({"type": "http.response.body", "body": b"", "more_body": True})
        async with anyio.create_task_group() as group:

            async def left() -> None:
                while (await receive())["type"] != "http.disconnect":
                    pass
                group.cancel_scope.cancel()

            async def closed() -> None:
                await self.closing.wait()
                group.cancel_scope.cancel()

            group.start_soon(left)
            group.start_soon(closed)
            with anyio.move_on_after(self.seconds):
                await self._tell(send)
            group.cancel_scope.cancel()
        await send({"type": "http.response.body", "body": b"", "more_body": False})

    async def _tell(self, send: Send) -> None:
        try:
            async for event in self.events:
                line = b'{"type":"%b","object":%b}\n' % (event.type.encode(), orjson.dumps(self.turn(event)))
                await send({"type": "http.response.body", "body": line, "more_body": True})
        except ApiError as error:
            line = b'{"type":"ERROR","object":%b}\n' % orjson.dumps(error.status())
            await send({"type": "http.response.body", "body": line, "more_body": True})
        finally:
            with anyio.CancelScope(shield=True):
                await self.events.aclose()
