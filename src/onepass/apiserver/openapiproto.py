"""OpenAPI v2 documents in protobuf: the only form in which kubectl before 1.27 reads them, to explain and to validate.

The messages and their numbers are those of package openapi.v2 in https://github.com/google/gnostic-models
(openapiv2/OpenAPIv2.proto). Each table below is a message: what is written for which key. What has no row is left out.
"""

import struct
from collections.abc import Callable, Mapping

from onepass.api.meta import JSON, Object
from onepass.apiserver import encoding

TYPE = "application/com.github.proto-openapi.spec.v2.v1.0+protobuf"

_Encode = Callable[[JSON], bytes]
_Table = Mapping[str, _Encode]


def document(swagger: Object) -> bytes:
    """A version 2 document that has only what OnePass writes: `info`, `paths`, `definitions`."""
    return _document(swagger)


def _varint(value: int) -> bytes:
    """https://protobuf.dev/programming-guides/encoding/#varints, of a number that is not negative."""
    told = bytearray()
    while value > 127:
        told.append(value & 127 | 128)
        value >>= 7
    return bytes((*told, value))


def _part(number: int, payload: bytes) -> bytes:
    return _varint(number << 3 | 2) + _varint(len(payload)) + payload


def _text(number: int) -> _Encode:
    return lambda value: _part(number, str(value).encode())


def _texts(number: int) -> _Encode:
    return lambda value: b"".join(
        _part(number, str(one).encode()) for one in (value if isinstance(value, list) else [value])
    )


def _whole(number: int) -> _Encode:
    """A bool or an int64; nothing where it is not one that can be told."""
    return lambda value: _varint(number << 3) + _varint(value) if isinstance(value, int) and value >= 0 else b""


def _double(number: int) -> _Encode:
    return lambda value: _varint(number << 3 | 1) + struct.pack("<d", value) if isinstance(value, int | float) else b""


def _any(value: JSON) -> bytes:
    """Any.yaml; JSON is YAML."""
    return _part(2, encoding.dump(value))


def _one(number: int, encode: _Encode) -> _Encode:
    return lambda value: _part(number, encode(value))


def _each(number: int, encode: _Encode) -> _Encode:
    return lambda value: b"".join(_part(number, encode(one)) for one in (value if isinstance(value, list) else []))


def _named(number: int, encode: _Encode) -> _Encode:
    """A map, as a message is made of it: pairs of name = 1 and value = 2."""
    return lambda value: b"".join(
        _part(number, _text(1)(name) + _part(2, encode(one)))
        for name, one in (value.items() if isinstance(value, dict) else ())
    )


def _message(table: Callable[[], _Table], extension: int = 0) -> _Encode:
    """A message of these fields, the keys that begin with `x-` in the field `extension`."""

    def encode(value: JSON) -> bytes:
        fields = table()
        told = b""
        for key, part in value.items() if isinstance(value, dict) else ():
            if key in fields:
                told += fields[key](part)
            elif extension and key.startswith("x-"):
                told += _named(extension, _any)({key: part})
        return told

    return encode


def _parameter(value: JSON) -> bytes:
    """ParametersItem.parameter, and in it one of the kinds of parameters."""
    place = value.get("in") if isinstance(value, dict) else ""
    if place == "body":
        return _part(1, _part(1, _body(value)))
    number, encode = (4, _in_path) if place == "path" else (3, _in_query)
    return _part(1, _part(2, _part(number, encode(value))))


def _additional(value: JSON) -> bytes:
    return _part(1, _schema(value)) if isinstance(value, dict) else _whole(2)(value)


_schema = _message(lambda: _SCHEMA, 31)
_SCHEMA: _Table = {
    "$ref": _text(1),
    "format": _text(2),
    "title": _text(3),
    "description": _text(4),
    "default": _one(5, _any),
    "multipleOf": _double(6),
    "maximum": _double(7),
    "minimum": _double(9),
    "maxLength": _whole(11),
    "minLength": _whole(12),
    "pattern": _text(13),
    "maxItems": _whole(14),
    "minItems": _whole(15),
    "uniqueItems": _whole(16),
    "maxProperties": _whole(17),
    "minProperties": _whole(18),
    "required": _texts(19),
    "enum": _each(20, _any),
    "additionalProperties": _one(21, _additional),
    "type": _one(22, _texts(1)),
    "items": _one(23, _one(1, _schema)),
    "allOf": _each(24, _schema),
    "properties": _one(25, _named(1, _schema)),
}
_PLACED: _Table = {"required": _whole(1), "in": _text(2), "description": _text(3), "name": _text(4)}
_in_query = _message(lambda: {**_PLACED, "type": _text(6), "uniqueItems": _whole(20)}, 23)
_in_path = _message(lambda: {**_PLACED, "type": _text(5), "uniqueItems": _whole(19)}, 22)
_body = _message(
    lambda: {
        "description": _text(1),
        "name": _text(2),
        "in": _text(3),
        "required": _whole(4),
        "schema": _one(5, _schema),
    },
    6,
)
_response = _message(lambda: {"description": _text(1), "schema": _one(2, _one(1, _schema))}, 5)
_operation = _message(
    lambda: {
        "tags": _texts(1),
        "description": _text(3),
        "operationId": _text(5),
        "produces": _texts(6),
        "consumes": _texts(7),
        "parameters": _each(8, _parameter),
        "responses": _one(9, _named(1, _one(1, _response))),
    },
    13,
)
_item = _message(
    lambda: {
        "get": _one(2, _operation),
        "put": _one(3, _operation),
        "post": _one(4, _operation),
        "delete": _one(5, _operation),
        "patch": _one(8, _operation),
        "parameters": _each(9, _parameter),
    },
    10,
)
_info = _message(lambda: {"title": _text(1), "version": _text(2)})
_document = _message(
    lambda: {
        "swagger": _text(1),
        "info": _one(2, _info),
        "paths": _one(8, _named(2, _item)),
        "definitions": _one(9, _named(1, _schema)),
    }
)
