"""Label and field selectors: what they match, and how bad ones are refused."""

import pytest

from onepass.api.errors import ApiError
from onepass.api.meta import Object
from onepass.registry import rbac, selection

LABELS: dict[str, dict[str, str]] = {
    "none": {},
    "dev": {"env": "dev", "size": "3"},
    "prod": {"env": "prod", "size": "10", "example.com/team": "a"},
    "empty": {"env": "", "size": "large"},
}
OBJECTS: dict[str, Object] = {
    name: {"metadata": {"name": name, "namespace": "ns", "labels": dict(labels)}} for name, labels in LABELS.items()
}


def found(labels: str = "", fields: str = "") -> str:
    chosen = selection.parse(rbac.ROLES, labels, fields)
    return " ".join(name for name, obj in OBJECTS.items() if chosen.matches(obj))


@pytest.mark.parametrize(
    ("labels", "names"),
    [
        ("", "none dev prod empty"),
        ("  ", "none dev prod empty"),
        ("env", "dev prod empty"),
        ("!env", "none"),
        ("! env", "none"),
        ("env=dev", "dev"),
        ("env==dev", "dev"),
        (" env = dev ", "dev"),
        ("env=", "empty"),
        ("env=,size", "empty"),
        ("env!=dev", "none prod empty"),
        ("env in (dev, prod)", "dev prod"),
        ("env in (dev)", "dev"),
        ("env in (,dev)", "dev empty"),
        ("env in ()", "empty"),
        ("env notin (dev,prod)", "none empty"),
        ("env notin (dev),env", "prod empty"),
        ("size>3", "prod"),
        ("size<10", "dev"),
        ("example.com/team=a", "prod"),
        ("env=dev,env=prod", ""),
        ("env=dev,size=3", "dev"),
        ("in in (a)", ""),
    ],
)
def test_label_selectors(labels: str, names: str) -> None:
    assert found(labels) == names


@pytest.mark.parametrize(
    ("labels", "told"),
    [
        ("env=a b", "found 'b', expected: ',' or 'end of string'"),
        ("env=dev,", "found '', expected: identifier after ','"),
        (",env", "found ',', expected: identifier"),
        ("=dev", "found '=', expected: identifier"),
        ("env in dev", "expected: '('"),
        ("env in (dev", "expected: ',' or ')'"),
        ("env near (dev)", "found 'near', expected: in, notin"),
        ("env ~ dev", "found '~', expected: in, notin"),
        ("(env)", "found '(', expected: identifier"),
        ("-env=dev", 'Invalid value: "-env": name part must consist of'),
        ("a/b/c=dev", 'Invalid value: "a/b/c"'),
        ("/env", "prefix part must be non-empty"),
        ("env=-", 'Invalid value: "-": a valid label must be'),
        ("env=" + "a" * 64, "must be no more than 63 characters"),
        ("size>big", "the value must be an integer"),
        ("size>", "the value must be an integer"),
    ],
)
def test_bad_label_selectors(labels: str, told: str) -> None:
    with pytest.raises(ApiError) as refused:
        found(labels)
    assert refused.value.code == 400
    assert told in refused.value.message


@pytest.mark.parametrize(
    ("fields", "names"),
    [
        ("metadata.name=dev", "dev"),
        ("metadata.name==dev", "dev"),
        ("metadata.name!=dev", "none prod empty"),
        ("metadata.name=dev,metadata.namespace=ns", "dev"),
        ("metadata.name=dev,metadata.name=prod", ""),
        ("metadata.namespace=other", ""),
        (r"metadata.name=de\v", "dev"),
        ("metadata.name=", ""),
    ],
)
def test_field_selectors(fields: str, names: str) -> None:
    assert found(fields=fields) == names


@pytest.mark.parametrize(
    ("fields", "told"),
    [
        ("spec.color=red", '"spec.color" is not a known field selector: only "metadata.name", "metadata.namespace"'),
        ("metadata.name", "invalid selector: 'metadata.name'; can't understand 'metadata.name'"),
        ("metadata.name=a=b", "can't understand"),
        ("=x", "can't understand"),
    ],
)
def test_bad_field_selectors(fields: str, told: str) -> None:
    with pytest.raises(ApiError) as refused:
        found(fields=fields)
    assert refused.value.code == 400
    assert told in refused.value.message


def test_only_one_positive_name_narrows() -> None:
    def name(fields: str) -> str:
        return selection.parse(rbac.ROLES, "", fields).name

    assert name("metadata.name=a") == "a"
    assert name("metadata.name!=a") == ""
    assert name("metadata.name=a,metadata.name=b") == ""
    assert selection.parse(rbac.ROLES).everything
    assert not selection.parse(rbac.ROLES, "", "metadata.name=a").everything


@pytest.mark.parametrize(
    ("selector", "fields"),
    [
        ({}, []),
        ({"matchLabels": {"a": "b"}}, []),
        ({"matchLabels": {"a b": "c"}}, ["s.matchLabels"]),
        ({"matchLabels": {"a": "-"}}, ["s.matchLabels"]),
        ({"matchExpressions": [{"key": "a", "operator": "In", "values": ["b"]}]}, []),
        ({"matchExpressions": [{"key": "a", "operator": "In"}]}, ["s.matchExpressions[0].values"]),
        ({"matchExpressions": [{"key": "a", "operator": "Exists"}]}, []),
        ({"matchExpressions": [{"key": "a", "operator": "Exists", "values": ["b"]}]}, ["s.matchExpressions[0].values"]),
        ({"matchExpressions": [{"key": "a", "operator": "Like"}]}, ["s.matchExpressions[0].operator"]),
        ({"matchExpressions": [{"key": "", "operator": "Exists"}]}, ["s.matchExpressions[0].key"]),
        ({"matchExpressions": [{"key": "a", "operator": "In", "values": ["b b"]}]}, ["s.matchExpressions[0].values"]),
    ],
)
def test_label_selector_objects(selector: Object, fields: list[str]) -> None:
    assert [cause.field for cause in selection.check(selector, "s")] == fields
