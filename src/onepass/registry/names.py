"""What objects, labels and annotations may be called (k8s.io/apimachinery/pkg/api/validate/content)."""

import re
from typing import Literal

NameRule = Literal["subdomain", "label", "path", "rbac"]

_LABEL = r"[a-z0-9]([-a-z0-9]*[a-z0-9])?"
_SUBDOMAIN = rf"{_LABEL}(\.{_LABEL})*"
_QUALIFIED = r"([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]"
_VALUE = rf"({_QUALIFIED})?"

_label = re.compile(_LABEL)
_subdomain = re.compile(_SUBDOMAIN)
_qualified = re.compile(_QUALIFIED)
_value = re.compile(_VALUE)


def _pattern(message: str, pattern: str, *examples: str) -> str:
    told = " or ".join(f"'{example}', " for example in examples)  # two blanks and all, as Go's RegexError has it
    return f"{message} (e.g. {told}regex used for validation is '{pattern}')"


def _limit(value: str, most: int) -> list[str]:
    return [f"must be no more than {most} characters"] if len(value.encode()) > most else []


def label(value: str) -> list[str]:
    """What keeps `value` from being an RFC 1123 label; empty when nothing does. So are all functions here."""
    wrong = _limit(value, 63)
    if _label.fullmatch(value):
        return wrong
    if _subdomain.fullmatch(value):
        return [*wrong, "must not contain dots"]
    message = (
        "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', "
        "and must start and end with an alphanumeric character"
    )
    return [*wrong, _pattern(message, _LABEL, "my-name", "123-abc")]


def subdomain(value: str) -> list[str]:
    wrong = _limit(value, 253)
    if _subdomain.fullmatch(value):
        return wrong
    message = (
        "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', "
        "and must start and end with an alphanumeric character"
    )
    return [*wrong, _pattern(message, _SUBDOMAIN, "example.com")]


def path_segment(value: str) -> list[str]:
    if value in {".", ".."}:
        return [f"may not be '{value}'"]
    # Control characters are refused beside Kubernetes' own two: such a name reaches logs and headers.
    wrong = [f"may not contain '{character}'" for character in "/%" if character in value]
    return wrong if value.isprintable() else [*wrong, "may not contain control characters"]


def qualified(value: str) -> list[str]:
    """A label or annotation key: an optional DNS subdomain, a slash, and a name of at most 63 characters."""
    prefix, slash, rest = value.rpartition("/")
    wrong: list[str] = []
    if "/" in prefix:
        message = "a valid label key must consist of alphanumeric characters, '-', '_' or '.'"
        return [
            _pattern(message, _QUALIFIED, "MyName", "my.name", "123-abc") + " with an optional DNS subdomain prefix"
        ]
    if slash and not prefix:
        wrong.append("prefix part must be non-empty")
    elif slash:
        wrong += [f"prefix part {problem}" for problem in subdomain(prefix)]
    if not rest:
        return [*wrong, "name part must be non-empty"]
    wrong += [f"name part {problem}" for problem in _limit(rest, 63)]
    if not _qualified.fullmatch(rest):
        message = (
            "name part must consist of alphanumeric characters, '-', '_' or '.', "
            "and must start and end with an alphanumeric character"
        )
        wrong.append(_pattern(message, _QUALIFIED, "MyName", "my.name", "123-abc"))
    return wrong


def label_value(value: str) -> list[str]:
    wrong = _limit(value, 63)
    if not _value.fullmatch(value):
        message = (
            "a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', "
            "and must start and end with an alphanumeric character"
        )
        wrong.append(_pattern(message, _VALUE, "MyValue", "my_value", "12345"))
    return wrong


_RULES = {"subdomain": subdomain, "label": label, "path": path_segment, "rbac": path_segment}


def check(rule: NameRule, value: str) -> list[str]:
    """What keeps `value` from being the name of an object whose kind has this rule."""
    return _RULES[rule](value)
