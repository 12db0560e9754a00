"""What each kind of patch makes of an object."""

import copy
from typing import Annotated

import orjson
import pytest
from pydantic import BaseModel, Field

from onepass.api.errors import ApiError
from onepass.api.meta import JSON, Object
from onepass.apiserver import patches
from onepass.apiserver.ports import Limits

LIMITS = Limits(patch_operations=5, body=2000)
KEYED = {"x-kubernetes-patch-strategy": "merge", "x-kubernetes-patch-merge-key": "name"}
SET = {"x-kubernetes-patch-strategy": "merge"}


class Variable(BaseModel):
    name: str
    value: str | None = None


class Container(BaseModel):
    name: str
    image: str | None = None
    env: Annotated[list[Variable] | None, Field(json_schema_extra=KEYED)] = None
    args: list[str] | None = None


class Volume(BaseModel):
    name: str


class Whole(BaseModel):
    kind: str | None = None


class Spec(BaseModel):
    containers: Annotated[list[Container] | None, Field(json_schema_extra=KEYED)] = None
    finalizers: Annotated[list[str] | None, Field(json_schema_extra=SET)] = None
    whole: Annotated[Whole | None, Field(json_schema_extra={"x-kubernetes-patch-strategy": "replace"})] = None
    selector: dict[str, str] | None = None


class Thing(BaseModel):
    spec: Spec | None = None


def patched(kind: str, obj: Object, patch: JSON) -> Object:
    return patches.parse(kind, orjson.dumps(patch), Thing, LIMITS)(copy.deepcopy(obj))


def named(*names: str) -> list[JSON]:
    return [{"name": name} for name in names]


STRATEGIC: dict[str, tuple[Object, Object, Object]] = {
    # what happens: before, patch, after; all under spec
    "a map is merged": ({"selector": {"a": "1"}}, {"selector": {"b": "2"}}, {"selector": {"a": "1", "b": "2"}}),
    "null takes away": ({"selector": {"a": "1", "b": "2"}}, {"selector": {"a": None}}, {"selector": {"b": "2"}}),
    "null for what is absent leaves no trace": ({}, {"selector": {"a": None}}, {"selector": {}}),
    "a plain list is replaced": (
        {"containers": [{"name": "a", "args": ["1", "2"]}]},
        {"containers": [{"name": "a", "args": ["3"]}]},
        {"containers": [{"name": "a", "args": ["3"]}]},
    ),
    "an element is merged by its key": (
        {"containers": [{"name": "a", "image": "x"}, {"name": "b", "image": "y"}]},
        {"containers": [{"name": "b", "image": "z"}]},
        {"containers": [{"name": "a", "image": "x"}, {"name": "b", "image": "z"}]},
    ),
    "keyed lists nest": (
        {"containers": [{"name": "a", "env": [{"name": "A", "value": "1"}]}]},
        {"containers": [{"name": "a", "env": [{"name": "B", "value": "2"}]}]},
        {"containers": [{"name": "a", "env": [{"name": "B", "value": "2"}, {"name": "A", "value": "1"}]}]},
    ),
    "an element is deleted by its key": (
        {"containers": named("a", "b", "c")},
        {"containers": [{"$patch": "delete", "name": "b"}]},
        {"containers": named("a", "c")},
    ),
    "a list is replaced on request": (
        {"containers": named("a", "b")},
        {"containers": [{"$patch": "replace"}, {"name": "c"}]},
        {"containers": named("c")},
    ),
    "a list is emptied on request": (
        {"containers": named("a", "b")},
        {"containers": [{"$patch": "replace"}]},
        {"containers": []},
    ),
    "a map is replaced on request": (
        {"selector": {"a": "1"}},
        {"selector": {"$patch": "replace", "b": "2"}},
        {"selector": {"b": "2"}},
    ),
    "a map is emptied on request": ({"selector": {"a": "1"}}, {"selector": {"$patch": "delete"}}, {"selector": {}}),
    "a map that is to be replaced is replaced": (
        {"whole": {"kind": "a", "more": 1}},
        {"whole": {"kind": "b"}},
        {"whole": {"kind": "b"}},
    ),
    "keys that are not to be retained go": (
        {"whole": {"kind": "a"}, "selector": {"a": "1"}},
        {"$retainKeys": ["selector"], "selector": {"b": "2"}},
        {"selector": {"a": "1", "b": "2"}},
    ),
    "a set grows": ({"finalizers": ["a"]}, {"finalizers": ["b", "a"]}, {"finalizers": ["b", "a"]}),
    "a set shrinks": (
        {"finalizers": ["a", "b", "c"]},
        {"$deleteFromPrimitiveList/finalizers": ["b"]},
        {"finalizers": ["a", "c"]},
    ),
    "a set shrinks and grows": (
        {"finalizers": ["a", "b"]},
        {"$deleteFromPrimitiveList/finalizers": ["a"], "$setElementOrder/finalizers": ["c", "b"], "finalizers": ["c"]},
        {"finalizers": ["c", "b"]},
    ),
    "elements stand in the order that is given": (
        {"containers": named("a", "b", "c")},
        {"$setElementOrder/containers": named("c", "b", "a"), "containers": [{"name": "c", "image": "x"}]},
        {"containers": [{"name": "c", "image": "x"}, {"name": "b"}, {"name": "a"}]},
    ),
    "an order alone reorders": (
        {"containers": named("a", "b")},
        {"$setElementOrder/containers": named("b", "a")},
        {"containers": named("b", "a")},
    ),
    "what only the server has keeps its place": (
        {"containers": named("a", "server", "b")},
        {"$setElementOrder/containers": named("a", "b", "c"), "containers": named("c")},
        {"containers": named("a", "server", "b", "c")},
    ),
    "directives leave no trace in what is new": (
        {},
        {"containers": [{"$patch": "delete", "name": "x"}, {"name": "a", "env": [{"$patch": "replace"}]}]},
        {"containers": [{"name": "a", "env": []}]},
    ),
    "unknown fields are merged as maps and replaced as lists": (
        {"odd": {"a": 1, "l": [1]}},
        {"odd": {"b": 2, "l": [2]}},
        {"odd": {"a": 1, "b": 2, "l": [2]}},
    ),
    "a value of another type replaces": ({"odd": {"a": 1}}, {"odd": "text"}, {"odd": "text"}),
}


@pytest.mark.parametrize(("before", "patch", "after"), STRATEGIC.values(), ids=STRATEGIC)
def test_strategic_merge(before: Object, patch: Object, after: Object) -> None:
    assert patched(patches.STRATEGIC, {"spec": before}, {"spec": patch}) == {"spec": after}


@pytest.mark.parametrize(
    "patch",
    [
        {"containers": [{"image": "x"}]},
        {"containers": ["a"]},
        {"containers": [{"$patch": "delete"}]},
        {"containers": [{"name": "a", "$patch": "frobnicate"}]},
        {"selector": {"$patch": "frobnicate"}},
        {"$retainKeys": "selector"},
        {"$retainKeys": ["containers"], "selector": {"a": "1"}},
        {"$deleteFromPrimitiveList/finalizers": "a"},
        {"$deleteFromPrimitiveList/finalizers": [{"a": 1}]},
        {"$setElementOrder/containers": {"name": "a"}, "containers": named("a")},
        {"$setElementOrder/containers": named("a"), "containers": named("b")},
        {"$setElementOrder/containers": named("b", "a"), "containers": named("a", "b")},
        {"finalizers": [["a"]]},
    ],
)
def test_a_malformed_strategic_merge_is_refused(patch: Object) -> None:
    before: Object = {"spec": {"containers": named("a"), "finalizers": ["a"], "selector": {}}}
    with pytest.raises(ApiError) as refused:
        patched(patches.STRATEGIC, before, {"spec": patch})
    assert refused.value.code == 400


@pytest.mark.parametrize(
    ("before", "patch", "after"),
    [
        # RFC 7386, appendix A
        ({"a": "b"}, {"a": "c"}, {"a": "c"}),
        ({"a": "b"}, {"b": "c"}, {"a": "b", "b": "c"}),
        ({"a": "b"}, {"a": None}, {}),
        ({"a": "b", "b": "c"}, {"a": None}, {"b": "c"}),
        ({"a": ["b"]}, {"a": "c"}, {"a": "c"}),
        ({"a": "c"}, {"a": ["b"]}, {"a": ["b"]}),
        ({"a": {"b": "c"}}, {"a": {"b": "d", "c": None}}, {"a": {"b": "d"}}),
        ({"a": [{"b": "c"}]}, {"a": [1]}, {"a": [1]}),
        ({"e": None}, {"a": 1}, {"e": None, "a": 1}),
        ({}, {"a": {"bb": {"ccc": None}}}, {"a": {"bb": {}}}),
    ],
)
def test_merge_patch(before: Object, patch: Object, after: Object) -> None:
    assert patched(patches.MERGE_PATCH, before, patch) == after


@pytest.mark.parametrize(
    ("patch", "after"),
    [
        ([{"op": "add", "path": "/b", "value": 2}], {"a": [1, 2], "b": 2}),
        ([{"op": "add", "path": "/a/-", "value": 3}], {"a": [1, 2, 3]}),
        ([{"op": "remove", "path": "/a/0"}], {"a": [2]}),
        ([{"op": "replace", "path": "/a", "value": {}}], {"a": {}}),
        ([{"op": "move", "from": "/a", "path": "/b"}], {"b": [1, 2]}),
        ([{"op": "copy", "from": "/a/1", "path": "/b"}], {"a": [1, 2], "b": 2}),
        ([{"op": "test", "path": "/a/0", "value": 1}], {"a": [1, 2]}),
        ([{"op": "add", "path": "/x~1y", "value": 1}], {"a": [1, 2], "x/y": 1}),
    ],
)
def test_json_patch(patch: JSON, after: Object) -> None:
    assert patched(patches.JSON_PATCH, {"a": [1, 2]}, patch) == after


def test_a_json_patch_makes_the_same_of_each_object_it_is_tried_on() -> None:
    change = patches.parse(
        patches.JSON_PATCH,
        b'[{"op":"add","path":"/l","value":[]},{"op":"add","path":"/l/-","value":1}]',
        Thing,
        LIMITS,
    )
    assert [change({}), change({})] == [{"l": [1]}, {"l": [1]}]


@pytest.mark.parametrize(
    ("patch", "code"),
    [
        ({"op": "add"}, 400),
        ([1], 400),
        ([{"op": "frobnicate", "path": "/a"}], 422),
        ([{"path": "/a"}], 422),
        ([{"op": "add", "value": 1}], 422),
        ([{"op": "add", "path": "a", "value": 1}], 422),
        ([{"op": "copy", "path": "/b"}], 422),
        ([{"op": "remove", "path": "/nothing"}], 422),
        ([{"op": "replace", "path": "/a/7", "value": 1}], 422),
        ([{"op": "test", "path": "/a/0", "value": 2}], 422),
        ([{"op": "copy", "from": "/nothing/at/all", "path": "/b"}], 422),
        ([{"op": "add", "path": "/a/x", "value": 1}], 422),
        ([{"op": "replace", "path": "", "value": 1}], 400),
        ([{"op": "test", "path": "/a/0", "value": 1}] * 6, 413),
    ],
)
def test_a_json_patch_that_cannot_be_is_refused(patch: JSON, code: int) -> None:
    with pytest.raises(ApiError) as refused:
        patched(patches.JSON_PATCH, {"a": [1, 2]}, patch)
    assert refused.value.code == code


def test_copies_that_double_an_object_each_time_are_refused() -> None:
    doubling: JSON = [{"op": "copy", "from": "", "path": f"/{name}"} for name in "bcde"]
    with pytest.raises(ApiError) as refused:
        patched(patches.JSON_PATCH, {"a": "x" * 300}, doubling)
    assert refused.value.code == 413


@pytest.mark.parametrize("kind", ["application/apply-patch+yaml", "application/json", "text/plain"])
def test_other_patches_are_refused_by_naming_what_is_taken(kind: str) -> None:
    with pytest.raises(ApiError) as refused:
        patches.parse(kind, b"{}", Thing, LIMITS)
    assert refused.value.code == 415
    assert patches.STRATEGIC in refused.value.message


@pytest.mark.parametrize("kind", [patches.MERGE_PATCH, patches.STRATEGIC])
@pytest.mark.parametrize("body", [b"[]", b"1", b"null", b"{", b""])
def test_a_merge_patch_that_is_no_object_is_refused(kind: str, body: bytes) -> None:
    with pytest.raises(ApiError) as refused:
        patches.parse(kind, body, Thing, LIMITS)
    assert refused.value.code == 400
