"""Bodies in Kubernetes' protobuf encoding, read into the JSON that they mean. Answers are never written in it.

https://kubernetes.io/docs/reference/using-api/api-concepts/#protobuf-encoding
"""

import base64
import re
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from functools import cache
from typing import cast

import orjson
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import DecodeError, Message
from google.protobuf.unknown_fields import UnknownFieldSet

from onepass.api import errors, wireformat
from onepass.api.meta import JSON, Object

TYPE = "application/vnd.kubernetes.protobuf"

_MAGIC = b"k8s\0"
_FIELD = re.compile(r"(\w+)=(\d+)(?::(?:(\[)(\w*)\]|(\{)(\w*)\}|(\w+)))?(\?)?")
_Proto = descriptor_pb2.FieldDescriptorProto
_SCALARS = {
    "": _Proto.TYPE_STRING,
    "bytes": _Proto.TYPE_BYTES,
    "int": _Proto.TYPE_INT64,
    "bool": _Proto.TYPE_BOOL,
    "double": _Proto.TYPE_DOUBLE,
}


def decode(body: bytes) -> Object:
    """The object in a body. Raises bad_request, and unsupported_media_type for a kind that is known as JSON only."""
    if not body.startswith(_MAGIC):
        raise errors.bad_request("the body of the request is not in Kubernetes' protobuf encoding")
    envelope = _parse("Unknown", body[len(_MAGIC) :])
    type_meta = envelope.get("typeMeta")
    named = type_meta if isinstance(type_meta, dict) else {}
    version, kind = str(named.get("apiVersion", "")), str(named.get("kind", ""))
    if kind == "DeleteOptions":
        version = "v1"  # every group has it, and it is always the same
    if envelope.get("contentEncoding") or kind not in wireformat.KINDS.get(version, ()):
        raise errors.unsupported_media_type(("application/json", "application/yaml"))
    raw = envelope.get("raw", "")
    assert isinstance(raw, str)
    return {"apiVersion": version, "kind": kind, **_parse(kind, base64.b64decode(raw))}


def _parse(name: str, body: bytes) -> Object:
    try:
        message = _class(name).FromString(body)
    except DecodeError as error:
        raise errors.bad_request("the body of the request is not valid protobuf") from error
    return _object(message)


def _object(message: Message) -> Object:
    if len(UnknownFieldSet(message)):
        name = message.DESCRIPTOR.name
        raise errors.bad_request(f"the body of the request has fields of {name} that are known as JSON only")
    told: Object = {}
    for field, value in message.ListFields():
        translated = _field(field, value)
        if translated is not None:
            told[field.name] = translated
    return told


def _field(field: FieldDescriptor, value: object) -> JSON:
    """The value in JSON; None where JSON has nothing."""
    if field.message_type is not None and field.message_type.GetOptions().map_entry:
        of = field.message_type.fields_by_name["value"]
        items = cast(Mapping[object, object], value).items()
        return {_text(key): _value(of, item) for key, item in items}
    if field.is_repeated:
        return [_value(field, item) for item in cast(Sequence[object], value)]
    assert field.containing_type is not None
    if not value and (field.containing_type.name, field.name) not in _numbered_zeros():
        return None
    return _value(field, value)


def _value(field: FieldDescriptor, value: object) -> JSON:
    if isinstance(value, Message):
        return _message(value)
    if field.type == FieldDescriptor.TYPE_STRING:
        return _text(value)
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    assert isinstance(value, int)
    return value


def _text(value: object) -> str:
    """A string; the library hands out one that is not UTF-8 as the bytes that it is."""
    if not isinstance(value, str):
        raise errors.bad_request("the body of the request has a string that is not UTF-8")
    return value


def _message(message: Message) -> JSON:
    """A message, in the way of its own that some have in JSON."""
    name, told = message.DESCRIPTOR.name, _object(message)
    if name in ("Time", "MicroTime"):
        return _time(told.get("seconds", 0), told.get("nanos", 0), micro=name == "MicroTime") if told else None
    if name == "IntOrString":
        return told.get("strVal", "") if told.get("type") else told.get("intVal", 0)
    if name == "Values":
        return told.get("items", [])
    if name == "FieldsV1":
        raw = told.get("Raw", "e30=")
        assert isinstance(raw, str)
        try:
            fields: JSON = orjson.loads(base64.b64decode(raw))
        except orjson.JSONDecodeError as error:
            raise errors.bad_request("the body of the request has managed fields that are not JSON") from error
        return fields
    return told


def _time(seconds: JSON, nanos: JSON, *, micro: bool) -> str:
    assert isinstance(seconds, int)
    assert isinstance(nanos, int)
    try:
        moment = datetime.fromtimestamp(seconds, UTC)
    except (OverflowError, ValueError, OSError) as error:
        raise errors.bad_request("the body of the request has a time that is out of range") from error
    fraction = f".{nanos // 1000 % 1_000_000:06d}" if micro else ""
    return f"{moment:%Y-%m-%dT%H:%M:%S}{fraction}Z"


@cache
def _numbered_zeros() -> frozenset[tuple[str, str]]:
    """The fields whose zero is told, as (message, field)."""
    return frozenset(
        (name, match[1])
        for name, fields in wireformat.MESSAGES.items()
        for match in _FIELD.finditer(fields)
        if match[8]
    )


@cache
def _pool() -> descriptor_pool.DescriptorPool:
    return pool("kubernetes", wireformat.MESSAGES)


def pool(package: str, messages: Mapping[str, str]) -> descriptor_pool.DescriptorPool:
    """Descriptors made of a table of messages, written as in `api.wireformat`."""
    file = descriptor_pb2.FileDescriptorProto(name=f"{package}.proto", package=package, syntax="proto2")
    for name, fields in messages.items():
        message = file.message_type.add(name=name)
        for field in fields.split():
            match = _FIELD.fullmatch(field)
            assert match is not None, field
            _add(package, message, match)
    made = descriptor_pool.DescriptorPool()
    made.Add(file)
    return made


def _add(package: str, message: descriptor_pb2.DescriptorProto, match: re.Match[str]) -> None:
    name, number, list_of, mapping, map_to, plain = match[1], int(match[2]), match[4], match[5], match[6], match[7]
    if mapping:
        entry = message.nested_type.add(name=f"{name[0].upper()}{name[1:]}Entry")
        entry.options.map_entry = True
        _typed(package, entry.field.add(name="key", number=1, label=_Proto.LABEL_OPTIONAL), "")
        _typed(package, entry.field.add(name="value", number=2, label=_Proto.LABEL_OPTIONAL), map_to or "")
        message.field.add(
            name=name,
            number=number,
            label=_Proto.LABEL_REPEATED,
            type=_Proto.TYPE_MESSAGE,
            type_name=f".{package}.{message.name}.{entry.name}",
        )
        return
    label = _Proto.LABEL_REPEATED if match[3] else _Proto.LABEL_OPTIONAL
    _typed(package, message.field.add(name=name, number=number, label=label), list_of or plain or "")


def _typed(package: str, field: descriptor_pb2.FieldDescriptorProto, kind: str) -> None:
    if kind in _SCALARS:
        field.type = _SCALARS[kind]
    else:
        field.type, field.type_name = _Proto.TYPE_MESSAGE, f".{package}.{kind}"


@cache
def _class(name: str) -> type[Message]:
    return message_factory.GetMessageClass(_pool().FindMessageTypeByName(f"kubernetes.{name}"))
