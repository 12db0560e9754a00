"""Exec and attach: a client's streams joined to those of a process, over the channel protocols."""

import asyncio
import contextlib
from dataclasses import dataclass

from starlette.requests import Request
from starlette.types import Receive, Scope, Send
from starlette.websockets import WebSocket

from onepass.api import errors
from onepass.api.meta import Object
from onepass.sandbox.descriptors import Descriptor
from onepass.sandbox.processes import CannotStart, Process
from onepass.sandbox.streams import channels
from onepass.sandbox.streams.channels import ChannelError, Channels, ClientGone
from onepass.sandbox.streams.targets import Attachment, Containers

ONLY_WEBSOCKET = (
    "unable to upgrade: the sandbox speaks exec, attach and port-forward over WebSocket only, not over SPDY; "
    "use kubectl 1.31 or newer, without KUBECTL_REMOTE_COMMAND_WEBSOCKETS=false "
    "or KUBECTL_PORT_FORWARD_WEBSOCKETS=false"
)
_INPUT = 64  # messages from the client that wait for the process to read them


@dataclass(frozen=True, slots=True)
class Wanted:
    """PodExecOptions and PodAttachOptions of core/v1."""

    container: str
    command: tuple[str, ...]
    stdin: bool
    stdout: bool
    stderr: bool
    tty: bool


def _flag(socket: WebSocket, name: str) -> bool:
    return socket.query_params.get(name, "").lower() in ("1", "true")


def wanted(socket: WebSocket) -> Wanted:
    """Raises bad_request when the options contradict each other."""
    asked = Wanted(
        container=socket.query_params.get("container", ""),
        command=tuple(socket.query_params.getlist("command")),
        stdin=_flag(socket, "stdin"),
        stdout=_flag(socket, "stdout"),
        stderr=_flag(socket, "stderr"),
        tty=_flag(socket, "tty"),
    )
    if not (asked.stdin or asked.stdout or asked.stderr):
        raise errors.bad_request("you must specify at least 1 of stdin, stdout, stderr")
    if asked.tty and asked.stderr:
        raise errors.bad_request("tty and stderr cannot both be true")
    return asked


class Exec:
    """pods/exec: runs a command beside a container. The command ends when the client goes."""

    def __init__(self, containers: Containers) -> None:
        self._containers = containers

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        socket = _websocket(scope, receive, send)
        asked = wanted(socket)
        if not asked.command:
            raise errors.bad_request("you must specify at least one command for the container")
        place = await self._containers.place(*_pod(socket), asked.container)
        subprotocol = _subprotocol(socket)
        await socket.accept(subprotocol)
        client = Channels(socket, subprotocol)
        try:
            process = Process(place.command.with_arguments(asked.command, tty=asked.tty, stdin=asked.stdin))
        except CannotStart as error:
            with contextlib.suppress(ClientGone):
                await client.finish(channels.failure(str(error)))
            return
        try:
            await client.finish(await _run(client, process, place.ended, asked, socket.scope))
        except* ClientGone:
            pass
        finally:
            await process.close()


class Attach:
    """pods/attach: the streams of a container's own process. The process lives on when the client goes."""

    def __init__(self, containers: Containers) -> None:
        self._containers = containers

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        socket = _websocket(scope, receive, send)
        asked = wanted(socket)
        attachment = await self._containers.attach(*_pod(socket), asked.container)
        try:
            subprotocol = _subprotocol(socket)
            await socket.accept(subprotocol)
            client = Channels(socket, subprotocol)
            await _follow(client, attachment, asked, socket.scope)
            await client.finish(channels.success())
        except* ClientGone:
            pass
        finally:
            attachment.close()


def _websocket(scope: Scope, receive: Receive, send: Send) -> WebSocket:
    if scope["type"] != "websocket":
        request = Request(scope)
        upgrade = request.headers.get("upgrade", "")
        raise errors.bad_request(ONLY_WEBSOCKET if upgrade else "Upgrade request required")
    return WebSocket(scope, receive, send)


def _pod(socket: WebSocket) -> tuple[str, str]:
    return socket.path_params["namespace"], socket.path_params["name"]


def _subprotocol(socket: WebSocket) -> str:
    offered: list[str] = socket.scope["subprotocols"]
    chosen = channels.choose(offered)
    if chosen is None:
        raise errors.bad_request(
            f"unable to upgrade: the client offers the subprotocols {offered}, "
            f"the server speaks {', '.join(channels.SUBPROTOCOLS)}"
        )
    return chosen


async def _run(client: Channels, process: Process, ended: asyncio.Event, asked: Wanted, scope: Scope) -> Object:
    """Join a process of the client's own to it; its outcome."""
    async with asyncio.TaskGroup() as group:
        stdin = process.stdin if asked.stdin else None
        helpers = (
            group.create_task(_listen(client, stdin, process.terminal, scope, ends=process.terminal is None)),
            group.create_task(_kill_after(ended, process)),
        )
        await _greet(client, asked)
        async with asyncio.TaskGroup() as pumps:
            pumps.create_task(_pump(process.stdout, client, channels.STDOUT if asked.stdout else -1))
            if process.stderr is not None:
                pumps.create_task(_pump(process.stderr, client, channels.STDERR if asked.stderr else -1))
        code = await process.wait()
        for helper in helpers:
            helper.cancel()
    return channels.exit_status(code)


async def _kill_after(ended: asyncio.Event, process: Process) -> None:
    await ended.wait()
    process.kill()


async def _follow(client: Channels, attachment: Attachment, asked: Wanted, scope: Scope) -> None:
    stdin = attachment.stdin if asked.stdin else None
    async with asyncio.TaskGroup() as group:
        listening = group.create_task(_listen(client, stdin, attachment.terminal, scope, ends=attachment.closes_stdin))
        await _greet(client, asked)
        async for stream, data in attachment.output():
            channel = channels.STDERR if stream == "stderr" else channels.STDOUT
            if asked.stderr if channel == channels.STDERR else asked.stdout:
                await client.send(channel, data)
        listening.cancel()


async def _greet(client: Channels, asked: Wanted) -> None:
    """An empty message on the lowest channel tells the client that all is connected, as real servers do."""
    lowest = channels.STDOUT if asked.stdout else channels.STDERR if asked.stderr else channels.ERROR
    await client.send(lowest, b"")


async def _pump(source: Descriptor, client: Channels, channel: int) -> None:
    """Until the source ends. An output that the client did not ask for is read and dropped: the process must go on."""
    while data := await source.read():
        if channel >= 0:
            await client.send(channel, data)
        await asyncio.sleep(0)  # a process that writes without pause does not hold up everything else


async def _listen(
    client: Channels, stdin: Descriptor | None, terminal: Descriptor | None, scope: Scope, *, ends: bool
) -> None:
    """Carry what the client sends, until cancelled. Raises ClientGone when it goes."""
    waiting: asyncio.Queue[bytes | None] = asyncio.Queue(_INPUT)
    async with asyncio.TaskGroup() as group:
        group.create_task(_feed(waiting, stdin, ends=ends))
        group.create_task(_lost(scope))
        try:
            while True:
                message = await client.receive()
                if message.channel == channels.STDIN and message.closes:
                    await waiting.put(None)
                elif message.channel == channels.STDIN and message.data and stdin is not None:
                    await waiting.put(message.data)
                elif message.channel == channels.RESIZE and terminal is not None:
                    measures = channels.size(message.data)
                    if measures is not None:
                        terminal.resize(*measures)
        except ChannelError as error:
            raise ClientGone from error


async def _feed(waiting: asyncio.Queue[bytes | None], stdin: Descriptor | None, *, ends: bool) -> None:
    """Write the client's input as fast as the process reads. Once nobody reads it, it is dropped."""
    while (data := await waiting.get()) is not None:
        if stdin is not None:
            try:
                await stdin.write(data)
            except BrokenPipeError:
                stdin = None
    if stdin is not None and ends:
        stdin.close()


async def _lost(scope: Scope) -> None:
    """Notices a client that goes while its input waits for the process, and so is not being received."""
    closed = scope.get("extensions", {}).get("onepass.closed")
    if isinstance(closed, asyncio.Event):
        await closed.wait()
        raise ClientGone
