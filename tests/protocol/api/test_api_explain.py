"""kubectl explain of every kind to the leaves, from both versions of OpenAPI."""

import asyncio
import re

import pytest
from tests.protocol.api.conftest import Api

from onepass.api.meta import Object, section

pytestmark = pytest.mark.asyncio(loop_scope="module")

PROTOBUF = "application/com.github.proto-openapi.spec.v2@v1.0+protobuf"


def fields(told: str) -> list[tuple[int, str]]:
    """Depth and name of every field that an explanation lists."""
    _, _, listed = told.partition("FIELDS:")
    return [(len(found[1]), found[2]) for found in re.finditer(r"(?m)^( +)(\w+)\t<", listed)]


def known(schemas: Object, schema: Object) -> list[str]:
    """Every field below a schema, in the order in which kubectl tells them."""
    reference = schema.get("$ref")
    if isinstance(reference, str):
        return known(schemas, section(schemas, reference.rpartition("/")[2]))
    whole = schema.get("allOf")
    if isinstance(whole, list):
        return [name for part in whole if isinstance(part, dict) for name in known(schemas, part)]
    found: list[str] = []
    for key, part in sorted(section(schema, "properties").items()):
        assert isinstance(part, dict)
        found += [key, *known(schemas, part)]
    for key in ("items", "additionalProperties"):
        if key in schema:
            found += known(schemas, section(schema, key))
    return found


async def test_every_kind_is_explained_to_the_leaves_by_either_version(shared: Api) -> None:
    index = await shared.get("/openapi/v3")
    asked: list[tuple[str, str, list[str]]] = []
    for place in section(index, "paths"):
        document = await shared.get(f"/openapi/v3/{place}")
        schemas = section(section(document, "components"), "schemas")
        resources = (await shared.get(f"/{place}"))["resources"]
        assert isinstance(resources, list)
        for resource in resources:
            assert isinstance(resource, dict)
            named = [s for s in schemas.values() if isinstance(s, dict) and _is(s, place, resource["kind"])]
            if "/" not in str(resource["name"]):
                version = place.removeprefix("apis/").removeprefix("api/")
                asked.append((str(resource["name"]), version, known(schemas, named[0])))
    assert len(asked) > 12
    turns = asyncio.Semaphore(3)

    async def explained(name: str, version: str, output: str) -> str:
        async with turns:
            options = ("--recursive", f"--api-version={version}", f"--output={output}")
            return await shared.kubectl("explain", name, *options)

    async with asyncio.TaskGroup() as group:
        newer = [group.create_task(explained(name, version, "plaintext")) for name, version, _ in asked]
        older = [group.create_task(explained(name, version, "plaintext-openapiv2")) for name, version, _ in asked]
    for (name, _, expected), new, old in zip(asked, newer, older, strict=True):
        assert "DESCRIPTION:" in new.result()
        assert "<no description>" not in new.result(), name
        assert sorted(field for _, field in fields(new.result())) == sorted(expected), name
        assert sorted(field for _, field in fields(old.result())) == sorted(expected), name


def _is(schema: Object, place: str, kind: object) -> bool:
    kinds = schema.get("x-kubernetes-group-version-kind")
    group = place.split("/")[1] if place.startswith("apis/") else ""
    version = place.rpartition("/")[2]
    return kinds == [{"group": group, "version": version, "kind": kind}]


async def test_each_encoding_of_version_2_is_kept_by_its_etag(shared: Api) -> None:
    for accept, content_type in (
        (PROTOBUF, PROTOBUF.replace("@", ".")),
        (PROTOBUF.replace("@", "."), PROTOBUF.replace("@", ".")),
        ("application/json", "application/json"),
        ("*/*", "application/json"),
    ):
        answer = await shared.send("GET", "/openapi/v2", headers={"accept": accept})
        assert (answer.status_code, answer.headers["content-type"]) == (200, content_type)
        assert "Accept" in answer.headers["vary"]
        kept = {"accept": accept, "if-none-match": answer.headers["etag"]}
        again = await shared.send("GET", "/openapi/v2", headers=kept)
        assert (again.status_code, again.content) == (304, b"")
    assert (await shared.send("GET", "/openapi/v2", headers={"accept": "text/html"})).status_code == 406


async def test_a_document_of_version_3_never_changes_under_its_hash(shared: Api) -> None:
    for place, entry in section(await shared.get("/openapi/v3"), "paths").items():
        assert isinstance(entry, dict)
        url = str(entry["serverRelativeURL"])
        answer = await shared.send("GET", url)
        assert answer.headers["cache-control"] == "public, immutable, max-age=31536000"
        assert f'"{url.partition("?hash=")[2]}"' == answer.headers["etag"]
        again = await shared.send("GET", url, headers={"if-none-match": answer.headers["etag"]})
        assert (again.status_code, again.content) == (304, b"")
        # Under another hash, or none, it may change: what was kept has to be asked for again.
        for query in ("", "?hash=OLD"):
            other = await shared.send("GET", f"/openapi/v3/{place}{query}")
            assert (other.status_code, other.headers["cache-control"]) == (200, "no-cache, private")
    assert (await shared.send("GET", "/openapi/v3/api/v1", headers={"accept": "text/html"})).status_code == 406
