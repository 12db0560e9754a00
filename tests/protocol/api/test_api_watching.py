"""Watches, as one long answer, and how they end."""

import asyncio
import contextlib
import json
from collections.abc import AsyncGenerator, AsyncIterator

import pytest
from starlette.types import Message
from tests.protocol.api.conftest import DEADLINE, Api

from onepass.api.meta import Object
from onepass.apiserver.watching import Stream
from onepass.registry.store import Event

ACCOUNTS = "/api/v1/namespaces/default/serviceaccounts"
TABLE = "application/json;as=Table;v=v1;g=meta.k8s.io"
PARTIAL = "application/json;as=PartialObjectMetadata;v=v1;g=meta.k8s.io"


def account(name: str, **labels: str) -> Object:
    return {"metadata": {"name": name, "labels": dict(labels)}}


@contextlib.asynccontextmanager
async def watching(api: Api, query: str, accept: str = "application/json") -> AsyncGenerator[AsyncIterator[Object]]:
    async with (
        asyncio.timeout(DEADLINE),
        api.client.stream("GET", f"{ACCOUNTS}?watch=1&{query}", headers={"accept": accept}) as answer,
    ):
        assert answer.status_code == 200

        async def events() -> AsyncGenerator[Object]:
            async for line in answer.aiter_lines():
                yield json.loads(line)

        async with contextlib.aclosing(events()) as told:
            yield told


def name(event: Object) -> str:
    return str(event["object"]["metadata"]["name"])  # type: ignore[index, call-overload]


async def test_changes_are_told_as_they_come(api: Api) -> None:
    version = (await api.get(ACCOUNTS))["metadata"]["resourceVersion"]  # type: ignore[index, call-overload]
    async with watching(api, f"resourceVersion={version}") as events:
        made = await api.make(ACCOUNTS, account("robot"))
        added = await anext(events)
        assert (added["type"], added["object"]) == ("ADDED", made)
        await api.send("PUT", f"{ACCOUNTS}/robot", account("robot", a="b"))
        assert (await anext(events))["type"] == "MODIFIED"
        await api.send("DELETE", f"{ACCOUNTS}/robot")
        assert (await anext(events))["type"] == "DELETED"


async def test_a_watch_begins_with_what_is_there_and_sees_what_it_selects(api: Api) -> None:
    await api.make(ACCOUNTS, account("a", see="yes"))
    await api.make(ACCOUNTS, account("b"))
    async with watching(api, "labelSelector=see%3Dyes") as events:
        assert name(await anext(events)) == "a"
        await api.send("PUT", f"{ACCOUNTS}/b", account("b", see="yes"))
        entered = await anext(events)
        assert (entered["type"], name(entered)) == ("ADDED", "b")
        await api.send("PUT", f"{ACCOUNTS}/a", account("a"))
        left = await anext(events)
        assert (left["type"], name(left)) == ("DELETED", "a")


async def test_initial_events_end_with_a_bookmark(api: Api) -> None:
    await api.make(ACCOUNTS, account("a"))
    query = "sendInitialEvents=true&allowWatchBookmarks=true&resourceVersionMatch=NotOlderThan"
    async with watching(api, query) as events:
        assert name(await anext(events)) == "a"
        end = await anext(events)
        assert end["type"] == "BOOKMARK"
        assert end["object"]["metadata"]["annotations"] == {"k8s.io/initial-events-end": "true"}  # type: ignore[index, call-overload]


async def test_a_watch_without_initial_events_begins_now(api: Api) -> None:
    await api.make(ACCOUNTS, account("a"))
    async with watching(api, "sendInitialEvents=false&resourceVersionMatch=NotOlderThan") as events:
        await api.make(ACCOUNTS, account("b"))
        assert name(await anext(events)) == "b"


async def test_rows_are_headed_once(api: Api) -> None:
    await api.make(ACCOUNTS, account("a"))
    await api.make(ACCOUNTS, account("b"))
    async with watching(api, "", TABLE) as events:
        first, second = (await anext(events))["object"], (await anext(events))["object"]
        assert [bool(table["columnDefinitions"]) for table in (first, second)] == [True, False]  # type: ignore[index, call-overload]
        assert [table["rows"][0]["cells"][0] for table in (first, second)] == ["a", "b"]  # type: ignore[index, call-overload]
    async with watching(api, "", PARTIAL) as events:
        assert (await anext(events))["object"]["kind"] == "PartialObjectMetadata"  # type: ignore[index, call-overload]


async def test_a_version_that_is_not_of_this_storage_ends_the_watch_with_an_error_event(api: Api) -> None:
    async with watching(api, "resourceVersion=999999999") as events:
        told = await anext(events)
        assert told["type"] == "ERROR"
        assert (told["object"]["code"], told["object"]["reason"]) == (410, "Expired")  # type: ignore[index, call-overload]
        with pytest.raises(StopAsyncIteration):
            await anext(events)


async def test_a_watch_ends_when_its_time_is_up(api: Api) -> None:
    async with watching(api, "timeoutSeconds=1") as events:
        assert [event async for event in events] == []


@pytest.mark.parametrize(
    "query",
    ["labelSelector=%21%21", "timeoutSeconds=soon", "resourceVersion=latest", "fieldSelector=spec.x%3Dy"],
)
async def test_options_that_cannot_be_are_refused_before_the_stream_begins(api: Api, query: str) -> None:
    assert (await api.send("GET", f"{ACCOUNTS}?watch=1&{query}")).status_code == 400


async def test_yaml_cannot_be_streamed(api: Api) -> None:
    answer = await api.send("GET", f"{ACCOUNTS}?watch=1", headers={"accept": "application/yaml"})
    assert answer.status_code == 406


async def test_a_closing_server_ends_its_watches(api: Api) -> None:
    async with watching(api, "resourceVersion=1") as events:
        api.application.state.closing.set()
        assert [event async for event in events] == []


async def test_an_open_watch_is_counted(api: Api) -> None:
    await api.make(ACCOUNTS, account("a"))
    async with watching(api, "") as events:
        await anext(events)
        told = (await api.send("GET", "/metrics")).text
        labels = 'group="",resource="serviceaccounts",scope="namespace",subresource="",verb="WATCH",version="v1"'
        assert f'apiserver_longrunning_requests{{component="apiserver",{labels}}} 1.0' in told
        assert 'apiserver_watch_events_total{group="",resource="serviceaccounts",version="v1"} 1.0' in told


async def test_the_iterator_of_the_store_is_closed_when_the_client_goes() -> None:
    begun, closed = asyncio.Event(), asyncio.Event()

    async def quiet() -> AsyncGenerator[Event]:
        try:
            begun.set()
            await asyncio.Event().wait()
            yield Event("ADDED", {})
        finally:
            closed.set()

    async def receive() -> Message:
        await begun.wait()
        return {"type": "http.disconnect"}

    async def send(_message: Message) -> None: ...

    stream = Stream(quiet(), lambda event: event.obj, 60, asyncio.Event())
    async with asyncio.timeout(DEADLINE):
        await stream({"type": "http"}, receive, send)
    assert closed.is_set()
