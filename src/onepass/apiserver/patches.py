"""The patches that PATCH takes: RFC 6902, RFC 7386 and strategic merge; each a function from object to object.

Server-side apply (`application/apply-patch+yaml`) is to stand here too, once managed fields are kept.
"""

import copy
from collections.abc import Callable
from functools import cache

import jsonpatch
import jsonpointer
import orjson
from pydantic import BaseModel

from onepass.api import errors, meta
from onepass.api.errors import ApiError
from onepass.api.meta import JSON, Object
from onepass.apiserver import encoding, strategicmerge
from onepass.apiserver.ports import Limits

JSON_PATCH = "application/json-patch+json"
MERGE_PATCH = "application/merge-patch+json"
STRATEGIC = "application/strategic-merge-patch+json"
ACCEPTED = (JSON_PATCH, MERGE_PATCH, STRATEGIC)

Change = Callable[[Object], Object]


def parse(kind: str, body: bytes, model: type[BaseModel], limits: Limits) -> Change:
    """The change that a patch of media type `kind` makes; it may alter what it is given.

    Raises bad_request, too_large and unsupported_media_type at once, bad_request and 422 when it is applied.
    """
    if kind not in ACCEPTED:
        raise errors.unsupported_media_type(ACCEPTED)
    patch = encoding.load(body, encoding.JSON_TYPE, limits.depth)
    if kind == JSON_PATCH:
        return _json_patch(patch, limits)
    if not isinstance(patch, dict):
        raise errors.bad_request("a merge patch must be an object")
    if kind == MERGE_PATCH:
        return lambda obj: _object(merge(obj, patch))
    return lambda obj: strategicmerge.apply(obj, copy.deepcopy(patch), schema(model))


@cache
def schema(model: type[BaseModel]) -> strategicmerge.Schema:
    return strategicmerge.Schema.of(model.model_json_schema(by_alias=True))


def merge(target: JSON, patch: JSON) -> JSON:
    """RFC 7386; `target` may be altered."""
    if not isinstance(patch, dict):
        return patch
    merged: Object = target if isinstance(target, dict) else {}
    for key, value in patch.items():
        if value is None:
            merged.pop(key, None)
        else:
            merged[key] = merge(merged.get(key), value)
    return merged


def _json_patch(patch: JSON, limits: Limits) -> Change:
    if not isinstance(patch, list) or not all(isinstance(operation, dict) for operation in patch):
        raise errors.bad_request("a JSON patch must be a list of operations")
    operations = [operation for operation in patch if isinstance(operation, dict)]
    if len(operations) > limits.patch_operations:
        raise errors.too_large(
            f"The allowed maximum operations in a JSON patch is {limits.patch_operations}, got {len(operations)}"
        )
    try:
        jsonpatch.JsonPatch(operations)
    except (jsonpatch.JsonPatchException, jsonpointer.JsonPointerException, TypeError) as error:
        raise errors.bad_request(f"invalid JSON patch: {error}") from error

    def change(obj: Object) -> Object:
        result: JSON = obj
        copied = 0
        for operation in copy.deepcopy(operations):  # what is added must not be shared with the next attempt
            try:
                copied += _copy_size(operation, result)
                if copied > limits.body:  # copies can double an object each time
                    raise errors.too_large("the copy operations of a JSON patch make the object too large")
                result = jsonpatch.JsonPatch([operation]).apply(result, in_place=True)
            except (jsonpatch.JsonPatchException, jsonpointer.JsonPointerException, TypeError) as error:
                raise ApiError(422, "Invalid", f"the JSON patch cannot be applied: {error}") from error
        return _object(result)

    return change


def _copy_size(operation: Object, target: JSON) -> int:
    if operation.get("op") != "copy":
        return 0
    return len(orjson.dumps(jsonpointer.resolve_pointer(target, meta.text(operation, "from"))))


def _object(value: JSON) -> Object:
    if not isinstance(value, dict):
        raise errors.bad_request("the patch makes something that is not an object")
    return value
