"""The aggregated discovery service over gRPC, its delta variant only.

Each stream holds no queue: it remembers what its client has, and when the client is ready for more it is sent the
difference to the newest snapshot. So a slow client skips what was overtaken, and slows down nobody.
"""

import asyncio
import os
from collections.abc import AsyncIterator, Collection, Sequence
from pathlib import Path
from typing import Any, Protocol  # the messages of a service beside are its own business

# Read when grpc is imported. Whatever this program forks it also execs, which needs no help from gRPC; its handlers
# would write a line to the terminal at each fork that meets a busy stream.
os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "0")

import grpc
import grpc.aio
from envoy.service.discovery.v3 import discovery_pb2

from onepass.xds.snapshot import Snapshot
from onepass.xds.stream import Rejection, Stream

_Request = discovery_pb2.DeltaDiscoveryRequest
_Response = discovery_pb2.DeltaDiscoveryResponse
_Context = grpc.aio.ServicerContext[_Request, _Response]

_OPTIONS = (
    # A client that comes back lists the version of everything it holds: about 80 bytes a resource.
    ("grpc.max_receive_message_length", 64 * 1024 * 1024),
    # Envoy pings every 30 s; gRPC would end a connection that pings more often than every 5 minutes.
    ("grpc.http2.min_ping_interval_without_data_ms", 10_000),
)


class Observer(Protocol):
    """Is told what an operator may want to know."""

    def connected(self, node: str) -> None: ...

    def disconnected(self, node: str) -> None: ...

    def rejected(self, rejection: Rejection) -> None: ...


class Ads:
    """Serves one snapshot, the newest, to any number of clients. Until there is one, clients wait."""

    def __init__(self, observer: Observer) -> None:
        self._observer = observer
        self._snapshot: Snapshot | None = None
        self._generation = 0
        self._streams: dict[Stream, asyncio.Event] = {}  # a set event: something may have to be sent
        self._progress = asyncio.Event()

    def set(self, snapshot: Snapshot) -> int:
        """Make `snapshot` the one that clients should have; returns its generation, for `acknowledged`."""
        self._snapshot = snapshot
        self._generation += 1
        for stream, wake in self._streams.items():
            stream.invalidate()
            wake.set()
        return self._generation

    @property
    def nodes(self) -> tuple[str, ...]:
        """The clients that are connected, by node id."""
        return tuple(stream.node for stream in self._streams)

    async def acknowledged(
        self, generation: int, *, timeout: float, types: Collection[str] | None = None
    ) -> tuple[Rejection, ...]:
        """Wait until at least one client is there and every one has answered everything of `generation`.

        Each must have asked for each of `types` (None: those in the snapshot). Returns what is refused; raises
        TimeoutError after `timeout` seconds.
        """
        async with asyncio.timeout(timeout):
            while True:
                wanted = types if types is not None else self._snapshot.types.keys() if self._snapshot else ()
                if self._streams and all(stream.settled(generation, wanted) for stream in self._streams):
                    return tuple(refused for stream in self._streams for refused in stream.rejections.values())
                await self._progress.wait()

    async def converse(self, requests: AsyncIterator[_Request], context: _Context) -> None:
        """One client, until it goes: the handler of DeltaAggregatedResources."""
        stream, wake = Stream(), asyncio.Event()
        self._streams[stream] = wake
        try:
            async with asyncio.TaskGroup() as group:
                writer = group.create_task(self._write(stream, wake, context))
                async for request in requests:
                    if not stream.node and request.node.id:
                        self._observer.connected(request.node.id)
                    rejection = stream.receive(request)
                    if rejection is not None:
                        self._observer.rejected(rejection)
                    wake.set()
                    self._moved()
                writer.cancel()
        finally:
            del self._streams[stream]
            self._moved()
            if stream.node:
                self._observer.disconnected(stream.node)

    async def _write(self, stream: Stream, wake: asyncio.Event, context: _Context) -> None:
        while True:
            await wake.wait()
            wake.clear()
            if self._snapshot is None:
                continue
            for response in stream.responses(self._snapshot, self._generation):
                await context.write(response)
            self._moved()

    def _moved(self) -> None:
        self._progress.set()
        self._progress = asyncio.Event()


async def serve(
    ads: Ads,
    path: str,
    listening: asyncio.Event | None = None,
    beside: "Sequence[grpc.GenericRpcHandler[Any, Any]]" = (),
) -> None:
    """Serve on a unix socket that only this user can open (mode 0600), until cancelled. Raises OSError.

    `listening` is set as soon as clients can connect; `beside` are further services on the same socket.
    """
    server = grpc.aio.server(options=_OPTIONS)
    server.add_generic_rpc_handlers((_service(ads), *beside))
    _bind(server, Path(path))
    starting = asyncio.ensure_future(server.start())  # cancelled half way, it would leave what cannot be stopped
    try:
        await asyncio.shield(starting)
        if listening is not None:
            listening.set()
        # Not wait_for_termination: cancelled, it would leave a server that cannot be stopped any more.
        await asyncio.Event().wait()
    finally:
        await starting
        await server.stop(None)  # at once: streams never end by themselves


def _bind(server: grpc.aio.Server, path: Path) -> None:
    path.unlink(missing_ok=True)
    try:
        server.add_insecure_port(f"unix:{path}")
    except RuntimeError as error:
        raise OSError(f"cannot listen on {path}: {error}") from error
    path.chmod(0o600)  # in time: nothing is accepted before the server starts


def _service(ads: Ads) -> "grpc.GenericRpcHandler[_Request, _Response]":
    handler = grpc.stream_stream_rpc_method_handler(
        ads.converse,
        request_deserializer=_Request.FromString,
        response_serializer=_Response.SerializeToString,
    )
    return grpc.method_handlers_generic_handler(
        "envoy.service.discovery.v3.AggregatedDiscoveryService", {"DeltaAggregatedResources": handler}
    )
