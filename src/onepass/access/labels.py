"""Which of many labelled things a LabelSelector chooses (meta/v1), by set algebra on an index.

Ten thousand passes over five thousand clusters share few labels, so a selector costs a few set operations, not a scan.
"""

from collections import defaultdict
from collections.abc import Mapping

from onepass.access.policy import Selector
from onepass.api import meta
from onepass.api.meta import Object


def requirements(selector: Object) -> Selector:
    """What a selector requires. A selector that requires more chooses no cluster that one with less does not."""
    wanted = {(key, "In", frozenset({str(value)})) for key, value in meta.section(selector, "matchLabels").items()}
    expressions = selector.get("matchExpressions")
    for expression in expressions if isinstance(expressions, list) else ():
        if isinstance(expression, dict):
            values = expression.get("values")
            told = frozenset(str(value) for value in (values if isinstance(values, list) else ()))
            wanted.add((meta.text(expression, "key"), meta.text(expression, "operator"), told))
    return frozenset(wanted)


def chooses(selector: Selector, labels: Mapping[str, str]) -> bool:
    """Whether a selector chooses what has these labels."""
    return all(_meets(labels.get(key), operator, values) for key, operator, values in selector)


def _meets(value: str | None, operator: str, values: frozenset[str]) -> bool:
    match operator:
        case "In":
            return value in values
        case "NotIn":
            return value not in values
        case "Exists":
            return value is not None
    return operator == "DoesNotExist" and value is None


class Index:
    """Things by name with their labels."""

    def __init__(self, labelled: Mapping[str, Mapping[str, str]]) -> None:
        self.names = frozenset(labelled)
        self._pairs: dict[tuple[str, str], set[str]] = defaultdict(set)
        self._keys: dict[str, set[str]] = defaultdict(set)
        for name, labels in labelled.items():
            for key, value in labels.items():
                self._pairs[key, value].add(name)
                self._keys[key].add(name)

    def select(self, selector: Object) -> frozenset[str]:
        """The names chosen; an empty selector chooses all. Raises ValueError for one that cannot be read."""
        chosen = self.names
        for key, value in meta.section(selector, "matchLabels").items():
            if not isinstance(value, str):
                raise ValueError(f"matchLabels.{key} is no string")  # noqa: TRY004 - what is wrong is the object
            chosen &= self._pairs.get((key, value), frozenset())
        expressions = selector.get("matchExpressions") or []
        if not isinstance(expressions, list):
            raise ValueError("matchExpressions is no list")  # noqa: TRY004
        for expression in expressions:
            if not isinstance(expression, dict):
                raise ValueError("matchExpressions holds what is no requirement")  # noqa: TRY004
            chosen = self._required(chosen, expression)
        return chosen

    def _required(self, chosen: frozenset[str], expression: Object) -> frozenset[str]:
        key, operator, values = (
            meta.text(expression, "key"),
            meta.text(expression, "operator"),
            expression.get("values"),
        )
        having = self._keys.get(key, set())
        of_values: set[str] = set()
        for value in values if isinstance(values, list) else ():
            of_values |= self._pairs.get((key, value), set()) if isinstance(value, str) else set()
        match operator:
            case "In":
                return chosen & of_values
            case "NotIn":
                return chosen - of_values
            case "Exists":
                return chosen & having
            case "DoesNotExist":
                return chosen - having
        raise ValueError(f"{operator!r} is no operator of a label selector")
