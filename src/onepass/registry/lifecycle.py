"""What a write does to the metadata of any object (k8s.io/apiserver/pkg/registry/rest).

Pure: times, names and uids come in. Who manages which field is told in `fieldowners`.
"""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime

from onepass.api import errors, meta
from onepass.api.errors import Cause
from onepass.api.meta import JSON, Object
from onepass.registry import causes, names
from onepass.registry.fields import ownership
from onepass.registry.strategy import Strategy

# What a client may send but never decides. The rest of the metadata is the client's.
_SERVERS = (
    "uid",
    "creationTimestamp",
    "deletionTimestamp",
    "deletionGracePeriodSeconds",
    "generation",
    "resourceVersion",
    "managedFields",
    "selfLink",
)


def timestamp(seconds: float) -> str:
    """Unix seconds as Kubernetes writes a time: RFC 3339 in UTC, to the second."""
    return datetime.fromtimestamp(int(seconds), UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def typed(strategy: Strategy, obj: Object, namespace: str) -> Object:
    """The object under its own apiVersion, kind and namespace. Raises bad_request when it names others."""
    resource = strategy.resource
    metadata = meta.section(obj, "metadata")
    for key, expected, what in (
        ("apiVersion", resource.api_version, "API version"),
        ("kind", resource.kind, "kind"),
    ):
        given = obj.get(key) or expected
        if given != expected:
            raise errors.bad_request(
                f"the {what} in the data ({given}) does not match the expected {what} ({expected})"
            )
    if resource.namespaced and metadata.get("namespace", namespace) not in ("", None, namespace):
        raise errors.bad_request(
            "the namespace of the provided object does not match the namespace sent on the request"
        )
    if resource.namespaced and not namespace:
        raise errors.bad_request("an empty namespace may not be set when a resource name is provided")
    kept: Object = {
        k: v
        for k, v in metadata.items()
        if k != "namespace"
        and (v not in ("", None, {}, []) or (k == "managedFields" and v == []))  # [] asks for a reset
    }
    placed: Object = {"namespace": namespace} if resource.namespaced else {}
    rest = {k: v for k, v in obj.items() if k not in ("apiVersion", "kind", "metadata")}
    return {"apiVersion": resource.api_version, "kind": resource.kind, "metadata": {**kept, **placed}, **rest}


def born(strategy: Strategy, obj: Object, *, uid: str, now: float) -> Object:
    """A new object as its creator may make it: without what the server or a subresource decides."""
    metadata = {k: v for k, v in meta.section(obj, "metadata").items() if k not in _SERVERS}
    metadata |= {"uid": uid, "creationTimestamp": timestamp(now)}
    if counts_generations(strategy):
        metadata["generation"] = 1
    made: Object = {**obj, "metadata": metadata}
    for owned in strategy.subresources.values():
        for path in owned:
            made = _with(made, path.split("."), None)
    return made


def merged(strategy: Strategy, old: Object, new: Object, subresource: str) -> Object:
    """What a write through the object, or through one of its subresources, may change; the rest stays as stored."""
    if subresource:
        ours = {k: v for k, v in meta.section(old, "metadata").items() if k != "managedFields"}
        result: Object = {**old, "metadata": ours}
        for path in strategy.subresources[subresource]:
            result = _with(result, path.split("."), _at(new, path.split(".")))
        return result
    result = new
    for owned in strategy.subresources.values():
        for path in owned:
            result = _with(result, path.split("."), _at(old, path.split(".")))
    theirs = {k: v for k, v in meta.section(new, "metadata").items() if k not in _SERVERS}
    ours = {k: v for k, v in meta.section(old, "metadata").items() if k in _SERVERS and k != "managedFields"}
    return {**result, "metadata": {**theirs, **ours}}


def counted(strategy: Strategy, old: Object, new: Object) -> Object:
    """The object with its generation one higher when more than metadata and status has changed."""
    return new if _desired(old) == _desired(new) else recounted(strategy, old, new)


def recounted(strategy: Strategy, old: Object, new: Object) -> Object:
    """The object with a generation one higher than before."""
    if not counts_generations(strategy):
        return new
    metadata = meta.section(new, "metadata")
    before = meta.section(old, "metadata").get("generation")
    return {**new, "metadata": {**metadata, "generation": (before if isinstance(before, int) else 0) + 1}}


def counts_generations(strategy: Strategy) -> bool:
    return strategy.generations and "spec" in strategy.model.model_fields


def dying(obj: Object, *, now: float, grace: int) -> Object:
    """The object marked for deletion. A later mark may shorten the time that is left, never lengthen it."""
    metadata = meta.section(obj, "metadata")
    left = metadata.get("deletionGracePeriodSeconds")
    if "deletionTimestamp" in metadata and isinstance(left, int) and left <= grace:
        return obj
    marked: Object = {"deletionTimestamp": timestamp(now + grace), "deletionGracePeriodSeconds": grace}
    before = metadata.get("generation")
    if isinstance(before, int) and "deletionTimestamp" not in metadata:
        marked["generation"] = before + 1  # to be gone is a change of what is wanted
    return {**obj, "metadata": {**metadata, **marked}}


def unmarked(gone: Object, before: Object) -> Object:
    """What a deletion answers of an object that went at once: it is only marked where it has to wait for something."""
    had = meta.section(before, "metadata")
    marks = [mark for mark in ("deletionTimestamp", "deletionGracePeriodSeconds") if mark not in had]
    return {**gone, "metadata": {k: v for k, v in meta.section(gone, "metadata").items() if k not in marks}}


def finished(obj: Object) -> bool:
    """Whether nothing keeps a marked object any longer."""
    metadata = meta.section(obj, "metadata")
    return (
        "deletionTimestamp" in metadata
        and not metadata.get("finalizers")
        and not metadata.get("deletionGracePeriodSeconds")
    )


def check(strategy: Strategy, obj: Object, old: Object | None) -> Sequence[Cause]:
    """What is wrong with the metadata."""
    metadata = meta.section(obj, "metadata")
    wrong: list[Cause] = []
    if old is None:
        name = meta.text(metadata, "name")
        wrong += [causes.invalid("metadata.name", name, p) for p in names.check(strategy.name_rule, name)]
        if strategy.resource.namespaced:
            where = meta.namespace(obj)
            wrong += [causes.invalid("metadata.namespace", where, p) for p in names.label(where)]
    for key, value in meta.labels(obj).items():
        wrong += [causes.invalid("metadata.labels", key, p) for p in names.qualified(key)]
        wrong += [causes.invalid("metadata.labels", value, p) for p in names.label_value(value)]
    wrong += _annotations(meta.annotations(obj))
    wrong += _finalizers(metadata, meta.section(old or {}, "metadata"))
    owners = metadata.get("ownerReferences")
    for index, owner in enumerate(owners if isinstance(owners, list) else []):
        for key in ("apiVersion", "kind", "name", "uid"):
            if isinstance(owner, dict) and not owner.get(key):
                wrong.append(causes.required(f"metadata.ownerReferences[{index}].{key}", "must not be empty"))
    return wrong


def _annotations(annotations: Mapping[str, str]) -> list[Cause]:
    wrong = [
        causes.invalid("metadata.annotations", key, problem)
        for key in annotations
        for problem in names.qualified(key.lower())
    ]
    if sum(len(k.encode()) + len(v.encode()) for k, v in annotations.items()) > ownership.MOST_ANNOTATED:
        wrong.append(causes.too_long("metadata.annotations", ownership.MOST_ANNOTATED))
    return wrong


def _finalizers(metadata: Object, before: Object) -> list[Cause]:
    given = _strings(metadata.get("finalizers"))
    wrong = [causes.invalid("metadata.finalizers", f, p) for f in given for p in names.qualified(f)]
    known = frozenset(_strings(before.get("finalizers")))
    added = [f for f in given if f not in known]
    if added and "deletionTimestamp" in before:
        told = ", ".join(f'"{f}"' for f in added)
        wrong.append(
            causes.forbidden(
                "metadata.finalizers",
                "no new finalizers can be added if the object is being deleted, "
                f"found new finalizers []string{{{told}}}",
            )
        )
    return wrong


def _strings(value: JSON) -> list[str]:
    return [v for v in value if isinstance(v, str)] if isinstance(value, list) else []


def _desired(obj: Object) -> Object:
    return {k: v for k, v in obj.items() if k not in ("metadata", "status")}


def _at(obj: Object, path: Sequence[str]) -> JSON:
    value: JSON = obj
    for step in path:
        value = value.get(step) if isinstance(value, dict) else None
    return value


def _with(obj: Object, path: Sequence[str], value: JSON) -> Object:
    """A copy with `value` at `path`; None takes the field away."""
    step, rest = path[0], path[1:]
    if not rest:
        without = {k: v for k, v in obj.items() if k != step}
        return without if value is None else {**without, step: value}
    if step not in obj and value is None:
        return obj
    return {**obj, step: _with(meta.section(obj, step), rest, value)}
