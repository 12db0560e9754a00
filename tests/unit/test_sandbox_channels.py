"""The channel protocols of exec and attach: messages as they stand on the wire."""

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from onepass.sandbox.streams import channels
from onepass.sandbox.streams.channels import ChannelError, Message

V5, V4, BASE64 = channels.SUBPROTOCOLS


@pytest.mark.parametrize(
    ("offered", "chosen"),
    [
        (["v5.channel.k8s.io"], V5),
        (["v4.channel.k8s.io", "v5.channel.k8s.io"], V5),
        (["channel.k8s.io", "v4.channel.k8s.io"], V4),
        (["v4.base64.channel.k8s.io"], BASE64),
        (["channel.k8s.io"], None),
        ([], None),
    ],
)
def test_the_newest_common_subprotocol_is_chosen(offered: list[str], chosen: str | None) -> None:
    assert channels.choose(offered) == chosen


@pytest.mark.parametrize(
    ("subprotocol", "message", "expected"),
    [
        (V5, b"\x00abc", Message(channels.STDIN, b"abc")),
        (V5, b"\x00", Message(channels.STDIN, b"")),
        (V5, b"\xff\x00", Message(channels.STDIN, closes=True)),
        (V5, b"", None),
        (V4, b"\x04{}", Message(channels.RESIZE, b"{}")),
        (V4, b"\xff\x00", Message(255, b"\x00")),  # v4 knows no closing: a channel that nobody has
        (BASE64, "0YWJj", Message(channels.STDIN, b"abc")),
        (BASE64, "", None),
    ],
)
def test_messages_are_read(subprotocol: str, message: bytes | str, expected: Message | None) -> None:
    assert channels.decode(subprotocol, message) == expected


@pytest.mark.parametrize(
    ("subprotocol", "message"),
    [(V5, "0abc"), (V5, b"\xff"), (V5, b"\xff\x00\x01"), (BASE64, "0a"), (BASE64, "xYWJj"), (BASE64, "0Y\nWJj")],
)
def test_a_message_that_the_protocol_does_not_know_is_an_error(subprotocol: str, message: bytes | str) -> None:
    with pytest.raises(ChannelError):
        channels.decode(subprotocol, message)


@given(st.sampled_from(channels.SUBPROTOCOLS), st.one_of(st.binary(max_size=20), st.text(max_size=20)))
def test_any_message_is_read_or_an_error(subprotocol: str, message: bytes | str) -> None:
    try:
        read = channels.decode(subprotocol, message)
    except ChannelError:
        return
    assert read is None or 0 <= read.channel <= 255


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b'{"Width":120,"Height":40}', (40, 120)),
        (b'{"Width":120}', None),
        (b'{"Width":"120","Height":40}', None),
        (b"[120,40]", None),
        (b"{", None),
        (b"", None),
    ],
)
def test_a_size_is_read_or_left(data: bytes, expected: tuple[int, int] | None) -> None:
    assert channels.size(data) == expected


def test_an_exit_status_is_told_as_kubectl_reads_it() -> None:
    assert channels.exit_status(0)["status"] == "Success"
    told = orjson.loads(orjson.dumps(channels.exit_status(7)))
    assert told["reason"] == "NonZeroExitCode"
    assert told["details"]["causes"] == [{"reason": "ExitCode", "message": "7"}]
