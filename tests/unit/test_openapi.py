"""The schemas that the API tells: described to the leaves, and the same in every version and encoding."""

from collections.abc import Iterator
from typing import cast

import pytest

from onepass.api.meta import Object, section
from onepass.apiserver import openapiv2, reviewers
from onepass.apiserver.endpoints import Endpoints
from onepass.apiserver.openapi import OpenAPI
from onepass.apiserver.ports import Authorizer, VersionInfo
from onepass.registry import catalog
from onepass.registry.store import Store
from onepass.registry.strategy import Strategy
from onepass.sandbox import kinds
from onepass.storage.interface import Storage


class Nothing:
    """Neither sealed nor read here."""

    def seal(self, secret: bytes, context: bytes) -> bytes:
        raise NotImplementedError

    def unseal(self, sealed: bytes, context: bytes) -> bytes:
        raise NotImplementedError


async def _unknown(_token: str, _audiences: object) -> None:
    return None


def _made(strategies: tuple[Strategy, ...]) -> OpenAPI:
    stores = [Store(cast(Storage, None), strategy, sealer=Nothing()) for strategy in strategies]
    kindless = reviewers.every(cast(Authorizer, None), _unknown)
    return OpenAPI(Endpoints(stores, [], kindless), VersionInfo("1", "36", "v1.36.0"))


@pytest.fixture(params=["gateway", "member"])
def told(request: pytest.FixtureRequest) -> OpenAPI:
    return _made(catalog.gateway() if request.param == "gateway" else kinds.member("node"))


Leaf = tuple[str, Object]


def leaves(schemas: Object, schema: Object, path: str, within: frozenset[str]) -> Iterator[Leaf]:
    """Every field below a schema, with its path, through references, lists and maps."""
    reference = schema.get("$ref")
    if isinstance(reference, str):
        name = reference.rpartition("/")[2]
        if name not in within:
            yield from leaves(schemas, section(schemas, name), path, within | {name})
    whole = schema.get("allOf")
    for part in whole if isinstance(whole, list) else []:
        assert isinstance(part, dict)
        yield from leaves(schemas, part, path, within)
    for key, part in section(schema, "properties").items():
        assert isinstance(part, dict)
        yield f"{path}.{key}", part
        yield from leaves(schemas, part, f"{path}.{key}", within)
    for key in ("items", "additionalProperties"):
        if key in schema:
            yield from leaves(schemas, section(schema, key), f"{path}[]", within)


def kinds_of(schemas: Object) -> Iterator[tuple[str, Object]]:
    for name, schema in schemas.items():
        assert isinstance(schema, dict)
        if "x-kubernetes-group-version-kind" in schema:
            yield name, schema


def test_every_field_of_every_kind_is_described(told: OpenAPI) -> None:
    seen = 0
    for document in told.documents.values():
        schemas = section(section(document, "components"), "schemas")
        for name, schema in kinds_of(schemas):
            assert schema.get("description"), name
            for path, leaf in leaves(schemas, schema, name, frozenset({name})):
                description = leaf.get("description")
                assert isinstance(description, str), f"{path} has no description"
                assert len(description.split()) > 1 or "." in description, f"{path}: {description}"
                seen += 1
    assert seen > 300


def test_version_2_tells_the_same_fields_as_version_3(told: OpenAPI) -> None:
    definitions = section(told.swagger, "definitions")
    for document in told.documents.values():
        schemas = section(section(document, "components"), "schemas")
        for name, schema in schemas.items():
            assert isinstance(schema, dict)
            found = section(definitions, name)
            if schema.get("additionalProperties") is True:
                # A client of version 2 would refuse what is not among the properties.
                assert "properties" not in found
                assert found["x-kubernetes-preserve-unknown-fields"] is True
            else:
                assert section(found, "properties").keys() == section(schema, "properties").keys(), name


def test_version_2_has_only_what_swagger_has(told: OpenAPI) -> None:
    def check(node: object) -> None:
        if isinstance(node, dict):
            assert not {"anyOf", "oneOf", "allOf", "nullable", "$defs"} & node.keys()
            assert not str(node.get("$ref", "#/definitions/")).startswith("#/components")
            for part in node.values():
                check(part)
        elif isinstance(node, list):
            for part in node:
                check(part)

    check(told.swagger)


def test_protobuf_says_what_json_says(told: OpenAPI) -> None:
    document = openapiv2.decode(told.encoded)
    named = {entry.name: entry.value for entry in document.definitions.additional_properties}  # type: ignore[attr-defined]
    definitions = section(told.swagger, "definitions")
    assert named.keys() == definitions.keys()
    for name, schema in named.items():
        expected = section(definitions, name)
        assert schema.description == expected.get("description", "")
        assert [*schema.required] == expected.get("required", [])
        properties = {entry.name: entry.value for entry in schema.properties.additional_properties}
        assert properties.keys() == section(expected, "properties").keys()
        for key, part in properties.items():
            wanted = section(section(expected, "properties"), key)
            assert (part._ref, part.description) == (wanted.get("$ref", ""), wanted.get("description", ""))
            assert [*part.type.value] == ([wanted["type"]] if "type" in wanted else [])
            extensions = {extension.name for extension in part.vendor_extension}
            assert extensions == {word for word in wanted if word.startswith("x-")}
    paths = {entry.name: entry.value for entry in document.paths.path}  # type: ignore[attr-defined]
    assert paths.keys() == section(told.swagger, "paths").keys()
    assert told.encoded == openapiv2.encode(told.swagger)
