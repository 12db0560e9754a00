"""The channel protocols of exec and attach over WebSocket: each message begins with the number of its channel.

v4 ends the error channel with a `Status`; v5 also lets the client close a channel, which tells the end of its input
(https://kubernetes.io/blog/2024/08/20/websockets-transition/, KEP-4006). The base64 forms put a digit and base64 text
into text messages, for clients that cannot send bytes.
"""

import base64
import binascii
from collections.abc import Sequence
from dataclasses import dataclass

import orjson
from starlette.websockets import WebSocket, WebSocketDisconnect

from onepass.api.meta import Object

STDIN, STDOUT, STDERR, ERROR, RESIZE = range(5)
CLOSE = 255
SUBPROTOCOLS = ("v5.channel.k8s.io", "v4.channel.k8s.io", "v4.base64.channel.k8s.io")


class ChannelError(Exception):
    """A message that the protocol does not know."""


class ClientGone(Exception):
    """The client has gone away: what it started ends."""


def choose(offered: Sequence[str]) -> str | None:
    """The newest subprotocol that both sides speak; None when there is none."""
    return next((ours for ours in SUBPROTOCOLS if ours in offered), None)


def success() -> Object:
    """What the error channel says when the command ended with 0."""
    return {"metadata": {}, "status": "Success"}


def exit_status(code: int) -> Object:
    """What the error channel says of an exit status; kubectl exits with it."""
    if code == 0:
        return success()
    return {
        "metadata": {},
        "status": "Failure",
        "message": f"command terminated with non-zero exit code: exit status {code}",
        "reason": "NonZeroExitCode",
        "details": {"causes": [{"reason": "ExitCode", "message": str(code)}]},
    }


def failure(message: str) -> Object:
    """What the error channel says when the command could not be run."""
    told = f"Internal error occurred: {message}"
    return {"metadata": {}, "status": "Failure", "message": told, "reason": "InternalError", "code": 500}


@dataclass(frozen=True, slots=True)
class Message:
    """Bytes on a channel; `closes` when the client will send no more on it."""

    channel: int
    data: bytes = b""
    closes: bool = False


def decode(subprotocol: str, message: bytes | str) -> Message | None:
    """A message as it came. None for an empty one, which some clients send to keep a connection open.

    Raises ChannelError.
    """
    if not message:
        return None
    if isinstance(message, str):
        if "base64" not in subprotocol or not message[0].isdigit():
            raise ChannelError("a text message on a binary protocol")
        try:
            return Message(int(message[0]), base64.b64decode(message[1:], validate=True))
        except (ValueError, binascii.Error) as error:
            raise ChannelError("a message that is not base64") from error
    if message[0] == CLOSE and subprotocol.startswith("v5."):
        if len(message) != 2:
            raise ChannelError("a close signal must name one channel")
        return Message(message[1], closes=True)
    return Message(message[0], message[1:])


def size(data: bytes) -> tuple[int, int] | None:
    """Rows and columns of a resize message; None for one that makes no sense."""
    try:
        told = orjson.loads(data)
    except orjson.JSONDecodeError:
        return None
    if not isinstance(told, dict):
        return None
    columns, rows = told.get("Width"), told.get("Height")
    return (rows, columns) if isinstance(rows, int) and isinstance(columns, int) else None


class Channels:
    """An accepted WebSocket that speaks one of the subprotocols. Several tasks may send; one receives."""

    def __init__(self, websocket: WebSocket, subprotocol: str) -> None:
        self._websocket = websocket
        self._subprotocol = subprotocol

    async def send(self, channel: int, data: bytes) -> None:
        """Waits while the client does not read. Raises ClientGone."""
        try:
            if "base64" in self._subprotocol:
                await self._websocket.send_text(str(channel) + base64.b64encode(data).decode())
            else:
                await self._websocket.send_bytes(bytes((channel,)) + data)
        except WebSocketDisconnect as error:
            raise ClientGone from error

    async def receive(self) -> Message:
        """The next message. Raises ChannelError and ClientGone."""
        while True:
            event = await self._websocket.receive()
            if event["type"] == "websocket.disconnect":
                raise ClientGone
            content = event.get("bytes")
            message = decode(self._subprotocol, event.get("text") or "" if content is None else content)
            if message is not None:
                return message

    async def finish(self, status: Object) -> None:
        """Tell the outcome, and close. Raises ClientGone."""
        await self.send(ERROR, orjson.dumps(status))
        await self.close()

    async def close(self) -> None:
        """Say that no more comes. Raises ClientGone."""
        try:
            await self._websocket.close()
        except (WebSocketDisconnect, RuntimeError) as error:
            raise ClientGone from error
