"""Bodies in and out: JSON and YAML, and the choice between them that a client makes with its Accept header."""

import gzip
import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import orjson
import yaml
from starlette.datastructures import Headers
from starlette.requests import Request
from starlette.responses import Response

from onepass.api import errors, yamltext
from onepass.api.meta import JSON, Object
from onepass.apiserver import protobuf

JSON_TYPE = "application/json"
YAML_TYPE = "application/yaml"
OFFERED = (JSON_TYPE, YAML_TYPE)

_ALIASES = {"*/*": JSON_TYPE, "application/*": JSON_TYPE, "application/x-yaml": YAML_TYPE, "text/yaml": YAML_TYPE}
_META = frozenset({"v1", "v1beta1"})
_COMPRESSED_FROM = 128 * 1024  # as kube-apiserver: below it, compressing costs more than it saves
_TRUE = frozenset({"1", "t", "T", "TRUE", "true", "True"})  # Go's strconv.ParseBool
_LAST = 1e-9
_NODES = 500_000  # of a YAML document with its aliases expanded


@dataclass(frozen=True, slots=True)
class Media:
    """A representation: a media type, and what the object is turned into on the way (`as`), "" for nothing."""

    type: str = JSON_TYPE
    kind: str = ""
    group: str = ""
    version: str = ""

    @property
    def content_type(self) -> str:
        if not self.kind or self.group == "meta.k8s.io":
            return self.type
        return f"{self.type};g={self.group};v={self.version};as={self.kind}"


def negotiate(accept: str, kinds: Mapping[str, str] | None = None, types: tuple[str, ...] = OFFERED) -> Media:
    """The first representation in an Accept header that is offered. Raises not_acceptable.

    `kinds` are the transformations offered: kind -> group.
    """
    for kind, parameters in _clauses(accept or "*/*"):
        media_type = _ALIASES.get(kind, kind)
        if media_type not in types:
            continue
        wanted, streamed = parameters.get("as", ""), parameters.get("stream", "")
        if streamed not in ("", "watch"):
            continue
        if not {"as", "g", "v"} & parameters.keys():
            return Media(media_type)
        group, version = parameters.get("g", ""), parameters.get("v", "")
        versions = _META if group == "meta.k8s.io" else {"v2"}
        if kinds is not None and kinds.get(wanted) == group and version in versions:
            return Media(media_type, wanted, group, version)
    raise errors.not_acceptable(types)


def _clauses(accept: str) -> Iterator[tuple[str, dict[str, str]]]:
    found = []
    for clause in accept.split(","):
        kind, *rest = (part.strip() for part in clause.split(";"))
        parameters = {key.strip(): value.strip() for key, _, value in (part.partition("=") for part in rest)}
        weight = _weight(parameters.get("q", "1"))
        if weight > 0:
            found.append((weight, kind.lower(), parameters))
    # Of clauses with one weight, what is named comes before what is meant by a star.
    for _, kind, parameters in sorted(found, key=lambda clause: (-clause[0], "*" in clause[1])):
        yield kind, parameters


def _weight(text: str) -> float:
    """A quality value; what has one that cannot be read comes last, as with a real server."""
    try:
        weight = float(text)
    except ValueError:
        return _LAST
    return weight if math.isfinite(weight) else _LAST


def dump(value: JSON, media: Media | None = None, *, pretty: bool = False) -> bytes:
    if media is not None and media.type == YAML_TYPE:
        return yamltext.dump(value, sort_keys=True).encode()
    return orjson.dumps(value, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE if pretty else None)


def respond(
    request: Request,
    value: JSON,
    *,
    media: Media | None = None,
    code: int = 200,
    headers: Mapping[str, str] | None = None,
) -> Response:
    """A whole answer, compressed where that pays and the client takes it."""
    media = media or Media()
    asked = request.query_params.get("pretty")
    pretty = asked in _TRUE if asked else _is_for_people(request.headers)
    return compressed(request, dump(value, media, pretty=pretty), media.content_type, code=code, headers=headers)


def compressed(
    request: Request, body: bytes, content_type: str, *, code: int = 200, headers: Mapping[str, str] | None = None
) -> Response:
    """As `respond`, for what is bytes already."""
    sent = {"Cache-Control": "no-cache, private", **(headers or {})}
    if len(body) >= _COMPRESSED_FROM and "gzip" in request.headers.get("accept-encoding", ""):
        body = gzip.compress(body, compresslevel=1)
        varies = [sent[key] for key in ("Vary",) if key in sent]
        sent |= {"Content-Encoding": "gzip", "Vary": ", ".join([*varies, "Accept-Encoding"])}
    return Response(body, code, sent, media_type=content_type)


def _is_for_people(headers: Headers) -> bool:
    return headers.get("user-agent", "").startswith(("curl", "Wget", "Mozilla"))


async def read(request: Request, limit: int) -> bytes:
    """The body of a request. Raises too_large before more than `limit` bytes are kept."""
    declared = request.headers.get("content-length", "0")
    too_large = errors.too_large(f"Request entity too large: limit is {limit}")
    if declared.isdigit() and int(declared) > limit:
        raise too_large
    chunks: list[bytes] = []
    size = 0
    async for chunk in request.stream():
        size += len(chunk)
        if size > limit:
            raise too_large
        chunks.append(chunk)
    return b"".join(chunks)


def media_type(request: Request) -> str:
    """The media type of the body, without parameters; JSON when nothing is said, as kube-apiserver has it."""
    return request.headers.get("content-type", JSON_TYPE).partition(";")[0].strip().lower() or JSON_TYPE


def canonical(kind: str) -> str:
    """The one name of a media type that has several."""
    return _ALIASES.get(kind, kind)


def load(body: bytes, kind: str, depth: int) -> JSON:
    """A parsed body of the media type `kind`. Raises bad_request and unsupported_media_type."""
    kind = canonical(kind)
    if kind == YAML_TYPE:
        return _load_yaml(body, depth)
    if kind == protobuf.TYPE:
        return protobuf.decode(body)
    if kind != JSON_TYPE:
        raise errors.unsupported_media_type(OFFERED)
    try:
        value: JSON = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise errors.bad_request(f"the body of the request is not valid JSON: {error}") from error
    _check_depth(value, depth)
    return value


def load_object(body: bytes, kind: str, depth: int) -> Object:
    """As `load`, for a body that must be an object."""
    value = load(body, kind, depth)
    if not isinstance(value, dict):
        raise errors.bad_request("the body of the request is not an object")
    return value


def _too_deep(depth: int) -> errors.ApiError:
    return errors.bad_request(f"the body of the request is nested more than {depth} levels deep")


def _check_depth(value: JSON, depth: int) -> None:
    level = [value]
    for _ in range(depth + 1):
        level = [child for node in level for child in _children(node) if isinstance(child, (dict, list))]
        if not level:
            return
    raise _too_deep(depth)


def _children(node: JSON) -> Iterator[JSON]:
    if isinstance(node, dict):
        yield from node.values()
    elif isinstance(node, list):
        yield from node


class _Loader(yaml.CSafeLoader):
    """YAML as Kubernetes reads it: no dates, no numbers in base 60, nothing that JSON could not say."""


_Loader.yaml_implicit_resolvers = {}
for _tag, _pattern, _first in (
    ("bool", r"yes|Yes|YES|no|No|NO|true|True|TRUE|false|False|FALSE|on|On|ON|off|Off|OFF", "yYnNtTfFoO"),
    ("int", r"[-+]?(?:0|[1-9][0-9]*|0x[0-9a-fA-F]+|0b[01]+|0[0-7]+)", "-+0123456789"),
    ("float", r"[-+]?(?:[0-9]+\.[0-9]*|\.[0-9]+|[0-9]+(?=[eE]))(?:[eE][-+]?[0-9]+)?", "-+.0123456789"),
    ("null", r"~|null|Null|NULL|", ["~", "n", "N", ""]),
    ("merge", r"<<", "<"),
):
    _Loader.add_implicit_resolver(f"tag:yaml.org,2002:{_tag}", re.compile(f"^(?:{_pattern})$"), list(_first))


def _load_yaml(body: bytes, depth: int) -> JSON:
    try:
        _check_yaml_depth(body, depth)
        value: object = yaml.load(body, Loader=_Loader)  # noqa: S506  a safe loader with fewer types
        return _plain(value, depth, [_NODES])
    except (yaml.YAMLError, UnicodeDecodeError, ValueError, RecursionError) as error:
        raise errors.bad_request(f"the body of the request is not valid YAML: {error}") from error


def _check_yaml_depth(body: bytes, depth: int) -> None:
    """libyaml's loader recurses in C, and a deep document would end the process."""
    level = 0
    for event in yaml.parse(body, Loader=_Loader):
        level += isinstance(event, yaml.CollectionStartEvent)
        level -= isinstance(event, yaml.CollectionEndEvent)
        if level > depth:
            raise _too_deep(depth)


def _plain(value: object, depth: int, left: list[int]) -> JSON:
    """The same in the types of JSON; `left` counts down, because aliases make a small text a large document."""
    left[0] -= 1
    if left[0] < 0:
        raise errors.bad_request("the body of the request has too many nodes")
    if depth < 0:
        raise errors.bad_request("the body of the request is nested too deeply")
    if value is None or isinstance(value, (bool, int, str)) or (isinstance(value, float) and math.isfinite(value)):
        return value
    if isinstance(value, list):
        return [_plain(item, depth - 1, left) for item in value]
    if isinstance(value, dict):
        return {_key(key): _plain(item, depth - 1, left) for key, item in value.items()}
    raise errors.bad_request(f"the body of the request has a value that JSON does not have: {type(value).__name__}")


def _key(key: object) -> str:
    if isinstance(key, bool):
        return str(key).lower()
    if isinstance(key, (str, int, float)):
        return str(key)
    raise errors.bad_request("the body of the request has a key that is not a string")
