"""Who manages which field, held against Kubernetes' own field manager on generated updates and applies."""

import copy
from collections.abc import Iterator, Mapping, Sequence
from typing import cast

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.programs import golang, references
from tests.programs.references import Reference
from tests.unit import gadgets

from onepass.access.identity import Identity
from onepass.api import meta
from onepass.api.errors import ApiError
from onepass.api.meta import JSON, Object
from onepass.registry import fieldowners
from onepass.registry.fieldowners import Write
from onepass.registry.fields import typedvalues
from onepass.registry.strategy import Actor, Strategy

ACTOR = Identity("alice", ())
NOW = 1_800_000_000.0
EXAMPLES = settings(
    max_examples=120, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large]
)


@pytest.fixture(scope="module")
def reference() -> Iterator[Reference]:
    try:
        with references.running(gadgets.schemas(gadgets.STRATEGY)) as started:
            yield started
    except golang.GoMissing as why:
        pytest.skip(str(why))


def step(managers: st.SearchStrategy[str]) -> st.SearchStrategy[Object]:
    update = st.fixed_dictionaries(
        {"do": st.just("update"), "object": gadgets.gadgets(doubled=True), "manager": managers, "force": st.just(False)}
    )
    apply = st.fixed_dictionaries(
        {"do": st.just("apply"), "object": gadgets.gadgets(nulls=True), "manager": managers, "force": st.booleans()}
    )
    return cast(st.SearchStrategy[Object], st.one_of(update, apply, apply))


STEPS = st.lists(step(st.sampled_from(["one", "two", "kubectl"])), min_size=1, max_size=6)


def ours(strategy: Strategy, steps: Sequence[Object], subresource: str) -> list[Object]:
    """What becomes of the object, step by step, as goreference tells it."""
    live: Object = {}
    told: list[Object] = []
    for one in copy.deepcopy(steps):
        given = meta.section(one, "object")
        form = "apply" if one["do"] == "apply" else "object"
        actor = Actor(ACTOR, NOW, meta.text(one, "manager"))
        write = Write(actor, subresource=subresource, form=form, config=given, force=one["force"] is True)  # type: ignore[arg-type]
        try:
            new = fieldowners.applying(strategy, write)(copy.deepcopy(live)) if form == "apply" else given
            sent = meta.section(new, "metadata").get("managedFields")
            live = fieldowners.owned(strategy, live or None, new, sent, write)
        except ApiError as refused:
            fields: list[JSON] = [f"{c.reason}|{c.message}|{c.field}" for c in refused.causes]
            told.append({"error": refused.message, **({"fields": fields} if fields else {})})
            continue
        live["metadata"] = {**meta.section(live, "metadata"), "uid": "1"}
        told.append({"object": live})
    return told


def plain(value: JSON) -> JSON:
    """Without what may differ: the time itself, the order of fields in a conflict, the words of other refusals."""
    if isinstance(value, list):
        return [plain(item) for item in value]
    if not isinstance(value, dict):
        return value
    if "error" in value and "fields" not in value:
        return {"error": True}
    told: Object = {key: plain(part) for key, part in value.items()}
    if "time" in told:
        told["time"] = "set"
    if isinstance(value.get("fields"), list):
        told["fields"] = [*sorted(str(field) for field in told["fields"])]  # type: ignore[union-attr]
    return {key: part for key, part in told.items() if (key, part) != ("metadata", {})}


def agrees(reference: Reference, steps: Sequence[Object], subresource: str, reset: Sequence[Sequence[str]]) -> None:
    case: Mapping[str, JSON] = {
        "do": "fields",
        "apiVersion": gadgets.GADGET.api_version,
        "kind": gadgets.GADGET.kind,
        "subresource": subresource,
        "reset": [list(path) for path in reset],
        "steps": list(steps),
    }
    theirs = reference.ask(case)["steps"]
    mine = ours(gadgets.STRATEGY, steps, subresource)
    assert isinstance(theirs, list)
    for number, (expected, found) in enumerate(zip(theirs, mine, strict=True)):
        assert typedvalues.same(plain(found), plain(expected)), (
            f"step {number}: {plain(found)} is not {plain(expected)}"
        )


@EXAMPLES
@given(steps=STEPS)
def test_managers_are_those_of_kubernetes(reference: Reference, steps: list[Object]) -> None:
    agrees(reference, steps, "", [["status"]])


@EXAMPLES
@given(steps=STEPS)
def test_managers_of_a_subresource_are_those_of_kubernetes(reference: Reference, steps: list[Object]) -> None:
    agrees(reference, steps, "status", [["spec"], ["metadata"], ["apiVersion"], ["kind"]])
