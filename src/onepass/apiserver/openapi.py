"""OpenAPI, made of the models of the kinds: v3 a document a group and version, v2 one for all.

https://kubernetes.io/docs/concepts/overview/kubernetes-api/#openapi-interface-definition. What kubectl reads of it:
the schemas (`explain`), and on each PATCH the kind and the parameters `fieldValidation` and `dryRun`, from which it
concludes that the server validates and that a dry run is safe (k8s.io/cli-runtime/pkg/resource).
"""

import hashlib
from collections.abc import Mapping
from functools import cache, cached_property

from pydantic import BaseModel
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from onepass.api import errors, meta
from onepass.api.meta import Object, Resource
from onepass.apiserver import encoding, openapiv2, patches
from onepass.apiserver.endpoints import Endpoints, base
from onepass.apiserver.ports import VersionInfo

_REFERENCE = "#/components/schemas/"
_NOT_IN_OPENAPI = ("$defs", "title", "const", "examples")
_PATHS = (
    # action, method, on one object, verb that must be served
    ("list", "get", False, "list"),
    ("post", "post", False, "create"),
    ("deletecollection", "delete", False, "deletecollection"),
    ("get", "get", True, "get"),
    ("put", "put", True, "update"),
    ("patch", "patch", True, "patch"),
    ("delete", "delete", True, "delete"),
)
_WRITES = {"dryRun": "string", "fieldManager": "string", "fieldValidation": "string"}
_LISTS = {
    "allowWatchBookmarks": "boolean",
    "continue": "string",
    "fieldSelector": "string",
    "labelSelector": "string",
    "limit": "integer",
    "resourceVersion": "string",
    "resourceVersionMatch": "string",
    "sendInitialEvents": "boolean",
    "timeoutSeconds": "integer",
    "watch": "boolean",
}
_DELETES = {"dryRun": "string", "gracePeriodSeconds": "integer", "propagationPolicy": "string"}
_PARAMETERS: Mapping[str, Mapping[str, str]] = {
    "list": _LISTS,
    "post": _WRITES,
    "put": _WRITES,
    "patch": {**_WRITES, "force": "boolean"},
    "delete": _DELETES,
    "deletecollection": {**_LISTS, **_DELETES},
    "get": {},
}


class OpenAPI:
    """The documents of one server, made when first asked for."""

    def __init__(self, endpoints: Endpoints, version: VersionInfo) -> None:
        self.endpoints = endpoints
        self.info: Object = {"title": "OnePass", "version": version.git_version}

    def routes(self) -> list[Route]:
        return [
            Route("/openapi/v3", self.index),
            Route("/openapi/v3/{place:path}", self.document),
            Route("/openapi/v2", self.whole),
        ]

    async def index(self, request: Request) -> Response:
        paths: Object = {
            place: {"serverRelativeURL": f"/openapi/v3/{place}?hash={_hash(document)}"}
            for place, document in self.documents.items()
        }
        return encoding.respond(request, {"paths": paths})

    async def document(self, request: Request) -> Response:
        document = self.documents.get(request.path_params["place"])
        if document is None:
            raise errors.no_such_path()
        etag = f'"{_hash(document)}"'
        # The index names each document with its hash, so what has the right one never changes.
        fixed = request.query_params.get("hash") == _hash(document)
        cached = "public, immutable, max-age=31536000" if fixed else "no-cache, private"
        headers = {"ETag": etag, "Cache-Control": cached, "Vary": "Accept"}
        if request.headers.get("if-none-match") == etag:
            return Response(status_code=304, headers=headers)
        encoding.negotiate(request.headers.get("accept", ""), types=(encoding.JSON_TYPE,))
        return encoding.respond(request, document, headers=headers)

    async def whole(self, request: Request) -> Response:
        binary = openapiv2.PROTOBUF in request.headers.get("accept", "").replace("@", ".")
        etag = f'"{_hash(self.swagger)}"'
        headers = {"ETag": etag, "Cache-Control": "no-cache, private", "Vary": "Accept"}
        if request.headers.get("if-none-match") == etag:
            return Response(status_code=304, headers=headers)
        if binary:
            return encoding.compressed(request, self.encoded, openapiv2.PROTOBUF, headers=headers)
        encoding.negotiate(request.headers.get("accept", ""), types=(encoding.JSON_TYPE,))
        return encoding.respond(request, self.swagger, headers=headers)

    @cached_property
    def documents(self) -> dict[str, Object]:
        """By place: `api/v1`, `apis/GROUP/VERSION`."""
        found: dict[str, Object] = {}
        for versions in self.endpoints.groups().values():
            for resources in versions.values():
                paths: Object = {}
                schemas: Object = {}
                for resource in resources:
                    schemas |= self._schemas(resource)
                    paths |= self._paths(resource)
                found[base(resources[0]).removeprefix("/")] = {
                    "openapi": "3.0.0",
                    "info": self.info,
                    "paths": paths,
                    "components": {"schemas": schemas},
                }
        return found

    @cached_property
    def swagger(self) -> Object:
        return openapiv2.document(self.info, self.documents)

    @cached_property
    def encoded(self) -> bytes:
        return openapiv2.encode(self.swagger)

    def _model(self, resource: Resource) -> type[BaseModel]:
        place = (resource.group, resource.version, resource.plural)
        store = self.endpoints.stores.get(place)
        return store.strategy.model if store is not None else self.endpoints.kindless[place].model

    def _schemas(self, resource: Resource) -> Object:
        own, parts = _of_model(self._model(resource), _prefix(resource))
        own["x-kubernetes-group-version-kind"] = [_kind(resource)]
        name = _name(resource)
        found: Object = {name: own, **parts}
        if (resource.group, resource.version, resource.plural) in self.endpoints.stores:
            found[f"{name}List"] = _list_schema(resource)
        for connect in self.endpoints.connects_of(resource):
            if connect.model is not None:
                schema, parts = _of_model(connect.model, _prefix(resource))
                found |= {f"{_prefix(resource)}{connect.kind}": schema, **parts}
        return found

    def _paths(self, resource: Resource) -> Object:
        place = (resource.group, resource.version, resource.plural)
        store = self.endpoints.stores.get(place)
        verbs = store.strategy.verbs if store is not None else ("create",)
        path = base(resource) + ("/namespaces/{namespace}" if resource.namespaced else "") + f"/{resource.plural}"
        found: Object = {}
        for one in (False, True):
            served = [row for row in _PATHS if row[2] is one and row[3] in verbs]
            if served:
                found[path + ("/{name}" if one else "")] = _item(resource, served, one)
        if resource.namespaced and "list" in verbs:
            everywhere = Resource(resource.group, resource.version, resource.kind, resource.plural, "", False)
            found[f"{base(resource)}/{resource.plural}"] = _item(everywhere, [_PATHS[0]], False)
        for name in store.strategy.subresources if store is not None else ():
            rows = [row for row in _PATHS if row[0] in ("get", "put", "patch")]
            found[f"{path}/{{name}}/{name}"] = _item(resource, rows, True, name)
        for connect in self.endpoints.connects_of(resource):
            rows = [row for row in (_PATHS[3], ("post", "post", True, "")) if row[1].upper() in connect.methods]
            reference = f"{_prefix(resource)}{connect.kind}" if connect.model is not None else ""
            found[f"{path}/{{name}}/{connect.name}"] = _item(resource, rows, True, connect.name, reference)
        return found


def _item(
    resource: Resource,
    rows: list[tuple[str, str, bool, str]],
    one: bool,
    subresource: str = "",
    reference: str | None = None,
) -> Object:
    """A path item: its operations, and the parameters in the path."""
    name = reference if reference is not None else _name(resource)
    item: Object = {}
    for action, method, _, _ in rows:
        answer = f"{name}List" if action in ("list", "deletecollection") else name
        whole = _title(subresource) + ("Namespaced" if resource.namespaced else "")
        operation: Object = {
            "operationId": f"{action}{_title(resource.group.partition('.')[0] or 'core')}"
            f"{_title(resource.version)}{whole}{resource.kind}",
            "tags": [f"{resource.group.replace('.', '_') or 'core'}_{resource.version}"],
            "parameters": [_parameter(key, "query", kind) for key, kind in _PARAMETERS[action].items()],
            "responses": {"200": {"description": "OK", "content": _content(answer, encoding.OFFERED)}},
            "x-kubernetes-action": action,
            "x-kubernetes-group-version-kind": _kind(resource),
        }
        if action in ("post", "put"):
            operation["requestBody"] = {"required": True, "content": _content(name, ("*/*",))}
        if action == "patch":
            operation["requestBody"] = {"required": True, "content": _content("", patches.ACCEPTED)}
        item[method] = operation
    in_path = (["namespace"] if resource.namespaced else []) + (["name"] if one else [])
    item["parameters"] = [_parameter(key, "path", "string") for key in in_path]
    return item


def _parameter(name: str, place: str, kind: str) -> Object:
    told: Object = {"name": name, "in": place, "schema": {"type": kind, "uniqueItems": True}}
    return {**told, "required": True} if place == "path" else told


def _content(name: str, types: tuple[str, ...]) -> Object:
    schema: Object = {"$ref": f"{_REFERENCE}{name}"} if name else {"type": "object"}
    return {media: {"schema": schema} for media in types}


def _list_schema(resource: Resource) -> Object:
    metadata: Object = {
        "type": "object",
        "description": "Metadata of the list.",
        "properties": {
            "resourceVersion": {"type": "string", "description": "The version of the store that the list shows."},
            "continue": {"type": "string", "description": "Names the next page; empty on the last one."},
            "remainingItemCount": {
                "type": "integer",
                "format": "int64",
                "description": "How many objects come after this page, where that is known.",
            },
        },
    }
    return {
        "type": "object",
        "description": f"A list of {resource.kind} objects.",
        "required": ["items"],
        "properties": {
            "apiVersion": {"type": "string", "description": "The versioned schema of this list."},
            "kind": {"type": "string", "description": f"{resource.kind}List."},
            "metadata": metadata,
            "items": {
                "type": "array",
                "description": "The objects.",
                "items": {"$ref": f"{_REFERENCE}{_name(resource)}"},
            },
        },
        "x-kubernetes-group-version-kind": [{**_kind(resource), "kind": f"{resource.kind}List"}],
    }


@cache
def _schema(model: type[BaseModel]) -> Object:
    schema: Object = model.model_json_schema(by_alias=True, ref_template=_REFERENCE + "{model}")
    return schema


def _of_model(model: type[BaseModel], prefix: str) -> tuple[Object, Object]:
    """The schema of a model, and those that it refers to by their names."""
    schema = _schema(model)
    parts = {
        f"{prefix}{key}": _told(part, prefix)
        for key, part in meta.section(schema, "$defs").items()
        if isinstance(part, dict)
    }
    return _told(schema, prefix), dict(parts)


def _told(node: Object, prefix: str) -> Object:
    """JSON schema as OpenAPI 3.0 has it: no null type, no constants, no titles that only repeat the name."""
    told: Object = {}
    for key, value in node.items():
        if key == "properties" and isinstance(value, dict):
            told[key] = {name: _told(part, prefix) for name, part in value.items() if isinstance(part, dict)}
        elif key == "$ref" and isinstance(value, str):
            told[key] = value.replace(_REFERENCE, f"{_REFERENCE}{prefix}")
        elif key in ("items", "additionalProperties") and isinstance(value, dict):
            told[key] = _told(value, prefix)
        elif key in ("anyOf", "oneOf", "allOf") and isinstance(value, list):
            parts = [_told(part, prefix) for part in value if isinstance(part, dict) and part.get("type") != "null"]
            if len(parts) > 1:
                told[key] = [*parts]
            elif "$ref" in parts[0]:
                told["allOf"] = [*parts]
            else:
                told = {**parts[0], **told}
        elif key not in _NOT_IN_OPENAPI and not (key == "default" and value in (None, "")):
            told[key] = value
    if told.get("type") == "array":
        told.setdefault("x-kubernetes-list-type", "atomic")  # which is what it is without a word
    # A reference stands alone in OpenAPI 3.0; what is said beside it needs allOf.
    if "$ref" in told and len(told) > 1:
        told["allOf"] = [{"$ref": told.pop("$ref")}]
    return told


def _prefix(resource: Resource) -> str:
    return ".".join([*reversed((resource.group or "core").split(".")), resource.version, ""])


def _name(resource: Resource) -> str:
    return f"{_prefix(resource)}{resource.kind}"


def _kind(resource: Resource) -> Object:
    return {"group": resource.group, "version": resource.version, "kind": resource.kind}


def _title(word: str) -> str:
    return word[:1].upper() + word[1:]


def _hash(document: Object) -> str:
    return hashlib.sha256(encoding.dump(document)).hexdigest().upper()
