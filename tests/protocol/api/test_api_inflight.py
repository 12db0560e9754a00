"""How many requests are answered at a time, and what those get that are too many."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator

import pytest
from tests.protocol.api.conftest import DEADLINE, Api

from onepass.apiserver.ports import Limits

ACCOUNTS = "/api/v1/namespaces/default/serviceaccounts"


@pytest.fixture
def limits() -> Limits:
    return Limits(writing=1, reading=1)


@pytest.fixture
async def bob(api: Api) -> str:
    """A user who may do everything, but is no administrator."""
    await api.make(
        "/apis/rbac.authorization.k8s.io/v1/clusterrolebindings",
        {
            "metadata": {"name": "bob"},
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "cluster-admin"},
            "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": "bob"}],
        },
    )
    return "bob"


async def held_back(begun: asyncio.Event, go_on: asyncio.Event) -> AsyncIterator[bytes]:
    body = json.dumps({"metadata": {"name": "slow"}}).encode()
    yield body[:5]
    begun.set()
    await go_on.wait()
    yield body[5:]


async def test_too_many_writes_are_turned_away_and_nothing_else_is(api: Api, bob: str) -> None:
    begun, go_on = asyncio.Event(), asyncio.Event()
    slow = asyncio.create_task(
        api.client.post(
            ACCOUNTS,
            content=held_back(begun, go_on),
            headers={"content-type": "application/json", "x-remote-user": bob},
        )
    )
    async with asyncio.timeout(DEADLINE):
        await begun.wait()
        while 'request_kind="mutating"} 1.0' not in (await api.send("GET", "/metrics")).text:
            pass
        refused = await api.send("POST", ACCOUNTS, {"metadata": {"name": "other"}}, user=bob)
        told = refused.json()
        assert (refused.status_code, told["reason"], told["code"]) == (429, "TooManyRequests", 429)
        assert (refused.headers["retry-after"], told["details"]["retryAfterSeconds"]) == ("1", 1)
        assert told["message"] == "Too many requests, please try again later."
        # Reads have a bound of their own, and an administrator always gets through.
        assert (await api.send("GET", ACCOUNTS, user=bob)).status_code == 200
        assert (await api.send("POST", ACCOUNTS, {"metadata": {"name": "urgent"}})).status_code == 201
        go_on.set()
        assert (await slow).status_code == 201
        assert (await api.send("POST", ACCOUNTS, {"metadata": {"name": "other"}}, user=bob)).status_code == 201
    metrics = (await api.send("GET", "/metrics")).text
    labels = 'group="",resource="serviceaccounts",scope="namespace",subresource="",verb="POST",version="v1"'
    assert f'apiserver_request_terminations_total{{code="429",component="apiserver",{labels}}} 1.0' in metrics


async def test_watches_and_health_do_not_count(api: Api, bob: str) -> None:
    async with asyncio.timeout(DEADLINE), contextlib.AsyncExitStack() as stack:
        for _ in range(4):
            asked = api.client.stream("GET", f"{ACCOUNTS}?watch=1", headers={"x-remote-user": bob})
            watch = await stack.enter_async_context(asked)
            assert watch.status_code == 200
        while 'verb="WATCH",version="v1"} 4.0' not in (await api.send("GET", "/metrics")).text:
            pass
        assert (await api.send("GET", ACCOUNTS, user=bob)).status_code == 200


async def test_a_client_that_goes_frees_its_place(api: Api, bob: str) -> None:
    for _ in range(3):
        _, writer = await asyncio.open_connection("127.0.0.1", api.port)
        writer.write(
            f"POST {ACCOUNTS} HTTP/1.1\r\nHost: x\r\nX-Remote-User: {bob}\r\nContent-Length: 100\r\n\r\n{{".encode()
        )
        async with asyncio.timeout(DEADLINE):
            while 'request_kind="mutating"} 1.0' not in (await api.send("GET", "/metrics")).text:
                pass
            writer.close()
            await writer.wait_closed()
            while 'request_kind="mutating"} 0.0' not in (await api.send("GET", "/metrics")).text:
                pass
