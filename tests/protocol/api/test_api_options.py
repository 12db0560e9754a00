"""The options of each verb: which are taken, and in which words what cannot be is refused, as a real server does."""

import base64
import json
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio
from tests.protocol.api.conftest import Api

from onepass.api.meta import JSON, Object, section, text

pytestmark = pytest.mark.asyncio(loop_scope="module")

MERGE = {"content-type": "application/merge-patch+json"}


@pytest_asyncio.fixture(loop_scope="module")
async def accounts(shared: Api, request: pytest.FixtureRequest) -> AsyncIterator[str]:
    """The path of the accounts in a namespace of this test's own, which has a, b and c in it."""
    namespace = "t" + format(abs(hash(request.node.name)), "x")[:12]
    await shared.make("/api/v1/namespaces", {"metadata": {"name": namespace}})
    path = f"/api/v1/namespaces/{namespace}/serviceaccounts"
    for name in ("a", "b", "c"):
        await shared.make(path, {"metadata": {"name": name, "labels": {"x": name}}})
    yield path
    await shared.send("DELETE", path, {"gracePeriodSeconds": 0})
    await shared.send("DELETE", f"/api/v1/namespaces/{namespace}")


def names(listing: Object) -> list[str]:
    items = listing["items"]
    assert isinstance(items, list)
    return [text(section(item, "metadata"), "name") for item in items if isinstance(item, dict)]


def causes(status: Object) -> list[tuple[str, str]]:
    found = section(status, "details").get("causes")
    assert isinstance(found, list)
    return [(text(cause, "reason"), text(cause, "field")) for cause in found if isinstance(cause, dict)]


LISTS = [
    ("resourceVersionMatch=Exact", 422, "resourceVersionMatch is forbidden unless resourceVersion is provided"),
    ("resourceVersionMatch=Exact&resourceVersion=0", 422, '"exact" is forbidden for resourceVersion "0"'),
    ("resourceVersionMatch=Newest&resourceVersion=1", 422, 'supported values: "Exact", "NotOlderThan", ""'),
    ("resourceVersionMatch=NotOlderThan&resourceVersion=1&continue=x", 422, "is forbidden when continue is provided"),
    ("sendInitialEvents=true", 422, "sendInitialEvents is forbidden for list"),
    ("resourceVersion=latest", 400, "invalid resource version"),
    ("resourceVersion=-1", 400, "invalid resource version"),
    ("limit=many", 400, "invalid syntax"),
    ("limit=", 400, "invalid syntax"),
    ("limit=99999999999999999999", 400, "invalid syntax"),
    ("continue=garbage", 400, "invalid continue token: continue key is not valid"),
    ("continue=e30", 400, "server does not recognize this encoded version"),
    ("labelSelector=a%3D%3D%3Db", 400, "expected: ',' or 'end of string'"),
    ("labelSelector=a+in+b", 400, "unable to parse requirement"),
    ("labelSelector=a+in+(b", 400, "expected"),
    ("labelSelector=-a", 400, "unable to parse requirement"),
    ("labelSelector=a%3D-b", 400, "Invalid value"),
    ("labelSelector=a%3Eb", 400, "the value must be an integer"),
    ("labelSelector=a,", 400, "expected: identifier after ','"),
    ("labelSelector=" + "a" * 64, 400, "must be no more than 63"),
    ("fieldSelector=colour%3Dred", 400, "field label not supported: colour"),
    ("fieldSelector=metadata.name", 400, "invalid selector"),
]
WATCHES = [
    ("sendInitialEvents=true", 422, "sendInitialEvents requires setting resourceVersionMatch to NotOlderThan"),
    ("sendInitialEvents=false", 422, "sendInitialEvents requires setting resourceVersionMatch to NotOlderThan"),
    ("resourceVersionMatch=NotOlderThan&resourceVersion=1", 422, "forbidden for watch unless sendInitialEvents"),
    ("sendInitialEvents=true&resourceVersionMatch=Exact&resourceVersion=1", 422, 'supported values: "NotOlderThan"'),
    ("sendInitialEvents=true&resourceVersionMatch=NotOlderThan&continue=x", 422, "when continue is provided"),
    ("resourceVersion=latest", 400, "invalid resource version"),
    ("timeoutSeconds=soon", 400, "invalid syntax"),
    ("labelSelector=a+in+b", 400, "unable to parse requirement"),
]


@pytest.mark.parametrize(
    ("query", "code", "words"),
    [*LISTS, *((f"watch=true&{query}", code, words) for query, code, words in WATCHES)],
    ids=lambda value: str(value)[:60],
)
async def test_options_that_cannot_be_are_refused(shared: Api, query: str, code: int, words: str) -> None:
    answer = await shared.send("GET", f"/api/v1/namespaces?{query}")
    told = answer.json()
    reason = {400: "BadRequest", 422: "Invalid"}[code]
    assert (answer.status_code, told["code"], told["reason"]) == (code, code, reason), told
    assert words in told["message"]
    if code == 422:
        assert told["message"].startswith('ListOptions.meta.k8s.io "" is invalid: ')
        assert (told["details"]["group"], told["details"]["kind"]) == ("meta.k8s.io", "ListOptions")
        assert told["details"]["causes"]


async def test_what_a_resource_version_means_to_a_list(shared: Api, accounts: str) -> None:
    then = (await shared.get(accounts))["metadata"]["resourceVersion"]  # type: ignore[index, call-overload]
    await shared.make(accounts, {"metadata": {"name": "d"}})
    now = ["a", "b", "c", "d"]
    for query, expected in (
        ("", now),
        ("resourceVersion=0", now),
        (f"resourceVersion={then}", now),
        (f"resourceVersion={then}&resourceVersionMatch=NotOlderThan", now),
        (f"resourceVersion={then}&resourceVersionMatch=Exact", now[:3]),
        (f"resourceVersion={then}&limit=10", now[:3]),
        (f"resourceVersion={then}&limit=-1", now),
        ("resourceVersion=0&resourceVersionMatch=NotOlderThan", now),
    ):
        listing = await shared.get(f"{accounts}?{query}")
        assert names(listing) == expected, query
    for query in (f"resourceVersion={int(str(then)) + 1000}{match}" for match in ("", "&resourceVersionMatch=Exact")):
        late = await shared.send("GET", f"{accounts}?{query}")
        assert (late.status_code, late.json()["reason"], late.headers["retry-after"]) == (504, "Timeout", "1")
        assert late.json()["message"].startswith("Timeout: Too large resource version: ")
        cause = {"reason": "ResourceVersionTooLarge", "message": "Too large resource version"}
        assert late.json()["details"]["causes"] == [cause]


async def test_a_list_that_expired_goes_on_with_the_token_that_the_refusal_offers(shared: Api, accounts: str) -> None:
    page = await shared.get(f"{accounts}?limit=1")
    metadata = section(page, "metadata")
    token = metadata["continue"]
    assert (names(page), metadata["remainingItemCount"]) == (["a"], 2)
    await shared.send("DELETE", f"{accounts}/b")
    await shared.storage.compact(await shared.storage.revision())
    expired = await shared.send("GET", f"{accounts}?limit=1&continue={token}")
    told = expired.json()
    assert (expired.status_code, told["reason"]) == (410, "Expired")
    assert told["message"].startswith("The provided continue parameter is too old to display a consistent list result.")
    assert "or use the continue token in this response" in told["message"]
    rest = await shared.get(f"{accounts}?limit=1&continue={told['metadata']['continue']}")
    assert names(rest) == ["c"]
    again = {"resourceVersion": text(metadata, "resourceVersion"), "resourceVersionMatch": "Exact"}
    exact = await shared.client.get(accounts, params=again)
    assert (exact.status_code, exact.json()["message"]) == (
        410,
        "The resourceVersion for the provided list is too old.",
    )


async def test_a_continue_token_stands_alone_and_cannot_be_made_up(shared: Api, accounts: str) -> None:
    token = section(await shared.get(f"{accounts}?limit=1"), "metadata")["continue"]
    with_version = await shared.send("GET", f"{accounts}?limit=1&continue={token}&resourceVersion=1")
    assert with_version.status_code == 400
    assert (await shared.send("GET", f"{accounts}?limit=1&continue={token}&resourceVersion=0")).status_code == 200
    for told in (
        {"v": "meta.k8s.io/v1", "rv": 0, "start": "a"},
        {"v": "meta.k8s.io/v1", "rv": -2, "start": "a"},
        {"v": "meta.k8s.io/v1", "rv": True, "start": "a"},
        {"v": "meta.k8s.io/v1", "rv": 2**70, "start": "a"},
        {"v": "meta.k8s.io/v1", "rv": 1, "start": ""},
        {"v": "meta.k8s.io/v2", "rv": 1, "start": "a"},
        ["meta.k8s.io/v1"],
    ):
        made_up = base64.urlsafe_b64encode(json.dumps(told).encode()).decode().rstrip("=")
        answer = await shared.send("GET", f"{accounts}?continue={made_up}")
        assert answer.status_code == 400, answer.text
    # One that names another place stays under the kind and the namespace of the path.
    for start in ("../../", "\x00", "zzz/../a", "/registry"):
        told = {"v": "meta.k8s.io/v1", "rv": -1, "start": start}
        elsewhere = base64.urlsafe_b64encode(json.dumps(told).encode()).decode().rstrip("=")
        assert set(names(await shared.get(f"{accounts}?continue={elsewhere}"))) <= {"a", "b", "c"}


@pytest.mark.parametrize(
    ("selector", "expected"),
    [
        ("x=a", "a"),
        ("x==a", "a"),
        ("x!=a", "bc"),
        ("x in (a,b)", "ab"),
        ("x notin (a,b)", "c"),
        ("x", "abc"),
        ("!x", ""),
        ("!y", "abc"),
        ("x,x!=b", "ac"),
        ("x in ()", ""),
        ("x in (a,,)", "a"),
        ("y notin ()", "abc"),
        ("x=", ""),
        (" x  in ( a , b ) , x != a", "b"),
        ("", "abc"),
    ],
)
async def test_label_selectors_of_every_form(shared: Api, accounts: str, selector: str, expected: str) -> None:
    listing = (await shared.client.get(accounts, params={"labelSelector": selector})).json()
    assert "".join(names(listing)) == expected


@pytest.mark.parametrize(
    ("selector", "expected"),
    [
        ("metadata.name=a", "a"),
        ("metadata.name==a", "a"),
        ("metadata.name!=a", "bc"),
        ("metadata.name!=a,metadata.name!=b", "c"),
        ("metadata.name=a,metadata.name=b", ""),
        ("metadata.namespace=elsewhere", ""),
        ("metadata.name=", ""),
        ("", "abc"),
    ],
)
async def test_field_selectors_of_every_form(shared: Api, accounts: str, selector: str, expected: str) -> None:
    listing = (await shared.client.get(accounts, params={"fieldSelector": selector})).json()
    assert "".join(names(listing)) == expected


WRITES = [
    ("fieldManager=" + "x" * 129, ("FieldValueTooLong", "fieldManager")),
    ("fieldManager=%00", ("FieldValueInvalid", "fieldManager")),
    ("dryRun=Some", ("FieldValueNotSupported", "dryRun")),
    ("fieldValidation=Perhaps", ("FieldValueNotSupported", "fieldValidation")),
]


@pytest.mark.parametrize(("query", "cause"), WRITES)
async def test_options_of_writes_are_checked(shared: Api, accounts: str, query: str, cause: tuple[str, str]) -> None:
    before = await shared.get(accounts)
    body: Object = {"metadata": {"name": "a", "labels": {"new": "label"}}}
    for method, path, options in (
        ("POST", accounts, "CreateOptions"),
        ("PUT", f"{accounts}/a", "UpdateOptions"),
        ("PATCH", f"{accounts}/a", "PatchOptions"),
    ):
        refused = await shared.send(method, f"{path}?{query}", body, headers=MERGE if method == "PATCH" else None)
        told = refused.json()
        assert (refused.status_code, told["details"]["kind"]) == (422, options), told
        assert causes(told) == [cause]
    assert await shared.get(accounts) == before


@pytest.mark.parametrize(
    ("options", "code", "words"),
    [
        ({"propagationPolicy": "Sideways"}, 422, 'supported values: "Foreground", "Background", "Orphan", "nil"'),
        ({"propagationPolicy": "Orphan", "orphanDependents": True}, 422, "cannot be both set"),
        ({"dryRun": ["Some"]}, 422, 'dryRun: Unsupported value: ["Some"]: supported values: "All"'),
        ({"dryRun": "All"}, 400, "dryRun"),
        ({"gracePeriodSeconds": "soon"}, 400, "gracePeriodSeconds"),
        ({"gracePeriodSeconds": True}, 400, "gracePeriodSeconds"),
        ({"preconditions": "uid"}, 400, "preconditions"),
        ({"preconditions": {"uid": 1}}, 400, "preconditions.uid"),
        ({"preconditions": {"uid": "x"}}, 409, "the UID in the precondition (x) does not match the UID in record ("),
        ({"preconditions": {"resourceVersion": "1"}}, 409, "the ResourceVersion in the precondition (1)"),
        ({"kind": "Pod"}, 400, "cannot be converted to DeleteOptions"),
        ([], 400, "not an object"),
    ],
)
async def test_options_of_deletions_are_checked(
    shared: Api, accounts: str, options: JSON, code: int, words: str
) -> None:
    before = await shared.get(accounts)
    refused = await shared.send("DELETE", f"{accounts}/a", options)
    assert refused.status_code == code, refused.text
    assert words in refused.json()["message"]
    if code in (400, 422):
        assert (await shared.send("DELETE", accounts, options)).status_code == code
    assert await shared.get(accounts) == before


@pytest.mark.parametrize("query", ["propagationPolicy=Sideways", "gracePeriodSeconds=soon", "dryRun=Some"])
async def test_options_of_deletions_may_stand_in_the_query(shared: Api, accounts: str, query: str) -> None:
    assert (await shared.send("DELETE", f"{accounts}/a?{query}")).status_code in (400, 422)
    assert names(await shared.get(accounts)) == ["a", "b", "c"]
    assert (await shared.send("DELETE", f"{accounts}/a?propagationPolicy=Background&gracePeriodSeconds=-5")).is_success
    assert names(await shared.get(accounts)) == ["b", "c"]


@pytest.mark.parametrize("policy", ["Foreground", "Background", "Orphan"])
async def test_every_propagation_policy_is_taken(shared: Api, accounts: str, policy: str) -> None:
    gone = await shared.send("DELETE", f"{accounts}/a", {"propagationPolicy": policy})
    assert (gone.status_code, gone.json()["kind"]) == (200, "ServiceAccount")


async def test_a_dry_run_of_each_verb_changes_nothing(shared: Api, accounts: str) -> None:
    before = await shared.get(accounts)
    labelled: Object = {"metadata": {"name": "a", "labels": {"new": "label"}}}
    requests: list[tuple[str, str, Object | None, int]] = [
        ("POST", accounts, {"metadata": {"name": "d"}}, 201),
        ("POST", accounts, {"metadata": {"generateName": "d"}}, 201),
        ("POST", accounts, {"metadata": {"name": "a"}}, 409),
        ("PUT", f"{accounts}/a", labelled, 200),
        ("PATCH", f"{accounts}/a", labelled, 200),
        ("DELETE", f"{accounts}/a", None, 200),
        ("DELETE", accounts, None, 200),
        ("DELETE", f"{accounts}/d", None, 404),
    ]
    for method, path, body, code in requests:
        headers = MERGE if method == "PATCH" else None
        answer = await shared.send(method, f"{path}?dryRun=All", body, headers=headers)
        assert answer.status_code == code, answer.text
        if method in ("PUT", "PATCH"):
            assert answer.json()["metadata"]["labels"] == ({"new": "label"} if method == "PUT" else
                                                           {"new": "label", "x": "a"})  # fmt: skip
    after = await shared.get(accounts)
    assert after["items"] == before["items"]


async def test_a_collection_is_deleted_page_by_page_and_as_selected(shared: Api, accounts: str) -> None:
    first = await shared.send("DELETE", f"{accounts}?limit=1")
    assert names(first.json()) == ["a"]
    assert first.json()["metadata"]["remainingItemCount"] == 2
    assert names((await shared.send("DELETE", f"{accounts}?fieldSelector=metadata.name%3Dc")).json()) == ["c"]
    assert names((await shared.send("DELETE", f"{accounts}?labelSelector=x+in+(q)")).json()) == []
    for query in ("resourceVersionMatch=Exact", "sendInitialEvents=true"):
        assert (await shared.send("DELETE", f"{accounts}?{query}")).status_code == 422
    assert (await shared.send("DELETE", f"{accounts}?labelSelector=%21%21")).status_code == 400
    assert names(await shared.get(accounts)) == ["b"]


async def test_many_objects_are_deleted_at_once_but_those_with_finalizers_stay(shared: Api, accounts: str) -> None:
    for number in range(120):
        kept: Object = {"finalizers": ["example.org/keep"]} if number % 40 == 0 else {}
        await shared.make(accounts, {"metadata": {"name": f"m{number}", **kept}})
    gone = await shared.send("DELETE", accounts)
    assert (gone.status_code, len(gone.json()["items"])) == (200, 123)
    left = await shared.get(accounts)
    assert names(left) == ["m0", "m40", "m80"]
    for name in names(left):
        held = await shared.get(f"{accounts}/{name}")
        assert section(held, "metadata")["deletionTimestamp"]
        added = await shared.send("PATCH", f"{accounts}/{name}", {"metadata": {"finalizers": ["a.b/c"]}}, headers=MERGE)
        assert (added.status_code, causes(added.json())) == (422, [("FieldValueForbidden", "metadata.finalizers")])
        freed = await shared.send("PATCH", f"{accounts}/{name}", {"metadata": {"finalizers": []}}, headers=MERGE)
        assert freed.status_code == 200
    assert names(await shared.get(accounts)) == []


async def test_an_update_must_name_its_object(shared: Api, accounts: str) -> None:
    for body, words in (
        ({"metadata": {"labels": {"a": "b"}}}, "name must be provided"),
        ({"metadata": {"name": "b"}}, "does not match the name on the URL"),
        ({"metadata": {"name": "a", "namespace": "other"}}, "does not match the namespace sent on the request"),
    ):
        refused = await shared.send("PUT", f"{accounts}/a", body)  # type: ignore[arg-type]
        assert (refused.status_code, refused.json()["reason"]) == (400, "BadRequest")
        assert words in refused.json()["message"]
    other = await shared.send("PUT", f"{accounts}/a", {"metadata": {"name": "a", "uid": "another"}})
    assert (other.status_code, other.json()["reason"]) == (409, "Conflict")
