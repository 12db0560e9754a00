"""What is wrong with a field, in the wording of a real server (k8s.io/apimachinery/pkg/util/validation/field)."""

from collections.abc import Iterable

import orjson

from onepass.api.errors import Cause
from onepass.api.meta import JSON


def _worded(kind: str, detail: str) -> str:
    return f"{kind}: {detail}" if detail else kind


def _shown(value: JSON) -> str:
    return orjson.dumps(value).decode()


def required(field: str, detail: str = "") -> Cause:
    return Cause("FieldValueRequired", _worded("Required value", detail), field)


def invalid(field: str, value: JSON, detail: str) -> Cause:
    """`value` is shown to the client: never pass a write-only one."""
    return Cause("FieldValueInvalid", _worded(f"Invalid value: {_shown(value)}", detail), field)


def wrong_type(field: str, found: str, wanted: str) -> Cause:
    """`found` is the name of a JSON type, not the value itself, which may be one that nobody is to read."""
    shown = _shown(found)
    return Cause(
        "FieldValueTypeInvalid", f"Invalid value: {shown}: {field} in body must be of type {wanted}: {shown}", field
    )


def unsupported(field: str, value: JSON, supported: Iterable[str]) -> Cause:
    offered = ", ".join(_shown(s) for s in supported)
    return Cause("FieldValueNotSupported", f"Unsupported value: {_shown(value)}: supported values: {offered}", field)


def forbidden(field: str, detail: str) -> Cause:
    return Cause("FieldValueForbidden", _worded("Forbidden", detail), field)


def duplicate(field: str, value: JSON) -> Cause:
    return Cause("FieldValueDuplicate", f"Duplicate value: {_shown(value)}", field)


def too_long(field: str, limit: int) -> Cause:
    return Cause("FieldValueTooLong", f"Too long: may not be more than {limit} bytes", field)
