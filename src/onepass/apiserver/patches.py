"""The patches that PATCH takes: RFC 6902, RFC 7386 and strategic merge; each a function from object to object.

What server-side apply makes of an object is told in `registry.fieldowners`, with whose fields are whose.
"""

import copy
from collections.abc import Callable, Mapping
from functools import cache

import jsonpatch
import jsonpointer
import orjson
from pydantic import BaseModel

from onepass.api import errors, meta
from onepass.api.errors import ApiError
from onepass.api.meta import JSON, Object, Resource
from onepass.apiserver import encoding, strategicmerge
from onepass.apiserver.ports import Limits
from onepass.registry import causes

JSON_PATCH = "application/json-patch+json"
MERGE_PATCH = "application/merge-patch+json"
STRATEGIC = "application/strategic-merge-patch+json"
APPLY = "application/apply-patch+yaml"
ACCEPTED = (JSON_PATCH, MERGE_PATCH, STRATEGIC, APPLY)

Change = Callable[[Object], Object]


def check_options(kind: str, asked: Mapping[str, str]) -> None:
    """Raises invalid for options that do not go with a patch of media type `kind`, and unsupported_media_type."""
    if kind not in ACCEPTED:
        raise errors.unsupported_media_type(ACCEPTED)
    if kind == APPLY and not asked.get("fieldManager"):
        raise errors.invalid_options("PatchOptions", [causes.required("fieldManager", "is required for apply patch")])
    if kind != APPLY and "force" in asked:
        raise errors.invalid_options(
            "PatchOptions", [causes.forbidden("force", "may not be specified for non-apply patch")]
        )


def configuration(body: bytes, limits: Limits) -> Object:
    """What is applied: YAML, of which JSON is a part and by far the faster to read."""
    if body.lstrip().startswith(b"{"):
        try:
            orjson.loads(body)
        except orjson.JSONDecodeError:  # in YAML braces may hold more than JSON
            return encoding.load_object(body, encoding.YAML_TYPE, limits.depth)
        return encoding.load_object(body, encoding.JSON_TYPE, limits.depth)
    return encoding.load_object(body, encoding.YAML_TYPE, limits.depth)


def check_new(resource: Resource, obj: Object, name: str) -> None:
    """Raises bad_request and conflict for an object that cannot come into being by being applied under `name`."""
    given, metadata = meta.name(obj), meta.section(obj, "metadata")
    _check_named(obj, name)
    if given != name:
        raise errors.bad_request(f"the name of the object ({given}) does not match the name on the URL ({name})")
    if meta.uid(obj):
        told = f"uid mismatch: the provided object specified uid {meta.uid(obj)}, and no existing object was found"
        raise errors.conflict(resource, name, told)
    if meta.text(metadata, "resourceVersion"):
        raise errors.conflict(resource, name)


def _check_named(obj: Object, name: str) -> None:
    if not meta.name(obj):
        told = f"the name of the object ({name} based on URL) was undeterminable: name must be provided"
        raise errors.bad_request(told)


def keeping_the_name(change: Change) -> Change:
    """The change, but bad_request where nothing is left of the object by which to know it."""

    def kept(obj: Object) -> Object:
        name = meta.name(obj)
        changed = change(obj)
        _check_named(changed, name)
        return changed

    return kept


def parse(kind: str, body: bytes, model: type[BaseModel], limits: Limits) -> Change:
    """The change that a patch of media type `kind` makes; it may alter what it is given.

    Raises bad_request, too_large and unsupported_media_type at once, bad_request and 422 when it is applied.
    """
    if kind not in (JSON_PATCH, MERGE_PATCH, STRATEGIC):
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
        raise ApiError(422, "Invalid", f"invalid JSON patch: {error}") from error

    def change(obj: Object) -> Object:
        result: JSON = obj
        copied = 0
        for number, operation in enumerate(copy.deepcopy(operations)):  # what is added is not for the next attempt
            try:
                known = _lenient(operation, result)
                copied += _copy_size(known, result)
                if copied > limits.body:  # copies can double an object each time
                    raise errors.too_large("the copy operations of a JSON patch make the object too large")
                result = jsonpatch.JsonPatch([known]).apply(result, in_place=True)
            except (jsonpatch.JsonPatchException, jsonpointer.JsonPointerException, TypeError) as error:
                raise _inapplicable(number, operation, error) from error
        return _object(result)

    return change


def _inapplicable(number: int, operation: Object, error: Exception) -> ApiError:
    """Which operation it was; never the object, as the library's own words have it."""
    why = "the test fails" if isinstance(error, jsonpatch.JsonPatchTestFailed) else "it leads nowhere in this object"
    told = f'{meta.text(operation, "op")} at "{meta.text(operation, "path")[:256]}"'
    return ApiError(422, "Invalid", f"the JSON patch cannot be applied: operation {number}, {told}: {why}")


def _lenient(operation: Object, target: JSON) -> Object:
    """The operation as a kube-apiserver takes it (gopkg.in/evanphx/json-patch.v4), where RFC 6902 refuses it.

    A field that is not there reads as null, and replacing it adds it.
    """
    kind = operation.get("op")
    path = meta.text(operation, "from" if kind == "copy" else "path")
    if not path or kind not in ("replace", "test", "copy"):
        return operation
    holder, key = jsonpointer.JsonPointer(path).to_last(target)
    if not isinstance(holder, dict) or key in holder:
        return operation
    if kind == "replace":
        return {**operation, "op": "add"}
    if kind == "copy":
        return {"op": "add", "path": operation["path"], "value": None}
    return {"op": "test", "path": "", "value": target} if operation.get("value", "") is None else operation


def _copy_size(operation: Object, target: JSON) -> int:
    if operation.get("op") != "copy":
        return 0
    return len(orjson.dumps(jsonpointer.resolve_pointer(target, meta.text(operation, "from"))))


def _object(value: JSON) -> Object:
    if not isinstance(value, dict):
        raise errors.bad_request("the patch makes something that is not an object")
    return value
