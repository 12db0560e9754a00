"""Requests that are answered and forgotten: kinds that are only ever created (ports.Kindless)."""

import itertools
from collections.abc import Iterable

from starlette.requests import Request
from starlette.responses import Response

from onepass.access.identity import Identity
from onepass.api import errors
from onepass.api.meta import Object
from onepass.apiserver import encoding, parameters, reading, strictness
from onepass.apiserver.ports import Kindless, Limits
from onepass.registry import schema

_WARNINGS, _WARNED = 40, 4096  # headers, and characters in all of them


async def answered(kind: Kindless, request: Request, limits: Limits, namespace: str) -> Response:
    """The answer to the question in the body. Raises what the kind raises, and errors of encoding and schema."""
    media = encoding.negotiate(request.headers.get("accept", ""))
    asker: Identity = request.scope["identity"]
    validation = parameters.write(parameters.query(request.scope), asker, "", 0, verb="create").field_validation
    kind_sent = encoding.media_type(request)

    def how(body: bytes) -> tuple[Object, tuple[str, ...]]:
        obj = encoding.load_object(body, kind_sent, limits.depth)
        conformed, unknown = schema.conform(kind.model, kind.resource, _named(kind, obj))
        told = schema.warnings(unknown) if validation != "Ignore" else ()
        return conformed, (*strictness.asked(validation, body, kind_sent), *told)

    conformed, odd = await reading.read(await encoding.read(request, limits.body), how)
    if odd and validation == "Strict":
        raise schema.strict(kind.resource, odd)
    answer = await kind.answer(conformed, asker, namespace)
    return warned(encoding.respond(request, answer, media=media, code=201), odd)


def _named(kind: Kindless, obj: Object) -> Object:
    """The question with its kind, and without what a client left in the place of the answer."""
    for key, expected in (("apiVersion", kind.resource.api_version), ("kind", kind.resource.kind)):
        if (obj.get(key) or expected) != expected:
            raise errors.bad_request(f"{key} in the data does not match the expected {expected}")
        obj[key] = expected
    obj.pop("status", None)
    return obj


def warned(response: Response, warnings: Iterable[str]) -> Response:
    """With a Warning header each (RFC 7234, section 5.5), which kubectl prints; as many as a proxy lets through.

    kube-apiserver stops at 4,096 characters (k8s.io/apiserver/pkg/endpoints/filters/warning.go); Envoy takes no answer
    with more than 100 headers.
    """
    left = _WARNED
    for warning in itertools.islice(warnings, _WARNINGS):
        text = warning.encode("ascii", "backslashreplace").decode().replace("\\", "\\\\").replace('"', '\\"')
        told = "".join(c for c in text if c.isprintable())[:1000]
        left -= len(told)
        if left < 0:
            break
        response.headers.append("Warning", f'299 - "{told}"')
    return response
