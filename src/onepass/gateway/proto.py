"""Short forms of the protobuf values that Envoy's messages are made of."""

from collections.abc import Mapping, Sequence
from typing import TypeAlias

from envoy.config.core.v3 import address_pb2, base_pb2, config_source_pb2
from google.protobuf.any_pb2 import Any as Packed
from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message
from google.protobuf.struct_pb2 import Struct
from google.protobuf.wrappers_pb2 import BoolValue, UInt32Value

_PREFIX = "type.googleapis.com/"
MEBIBYTE = 1024 * 1024

Value: TypeAlias = "bool | float | str | Mapping[str, Value] | Sequence[Value]"


def type_url(message: type[Message]) -> str:
    return _PREFIX + message.DESCRIPTOR.full_name


def encoded(message: Message) -> bytes:
    """The same message always gives the same bytes, maps included."""
    return message.SerializeToString(deterministic=True)


def packed(message: Message) -> Packed:
    return Packed(type_url=_PREFIX + message.DESCRIPTOR.full_name, value=encoded(message))


def seconds(count: float) -> Duration:
    return Duration(seconds=int(count), nanos=round(count % 1 * 1_000_000_000))


def u32(value: int) -> UInt32Value:
    return UInt32Value(value=value)


def flag(value: bool) -> BoolValue:
    return BoolValue(value=value)


def struct(fields: Mapping[str, Value]) -> Struct:
    made = Struct()
    made.update(dict(fields))
    return made


def inline(content: bytes) -> base_pb2.DataSource:
    return base_pb2.DataSource(inline_bytes=content)


def pipe(path: str, mode: int = 0) -> address_pb2.Address:
    """A unix socket; `mode` counts where Envoy makes it."""
    return address_pb2.Address(pipe=address_pb2.Pipe(path=path, mode=mode))


def tcp(host: str, port: int) -> address_pb2.Address:
    return address_pb2.Address(socket_address=address_pb2.SocketAddress(address=host, port_value=port))


def from_ads() -> config_source_pb2.ConfigSource:
    """ "Ask for this by the discovery stream that is already open"."""
    return config_source_pb2.ConfigSource(
        ads=config_source_pb2.AggregatedConfigSource(), resource_api_version=config_source_pb2.ApiVersion.V3
    )
