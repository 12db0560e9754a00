"""Sets of fields in the form of FieldsV1, which is also how they travel (meta/v1, sigs.k8s.io/structured-merge-diff).

    {"f:spec": {"f:replicas": {}, "f:ports": {"k:{\\"port\\":80}": {".": {}, "f:port": {}}}}}

A key is one step of a path: `f:` a field, `k:` the element of a list that has these keys, `v:` an element of a set. A
step belongs to the set when nothing stands below it, or a "." does. Sets share their parts: only `insert` alters one.
"""

from collections.abc import Iterator, Mapping, Sequence

import orjson

from onepass.api.meta import JSON, Object

Fields = dict[str, JSON]
Path = tuple[str, ...]

_SELF: Fields = {".": {}}
_ORDER = {"f": 0, "k": 1, "v": 2, "i": 3}


def field(name: str) -> str:
    """The step to a field."""
    return "f:" + name


def keyed(keys: Mapping[str, JSON]) -> str:
    """The step to the element of a list that has these values under its keys."""
    return "k:" + _json({key: _plain_number(keys[key]) for key in sorted(keys)})


def valued(value: JSON) -> str:
    """The step to an element of a set."""
    return "v:" + _json(_plain_number(value))


def insert(fields: Fields, path: Path) -> None:
    """Add one path, which must not be empty."""
    node = fields
    for step in path[:-1]:
        below = node.get(step)
        if below is None:
            below = node[step] = {}
        elif not below:
            below = node[step] = {".": {}}
        assert isinstance(below, dict)
        node = below
    last = path[-1]
    below = node.get(last)
    if below is None:
        node[last] = {}
    elif isinstance(below, dict) and below:
        below["."] = {}


def of(*paths: Sequence[str]) -> Fields:
    """The set of these paths of field names."""
    made: Fields = {}
    for path in paths:
        insert(made, tuple(field(name) for name in path))
    return made


def union(one: Fields, other: Fields) -> Fields:
    if not one or not other:
        return one or other
    out = dict(one)
    for step, theirs in other.items():
        ours = out.get(step)
        if ours is None or step == ".":
            out[step] = theirs
        elif ours is not theirs:
            out[step] = _leaf(union(_node(ours), _node(theirs)))
    return out


def intersection(one: Fields, other: Fields) -> Fields:
    out: Fields = {}
    for step in one.keys() & other.keys():
        if step == ".":
            out[step] = {}
            continue
        both = intersection(_node(one[step]), _node(other[step]))
        if both:
            out[step] = _leaf(both)
    return out


def difference(one: Fields, other: Fields) -> Fields:
    """What of `one` is not in `other`; a field stays when only something below it goes."""
    out: Fields = {}
    for step, ours in one.items():
        if step not in other:
            out[step] = ours
        elif step != ".":
            rest = difference(_node(ours), _node(other[step]))
            if rest:
                out[step] = _leaf(rest)
    return out


def without(one: Fields, other: Fields) -> Fields:
    """As `difference`, but a field goes with all that is below it."""
    out: Fields = {}
    for step, ours in one.items():
        if step not in other:
            out[step] = ours
        elif step != "." and not is_member(other[step]):
            rest = without(_node(ours), _node(other[step]))
            if rest:
                out[step] = _leaf(rest)
    return out


def within(one: Fields, other: Fields) -> Fields:
    """The opposite of `without`: what is in `other`, or below something that is."""
    out: Fields = {}
    for step in one.keys() & other.keys():
        if step == "." or is_member(other[step]):
            out[step] = one[step]
            continue
        rest = within(_node(one[step]), _node(other[step]))
        if rest:
            out[step] = _leaf(rest)
    return out


def is_member(node: JSON) -> bool:
    """Whether a step with this below it belongs to its set."""
    return isinstance(node, dict) and (not node or "." in node)


def paths(fields: Fields, prefix: Path = ()) -> Iterator[Path]:
    """Every path, in the order of structured-merge-diff: what is at one level before what is below it."""
    steps = sorted((step for step in fields if step != "."), key=_order)
    for step in steps:
        if is_member(fields[step]):
            yield (*prefix, step)
    for step in steps:
        below = fields[step]
        if isinstance(below, dict) and below:
            yield from paths({k: v for k, v in below.items() if k != "."}, (*prefix, step))


def shown(path: Path) -> str:
    """A path as people read it: `.spec.ports[port=80].name`."""
    return "".join(_shown(step) for step in path)


def parse(value: JSON) -> Fields:
    """A set that came from a client, each step in its one spelling. Raises ValueError."""
    if not isinstance(value, dict):
        raise ValueError("a set of fields must be an object")  # noqa: TRY004  one kind of error for what clients send
    found: Fields = {}
    for step, below in value.items():
        if step == ".":
            continue
        known = _parsed(step)
        if known:
            node = parse(below)
            found[known] = {**_SELF, **node} if node and "." in _object(below) else node
    return found


def _parsed(step: str) -> str:
    """The one spelling of a step; "" for a kind of step that is not known, which is dropped as a real server does."""
    kind, separator, rest = step[:1], step[1:2], step[2:]
    if separator != ":":
        raise ValueError("a step of a path lacks its colon")
    if kind == "f":
        return step
    if kind == "i":
        return f"i:{int(rest)}"
    if kind not in ("k", "v"):
        return ""
    value: JSON = orjson.loads(rest)  # its error is a ValueError
    return valued(value) if kind == "v" else keyed(_object(value))


def _object(value: JSON) -> Object:
    if not isinstance(value, dict):
        raise ValueError("a step of a path is no object")  # noqa: TRY004
    return value


def _node(value: JSON) -> Fields:
    return value if isinstance(value, dict) and value else _SELF


def _leaf(node: Fields) -> Fields:
    return {} if len(node) == 1 and "." in node else node


def _plain_number(value: JSON) -> JSON:
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _json(value: JSON) -> str:
    """As Go writes it, with what HTML gives a meaning escaped."""
    text = orjson.dumps(value).decode()
    for character in "<>&\u2028\u2029":
        if character in text:
            text = text.replace(character, f"\\u{ord(character):04x}")
    return text


def _order(step: str) -> tuple[int, str]:
    return _ORDER.get(step[:1], 4), step


def _shown(step: str) -> str:
    kind, rest = step[:1], step[2:]
    if kind == "f":
        return f".{rest}"
    if kind == "v":
        return f"[={rest}]"
    if kind != "k":
        return f"[{rest}]"
    keys = _object(orjson.loads(rest))
    return "[" + ",".join(f"{key}={orjson.dumps(value).decode()}" for key, value in keys.items()) + "]"
