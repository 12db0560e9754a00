"""Label and field selectors, as `kubectl -l` and `--field-selector` send them.

Grammar: k8s.io/apimachinery/pkg/labels.Parse and pkg/fields.ParseSelector; also LabelSelector objects.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from typing import TypeAlias

from onepass.api import errors, meta
from onepass.api.errors import ApiError, Cause
from onepass.api.meta import Object
from onepass.registry import causes, names
from onepass.registry.reads import Selection
from onepass.registry.strategy import Strategy

Labels: TypeAlias = Mapping[str, str]
Requirement: TypeAlias = Callable[[Labels], bool]

EVERYTHING = Selection(lambda _obj: True)

_TOKEN = re.compile(r"\s*(?:(?P<symbol>==|!=|[=!(),<>])|(?P<word>[^\s=!(),<>]+))")
_BINARY = "in, notin, =, ==, !=, gt, lt"
_FIELD = re.compile(r"(?P<key>(?:\\.|[^\\=!,])+)(?P<operator>==|!=|=)(?P<value>(?:\\.|[^\\=,])*)")


def parse(strategy: Strategy, labels: str = "", fields: str = "") -> Selection:
    """The selection that both selectors make together; "" selects everything. Raises bad_request."""
    wanted, named = parse_labels(labels), _parse_fields(strategy, fields)
    if not wanted and not named:
        return EVERYTHING
    exact = {value for path, positive, value, _ in named if path == "metadata.name" and positive}

    def matches(obj: Object) -> bool:
        if not all((read(obj) == value) is positive for _, positive, value, read in named):
            return False
        found = meta.labels(obj) if wanted else {}
        return all(requirement(found) for requirement in wanted)

    return Selection(matches, everything=False, name=exact.pop() if len(exact) == 1 else "")


def parse_labels(text: str) -> Sequence[Requirement]:
    """The requirements of a label selector in text form, all of which must hold. Raises bad_request."""
    return _Parser(text).requirements() if text.strip() else ()


def check(selector: Object, field: str) -> Sequence[Cause]:
    """What is wrong with a LabelSelector object (matchLabels, matchExpressions)."""
    wrong: list[Cause] = []
    for key, value in meta.section(selector, "matchLabels").items():
        wrong += [causes.invalid(f"{field}.matchLabels", key, p) for p in names.qualified(key)]
        wrong += [causes.invalid(f"{field}.matchLabels", value, p) for p in names.label_value(str(value))]
    expressions = selector.get("matchExpressions")
    for index, expression in enumerate(expressions if isinstance(expressions, list) else []):
        if not isinstance(expression, dict):
            continue
        at = f"{field}.matchExpressions[{index}]"
        key, operator = meta.text(expression, "key"), meta.text(expression, "operator")
        values = expression.get("values") or []
        wrong += [causes.invalid(f"{at}.key", key, p) for p in names.qualified(key)]
        if operator in ("In", "NotIn"):
            if not values:
                told = "must be specified when `operator` is 'In' or 'NotIn'"
                wrong.append(causes.required(f"{at}.values", told))
        elif operator in ("Exists", "DoesNotExist"):
            if values:
                told = "may not be specified when `operator` is 'Exists' or 'DoesNotExist'"
                wrong.append(causes.forbidden(f"{at}.values", told))
        else:
            wrong.append(causes.invalid(f"{at}.operator", operator, "not a valid selector operator"))
        for value in values if isinstance(values, list) else []:
            wrong += [causes.invalid(f"{at}.values", value, p) for p in names.label_value(str(value))]
    return wrong


class _Parser:
    """Recursive descent over one label selector."""

    def __init__(self, text: str) -> None:
        self._tokens = [m.group("symbol") or m.group("word") for m in _TOKEN.finditer(text.rstrip())]
        self._at = 0

    def requirements(self) -> Sequence[Requirement]:
        made = [self._requirement()]
        while self._peek() == ",":
            self._next()
            if not self._is_word() and self._peek() != "!":
                raise _unreadable(f"found '{self._peek()}', expected: identifier after ','")
            made.append(self._requirement())
        if self._peek():
            raise _unreadable(f"found '{self._peek()}', expected: ',' or 'end of string'")
        return made

    def _requirement(self) -> Requirement:
        if self._peek() == "!":
            self._next()
            absent = self._key()
            return lambda labels: absent not in labels
        key = self._key()
        operator = self._peek()
        if operator in ("", ","):
            return lambda labels: key in labels
        self._next()
        if operator in ("in", "notin"):
            values = frozenset(self._values())
            if operator == "in":
                return lambda labels: labels.get(key) in values
            return lambda labels: labels.get(key) not in values
        if operator in ("=", "==", "!="):
            value = self._value()
            if operator == "!=":
                return lambda labels: labels.get(key) != value
            return lambda labels: labels.get(key) == value
        if operator in (">", "<"):
            return _ordered(key, operator, self._next())
        raise _unreadable(f"unable to parse requirement: found '{operator}', expected: {_BINARY}")

    def _key(self) -> str:
        if not self._is_word():
            raise _unreadable(f"unable to parse requirement: found '{self._peek()}', expected: identifier")
        key = self._next()
        _refuse(key, names.qualified(key))
        return key

    def _value(self) -> str:
        """One value; none at all is the empty one, as in `key=`."""
        value = self._next() if self._is_word() else ""
        _refuse(value, names.label_value(value))
        return value

    def _values(self) -> list[str]:
        if self._next() != "(":
            raise _unreadable("unable to parse requirement: expected: '('")
        values = [self._value()]
        while (found := self._next()) == ",":
            values.append(self._value())
        if found != ")":
            raise _unreadable(f"unable to parse requirement: found '{found}', expected: ',' or ')'")
        return values

    def _peek(self) -> str:
        return self._tokens[self._at] if self._at < len(self._tokens) else ""

    def _next(self) -> str:
        token = self._peek()
        self._at += 1
        return token

    def _is_word(self) -> bool:
        return bool(self._peek()) and self._peek()[0] not in "=!(),<>"


def _ordered(key: str, operator: str, text: str) -> Requirement:
    bound = _integer(text)
    if bound is None:
        raise _unreadable(
            f"values[0][{key}]: Invalid value: \"{text}\": for 'Gt', 'Lt' operators, the value must be an integer"
        )

    def holds(labels: Labels) -> bool:
        value = _integer(labels.get(key, ""))
        return value is not None and (value > bound if operator == ">" else value < bound)

    return holds


def _integer(text: str) -> int | None:
    return int(text) if re.fullmatch(r"[+-]?[0-9]{1,18}", text) else None


def _refuse(word: str, problems: Sequence[str]) -> None:
    if problems:
        raise _unreadable(f'unable to parse requirement: <nil>: Invalid value: "{word}": {"; ".join(problems)}')


def _unreadable(message: str) -> ApiError:
    return errors.bad_request(message)


def _parse_fields(strategy: Strategy, text: str) -> list[tuple[str, bool, str, Callable[[Object], str]]]:
    """Path, whether it must be equal, the value, and the reader of each term."""
    readers: dict[str, Callable[[Object], str]] = {"metadata.name": meta.name, **strategy.selectable}
    if strategy.resource.namespaced or not strategy.selectable:
        readers["metadata.namespace"] = meta.namespace
    terms = []
    for part in re.findall(r"(?:\\.|[^\\,])+", text):
        found = _FIELD.fullmatch(part)
        if found is None:
            raise errors.bad_request(f"invalid selector: '{text}'; can't understand '{part}'")
        path = found["key"]
        if path not in readers:
            if strategy.selectable:
                raise errors.bad_request(f"field label not supported: {path}")
            known = ", ".join(f'"{reader}"' for reader in sorted(readers))
            raise errors.bad_request(f'"{path}" is not a known field selector: only {known}')
        value = re.sub(r"\\(.)", r"\1", found["value"])
        terms.append((path, found["operator"] != "!=", value, readers[path]))
    return terms
