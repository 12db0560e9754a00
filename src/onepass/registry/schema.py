"""Holds an object against its kind's model: types, required fields, defaults, and fields the kind does not have."""

from collections.abc import Sequence
from functools import cache
from typing import Literal, cast

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from onepass.api import errors
from onepass.api.errors import Cause
from onepass.api.meta import JSON, Object, Resource, name
from onepass.api.objectmeta import ObjectMeta
from onepass.registry import causes

_YAML_LINE = "line "  # how what is odd in a YAML text is told, in contrast to a JSON text
_TYPES = {
    "string_type": "string",
    "int_type": "integer",
    "int_from_float": "integer",
    "float_type": "number",
    "bool_type": "boolean",
    "list_type": "array",
    "dict_type": "object",
    "model_type": "object",
    "model_attributes_type": "object",
}
_TEXTS = frozenset({"matchLabels"})  # mappings from text to text in which what is left out would choose more
_PARTS = (BaseModel, list, dict)  # what has parts of its own
_NAMES: dict[type, str] = {
    bool: "boolean",
    int: "integer",
    float: "number",
    str: "string",
    list: "array",
    dict: "object",
    type(None): "null",
}


def conform(model: type[BaseModel], resource: Resource, obj: Object) -> tuple[Object, list[str]]:
    """The object with its defaults and without fields that the kind lacks, and the paths of those fields.

    Raises invalid, which never tells a value of the wrong type, only the type.
    """
    try:
        # Everything is let in first, so that one pass finds what is unknown where it stands.
        parsed = model.model_validate(_without_nulls(obj), extra="allow")
    except ValidationError as wrong:
        found = [_cause(error) for error in wrong.errors(include_url=False, include_context=False)]
        raise errors.invalid(resource, name(obj), found) from None
    unknown: list[str] = []
    _prune(parsed, "", unknown)
    return cast(Object, parsed.model_dump(mode="json", by_alias=True, exclude_none=True)), unknown


def check_metadata(resource: Resource, obj: Object, *, patched: bool) -> None:
    """Raises bad_request for metadata of the wrong types, as kube-apiserver's decoder does, before any of it is left
    out for being empty; invalid where it was a patch that made it so."""
    found = obj.get("metadata")
    try:
        ObjectMeta.model_validate({} if found is None else _without_nulls(found))
    except ValidationError as refused:
        told = [_cause(error, "metadata") for error in refused.errors(include_url=False, include_context=False)]
        wrong = [each for each in told if each.reason != "FieldValueRequired"]  # which validation tells
        if wrong and patched:
            raise errors.invalid(resource, name(obj), wrong) from None
        if wrong:
            raise errors.unreadable(resource, ", ".join(f"{each.field}: {each.message}" for each in wrong)) from None


def strict(
    resource: Resource, told: Sequence[str], kind: Literal["object", "patch", "apply"] = "object"
) -> errors.ApiError:
    """The refusal of what only `fieldValidation=Strict` refuses; `told` as a warning tells each.

    A patch is refused in the words of a real server, except that they leave out the patched object, which a real one
    repeats whole.
    """
    lines = [line for line in told if line.startswith(_YAML_LINE)]
    together = ["yaml: unmarshal errors:\n" + "\n".join(f"  {line}" for line in lines)] if lines else []
    why = ", ".join([*together, *[line for line in told if line not in lines]])
    if kind == "apply":
        return errors.bad_request(
            f"error strict decoding patch: {'error converting YAML to JSON: ' * bool(lines)}{why}"
        )
    if kind == "patch":
        told_as = f"Invalid value: strict decoding error: {why}"
        causes = [Cause("FieldValueInvalid", told_as, "patch")]
        return errors.ApiError(422, "Invalid", f' "" is invalid: patch: {told_as}', causes=causes)
    return errors.unreadable(resource, f"strict decoding error: {why}")


def warnings(unknown: Sequence[str]) -> tuple[str, ...]:
    return tuple(f'unknown field "{path}"' for path in unknown)


def _without_nulls(value: JSON) -> JSON:
    """Null in a mapping means absent, as Go reads it in a struct; in a map of strings it reads the empty one.

    `matchLabels: {env: }` would otherwise choose every cluster.
    """
    if isinstance(value, dict):
        return {
            k: {each: "" if told is None else told for each, told in v.items()}
            if k in _TEXTS and isinstance(v, dict)
            else _without_nulls(v)
            for k, v in value.items()
            if v is not None
        }
    if isinstance(value, list):
        return [_without_nulls(v) for v in value]
    return value


def _prune(value: object, path: str, unknown: list[str]) -> None:
    if isinstance(value, BaseModel):
        cls = type(value)
        for key, alias in _aliases(cls):
            part = getattr(value, key)
            if isinstance(part, _PARTS):
                _prune(part, _child(path, alias), unknown)
        if value.model_extra and cls.model_config.get("extra") != "allow":
            unknown += [_child(path, key) for key in value.model_extra]
            value.model_extra.clear()
    elif isinstance(value, list):
        for index, item in enumerate(value):
            if isinstance(item, _PARTS):
                _prune(item, f"{path}[{index}]", unknown)
    elif isinstance(value, dict):
        for key, item in value.items():
            if isinstance(item, _PARTS):
                _prune(item, _child(path, str(key)), unknown)


@cache
def _aliases(model: type[BaseModel]) -> Sequence[tuple[str, str]]:
    """The fields of a model: their names in Python and in JSON."""
    return tuple((key, field.alias or key) for key, field in model.model_fields.items())


def _child(path: str, key: str) -> str:
    return f"{path}.{key}" if path else key


def _cause(error: ErrorDetails, field: str = "") -> Cause:
    for step in error["loc"]:
        field = f"{field}[{step}]" if isinstance(step, int) else _child(field, step)
    kind = error["type"]
    if kind == "missing":
        return causes.required(field)
    if kind in _TYPES:
        return causes.wrong_type(field, _NAMES.get(type(error["input"]), "object"), _TYPES[kind])
    return Cause("FieldValueInvalid", f"Invalid value: {error['msg'].removeprefix('Value error, ')}", field)
