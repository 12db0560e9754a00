"""What only a strict reading of a body refuses: keys that are given twice (fieldValidation, KEP-2885).

https://kubernetes.io/docs/reference/using-api/api-concepts/#setting-the-field-validation-level. Worded as
sigs.k8s.io/json and go-yaml word it. Fields that a kind does not have are found in `registry.schema`.
"""

import json
from collections.abc import Iterator

import yaml

from onepass.api.meta import JSON
from onepass.apiserver import encoding, patches

_PATCHES = (patches.JSON_PATCH, patches.MERGE_PATCH, patches.STRATEGIC)
_OPERATION = frozenset({"op", "path", "from", "value"})


def asked(validation: str, body: bytes, kind: str) -> tuple[str, ...]:
    """As `odd`, unless the client asks for `fieldValidation=Ignore`."""
    return () if validation == "Ignore" else odd(body, kind)


def odd(body: bytes, kind: str) -> tuple[str, ...]:
    """What is odd in a body of the media type `kind` that `encoding.load` or `patches.parse` takes, as warnings."""
    kind = encoding.canonical(kind)
    if kind == patches.APPLY or kind == encoding.YAML_TYPE:
        # Most clients send JSON, in which no key twice is quickly told; the words are those of YAML all the same.
        if body.lstrip().startswith(b"{") and not _is_yaml_odd(body):
            return ()
        return tuple(_doubled_lines(body))
    if kind != encoding.JSON_TYPE and kind not in _PATCHES:
        return ()
    found = _doubled_fields(body)
    if kind != patches.JSON_PATCH:
        return tuple(found)
    return tuple(f"json patch {told}" for told in (*found, *_unknown_operations(body)))


def _is_yaml_odd(body: bytes) -> bool:
    try:
        return bool(_doubled_fields(body))
    except ValueError:  # a flow mapping of YAML is no JSON
        return True


def _doubled_fields(body: bytes) -> list[str]:
    doubled: dict[int, list[str]] = {}
    kept: list[object] = []  # so that no id is given twice

    def make(pairs: list[tuple[str, JSON]]) -> dict[str, JSON]:
        made = dict(pairs)
        if len(made) < len(pairs):
            seen: set[str] = set()
            doubled[id(made)] = [key for key, _ in pairs if key in seen or seen.add(key)]  # type: ignore[func-returns-value]
            kept.append(made)
        return made

    value: JSON = json.loads(body, object_pairs_hook=make)
    return [f'duplicate field "{path}"' for path in _places(value, "", doubled)] if doubled else []


def _places(value: JSON, path: str, doubled: dict[int, list[str]]) -> Iterator[str]:
    if isinstance(value, dict):
        yield from (_child(path, key) for key in doubled.get(id(value), ()))
        for key, below in value.items():
            yield from _places(below, _child(path, key), doubled)
    elif isinstance(value, list):
        for index, item in enumerate(value):
            yield from _places(item, f"{path}[{index}]", doubled)


def _child(path: str, key: str) -> str:
    return f"{path}.{key}" if path else key


def _unknown_operations(body: bytes) -> Iterator[str]:
    patch: JSON = json.loads(body)
    for index, operation in enumerate(patch if isinstance(patch, list) else []):
        for key in operation if isinstance(operation, dict) else ():
            if key not in _OPERATION:
                yield f'unknown field "[{index}].{key}"'


def _doubled_lines(body: bytes) -> Iterator[str]:
    """Of a document that has been found no deeper than is allowed: libyaml recurses."""
    node = yaml.compose(body, Loader=yaml.CSafeLoader)
    yield from _in_node(node, set())


def _in_node(node: yaml.Node | None, done: set[int]) -> Iterator[str]:
    if id(node) in done:  # an alias: told where it stands
        return
    done.add(id(node))
    if isinstance(node, yaml.MappingNode):
        seen: set[str] = set()
        for key, value in node.value:
            if isinstance(key, yaml.ScalarNode) and key.value in seen and key.value != "<<":
                yield f'line {value.start_mark.line + 1}: key "{key.value}" already set in map'
            elif isinstance(key, yaml.ScalarNode):
                seen.add(key.value)
            yield from _in_node(value, done)
    elif isinstance(node, yaml.SequenceNode):
        for item in node.value:
            yield from _in_node(item, done)
