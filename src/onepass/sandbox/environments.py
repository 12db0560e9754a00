"""The environment of a container, from its spec: plain values, fields of the pod, keys of ConfigMaps and Secrets."""

import base64
import re
from collections.abc import Awaitable, Callable, Mapping

from onepass.api import meta
from onepass.api.errors import ApiError
from onepass.api.meta import Object
from onepass.sandbox.pods import maps

# The ConfigMap or Secret ("configmaps" or "secrets") of a name; raises ApiError.
Fetch = Callable[[str, str], Awaitable[Object]]

_REFERENCE = re.compile(r"\$(\$)?\(([-._a-zA-Z][-._a-zA-Z0-9]*)\)")
_LABEL = re.compile(r"metadata\.(labels|annotations)\['(.+)'\]")


class Unset(Exception):
    """A variable has no value: what it refers to is missing."""


async def variables(container: Object, pod: Object, fetch: Fetch) -> dict[str, str]:
    """The variables that a container sets, later ones over earlier ones. Raises Unset."""
    found: dict[str, str] = {}
    for source in maps(container.get("envFrom")):
        found |= await _whole(source, fetch)
    for env in maps(container.get("env")):
        source = meta.section(env, "valueFrom")
        value = await _value(source, pod, fetch) if source else expand(meta.text(env, "value"), found)
        if value is not None:
            found[meta.text(env, "name")] = value
    return found


def expand(text: str, known: Mapping[str, str]) -> str:
    """`$(NAME)` replaced by its value where it is known, `$$(NAME)` by `$(NAME)` (core/v1 EnvVar)."""

    def replace(match: re.Match[str]) -> str:
        escaped, name = match.groups()
        return f"$({name})" if escaped else known.get(name, match[0])

    return _REFERENCE.sub(replace, text)


async def _whole(source: Object, fetch: Fetch) -> dict[str, str]:
    prefix = meta.text(source, "prefix")
    for field, kind in (("configMapRef", "configmaps"), ("secretRef", "secrets")):
        reference = meta.section(source, field)
        if not reference:
            continue
        obj = await _fetched(reference, kind, fetch)
        return {prefix + key: _read(obj, key, kind) for key in meta.section(obj, "data")} if obj else {}
    return {}


async def _value(source: Object, pod: Object, fetch: Fetch) -> str | None:
    if field := meta.section(source, "fieldRef"):
        return _field(meta.text(field, "fieldPath"), pod)
    for field_name, kind in (("configMapKeyRef", "configmaps"), ("secretKeyRef", "secrets")):
        reference = meta.section(source, field_name)
        if not reference:
            continue
        obj, key = await _fetched(reference, kind, fetch), meta.text(reference, "key")
        if obj is not None and key in meta.section(obj, "data"):
            return _read(obj, key, kind)
        if reference.get("optional") is True:
            return None
        raise Unset(f"couldn't find key {key} in {kind[:-1]} {meta.text(reference, 'name')}")
    raise Unset("the sandbox knows fieldRef, configMapKeyRef and secretKeyRef as sources of variables")


async def _fetched(reference: Object, kind: str, fetch: Fetch) -> Object | None:
    try:
        return await fetch(kind, meta.text(reference, "name"))
    except ApiError as error:
        if error.code == 404 and reference.get("optional") is True:
            return None
        raise Unset(error.message) from error


def _read(obj: Object, key: str, kind: str) -> str:
    value = str(meta.section(obj, "data")[key])
    return base64.b64decode(value).decode(errors="replace") if kind == "secrets" else value


def _field(path: str, pod: Object) -> str:
    spec, metadata = meta.section(pod, "spec"), meta.section(pod, "metadata")
    if match := _LABEL.fullmatch(path):
        return meta.text(meta.section(metadata, match[1]), match[2])
    known = {
        "metadata.name": meta.name(pod),
        "metadata.namespace": meta.namespace(pod),
        "metadata.uid": meta.uid(pod),
        "spec.nodeName": meta.text(spec, "nodeName"),
        "spec.serviceAccountName": meta.text(spec, "serviceAccountName"),
        "status.podIP": "127.0.0.1",
        "status.hostIP": "127.0.0.1",
    }
    if path not in known:
        raise Unset(f"unsupported fieldPath: {path}")
    return known[path]
