"""Calls to etcd (https://etcd.io/docs/latest/learning/api/): which of its servers is asked, as whom, and what its
refusals mean.

Nothing is ever sent twice that may have been done: a write is repeated only where etcd has surely not seen it. What it
has not answered is OutcomeUnknown.
"""

import asyncio
import itertools
import os
import re
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Generic, TypeVar

os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "0")  # as onepass.xds.ads has it

import grpc
import grpc.aio
from aetcd.rpc import rpc_pb2
from google.protobuf.message import Message
from grpc import StatusCode

from onepass.storage.interface import Compacted, FutureRevision, OutcomeUnknown, StorageError, TooLarge, Unavailable

Request = TypeVar("Request", bound=Message)
Response = TypeVar("Response", bound=Message)

_OPTIONS = (
    ("grpc.max_receive_message_length", -1),
    ("grpc.max_send_message_length", -1),  # etcd says itself what is too large for it
    ("grpc.enable_http_proxy", 0),
    ("grpc.initial_reconnect_backoff_ms", 200),
    ("grpc.min_reconnect_backoff_ms", 3000),  # how long one try to connect may take
    ("grpc.max_reconnect_backoff_ms", 2000),
    # A server that has gone without a word is noticed; etcd allows a ping every 5 s (--grpc-keepalive-min-time).
    ("grpc.keepalive_time_ms", 10_000),
    ("grpc.keepalive_timeout_ms", 5_000),
    ("grpc.http2.max_pings_without_data", 0),
)


class Refused(Unavailable):
    """etcd answers, and refuses us as we are: a person must act."""


class _NotDone(Unavailable):
    """etcd has surely not done what it was asked, and may do it when asked again."""


class _Away(_NotDone):
    """There is no connection to a server."""


class _OldToken(_NotDone):
    """The token of our login is not taken any more."""


@dataclass(frozen=True, slots=True)
class Method(Generic[Request, Response]):
    """One call of etcd's API. A `repeatable` one changes nothing."""

    path: str
    answer: Callable[[bytes], Response]
    repeatable: bool


RANGE: Method[rpc_pb2.RangeRequest, rpc_pb2.RangeResponse] = Method(
    "/etcdserverpb.KV/Range", rpc_pb2.RangeResponse.FromString, True
)
TXN: Method[rpc_pb2.TxnRequest, rpc_pb2.TxnResponse] = Method(
    "/etcdserverpb.KV/Txn", rpc_pb2.TxnResponse.FromString, False
)
COMPACT: Method[rpc_pb2.CompactionRequest, rpc_pb2.CompactionResponse] = Method(
    "/etcdserverpb.KV/Compact", rpc_pb2.CompactionResponse.FromString, True
)
_LOGIN: Method[rpc_pb2.AuthenticateRequest, rpc_pb2.AuthenticateResponse] = Method(
    "/etcdserverpb.Auth/Authenticate", rpc_pb2.AuthenticateResponse.FromString, True
)
_WATCH = "/etcdserverpb.Watch/Watch"


@dataclass(frozen=True, slots=True)
class Patience:
    """How many seconds a server has for one try. etcd itself gives up on a write after 7 s by default."""

    connect: float = 3  # TLS included
    read: float = 5
    write: float = 15
    whole: float = 5  # after these no further try begins
    pause: float = 0.2  # between two tries


@dataclass(frozen=True, slots=True)
class Access:
    """Where the servers are (`host:port`), and what they and we prove themselves by.

    The files are read again at each new channel, also of one whose handshake failed, and at each new login, so that
    they may be renewed meanwhile.
    """

    servers: Sequence[str]
    tls: bool = False
    ca: Path | None = None  # None: the system's trust store
    certificate: Path | None = None
    key: Path | None = None
    user: str = ""
    password: Path | None = None


@dataclass(slots=True)
class _Link:
    """A channel to one server."""

    server: str
    channel: grpc.aio.Channel = field(repr=False)

    async def ready(self, seconds: float) -> None:
        """Returns when it is connected. Raises _Away."""
        state = self.channel.get_state(try_to_connect=True)
        try:
            async with asyncio.timeout(seconds):
                while state is not grpc.ChannelConnectivity.READY:
                    await self.channel.wait_for_state_change(state)
                    state = self.channel.get_state(try_to_connect=True)
                    if state is grpc.ChannelConnectivity.TRANSIENT_FAILURE:
                        raise _Away(f"{self.server}: {await self._why()}")
        except TimeoutError as error:
            raise _Away(f"{self.server}: it does not answer") from error

    async def _why(self) -> str:
        """What keeps it from being connected, as gRPC tells it to a call."""
        ask = self.channel.unary_unary(RANGE.path, request_serializer=_serialized, response_deserializer=RANGE.answer)
        try:
            await ask(rpc_pb2.RangeRequest(), timeout=1)
        except grpc.aio.AioRpcError as error:
            return _plain((error.details() or "").rpartition("last error: ")[2])
        return "it does not answer"


class Client:
    """All calls of one program to one etcd. Made on the event loop that it is used on."""

    def __init__(self, access: Access, patience: Patience) -> None:
        self._access = access
        self._patience = patience
        self._links: dict[str, _Link] = {}
        self._turns = itertools.cycle(access.servers)
        self._server = next(self._turns)
        self._token = ""
        self._login = asyncio.Lock()
        self._closed = False

    async def call(self, method: Method[Request, Response], request: Request) -> Response:
        """The answer. Raises StorageError; Compacted and FutureRevision without the revision, which etcd leaves out."""
        loop = asyncio.get_running_loop()
        ends, away = loop.time() + self._patience.whole, 0
        while True:
            try:
                return await self._ask(method, request)
            except Refused:
                raise
            except _Away as error:
                told: Unavailable = error
                away += 1
            except _NotDone as error:
                told = error
            except Unavailable as error:
                if not method.repeatable:
                    raise OutcomeUnknown(f"{error}; whether the write was done is not known") from error
                told = error
            if away >= 2 * len(self._access.servers) or loop.time() >= ends:
                raise Unavailable(f"etcd does not serve us: {told}") from told
            if away != 1:
                await asyncio.sleep(self._patience.pause)

    async def watch(self, request: rpc_pb2.WatchRequest) -> AsyncGenerator[rpc_pb2.WatchResponse]:
        """What one watch tells, until its end. Raises StorageError, Compacted with its revision."""
        link = await self._connected()
        server = link.server
        call = link.channel.stream_stream(
            _WATCH,
            request_serializer=rpc_pb2.WatchRequest.SerializeToString,
            response_deserializer=rpc_pb2.WatchResponse.FromString,
        )(None, metadata=await self._metadata())
        try:
            with _Translated(server):
                await call.write(request)
                async with asyncio.timeout(self._patience.read):
                    response = await call.read()  # says that the watch is there
                while isinstance(response, rpc_pb2.WatchResponse):
                    if response.canceled:
                        raise _cancelled(response)
                    yield response
                    response = await call.read()
                raise _ended(server)
        except Unavailable as error:
            await self._turn(link, error)
            raise
        finally:
            call.cancel()

    async def oldest(self, key: bytes) -> int:
        """The oldest revision whose history is there: etcd tells it to a watch that comes too late."""
        request = rpc_pb2.WatchRequest(create_request=rpc_pb2.WatchCreateRequest(key=key, start_revision=1))
        try:
            async with aclosing(self.watch(request)) as responses, asyncio.timeout(self._patience.read):
                async for response in responses:
                    if response.events:
                        break
        except Compacted as gone:
            return gone.oldest
        except TimeoutError:
            pass
        return 1

    async def close(self) -> None:
        """Whoever still waits for an answer is told that it is closed."""
        self._closed = True
        for link in list(self._links.values()):
            await link.channel.close(None)

    async def _ask(self, method: Method[Request, Response], request: Request) -> Response:
        link = await self._connected()
        metadata = await self._metadata() if method.path != _LOGIN.path else None
        ask = link.channel.unary_unary(method.path, request_serializer=_serialized, response_deserializer=method.answer)
        try:
            with _Translated(link.server):
                answer: Response = await ask(
                    request,
                    timeout=self._patience.read if method.repeatable else self._patience.write,
                    metadata=metadata,
                )
        except Unavailable as error:
            await self._turn(link, error)
            raise
        return answer

    async def _connected(self) -> _Link:
        """The channel to the server whose turn it is. Raises _Away when it is not there: nothing was sent."""
        if self._closed:
            raise Refused("the storage is closed")
        server = self._server
        link = self._links.get(server)
        if link is None:
            link = self._links[server] = _Link(server, self._channel(server))
        try:
            with _Translated(server):
                await link.ready(self._patience.connect)
        except Unavailable as error:
            await self._turn(link, error)
            raise error if isinstance(error, _Away) else _Away(str(error)) from error
        return link

    async def _turn(self, link: _Link, error: Unavailable) -> None:
        """After a failure the next server is asked, and a broken channel is made anew when its turn comes again."""
        if isinstance(error, _OldToken):
            self._token = ""
            return
        if self._server == link.server:
            self._server = next(self._turns)
        state = link.channel.get_state() if not self._closed else grpc.ChannelConnectivity.SHUTDOWN
        if state is grpc.ChannelConnectivity.TRANSIENT_FAILURE and self._links.get(link.server) is link:
            del self._links[link.server]
            await link.channel.close(None)

    def _channel(self, server: str) -> grpc.aio.Channel:
        if not self._access.tls:
            return grpc.aio.insecure_channel(server, _OPTIONS)
        try:
            ca, key, certificate = (
                path.read_bytes() if path else None
                for path in (self._access.ca, self._access.key, self._access.certificate)
            )
        except OSError as error:
            raise Refused(f"cannot read {error.filename}: {error.strerror}") from error
        return grpc.aio.secure_channel(server, grpc.ssl_channel_credentials(ca, key, certificate), _OPTIONS)

    async def _metadata(self) -> tuple[tuple[str, str], ...]:
        """Who asks; and a server that has lost the others is not to answer (it would tell what is long past)."""
        leader = ("hasleader", "true")
        if self._access.password is None:
            return (leader,)
        async with self._login:
            if not self._token:
                try:
                    password = self._access.password.read_text(encoding="utf-8").rstrip("\r\n")
                except (OSError, UnicodeDecodeError) as error:
                    raise Refused(f"cannot read the password of etcd in {self._access.password}") from error
                request = rpc_pb2.AuthenticateRequest(name=self._access.user, password=password)
                self._token = (await self._ask(_LOGIN, request)).token
            return leader, ("token", self._token)


class _Translated:
    """Errors of gRPC and etcd as the storage's own. What etcd says of a refusal is in its rpctypes/error.go."""

    def __init__(self, server: str) -> None:
        self._server = server

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, grpc.aio.AioRpcError):
            raise _translated(error, self._server) from error
        if isinstance(error, grpc.aio.UsageError):  # the channel was closed meanwhile
            raise Unavailable(f"{self._server}: the connection is closed") from error
        if isinstance(error, TimeoutError):
            raise Unavailable(f"{self._server}: it does not answer") from error
        if isinstance(error, asyncio.CancelledError):
            task = asyncio.current_task()
            if task is not None and not task.cancelling():  # not the caller but the channel was ended
                raise Unavailable(f"{self._server}: the connection is closed") from error


_MEANT: Sequence[tuple[str, Callable[[str], StorageError]]] = (
    ("mvcc: required revision has been compacted", lambda _: Compacted(0)),
    ("mvcc: required revision is a future revision", lambda _: FutureRevision(0)),
    ("request is too large", TooLarge),
    ("received message larger than max", TooLarge),
    ("too many operations in txn request", TooLarge),
    ("no leader", _NotDone),
    ("too many requests", _NotDone),
    ("database space exceeded", Refused),
    ("invalid auth token", _OldToken),
    ("revision of auth store is old", _OldToken),
)
_REFUSALS = (
    StatusCode.PERMISSION_DENIED,
    StatusCode.UNAUTHENTICATED,
    StatusCode.FAILED_PRECONDITION,
    StatusCode.INVALID_ARGUMENT,
    StatusCode.UNIMPLEMENTED,
)


def _translated(error: grpc.aio.AioRpcError, server: str) -> StorageError:
    return _meant(error.details() or "", error.code(), server)


def _meant(details: str, code: StatusCode, server: str) -> StorageError:
    told = f"{server}: {details.removeprefix('etcdserver: ')}"
    for words, made in _MEANT:
        if words in details:
            return made(told)
    if code in _REFUSALS:
        return Refused(told)
    return Unavailable(told)


def _plain(details: str) -> str:
    """What gRPC tells of a connection, without its own words for the kind of error and the address."""
    return re.sub(r"^(?:[A-Z_]+: )?(?:ipv[46]:[^ ]+: )?", "", details)


def _ended(server: str) -> StorageError:
    return Unavailable(f"{server}: the watch has ended")


def _cancelled(response: rpc_pb2.WatchResponse) -> StorageError:
    """Why etcd has ended a watch."""
    if response.compact_revision:
        return Compacted(response.compact_revision)
    code = StatusCode.PERMISSION_DENIED if "permission denied" in response.cancel_reason else StatusCode.UNAVAILABLE
    return _meant(response.cancel_reason or "the watch was ended", code, "etcd")


def _serialized(message: Message) -> bytes:
    return message.SerializeToString()
