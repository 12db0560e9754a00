"""Bodies and Accept headers."""

import pytest

from onepass.api.errors import ApiError
from onepass.api.meta import JSON
from onepass.apiserver import encoding
from onepass.apiserver.encoding import Media

KINDS = {"Table": "meta.k8s.io", "APIGroupDiscoveryList": "apidiscovery.k8s.io"}
TABLE = Media("application/json", "Table", "meta.k8s.io", "v1")


@pytest.mark.parametrize(
    ("accept", "media"),
    [
        ("", Media()),
        ("*/*", Media()),
        ("application/*", Media()),
        ("application/json, */*", Media()),
        ("application/vnd.kubernetes.protobuf,application/json", Media()),
        ("application/yaml", Media("application/yaml")),
        ("text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8", Media()),
        ("application/json;q=0.1,application/yaml", Media("application/yaml")),
        ("application/json;q=0,application/yaml", Media("application/yaml")),
        ("application/json;as=Table;v=v1;g=meta.k8s.io,application/json", TABLE),
        (
            "application/json;as=Table;g=meta.k8s.io;v=v1beta1",
            Media("application/json", "Table", "meta.k8s.io", "v1beta1"),
        ),
        ("application/json;as=Table;v=v2;g=meta.k8s.io,application/json", Media()),
        ("application/json;as=Chair;v=v1;g=meta.k8s.io,application/json", Media()),
        (
            "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList",
            Media("application/json", "APIGroupDiscoveryList", "apidiscovery.k8s.io", "v2"),
        ),
        ("APPLICATION/JSON", Media()),
        ("application/json;stream=watch", Media()),
    ],
)
def test_the_first_representation_that_is_offered_is_chosen(accept: str, media: Media) -> None:
    assert encoding.negotiate(accept, KINDS) == media


@pytest.mark.parametrize(
    "accept",
    ["text/html", "application/vnd.kubernetes.protobuf", "application/json;as=Table;v=v9;g=meta.k8s.io", ",;q=x"],
)
def test_nothing_that_is_offered_is_not_acceptable(accept: str) -> None:
    with pytest.raises(ApiError) as refused:
        encoding.negotiate(accept, KINDS)
    assert refused.value.code == 406


def test_content_types_name_what_an_object_was_turned_into_as_clients_expect_it() -> None:
    assert TABLE.content_type == "application/json"
    aggregated = Media("application/json", "APIGroupDiscoveryList", "apidiscovery.k8s.io", "v2")
    assert aggregated.content_type == "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList"


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("a: 1\nb: [x, 'y']\n", {"a": 1, "b": ["x", "y"]}),
        ("when: 2026-01-31T12:00:00Z\nday: 2026-01-31", {"when": "2026-01-31T12:00:00Z", "day": "2026-01-31"}),
        ("at: 12:30:45", {"at": "12:30:45"}),
        ("yes: on\n2: 3", {"true": True, "2": 3}),
        ("n: null\nt: ~\ne:", {"n": None, "t": None, "e": None}),
        ("f: 1.5\ng: 1e3\nh: 0x1F\no: 0755\nv: 1.2.3", {"f": 1.5, "g": 1000.0, "h": 31, "o": 493, "v": "1.2.3"}),
        ("base: &b {a: 1}\nown: {<<: *b, c: 2}", {"base": {"a": 1}, "own": {"a": 1, "c": 2}}),
        ('{"json": ["is", "YAML"]}', {"json": ["is", "YAML"]}),
        ("v: 0000123\nw: 08", {"v": 83, "w": "08"}),
        ("s: !!str 1", {"s": "1"}),
    ],
)
def test_yaml_is_read_as_kubernetes_reads_it(text: str, value: JSON) -> None:
    assert encoding.load(text.encode(), "application/yaml", 10) == value


def bomb(levels: int) -> str:
    first = "a0: &a0 [x,x,x,x,x,x,x,x,x,x]\n"
    return first + "".join(f"a{i}: &a{i} [{','.join([f'*a{i - 1}'] * 10)}]\n" for i in range(1, levels))


@pytest.mark.parametrize(
    "text",
    [
        bomb(9),
        "a: &a [*a]",
        "a: &a {b: *a}",
        "[" * 20 + "]" * 20,
        "[" * 100_000,
        "{" * 100_000,
        "a: " * 10 + "1",
        "a: !!python/object/apply:os.system [true]",
        "a: !!binary aGk=",
        "a: !!set {x, y}",
        "a: .nan",
        "a: !!float nan",
        "a: !!float inf",
        "? [a, b]\n: 1",
        "a: 1\n---\nb: 2",
        "\x00",
        "a: 'unclosed",
        "a: *nowhere",
        "!!int x",
    ],
    ids=lambda text: text[:24],
)
def test_yaml_that_json_cannot_say_is_refused(text: str) -> None:
    if text == "a: .nan":  # plain text without the resolver that makes it a number
        assert encoding.load(text.encode(), "application/yaml", 10) == {"a": ".nan"}
        return
    with pytest.raises(ApiError) as refused:
        encoding.load(text.encode(), "application/yaml", 10)
    assert refused.value.code == 400


@pytest.mark.parametrize(
    ("body", "kind", "code"),
    [
        (b"{", "application/json", 400),
        (b"", "application/json", 400),
        (b'{"a": NaN}', "application/json", 400),
        (b'"\xff"', "application/json", 400),
        (b"[" * 5000 + b"]" * 5000, "application/json", 400),
        (b"[" * 12 + b"]" * 12, "application/json", 400),
        (b'{"a":' * 12 + b"1" + b"}" * 12, "application/json", 400),
        (b"a: 1", "text/plain", 415),
        (b"{}", "application/cbor", 415),
        (b"\xff\xff", "application/yaml", 400),
    ],
)
def test_bodies_that_cannot_be_read_are_refused(body: bytes, kind: str, code: int) -> None:
    with pytest.raises(ApiError) as refused:
        encoding.load(body, kind, 10)
    assert refused.value.code == code


def test_depth_up_to_the_limit_is_taken() -> None:
    assert encoding.load(b"[" * 10 + b"]" * 10, "application/json", 10)
    assert encoding.load(b"[" * 10 + b"]" * 10, "application/yaml", 10)


@pytest.mark.parametrize("body", [b"[]", b"1", b"null"])
def test_what_is_no_object_is_no_object(body: bytes) -> None:
    with pytest.raises(ApiError) as refused:
        encoding.load_object(body, "application/json", 10)
    assert refused.value.code == 400


def test_yaml_is_written_sorted_and_without_references() -> None:
    shared: JSON = {"x": "1"}
    written = encoding.dump({"b": shared, "a": shared, "on": "yes"}, Media("application/yaml"))
    assert written.decode() == "a:\n  x: '1'\nb:\n  x: '1'\n'on': 'yes'\n"
