"""What patches make of an object, held against the libraries that a kube-apiserver uses, on generated patches."""

import copy
from collections.abc import Callable, Iterator

import orjson
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.programs import golang, references
from tests.programs.references import Reference
from tests.unit import gadgets

from onepass.api import meta
from onepass.api.errors import ApiError
from onepass.api.meta import JSON, Object
from onepass.apiserver import patches
from onepass.apiserver.ports import Limits
from onepass.registry.fields import typedvalues

EXAMPLES = settings(
    max_examples=120, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large]
)
SCHEMA = "example.test.v1.Gadget"
# What the library cannot merge and we can: a list without elements, and lists inside a part that has no schema.
CANNOT = ("no elements in any of the given slices", "unable to find api field")
KEYS = st.sampled_from(["a", "b", "c"])
WORDS = st.sampled_from(["x", "y", "z", ""])


@pytest.fixture(scope="module")
def reference() -> Iterator[Reference]:
    try:
        with references.running(gadgets.schemas(gadgets.STRATEGY)) as started:
            yield started
    except golang.GoMissing as why:
        pytest.skip(str(why))


def agrees(reference: Reference, kind: str, media: str, before: Object, patch: JSON) -> None:
    theirs = reference.ask({"do": kind, "schema": SCHEMA, "before": before, "patch": patch})
    try:
        change = patches.parse(media, orjson.dumps(patch), gadgets.Gadget, Limits())
        mine: Object = {"object": change(copy.deepcopy(before))}
    except ApiError as refused:
        mine = {"error": refused.message}
    if str(theirs.get("error", "")).startswith(CANNOT):
        return
    if "error" in theirs:
        assert "error" in mine, f"they refuse: {theirs['error']}"
    else:
        assert typedvalues.same(mine.get("object"), theirs["object"]), f"{mine} is not {theirs}"


MERGED: st.SearchStrategy[JSON] = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(0, 3), WORDS, st.lists(st.integers(0, 3), max_size=2)),
    lambda part: st.dictionaries(KEYS, part, max_size=3),
    max_leaves=8,
)
DOCUMENTS = st.dictionaries(KEYS, MERGED, max_size=3)


def without_nulls(value: JSON) -> JSON:
    """No stored object has nulls, and the libraries differ in what they do with them."""
    if isinstance(value, dict):
        return {key: without_nulls(part) for key, part in value.items() if part is not None}
    return value


@EXAMPLES
@given(before=DOCUMENTS, patch=DOCUMENTS)
def test_merge_patches(reference: Reference, before: Object, patch: Object) -> None:
    stored = without_nulls(before)
    assert isinstance(stored, dict)
    agrees(reference, "merge", patches.MERGE_PATCH, stored, patch)


POINTERS = st.lists(st.sampled_from(["a", "b", "c", "0", "1", "-"]), min_size=1, max_size=3).map(
    lambda steps: "".join(f"/{step}" for step in steps)
)
VALUES = st.one_of(st.integers(0, 3), WORDS, st.lists(st.integers(0, 3), max_size=2), st.just({"a": 1}))
OPERATIONS = st.one_of(
    st.fixed_dictionaries({"op": st.sampled_from(["add", "replace", "test"]), "path": POINTERS, "value": VALUES}),
    st.fixed_dictionaries({"op": st.just("remove"), "path": POINTERS}),
    st.fixed_dictionaries({"op": st.sampled_from(["move", "copy"]), "path": POINTERS, "from": POINTERS}),
)


@EXAMPLES
@given(before=DOCUMENTS, patch=st.lists(OPERATIONS, max_size=4))
def test_json_patches(reference: Reference, before: Object, patch: list[JSON]) -> None:
    stored = without_nulls(before)
    assert isinstance(stored, dict)
    agrees(reference, "json", patches.JSON_PATCH, stored, patch)


@st.composite
def strategic(draw: Callable[[st.SearchStrategy[object]], object]) -> Object:
    """A patch of a gadget's spec, with directives."""
    spec = draw(gadgets.specs(nulls=True, merged=True))
    assert isinstance(spec, dict)
    for key, merge_key in (("parts", "name"), ("ports", "port")):
        items = spec.get(key)
        if isinstance(items, list):
            keys = [item[merge_key] for item in items]
            for item in items:
                if draw(st.integers(0, 5)) == 0:
                    item["$patch"] = draw(st.sampled_from(["delete", "delete", "merge"]))
            if draw(st.integers(0, 8)) == 0:
                items.append({"$patch": "replace"})
            elif draw(st.booleans()) and len(set(map(str, keys))) == len(keys):
                others = draw(st.lists(st.sampled_from(["a", "b", "c"] if key == "parts" else [0, 1, 2]), unique=True))
                assert isinstance(others, list)
                order = keys + [other for other in others if other not in keys]
                spec[f"$setElementOrder/{key}"] = [{merge_key: one} for one in order]
    if draw(st.integers(0, 3)) == 0 and "names" not in spec:
        spec["$deleteFromPrimitiveList/names"] = draw(st.lists(WORDS, max_size=2, unique=True))
    for key in ("inner", "labels"):
        part = spec.get(key)
        if isinstance(part, dict) and draw(st.integers(0, 4)) == 0:
            part["$patch"] = draw(st.sampled_from(["replace", "delete", "merge"]))
        elif isinstance(part, dict) and draw(st.integers(0, 4)) == 0:
            part["$retainKeys"] = [*part, "a"] if "a" not in part else [*part]
    return {"spec": spec}


@EXAMPLES
@given(before=gadgets.gadgets(merged=True), patch=strategic())
def test_strategic_merge_patches(reference: Reference, before: Object, patch: Object) -> None:
    # Where there is nothing to act on, a real one leaves some directives in the object.
    spec = meta.section(patch, "spec")
    there = before["spec"] = meta.section(before, "spec")
    if "names" not in there:
        spec.pop("$deleteFromPrimitiveList/names", None)
    for key in ("inner", "labels"):
        if key not in there and isinstance(spec.get(key), dict):
            meta.section(spec, key).pop("$retainKeys", None)
    agrees(reference, "strategic", patches.STRATEGIC, before, patch)


@pytest.mark.parametrize("there", [True, False])
@pytest.mark.parametrize(
    "items",
    [
        [{"$patch": "delete"}],
        [{"$patch": "delete", "a": "x"}, {"a": "y", "b": None}],
        [{"$patch": "replace"}, {"a": "q"}],
        [{"a": "z"}, {"$patch": "of no meaning"}],
        [{"a": {"$patch": "delete"}}],
    ],
)
def test_a_list_that_is_replaced_is_taken_as_it_is(reference: Reference, items: list[JSON], there: bool) -> None:
    """With its directives where it stands in for another; where there was none, they are dropped."""
    spec: Object = {"objects": [{"a": "x"}]} if there else {}
    before: Object = {"apiVersion": "test.example/v1", "kind": "Gadget", "metadata": {"name": "g"}, "spec": spec}
    agrees(reference, "strategic", patches.STRATEGIC, before, {"spec": {"objects": items}})


@EXAMPLES
@given(before=gadgets.gadgets(), patch=gadgets.gadgets(nulls=True))
def test_strategic_merge_patches_of_metadata(reference: Reference, before: Object, patch: Object) -> None:
    agrees(reference, "strategic", patches.STRATEGIC, before, {"metadata": meta.section(patch, "metadata")})
