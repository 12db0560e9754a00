"""SPDY/3.1 frames, both ways: what kubectl tunnels in WebSocket messages for port-forward.

Rules: the SPDY/3.1 draft (https://www.chromium.org/spdy/spdy-protocol/spdy-protocol-draft3-1/). One Encoder and one
Decoder serve one connection, because the header blocks of a direction share one compression context.
"""

import struct
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TypeAlias

VERSION = 3
FIN = 0x01
MAX_FRAME = 1 << 20  # bytes in one frame; kubectl sends at most 32 KiB
MAX_HEADERS = 1 << 16  # bytes of one header block once decompressed

CANCEL = 5  # RST_STREAM status
PROTOCOL_ERROR = 1
REFUSED_STREAM = 3

_SYN_STREAM, _SYN_REPLY, _RST_STREAM, _PING, _GOAWAY, _WINDOW_UPDATE = 1, 2, 3, 6, 7, 9

# Section 2.6.10.1: names and values that are common in HTTP, each with its length in front, then plain text.
_WORDS = (
    "options head post put delete trace accept accept-charset accept-encoding accept-language accept-ranges "
    "age allow authorization cache-control connection content-base content-encoding content-language "
    "content-length content-location content-md5 content-range content-type date etag expect expires from host "
    "if-match if-modified-since if-none-match if-range if-unmodified-since last-modified location max-forwards "
    "pragma proxy-authenticate proxy-authorization range referer retry-after "
    "server te trailer "  # codespell:ignore te
    "transfer-encoding upgrade user-agent vary via warning www-authenticate method get status"
)
_MORE_WORDS = ("200 OK", "version", "HTTP/1.1", "url", "public", "set-cookie", "keep-alive", "origin")
_TEXT = (
    "100101201202205206300302303304305306307402405406407408409410411412413414415416417502504505"
    "203 Non-Authoritative Information204 No Content301 Moved Permanently400 Bad Request401 Unauthorized403 Forbidden"
    "404 Not Found500 Internal Server Error501 Not Implemented503 Service Unavailable"
    "Jan Feb Mar Apr May Jun Jul Aug Sept Oct Nov Dec 00:00:00 Mon, Tue, Wed, Thu, Fri, Sat, Sun, GMT"
    "chunked,text/html,image/png,image/jpg,image/gif,application/xml,application/xhtml+xml,text/plain,text/javascript,"
    "publicprivatemax-age=gzip,deflate,sdchcharset=utf-8charset=iso-8859-1,utf-,*,enq=0."
)


def _prefixed(text: str) -> bytes:
    return struct.pack(">I", len(text)) + text.encode("latin-1")


DICTIONARY = b"".join(_prefixed(word) for word in (*_WORDS.split(), *_MORE_WORDS)) + _TEXT.encode("ascii")


class SpdyError(Exception):
    """The peer broke the framing; nothing more can be read from the connection."""


@dataclass(frozen=True, slots=True)
class SynStream:
    """A new stream. Header names are in lower case."""

    stream: int
    headers: Mapping[str, str]
    fin: bool = False


@dataclass(frozen=True, slots=True)
class SynReply:
    stream: int
    headers: Mapping[str, str]
    fin: bool = False


@dataclass(frozen=True, slots=True)
class Data:
    stream: int
    data: bytes
    fin: bool = False


@dataclass(frozen=True, slots=True)
class Reset:
    stream: int
    status: int


@dataclass(frozen=True, slots=True)
class Ping:
    id: int


@dataclass(frozen=True, slots=True)
class GoAway:
    last_good: int
    status: int = 0


@dataclass(frozen=True, slots=True)
class WindowUpdate:
    """The sender may take `delta` more bytes on a stream; kubectl ignores it, a peer with flow control waits for it."""

    stream: int
    delta: int


Frame: TypeAlias = SynStream | SynReply | Data | Reset | Ping | GoAway | WindowUpdate


class Encoder:
    """Frames to bytes, for one direction of one connection."""

    def __init__(self) -> None:
        self._compressor = zlib.compressobj(zdict=DICTIONARY)

    def encode(self, frame: Frame) -> bytes:
        match frame:
            case Data(stream, data, fin):
                if len(data) > MAX_FRAME:
                    raise SpdyError("a data frame is too large to send")
                return struct.pack(">II", stream, fin * FIN << 24 | len(data)) + data
            case SynStream(stream, headers, fin):
                return _control(_SYN_STREAM, struct.pack(">IIH", stream, 0, 0) + self._block(headers), fin)
            case SynReply(stream, headers, fin):
                return _control(_SYN_REPLY, struct.pack(">I", stream) + self._block(headers), fin)
            case Reset(stream, status):
                return _control(_RST_STREAM, struct.pack(">II", stream, status))
            case Ping(id):
                return _control(_PING, struct.pack(">I", id))
            case GoAway(last_good, status):
                return _control(_GOAWAY, struct.pack(">II", last_good, status))
            case WindowUpdate(stream, delta):
                return _control(_WINDOW_UPDATE, struct.pack(">II", stream, delta))

    def _block(self, headers: Mapping[str, str]) -> bytes:
        plain = struct.pack(">I", len(headers))
        plain += b"".join(_prefixed(name.lower()) + _prefixed(value) for name, value in headers.items())
        return self._compressor.compress(plain) + self._compressor.flush(zlib.Z_SYNC_FLUSH)


class Decoder:
    """Bytes to frames, for one direction of one connection. Frames may be cut anywhere."""

    def __init__(self) -> None:
        self._decompressor = zlib.decompressobj(zdict=DICTIONARY)
        self._buffer = bytearray()

    def feed(self, data: bytes) -> Iterator[Frame]:
        """The frames that `data` completes. SETTINGS and later HEADERS are read over.

        Raises SpdyError, after which the decoder is of no use.
        """
        self._buffer += data
        while len(self._buffer) >= 8:
            first, second = struct.unpack_from(">II", self._buffer)
            size = second & 0xFFFFFF
            if size > MAX_FRAME:
                raise SpdyError(f"a frame of {size} bytes is too large")
            if len(self._buffer) < 8 + size:
                return
            payload = bytes(self._buffer[8 : 8 + size])
            del self._buffer[: 8 + size]
            fin = bool(second >> 24 & FIN)
            frame = self._control(first, payload, fin) if first >> 31 else Data(first, payload, fin)
            if frame is not None:
                yield frame

    def _control(self, first: int, payload: bytes, fin: bool) -> Frame | None:
        if first >> 16 & 0x7FFF != VERSION:
            raise SpdyError(f"SPDY version {first >> 16 & 0x7FFF} instead of {VERSION}")
        try:
            match first & 0xFFFF:
                case 1:
                    return SynStream(_stream(payload), self._headers(payload[10:]), fin)
                case 2:
                    return SynReply(_stream(payload), self._headers(payload[4:]), fin)
                case 3:
                    return Reset(_stream(payload), struct.unpack_from(">I", payload, 4)[0])
                case 6:
                    return Ping(struct.unpack_from(">I", payload)[0])
                case 7:
                    return GoAway(_stream(payload), struct.unpack_from(">I", payload, 4)[0])
                case 8:
                    self._headers(payload[4:])  # read, because it moves the compression context on
                case 9:
                    return WindowUpdate(_stream(payload), struct.unpack_from(">I", payload, 4)[0])
        except struct.error as error:
            raise SpdyError("a control frame is too short") from error
        return None

    def _headers(self, block: bytes) -> dict[str, str]:
        try:
            plain = self._decompressor.decompress(block, MAX_HEADERS)
        except zlib.error as error:
            raise SpdyError("a header block does not decompress") from error
        if self._decompressor.unconsumed_tail:
            raise SpdyError("a header block is too large")
        (count,) = struct.unpack_from(">I", plain)
        texts: list[str] = []
        at = 4
        for _ in range(2 * count):
            (length,) = struct.unpack_from(">I", plain, at)
            at += 4 + length
            if at > len(plain):
                raise SpdyError("a header block is too short")
            texts.append(plain[at - length : at].decode("latin-1"))
        return dict(zip(texts[::2], texts[1::2], strict=True))


def _stream(payload: bytes) -> int:
    number: int = struct.unpack_from(">I", payload)[0]
    return number & 0x7FFFFFFF


def _control(kind: int, payload: bytes, fin: bool = False) -> bytes:
    return struct.pack(">HHI", 0x8000 | VERSION, kind, fin * FIN << 24 | len(payload)) + payload
