"""Bodies in Kubernetes' protobuf encoding, among them one that kubectl sent."""

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from onepass.api import wireformat
from onepass.api.errors import ApiError
from onepass.api.meta import JSON
from onepass.apiserver import protobuf

# kubectl 1.37: `kubectl create namespace foo`
NAMESPACE = bytes.fromhex(
    "6b3873000a0f0a02763112094e616d657370616365121b0a130a03666f6f12001a0022002a0032003800420012001a020a001a002200"
)


def varint(number: int) -> bytes:
    number &= (1 << 64) - 1
    parts = []
    while True:
        number, low = number >> 7, number & 0x7F
        parts.append(low | (0x80 if number else 0))
        if not number:
            return bytes(parts)


def field(number: int, value: bytes | str | int) -> bytes:
    if isinstance(value, int):
        return varint(number << 3) + varint(value)
    body = value.encode() if isinstance(value, str) else value
    return varint(number << 3 | 2) + varint(len(body)) + body


def body(version: str, kind: str, raw: bytes) -> bytes:
    return b"k8s\0" + field(1, field(1, version) + field(2, kind)) + field(2, raw)


def test_what_kubectl_sends_is_read_without_its_zeros() -> None:
    assert protobuf.decode(NAMESPACE) == {
        "apiVersion": "v1",
        "kind": "Namespace",
        "metadata": {"name": "foo"},
        "spec": {},
        "status": {},
    }


@pytest.mark.parametrize(
    ("version", "kind", "raw", "told"),
    [
        (
            "v1",
            "ConfigMap",
            field(1, field(11, field(1, "a") + field(2, "b"))) + field(2, field(1, "k") + field(2, "")) + field(4, 0),
            {"metadata": {"labels": {"a": "b"}}, "data": {"k": ""}, "immutable": False},
        ),
        ("v1", "Secret", field(2, field(1, "k") + field(2, b"\x00\xff")), {"data": {"k": "AP8="}}),
        (
            "v1",
            "Service",
            field(2, field(1, field(3, 80) + field(4, field(1, 1) + field(2, 0) + field(3, "http"))))
            + field(2, field(1, field(3, 81) + field(4, field(1, 0) + field(2, 8081) + field(3, "")))),
            {"spec": {"ports": [{"port": 80, "targetPort": "http"}, {"port": 81, "targetPort": 8081}]}},
        ),
        (
            "v1",
            "Event",
            field(7, field(1, 1769860800)) + field(10, field(1, 1769860800) + field(2, 5000)) + field(8, 0),
            {"lastTimestamp": "2026-01-31T12:00:00Z", "eventTime": "2026-01-31T12:00:00.000005Z"},
        ),
        (
            "authorization.k8s.io/v1",
            "SubjectAccessReview",
            field(2, field(3, "bob") + field(5, field(1, "k") + field(2, field(1, "v") + field(1, "w")))),
            {"spec": {"user": "bob", "extra": {"k": ["v", "w"]}}},
        ),
        ("policy/v1", "DeleteOptions", field(1, 0), {"gracePeriodSeconds": 0}),
        (
            "v1",
            "Namespace",
            field(1, field(17, field(1, "m") + field(7, field(1, b'{"f:a":{}}')))),
            {"metadata": {"managedFields": [{"manager": "m", "fieldsV1": {"f:a": {}}}]}},
        ),
    ],
    ids=["map and zero that counts", "bytes", "number or text", "times", "lists of texts", "options", "managed fields"],
)
def test_each_form_of_field_is_read(version: str, kind: str, raw: bytes, told: dict[str, JSON]) -> None:
    found = protobuf.decode(body(version, kind, raw))
    assert {key: value for key, value in found.items() if key not in ("apiVersion", "kind")} == told


@pytest.mark.parametrize(
    ("sent", "code"),
    [
        (b"", 400),
        (b'{"kind":"Namespace"}', 400),
        (b"k8s\0\xff\xff", 400),
        (b"k8s\0", 415),
        (body("v1", "Pod", b""), 415),
        (body("v2", "Namespace", b""), 415),
        (body("v1", "Namespace", b"\xff"), 400),
        (body("v1", "Namespace", field(99, "new")), 400),
        (body("v1", "Namespace", field(1, field(99, "new"))), 400),
        (body("v1", "Namespace", field(1, field(1, b"\xff\xfe"))), 400),
        (body("v1", "Event", field(7, field(1, 1 << 60))), 400),
        (body("v1", "Namespace", field(1, field(17, field(7, field(1, b"{"))))), 400),
        (body("v1", "Namespace", b"") + field(3, "gzip"), 415),
    ],
)
def test_what_cannot_be_read_whole_is_refused(sent: bytes, code: int) -> None:
    with pytest.raises(ApiError) as refused:
        protobuf.decode(sent)
    assert refused.value.code == code


@given(raw=st.binary(max_size=64), kind=st.sampled_from(["Namespace", "Secret", "Service", "Event", "DeleteOptions"]))
def test_any_bytes_are_read_or_refused(raw: bytes, kind: str) -> None:
    with contextlib.suppress(ApiError):
        assert protobuf.decode(body("v1", kind, raw))["kind"] == kind


def test_every_kind_has_a_message() -> None:
    named = {kind for kinds in wireformat.KINDS.values() for kind in kinds}
    assert named <= wireformat.MESSAGES.keys()
