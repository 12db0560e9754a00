"""The generic store, on a real database, with a small kind of its own."""

import asyncio
from collections.abc import Callable
from contextlib import aclosing
from dataclasses import replace

import pytest
from pydantic import Field

from onepass.api import meta, objectmeta
from onepass.api.errors import ApiError
from onepass.api.meta import Object, Resource
from onepass.api.objectmeta import Model, ObjectMeta
from onepass.registry import selection
from onepass.registry.store import Event, Selection, Store, Write
from onepass.registry.strategy import Actor, Concealed, Strategy
from onepass.storage.interface import Storage

WIDGET = Resource("test.example", "v1", "Widget", "widgets", "widget", namespaced=True)
PLAIN = Resource("test.example", "v1", "Safe", "safes", "safe", namespaced=False)


class WidgetSpec(Model):
    size: int = 1
    color: str | None = None
    code: str | None = None


class WidgetStatus(Model):
    ready: bool | None = None


class Widget(Model):
    api_version: str = objectmeta.API_VERSION
    kind: str = objectmeta.KIND
    metadata: ObjectMeta = Field(default_factory=ObjectMeta)
    spec: WidgetSpec
    status: WidgetStatus | None = None


def hide(obj: Object, _old: Object | None, _actor: Actor) -> Concealed:
    spec = meta.section(obj, "spec")
    if "code" not in spec:
        return Concealed(obj, None)
    code = meta.text(spec, "code")
    return Concealed({**obj, "spec": {**spec, "code": "hidden" if code else ""}}, code.encode())


class Rot13:
    """Not a cipher; shows what is bound to what."""

    def seal(self, secret: bytes, context: bytes) -> bytes:
        return context + b"|" + secret[::-1]

    def unseal(self, sealed: bytes, context: bytes) -> bytes:
        bound, _, secret = sealed.partition(b"|")
        assert bound == context
        return secret[::-1]


WIDGETS = Strategy(
    WIDGET,
    Widget,
    (),
    subresources={"status": ("status",)},
    selectable={"spec.color": lambda obj: meta.text(meta.section(obj, "spec"), "color")},
)
SAFES = Strategy(PLAIN, Widget, (), conceal=hide)


@pytest.fixture
def store(storage: Storage) -> Store:
    return Store(storage, WIDGETS)


@pytest.fixture
def safes(storage: Storage) -> Store:
    return Store(storage, SAFES, sealer=Rot13())


def widget(name: str, labels: dict[str, str] | None = None, **spec: meta.JSON) -> Object:
    metadata: Object = {"name": name}
    if labels:
        metadata["labels"] = dict(labels)
    return {"apiVersion": "test.example/v1", "kind": "Widget", "metadata": metadata, "spec": spec}


def setting(key: str, value: meta.JSON) -> Callable[[Object], Object]:
    def change(obj: Object) -> Object:
        meta.section(obj, "spec")[key] = value
        return obj

    return change


def everything(strategy: Strategy = WIDGETS) -> Selection:
    return selection.parse(strategy)


async def refusal(call: object) -> ApiError:
    with pytest.raises(ApiError) as caught:
        await call  # type: ignore[misc]
    return caught.value


async def test_create_gives_identity_defaults_and_a_version(store: Store, write: Write) -> None:
    made = (await store.create("ns", widget("a"), write)).obj
    metadata = meta.section(made, "metadata")
    assert made["spec"] == {"size": 1}
    assert metadata["creationTimestamp"] == "2027-01-15T08:00:00Z"
    assert metadata["generation"] == 1
    assert metadata["namespace"] == "ns"
    assert len(meta.uid(made)) == 36
    assert meta.resource_version(made) > 0
    assert await store.get("ns", "a") == made


async def test_what_the_server_decides_is_not_the_clients(store: Store, write: Write) -> None:
    given = widget("a")
    meta.section(given, "metadata").update(
        uid="mine", creationTimestamp="1999-01-01T00:00:00Z", generation=9, managedFields=[{"manager": "me"}]
    )
    given["status"] = {"ready": True}
    made = (await store.create("ns", given, write)).obj
    assert meta.uid(made) != "mine"
    assert meta.section(made, "metadata")["generation"] == 1
    assert "'me'" not in str(meta.section(made, "metadata")["managedFields"])
    assert "status" not in made


async def test_create_refuses_a_second_one(store: Store, write: Write) -> None:
    await store.create("ns", widget("a"), write)
    again = await refusal(store.create("ns", widget("a"), write))
    assert (again.code, again.reason) == (409, "AlreadyExists")
    assert again.message == 'widgets.test.example "a" already exists'
    dry = await refusal(store.create("ns", widget("a"), replace(write, dry_run=True)))
    assert dry.reason == "AlreadyExists"
    await store.create("other", widget("a"), write)


@pytest.mark.parametrize(
    ("change", "code", "told"),
    [
        ({"metadata": {}}, 422, "metadata.name: Required value: name or generateName is required"),
        ({"metadata": {"name": "A_b"}}, 422, "a lowercase RFC 1123 subdomain must consist of"),
        ({"metadata": {"name": "a" * 254}}, 422, "must be no more than 253 characters"),
        ({"metadata": {"name": "a", "namespace": "other"}}, 400, "does not match the namespace sent on the request"),
        ({"metadata": {"name": "a", "resourceVersion": "7"}}, 400, "resourceVersion should not be set"),
        ({"metadata": {"name": "a", "labels": {"x y": "1"}}}, 422, "metadata.labels: Invalid value"),
        ({"metadata": {"name": "a", "labels": {"x": "-"}}}, 422, "a valid label must be an empty string or consist of"),
        ({"metadata": {"name": "a", "annotations": {"k": "v" * 262144}}}, 422, "Too long: may not be more than 262144"),
        ({"metadata": {"name": "a", "finalizers": ["a/b/c"]}}, 422, "metadata.finalizers"),
        ({"metadata": {"name": "a", "ownerReferences": [{"name": "x"}]}}, 422, "uid: Required value"),
        ({"metadata": "a"}, 400, "cannot be handled as a Widget: metadata: Invalid value"),
        ({"metadata": {"name": 7}}, 400, "metadata.name in body must be of type string"),
        ({"spec": {"size": "big"}}, 422, 'spec.size: Invalid value: "string"'),
        ({"spec": {"size": "a-secret-typed-wrong"}}, 422, "must be of type integer"),
        ({"spec": None}, 422, "spec: Required value"),
        ({"apiVersion": "test.example/v2"}, 400, "the API version in the data (test.example/v2)"),
        ({"kind": "Gadget"}, 400, "the kind in the data (Gadget)"),
    ],
)
async def test_create_refuses_bad_objects(store: Store, write: Write, change: Object, code: int, told: str) -> None:
    refused = await refusal(store.create("ns", {**widget("a"), **change}, write))
    assert refused.code == code
    assert told in refused.message
    assert "a-secret-typed-wrong" not in refused.message
    assert (await store.list("", everything())).items == []


@pytest.mark.parametrize("namespace", ["", "UP", "a.b"])
async def test_create_needs_a_namespace_that_can_be(store: Store, write: Write, namespace: str) -> None:
    assert (await refusal(store.create(namespace, widget("a"), write))).code in (400, 422)


async def test_generated_names_are_short_enough_and_differ(store: Store, write: Write) -> None:
    given: Object = {"metadata": {"generateName": "x" * 80 + "-"}, "spec": {}}
    found = {meta.name((await store.create("ns", given, write)).obj) for _ in range(20)}
    assert len(found) == 20
    assert {len(name) for name in found} == {63}


async def test_unknown_fields_are_told_pruned_or_refused(store: Store, write: Write) -> None:
    given: Object = {**widget("a", sice=3, color="red"), "spac": {}}
    warned = await store.create("ns", given, write)
    assert warned.warnings == ('unknown field "spec.sice"', 'unknown field "spac"')
    assert warned.obj["spec"] == {"size": 1, "color": "red"}
    assert "spac" not in warned.obj
    quiet = await store.create("ns", {**given, "metadata": {"name": "b"}}, replace(write, field_validation="Ignore"))
    assert quiet.warnings == ()
    strict = await refusal(store.create("ns", given, replace(write, field_validation="Strict")))
    assert strict.code == 400
    assert strict.message == (
        'Widget in version "v1" cannot be handled as a Widget: '
        'strict decoding error: unknown field "spec.sice", unknown field "spac"'
    )


async def test_dry_run_checks_everything_and_writes_nothing(store: Store, storage: Storage, write: Write) -> None:
    dry = replace(write, dry_run=True)
    before = await storage.revision()
    assert meta.name((await store.create("ns", widget("a"), dry)).obj) == "a"
    assert (await refusal(store.get("ns", "a"))).code == 404
    made = (await store.create("ns", widget("a"), write)).obj
    after = await storage.revision()
    changed = (await store.update("ns", "a", setting("size", 5), dry)).obj
    assert meta.section(changed, "spec")["size"] == 5
    assert meta.section(changed, "metadata")["generation"] == 2
    _, gone = await store.delete("ns", "a", dry)
    assert gone
    assert await store.get("ns", "a") == made
    assert await storage.revision() == after > before


async def test_update_counts_generations_of_spec_only(store: Store, write: Write) -> None:
    await store.create("ns", widget("a"), write)
    labelled = (await store.update("ns", "a", lambda obj: _labelled(obj, "x"), write)).obj
    assert meta.section(labelled, "metadata")["generation"] == 1
    sized = (await store.update("ns", "a", setting("size", 2), write)).obj
    assert meta.section(sized, "metadata")["generation"] == 2


def _labelled(obj: Object, value: str) -> Object:
    meta.section(obj, "metadata")["labels"] = {"l": value}
    return obj


async def test_an_update_that_changes_nothing_is_not_written(store: Store, storage: Storage, write: Write) -> None:
    made = (await store.create("ns", widget("a", {"x": "y"}, size=3), write)).obj
    before = await storage.revision()
    for same in (made, {**made, "status": None}, widget("a", {"x": "y"}, size=3)):
        assert (await store.update("ns", "a", lambda _, same=same: same, write)).obj == made  # type: ignore[misc]
    assert await storage.revision() == before


async def test_the_object_and_its_status_are_written_apart(store: Store, write: Write) -> None:
    await store.create("ns", widget("a"), write)
    both: Object = {**widget("a", {"x": "y"}, size=7), "status": {"ready": True}}
    status = (await store.update("ns", "a", lambda _: both, replace(write, subresource="status"))).obj
    assert (status["spec"], status["status"]) == ({"size": 1}, {"ready": True})
    assert meta.labels(status) == {}
    assert meta.section(status, "metadata")["generation"] == 1
    main = (await store.update("ns", "a", lambda _: {**both, "status": {"ready": False}}, write)).obj
    assert (main["spec"], main["status"]) == ({"size": 7}, {"ready": True})


@pytest.mark.parametrize(
    ("metadata", "code", "told"),
    [
        ({"name": "b"}, 400, "the name of the object (b) does not match the name on the URL (a)"),
        ({"namespace": "other"}, 400, "does not match the namespace"),
        ({"uid": "another"}, 409, "Precondition failed: UID in precondition: another"),
        ({"resourceVersion": "1"}, 409, "the object has been modified"),
    ],
)
async def test_update_refuses_another_object(
    store: Store, write: Write, metadata: Object, code: int, told: str
) -> None:
    await store.create("ns", widget("a"), write)
    given: Object = {**widget("a", size=9), "metadata": {"name": "a", **metadata}}
    refused = await refusal(store.update("ns", "a", lambda _: given, write))
    assert refused.code == code
    assert told in refused.message
    assert meta.section(await store.get("ns", "a"), "spec") == {"size": 1}


async def test_concurrent_updates_lose_nothing(store: Store, write: Write) -> None:
    await store.create("ns", widget("a", size=0), write)

    def more(obj: Object) -> Object:
        size = meta.section(obj, "spec")["size"]
        assert isinstance(size, int)
        return setting("size", size + 1)(obj)

    await asyncio.gather(*(store.update("ns", "a", more, write) for _ in range(20)))
    assert meta.section(await store.get("ns", "a"), "spec") == {"size": 20}


async def test_a_stale_version_conflicts(store: Store, write: Write) -> None:
    first = (await store.create("ns", widget("a"), write)).obj
    await store.update("ns", "a", setting("size", 2), write)
    stale: Object = {**first, "spec": {"size": 3}}
    refused = await refusal(store.update("ns", "a", lambda _: stale, write))
    assert refused.reason == "Conflict"


async def test_update_creates_only_when_asked(store: Store, write: Write) -> None:
    assert (await refusal(store.update("ns", "a", lambda _: widget("a"), write))).code == 404
    made = (await store.update("ns", "a", lambda _: widget("a"), write, create_if_absent=True)).obj
    assert meta.section(made, "metadata")["generation"] == 1


async def test_a_change_may_alter_what_it_gets(store: Store, write: Write) -> None:
    await store.create("ns", widget("a"), write)

    def spoil(obj: Object) -> Object:
        meta.section(obj, "metadata").clear()
        meta.section(obj, "spec")["size"] = 4
        return obj

    changed = (await store.update("ns", "a", spoil, write)).obj
    assert meta.name(changed) == "a"
    assert meta.section(changed, "metadata")["creationTimestamp"] == "2027-01-15T08:00:00Z"


async def test_delete_says_what_went_and_checks_preconditions(store: Store, write: Write) -> None:
    made = (await store.create("ns", widget("a"), write)).obj
    assert (await refusal(store.delete("ns", "a", write, uid="x"))).reason == "Conflict"
    assert (await refusal(store.delete("ns", "a", write, resource_version="1"))).reason == "Conflict"
    last, gone = await store.delete("ns", "a", write, uid=meta.uid(made), resource_version=str(_rv(made)))
    assert gone
    assert meta.uid(last) == meta.uid(made)
    assert not {"deletionTimestamp", "deletionGracePeriodSeconds"} & {*meta.section(last, "metadata")}
    assert (await refusal(store.delete("ns", "a", write))).code == 404


def _rv(obj: Object) -> int:
    return meta.resource_version(obj)


async def test_finalizers_hold_an_object_until_the_last_is_gone(store: Store, write: Write) -> None:
    given = widget("a")
    meta.section(given, "metadata")["finalizers"] = ["x.io/one", "x.io/two"]
    await store.create("ns", given, write)
    marked, gone = await store.delete("ns", "a", write)
    assert not gone
    assert meta.section(marked, "metadata")["deletionTimestamp"] == "2027-01-15T08:00:00Z"
    version = _rv(marked)
    assert _rv((await store.delete("ns", "a", write))[0]) == version

    def finalizers(*left: str) -> Callable[[Object], Object]:
        def change(obj: Object) -> Object:
            meta.section(obj, "metadata")["finalizers"] = list(left)
            meta.section(obj, "metadata").pop("deletionTimestamp")
            return obj

        return change

    more = await refusal(store.update("ns", "a", finalizers("x.io/one", "x.io/three"), write))
    assert "no new finalizers can be added" in more.message
    await store.update("ns", "a", finalizers("x.io/two"), write)
    assert "deletionTimestamp" in meta.section(await store.get("ns", "a"), "metadata")
    await store.update("ns", "a", finalizers(), write)
    assert (await refusal(store.get("ns", "a"))).code == 404


async def test_a_grace_period_holds_an_object_until_it_is_deleted_with_none(storage: Storage, write: Write) -> None:
    slow = replace(WIDGETS, grace=lambda _, asked: 30 if asked is None else asked)
    store = Store(storage, slow)
    await store.create("ns", widget("a"), write)
    marked, gone = await store.delete("ns", "a", write)
    assert not gone
    assert meta.section(marked, "metadata")["deletionTimestamp"] == "2027-01-15T08:00:30Z"
    await store.update("ns", "a", lambda _: {**widget("a"), "status": {"ready": False}}, write)
    longer, _ = await store.delete("ns", "a", write, grace_period=60)
    assert meta.section(longer, "metadata")["deletionGracePeriodSeconds"] == 30
    _, gone = await store.delete("ns", "a", write, grace_period=0)
    assert gone


async def test_a_name_never_reaches_another_key(store: Store, write: Write) -> None:
    await store.create("ns", widget("a"), write)
    for namespace, name in (("", "ns/a"), ("", "a"), ("ns/a", ""), ("other", "../ns/a"), ("ns", "a/")):
        assert (await refusal(store.get(namespace, name))).code == 404
        assert (await refusal(store.delete(namespace, name, write))).code == 404
    await store.get("ns", "a")


async def test_a_client_cannot_mark_an_object_as_deleted(store: Store, write: Write) -> None:
    made = (await store.create("ns", widget("a"), write)).obj
    marked = widget("a")
    meta.section(marked, "metadata").update(
        deletionTimestamp="2027-01-01T00:00:00Z", managedFields=[{"manager": "me"}], selfLink="/x"
    )
    assert (await store.update("ns", "a", lambda _: marked, write)).obj == made


async def test_lists_are_ordered_scoped_and_selected(store: Store, write: Write) -> None:
    for namespace, name, color in (("b", "x", "red"), ("a", "z", "red"), ("a", "y", "blue"), ("a", "yy", "red")):
        await store.create(namespace, widget(name, {"c": color}, color=color), write)

    async def found(namespace: str, labels: str = "", fields: str = "") -> list[str]:
        listing = await store.list(namespace, selection.parse(WIDGETS, labels, fields))
        return [f"{meta.namespace(obj)}/{meta.name(obj)}" for obj in listing.items]

    assert await found("") == ["a/y", "a/yy", "a/z", "b/x"]
    assert await found("a") == ["a/y", "a/yy", "a/z"]
    assert await found("", labels="c=red") == ["a/yy", "a/z", "b/x"]
    assert await found("a", fields="spec.color=blue") == ["a/y"]
    assert await found("a", fields="metadata.name=y") == ["a/y"]
    assert await found("", fields="metadata.name=x") == ["b/x"]
    assert await found("", fields="metadata.namespace!=a") == ["b/x"]


async def test_pages_continue_at_one_revision(store: Store, write: Write) -> None:
    for index in range(5):
        await store.create("ns", widget(f"w{index}"), write)
    page = await store.list("ns", everything(), limit=2)
    assert (len(page.items), page.remaining) == (2, 3)
    await store.create("ns", widget("w22"), write)
    await store.delete("ns", "w3", write)
    rest = await store.list("ns", everything(), limit=2, continue_token=page.continue_token)
    assert [meta.name(obj) for obj in rest.items] == ["w2", "w3"]
    assert rest.resource_version == page.resource_version
    last = await store.list("ns", everything(), limit=2, continue_token=rest.continue_token)
    assert [meta.name(obj) for obj in last.items] == ["w4"]
    assert (last.continue_token, last.remaining) == ("", None)


async def test_selected_pages_are_full_and_end(store: Store, write: Write) -> None:
    for index in range(9):
        await store.create("ns", widget(f"w{index}", {"odd": str(index % 2)}), write)
    found: list[str] = []
    token = ""
    while True:
        page = await store.list("ns", selection.parse(WIDGETS, "odd=1"), limit=3, continue_token=token)
        assert page.remaining is None
        found += [meta.name(obj) for obj in page.items]
        token = page.continue_token
        if not token:
            break
        assert len(page.items) == 3
    assert found == ["w1", "w3", "w5", "w7"]


async def test_a_compacted_page_has_expired(store: Store, storage: Storage, write: Write) -> None:
    for name in "abc":
        await store.create("ns", widget(name), write)
    page = await store.list("ns", everything(), limit=1)
    await store.delete("ns", "c", write)
    await storage.compact(await storage.revision())
    refused = await refusal(store.list("ns", everything(), limit=1, continue_token=page.continue_token))
    assert (refused.code, refused.reason) == (410, "Expired")
    assert "The provided continue parameter is too old" in refused.message


@pytest.mark.parametrize("token", ["!", "e30", "eyJ2IjoieCJ9", "a" * 5000])
async def test_a_forged_token_is_refused(store: Store, token: str) -> None:
    refused = await refusal(store.list("ns", everything(), limit=1, continue_token=token))
    assert refused.code == 400
    assert "continue key is not valid" in refused.message


async def test_resource_versions_of_lists(store: Store, storage: Storage, write: Write) -> None:
    await store.create("ns", widget("a"), write)
    then = str(await storage.revision())
    await store.create("ns", widget("b"), write)
    now = str(await storage.revision())

    async def count(version: str, match: str = "", limit: int = 0) -> int:
        options = {"resource_version": version, "resource_version_match": match}
        return len((await store.list("ns", everything(), limit=limit, **options)).items)

    assert await count("") == await count("0") == await count(then) == await count(then, "NotOlderThan") == 2
    assert await count(then, "Exact") == await count(then, limit=5) == 1
    assert (await store.list("ns", everything())).resource_version == now
    for version, match, code in (
        ("x", "", 400),
        ("-1", "", 400),
        (str(int(now) + 5), "", 504),
        (str(int(now) + 5), "Exact", 504),
    ):
        assert (await refusal(count(version, match))).code == code, (version, match)


async def told(store: Store, count: int, labels: str = "", **options: object) -> list[tuple[str, str]]:
    events: list[tuple[str, str]] = []
    watch = store.watch("", selection.parse(WIDGETS, labels), **options)  # type: ignore[arg-type]
    async with asyncio.timeout(60), aclosing(watch):
        async for event in watch:
            events.append((event.type, meta.name(event.obj)))
            if len(events) == count:
                break
    return events


async def test_a_watch_tells_what_is_there_and_what_comes(store: Store, write: Write) -> None:
    made = (await store.create("ns", widget("a"), write)).obj
    await store.update("ns", "a", setting("size", 2), write)
    await store.create("ns", widget("b"), write)
    await store.delete("ns", "a", write)
    assert await told(store, 1) == [("ADDED", "b")]
    after = str(_rv(made))
    assert await told(store, 3, resource_version=after) == [("MODIFIED", "a"), ("ADDED", "b"), ("DELETED", "a")]


async def test_a_selected_watch_tells_of_coming_in_and_going_out(store: Store, write: Write) -> None:
    first = (await store.create("ns", widget("a", {"c": "red"}), write)).obj
    for color in ("blue", "blue", "red"):
        await store.update("ns", "a", lambda obj, color=color: {**obj, **_colored(obj, color)}, write)  # type: ignore[misc]
    await store.update("ns", "a", setting("size", 9), write)
    await store.delete("ns", "a", write)
    told_of = await told(store, 4, "c=red", resource_version=str(_rv(first)))
    assert told_of == [("DELETED", "a"), ("ADDED", "a"), ("MODIFIED", "a"), ("DELETED", "a")]


def _colored(obj: Object, color: str) -> Object:
    return {"metadata": {**meta.section(obj, "metadata"), "labels": {"c": color}}}


async def test_a_deletion_carries_its_own_revision(store: Store, storage: Storage, write: Write) -> None:
    made = (await store.create("ns", widget("a"), write)).obj
    await store.delete("ns", "a", write)
    watch = store.watch("ns", everything(), resource_version=str(_rv(made)))
    async with asyncio.timeout(60), aclosing(watch):
        event = await anext(watch)
    assert event.type == "DELETED"
    assert _rv(event.obj) == await storage.revision()
    assert event.obj["spec"] == {"size": 1}


async def test_bookmarks_follow_what_others_write(store: Store, safes: Store, storage: Storage, write: Write) -> None:
    made = (await store.create("ns", widget("a"), write)).obj
    await safes.create("", {"metadata": {"name": "s"}, "spec": {}}, write)
    watch = store.watch("ns", everything(), resource_version=str(_rv(made)), bookmarks=True)
    async with asyncio.timeout(60), aclosing(watch):
        event = await anext(watch)
    version = str(await storage.revision())
    metadata: Object = {"resourceVersion": version, "creationTimestamp": None}
    assert event == Event("BOOKMARK", {"apiVersion": "test.example/v1", "kind": "Widget", "metadata": metadata})


async def test_initial_events_end_with_a_bookmark(store: Store, write: Write) -> None:
    await store.create("ns", widget("a"), write)
    watch = store.watch("ns", everything(), bookmarks=True, initial_events=True)
    async with asyncio.timeout(60), aclosing(watch):
        first, second = await anext(watch), await anext(watch)
    assert first.type == "ADDED"
    assert second.type == "BOOKMARK"
    assert meta.annotations(second.obj) == {"k8s.io/initial-events-end": "true"}


async def test_plain_bookmarks_claim_no_end_of_initial_events(store: Store, safes: Store, write: Write) -> None:
    made = await store.create("ns", widget("a"), write)
    watch = store.watch("ns", everything(), resource_version=str(meta.resource_version(made.obj)), bookmarks=True)
    async with asyncio.timeout(60), aclosing(watch):
        await safes.create("", {"metadata": {"name": "s"}, "spec": {}}, write)
        first = await anext(watch)
    assert first.type == "BOOKMARK"
    assert meta.annotations(first.obj) == {}


@pytest.mark.parametrize(("version", "code"), [("1", 410), ("999999", 410), ("x", 400)])
async def test_a_watch_from_nowhere_is_refused(
    store: Store, storage: Storage, write: Write, version: str, code: int
) -> None:
    for name in "abc":
        await store.create("ns", widget(name), write)
    await storage.compact(await storage.revision())
    watch = store.watch("ns", everything(), resource_version=version)
    assert (await refusal(anext(watch))).code == code


async def test_a_secret_leaves_the_object_and_goes_with_it(safes: Store, storage: Storage, write: Write) -> None:
    def safe(code: str | None) -> Object:
        return {"metadata": {"name": "s"}, "spec": {"code": code}}

    made = (await safes.create("", safe("open-sesame"), write)).obj
    assert made["spec"] == {"size": 1, "code": "hidden"}
    assert await safes.secret("s", meta.uid(made)) == b"open-sesame"
    kept = (await safes.update("", "s", lambda _: safe(None), write)).obj
    assert kept["spec"] == {"size": 1}
    assert await safes.secret("s", meta.uid(made)) == b"open-sesame"
    await safes.update("", "s", lambda _: safe("new-word"), write)
    assert await safes.secret("s", meta.uid(made)) == b"new-word"
    await safes.update("", "s", lambda _: safe(""), write)
    assert await safes.secret("s", meta.uid(made)) is None
    await safes.update("", "s", lambda _: safe("again"), write)
    await safes.delete("", "s", write)
    assert await safes.secret("s", meta.uid(made)) is None
    assert [r.key for r in (await storage.range(b"/")).records] == []


async def test_a_dry_run_leaves_the_secret(safes: Store, write: Write) -> None:
    given: Object = {"metadata": {"name": "s"}, "spec": {"code": "first"}}
    made = (await safes.create("", given, write)).obj
    dry = replace(write, dry_run=True)
    await safes.update("", "s", lambda _: {**given, "spec": {"code": "second"}}, dry)
    await safes.delete("", "s", dry)
    assert await safes.secret("s", meta.uid(made)) == b"first"


def test_write_only_fields_need_a_sealer(storage: Storage) -> None:
    with pytest.raises(ValueError, match=r"safes\.test\.example has write-only fields"):
        Store(storage, SAFES)
