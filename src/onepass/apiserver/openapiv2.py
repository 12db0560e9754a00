"""The OpenAPI document of version 2: made from those of version 3, as JSON and as the protobuf that clients ask for.

Old kubectl validates and explains with it, and every kubectl falls back to it for a kind that version 3 does not tell
of. What version 2 cannot say is left out so that such a client refuses nothing that the server takes, as the publishing
of CustomResourceDefinitions does (k8s.io/apiextensions-apiserver/pkg/controller/openapi/v2). The messages are gnostic's
(https://github.com/google/gnostic-models/blob/main/openapiv2/OpenAPIv2.proto): the part of them that is used here.
"""

import re
from collections.abc import Iterator, Mapping
from functools import cache

import orjson
from google.protobuf import message_factory
from google.protobuf.message import Message

from onepass.api import meta
from onepass.api.meta import JSON, Object
from onepass.apiserver import protobuf

PROTOBUF = "application/com.github.proto-openapi.spec.v2.v1.0+protobuf"

# Of a kind that has no PATCH, such as a SubjectAccessReview, kubectl asks here. Where namespaces are validated by the
# server it then lists CustomResourceDefinitions, and fails on one that has none (cli-runtime's QueryParamVerifier).
# Without this parameter it validates such a kind, and with an old kubectl a namespace, by itself.
_TRUSTED, _VALIDATION = {"group": "", "version": "v1", "kind": "Namespace"}, "fieldValidation"
_V3, _V2 = "#/components/schemas/", "#/definitions/"
_OPEN = "x-kubernetes-preserve-unknown-fields"
_KNOWN = frozenset({"type", "format", "description", "default", "pattern", "required", "enum", "minimum", "maximum",
                    "minLength", "maxLength", "minItems", "maxItems", "uniqueItems"})  # fmt: skip
# As in wireformat: field=number:type, a list in brackets.
_MESSAGES: Mapping[str, str] = {
    "Document": "swagger=1 info=2:Info paths=8:Paths definitions=9:Definitions",
    "Info": "title=1 version=2",
    "Paths": "path=2:[NamedPathItem]",
    "NamedPathItem": "name=1 value=2:PathItem",
    "PathItem": "get=2:Operation put=3:Operation post=4:Operation delete=5:Operation patch=8:Operation "
    "parameters=9:[ParametersItem]",
    "Operation": "tags=1:[] summary=2 description=3 operation_id=5 produces=6:[] consumes=7:[] "
    "parameters=8:[ParametersItem] responses=9:Responses vendor_extension=13:[NamedAny]",
    "ParametersItem": "parameter=1:Parameter",
    "Parameter": "body_parameter=1:BodyParameter non_body_parameter=2:NonBodyParameter",
    "BodyParameter": "description=1 name=2 in=3 required=4:bool schema=5:Schema",
    "NonBodyParameter": "query_parameter_sub_schema=3:QueryParameter path_parameter_sub_schema=4:PathParameter",
    "QueryParameter": "required=1:bool in=2 description=3 name=4 type=6 unique_items=20:bool",
    "PathParameter": "required=1:bool in=2 description=3 name=4 type=5 unique_items=19:bool",
    "Responses": "response_code=1:[NamedResponse]",
    "NamedResponse": "name=1 value=2:ResponseValue",
    "ResponseValue": "response=1:Response",
    "Response": "description=1 schema=2:SchemaItem",
    "SchemaItem": "schema=1:Schema",
    "Definitions": "additional_properties=1:[NamedSchema]",
    "Properties": "additional_properties=1:[NamedSchema]",
    "NamedSchema": "name=1 value=2:Schema",
    "Schema": "_ref=1 format=2 description=4 default=5:Any maximum=7:double minimum=9:double "
    "max_length=11:int min_length=12:int pattern=13 max_items=14:int min_items=15:int unique_items=16:bool "
    "required=19:[] enum=20:[Any] "
    "additional_properties=21:Additional type=22:Strings items=23:Items properties=25:Properties "
    "vendor_extension=31:[NamedAny]",
    "Additional": "schema=1:Schema boolean=2:bool",
    "Strings": "value=1:[]",
    "Items": "schema=1:[Schema]",
    "NamedAny": "name=1 value=2:Any",
    "Any": "yaml=2",
}


def document(info: Object, documents: Mapping[str, Object]) -> Object:
    """The document of version 2 that tells of every group and version, as JSON."""
    definitions: Object = {}
    paths: Object = {}
    for told in documents.values():
        schemas = meta.section(meta.section(told, "components"), "schemas")
        definitions |= {name: _schema(part) for name, part in schemas.items() if isinstance(part, dict)}
        for path, item in meta.section(told, "paths").items():
            paths[path] = _path(item if isinstance(item, dict) else {})
    return {"swagger": "2.0", "info": info, "paths": paths, "definitions": definitions}


def _schema(node: Object) -> Object:
    """A schema without what version 2 does not have."""
    told: Object = {key: value for key, value in node.items() if key in _KNOWN or key.startswith("x-")}
    reference = node.get("$ref")
    whole = node.get("allOf")
    if isinstance(whole, list) and len(whole) == 1 and isinstance(whole[0], dict):
        reference = whole[0].get("$ref", reference)  # with a description beside it, which kubectl reads there
    if isinstance(reference, str):
        return {"$ref": reference.replace(_V3, _V2), **told}
    either = node.get("anyOf") or node.get("oneOf")
    if isinstance(either, list) and {str(part.get("type")) for part in either if isinstance(part, dict)} == {
        "integer",
        "string",
    }:
        return {**told, "type": "string", "format": "int-or-string"}
    more = node.get("additionalProperties")
    properties = meta.section(node, "properties")
    if properties and more in (None, False):
        told["properties"] = {key: _schema(part) for key, part in properties.items() if isinstance(part, dict)}
    elif properties:
        # A client would take the properties for all that there are.
        told.pop("required", None)
        told[_OPEN] = True
    elif isinstance(more, dict):
        told["additionalProperties"] = _schema(more)
    items = node.get("items")
    if isinstance(items, dict):
        told["items"] = _schema(items)
    return told


def _path(item: Object) -> Object:
    told: Object = {}
    for method, operation in item.items():
        if method == "parameters" or not isinstance(operation, dict):
            told[method] = [*_parameters(operation)]
            continue
        kept = {k: v for k, v in operation.items() if k not in ("requestBody", "responses", "parameters")}
        parameters: list[Object] = [*_parameters(operation.get("parameters"))]
        if method == "patch" and operation.get("x-kubernetes-group-version-kind") == _TRUSTED:
            parameters = [each for each in parameters if each.get("name") != _VALIDATION]
        content = meta.section(meta.section(operation, "requestBody"), "content")
        if content:
            schema = meta.section(next(part for part in content.values() if isinstance(part, dict)), "schema")
            parameters.append({"name": "body", "in": "body", "required": True, "schema": _schema(schema)})
            kept["consumes"] = [*content]
        answer = meta.section(meta.section(meta.section(operation, "responses"), "200"), "content")
        schema = meta.section(meta.section(answer, "application/json"), "schema")
        kept["responses"] = {"200": {"description": "OK", "schema": _schema(schema)}}
        told[method] = {**kept, "produces": [*answer], "parameters": [*parameters]}
    return told


def _parameters(parameters: JSON) -> Iterator[Object]:
    for parameter in parameters if isinstance(parameters, list) else []:
        if isinstance(parameter, dict):
            rest = {k: v for k, v in parameter.items() if k != "schema"}
            yield {**rest, **meta.section(parameter, "schema")}


def encode(document: Object) -> bytes:
    """The document in protobuf."""
    told: Object = {
        **document,
        "paths": {"path": _named(meta.section(document, "paths"), _path_message)},
        "definitions": {"additional_properties": _named(meta.section(document, "definitions"), _schema_message)},
    }
    return _filled(_document(), told).SerializeToString(deterministic=True)


def _named(parts: Object, turn: "object") -> list[JSON]:
    assert callable(turn)
    return [{"name": name, "value": turn(part)} for name, part in parts.items() if isinstance(part, dict)]


def _path_message(item: Object) -> Object:
    told: Object = {}
    for key, value in item.items():
        if key == "parameters":
            told[key] = _parameter_messages(value)
        elif isinstance(value, dict):
            told[key] = _operation_message(value)
    return told


def _operation_message(operation: Object) -> Object:
    responses = meta.section(operation, "responses")
    told: Object = {
        "tags": operation.get("tags") or [],
        "description": meta.text(operation, "description"),
        "operation_id": meta.text(operation, "operationId"),
        "produces": operation.get("produces") or [],
        "consumes": operation.get("consumes") or [],
        "parameters": _parameter_messages(operation.get("parameters")),
        "responses": {"response_code": _named(responses, _response_message)},
        "vendor_extension": _extensions(operation),
    }
    return told


def _response_message(response: Object) -> Object:
    schema = _schema_message(meta.section(response, "schema"))
    return {"response": {"description": meta.text(response, "description"), "schema": {"schema": schema}}}


def _parameter_messages(parameters: JSON) -> list[JSON]:
    found: list[JSON] = []
    for parameter in parameters if isinstance(parameters, list) else []:
        if not isinstance(parameter, dict):
            continue
        place = meta.text(parameter, "in")
        if place == "body":
            body = {**parameter, "schema": _schema_message(meta.section(parameter, "schema"))}
            found.append({"parameter": {"body_parameter": body}})
        else:
            kept = {_snake(key): value for key, value in parameter.items()}
            found.append({"parameter": {"non_body_parameter": {f"{place}_parameter_sub_schema": kept}}})
    return found


def _schema_message(schema: Object) -> Object:
    told: Object = {"vendor_extension": _extensions(schema)}
    for key, value in schema.items():
        if key == "$ref":
            told["_ref"] = value
        elif key == "type":
            told["type"] = {"value": [value]}
        elif key == "default":
            told["default"] = {"yaml": _yaml(value)}
        elif key == "enum" and isinstance(value, list):
            told["enum"] = [{"yaml": _yaml(item)} for item in value]
        elif key == "items" and isinstance(value, dict):
            told["items"] = {"schema": [_schema_message(value)]}
        elif key == "additionalProperties" and isinstance(value, dict):
            told["additional_properties"] = {"schema": _schema_message(value)}
        elif key == "properties" and isinstance(value, dict):
            told["properties"] = {"additional_properties": _named(value, _schema_message)}
        elif not key.startswith("x-"):
            told[_snake(key)] = value
    return told


def _extensions(node: Object) -> list[JSON]:
    return [{"name": key, "value": {"yaml": _yaml(value)}} for key, value in node.items() if key.startswith("x-")]


def _yaml(value: JSON) -> str:
    """JSON is YAML."""
    return orjson.dumps(value).decode() + "\n"


def _snake(key: str) -> str:
    return re.sub(r"[A-Z]", lambda found: f"_{found[0].lower()}", key)


def _filled(message: Message, told: Object) -> Message:
    """`message` with the fields that are told; a name that it does not have is a KeyError."""
    for key, value in told.items():
        field = message.DESCRIPTOR.fields_by_name[key]
        if field.is_repeated:
            into = getattr(message, key)
            for item in value if isinstance(value, list) else []:
                if isinstance(item, dict):
                    _filled(into.add(), item)
                else:
                    into.append(item)
        elif isinstance(value, dict):
            part = getattr(message, key)
            part.SetInParent()  # an empty one is there all the same
            _filled(part, value)
        else:
            setattr(message, key, value)
    return message


@cache
def _type() -> type[Message]:
    pool = protobuf.pool("openapi.v2", _MESSAGES)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("openapi.v2.Document"))


def _document() -> Message:
    return _type()()


def decode(body: bytes) -> Message:
    """The message in a body, for whoever wants to look at it."""
    return _type().FromString(body)
