"""What clients are told when the storage refuses, is away, or does not say whether it wrote."""

from collections.abc import Awaitable, Callable, Sequence

import httpx2
import pytest
from tests.protocol.api.conftest import Api

from onepass.api.meta import JSON, Object
from onepass.storage.interface import Op, OutcomeUnknown, StorageError, TooLarge, Unavailable

ACCOUNTS = "/api/v1/namespaces/default/serviceaccounts"
ACCOUNT: Object = {"metadata": {"name": "robot", "labels": {"a": "b"}}}
LOST = "whether the change was made is not known"

Commit = Callable[[Sequence[Op]], Awaitable[int]]


def refusing(error: StorageError) -> Commit:
    async def commit(_: Sequence[Op]) -> int:
        raise error

    return commit


@pytest.mark.parametrize(
    ("error", "code", "reason", "message", "retry_after"),
    [
        (TooLarge("e0: request is too large"), 413, "RequestEntityTooLarge", "Request entity too large", None),
        (Unavailable("e0: no leader"), 503, "ServiceUnavailable", "please try again", "1"),
        (OutcomeUnknown("e0: request timed out"), 503, "ServiceUnavailable", LOST, None),
    ],
    ids=["too-large", "not-done", "not-known"],
)
@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE"])
async def test_what_a_write_is_told(
    api: Api,
    monkeypatch: pytest.MonkeyPatch,
    method: str,
    error: StorageError,
    code: int,
    reason: str,
    message: str,
    retry_after: str | None,
) -> None:
    if method != "POST":
        await api.make(ACCOUNTS, ACCOUNT)
    monkeypatch.setattr(api.storage, "commit", refusing(error))
    path = ACCOUNTS if method == "POST" else f"{ACCOUNTS}/robot"
    body: JSON = None if method == "DELETE" else {"metadata": {"name": "robot", "labels": {"a": "c"}}}
    headers = {"content-type": "application/merge-patch+json"} if method == "PATCH" else None
    answer = await api.send(method, path, body, headers=headers)
    told = answer.json()
    assert (answer.status_code, told["kind"], told["reason"]) == (code, "Status", reason)
    assert message in told["message"]
    assert "e0" not in answer.text, "where the storage is, is nobody's business"
    assert answer.headers.get("retry-after") == retry_after
    monkeypatch.undo()
    found = await api.send("GET", f"{ACCOUNTS}/robot")
    assert found.status_code == (404 if method == "POST" else 200)
    if method != "POST":
        assert found.json()["metadata"]["labels"] == {"a": "b"}


async def test_reads_may_be_tried_again(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    async def away(*_: object, **__: object) -> object:
        raise Unavailable("e0: it does not answer")

    monkeypatch.setattr(api.storage, "get", away)
    monkeypatch.setattr(api.storage, "range", away)
    answers: list[httpx2.Response] = [await api.send("GET", path) for path in (ACCOUNTS, f"{ACCOUNTS}/default")]
    for answer in answers:
        told = (answer.status_code, answer.json()["reason"], answer.headers["retry-after"])
        assert told == (503, "ServiceUnavailable", "1")


async def test_kubectl_sends_nothing_twice_that_may_have_been_done(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    """client-go sends a request of any kind again after a 5xx with Retry-After, also one that makes its own name."""
    commit = api.storage.commit

    async def lost(ops: Sequence[Op]) -> int:
        await commit(ops)
        raise OutcomeUnknown("e0: it does not answer")

    monkeypatch.setattr(api.storage, "commit", lost)
    made = '{"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"generateName": "robot-"}}'
    told = await api.kubectl("create", "--validate=false", "-f", "-", given=made, fails=True)
    assert LOST in told
    items = (await api.get(ACCOUNTS))["items"]
    assert isinstance(items, list)
    assert len([each for each in items if "robot-" in str(each)]) == 1


async def test_kubectl_tries_again_what_was_surely_not_done(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    commit, refusals = api.storage.commit, [Unavailable("e0: no leader")]

    async def later(ops: Sequence[Op]) -> int:
        if refusals:
            raise refusals.pop()
        return await commit(ops)

    monkeypatch.setattr(api.storage, "commit", later)
    await api.kubectl("create", "serviceaccount", "robot")
    assert (await api.get(f"{ACCOUNTS}/robot"))["kind"] == "ServiceAccount"
