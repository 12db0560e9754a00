"""SPDY/3.1 frames: what one side encodes the other reads back, however the bytes are cut."""

import hashlib
import struct
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from onepass.sandbox.streams import spdyframes
from onepass.sandbox.streams.spdyframes import (
    Data,
    Decoder,
    Encoder,
    Frame,
    GoAway,
    Ping,
    Reset,
    SpdyError,
    SynReply,
    SynStream,
    WindowUpdate,
)

STREAMS = st.integers(1, 2**31 - 1)
NAMES = st.text("abcdefghijklmnopqrstuvwxyz-", min_size=1, max_size=12)
VALUES = st.text(st.characters(min_codepoint=32, max_codepoint=255), max_size=40)
HEADERS = st.dictionaries(NAMES, VALUES, max_size=5)
FRAMES: st.SearchStrategy[Frame] = st.one_of(
    st.builds(SynStream, STREAMS, HEADERS, st.booleans()),
    st.builds(SynReply, STREAMS, HEADERS, st.booleans()),
    st.builds(Data, STREAMS, st.binary(max_size=200), st.booleans()),
    st.builds(Reset, STREAMS, st.integers(1, 11)),
    st.builds(Ping, st.integers(1, 2**32 - 1)),
    st.builds(GoAway, STREAMS, st.integers(0, 2)),
    st.builds(WindowUpdate, STREAMS, st.integers(1, 2**31 - 1)),
)


def test_the_dictionary_is_the_one_of_the_draft() -> None:
    # Any other bytes would make header blocks unreadable for every other implementation.
    assert len(spdyframes.DICTIONARY) == 1423
    digest = hashlib.sha256(spdyframes.DICTIONARY).hexdigest()
    assert digest == "51d27341373f923f3cd88e1eb7162aeaa3723d7585ff2399201dc06498407f02"


@given(st.lists(FRAMES, max_size=12), st.lists(st.integers(1, 60), min_size=1, max_size=20))
def test_frames_come_back_however_the_bytes_are_cut(frames: list[Frame], cuts: list[int]) -> None:
    encoder, decoder = Encoder(), Decoder()
    encoded = b"".join(encoder.encode(frame) for frame in frames)
    read: list[Frame] = []
    at, turn = 0, 0
    while at < len(encoded):
        size = cuts[turn % len(cuts)]
        read += decoder.feed(encoded[at : at + size])
        at, turn = at + size, turn + 1
    assert read == frames


def test_a_header_block_is_the_one_that_the_draft_describes() -> None:
    encoded = Encoder().encode(SynStream(1, {"streamType": "data", "port": "80"}))
    assert encoded[:8] == struct.pack(">HHI", 0x8003, 1, len(encoded) - 8)
    plain = zlib.decompressobj(zdict=spdyframes.DICTIONARY).decompress(encoded[18:])
    assert plain == b"\0\0\0\2" + b"\0\0\0\x0astreamtype" + b"\0\0\0\4data" + b"\0\0\0\4port" + b"\0\0\0\x0280"


def test_settings_and_unknown_control_frames_are_read_over() -> None:
    settings = struct.pack(">HHI", 0x8003, 4, 12) + struct.pack(">III", 1, 7, 65536)
    unknown = struct.pack(">HHI", 0x8003, 99, 3) + b"abc"
    assert list(Decoder().feed(settings + unknown + Encoder().encode(Ping(1)))) == [Ping(1)]


def test_a_late_headers_frame_moves_the_compression_context_on() -> None:
    encoder, decoder = Encoder(), Decoder()
    late = bytearray(encoder.encode(SynReply(1, {"a": "b"})))
    late[3] = 8  # the same bytes as a HEADERS frame
    assert list(decoder.feed(bytes(late))) == []
    assert list(decoder.feed(encoder.encode(SynReply(3, {"a": "b"})))) == [SynReply(3, {"a": "b"})]


def _block(plain: bytes) -> bytes:
    compressor = zlib.compressobj(zdict=spdyframes.DICTIONARY)
    block = compressor.compress(plain) + compressor.flush(zlib.Z_SYNC_FLUSH)
    return struct.pack(">HHI", 0x8003, 2, 4 + len(block)) + struct.pack(">I", 1) + block


@pytest.mark.parametrize(
    "broken",
    [
        pytest.param(struct.pack(">HHI", 0x8002, 6, 4) + b"\0\0\0\1", id="another version"),
        pytest.param(struct.pack(">HHI", 0x8003, 6, 0), id="a ping without an id"),
        pytest.param(struct.pack(">II", 1, 0xFFFFFF), id="a frame that is too large"),
        pytest.param(struct.pack(">HHI", 0x8003, 2, 8) + b"\0\0\0\1abcd", id="headers that do not decompress"),
        pytest.param(_block(b"\0" * (1 << 20)), id="headers that grow too large"),
        pytest.param(_block(struct.pack(">I", 1 << 30)), id="more headers than bytes"),
        pytest.param(_block(struct.pack(">II", 1, 1 << 30)), id="a name longer than the block"),
        pytest.param(_block(b"\0"), id="a block without a count"),
    ],
)
def test_a_broken_frame_is_an_error(broken: bytes) -> None:
    with pytest.raises(SpdyError):
        list(Decoder().feed(broken))


@given(st.binary(max_size=400))
def test_any_bytes_are_frames_or_an_error(data: bytes) -> None:
    decoder = Decoder()
    try:
        for frame in decoder.feed(data):
            assert isinstance(frame, Frame)
    except SpdyError:
        pass


def test_a_data_frame_too_large_for_the_peer_is_not_sent() -> None:
    with pytest.raises(SpdyError):
        Encoder().encode(Data(1, b"x" * (spdyframes.MAX_FRAME + 1)))
