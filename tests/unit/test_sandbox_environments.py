"""The variables of a container: plain, expanded, from the pod, from ConfigMaps and from Secrets."""

import pytest

from onepass.api import errors
from onepass.api.meta import JSON, Object
from onepass.sandbox import environments, images
from onepass.sandbox.environments import Unset
from onepass.sandbox.objects import CONFIG_MAP

OBJECTS: dict[tuple[str, str], Object] = {
    ("configmaps", "c"): {"data": {"colour": "blue", "size": "7"}},
    ("secrets", "s"): {"data": {"word": "c3dvcmRmaXNo"}},
}
POD: Object = {
    "metadata": {"name": "p", "namespace": "n", "uid": "u", "labels": {"app": "web"}},
    "spec": {"nodeName": "node"},
}


async def fetch(kind: str, name: str) -> Object:
    if (kind, name) not in OBJECTS:
        raise errors.not_found(CONFIG_MAP, name)
    return OBJECTS[kind, name]


def source(field: str, **reference: JSON) -> Object:
    return {"valueFrom": {field: reference}}


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ({"value": "plain"}, "plain"),
        ({}, ""),
        ({"value": "$(FIRST)-$(ABSENT)-$$(FIRST)-$FIRST"}, "1-$(ABSENT)-$(FIRST)-$FIRST"),
        (source("fieldRef", fieldPath="metadata.name"), "p"),
        (source("fieldRef", fieldPath="metadata.labels['app']"), "web"),
        (source("fieldRef", fieldPath="spec.nodeName"), "node"),
        (source("configMapKeyRef", name="c", key="colour"), "blue"),
        (source("secretKeyRef", name="s", key="word"), "swordfish"),
        (source("configMapKeyRef", name="c", key="absent", optional=True), None),
        (source("configMapKeyRef", name="absent", key="k", optional=True), None),
    ],
)
async def test_a_variable_has_its_value(variable: Object, value: str | None) -> None:
    env: list[JSON] = [{"name": "FIRST", "value": "1"}, {"name": "X", **variable}]
    found = await environments.variables({"env": env}, POD, fetch)
    assert found.get("X") == value


@pytest.mark.parametrize(
    ("variable", "why"),
    [
        (source("configMapKeyRef", name="c", key="absent"), "couldn't find key absent in configmap c"),
        (source("secretKeyRef", name="absent", key="k"), "not found"),
        (source("fieldRef", fieldPath="spec.secret"), "unsupported fieldPath"),
        (source("resourceFieldRef", resource="limits.cpu"), "sources of variables"),
    ],
)
async def test_a_variable_without_a_value_stops_the_container(variable: Object, why: str) -> None:
    with pytest.raises(Unset, match=why):
        await environments.variables({"env": [{"name": "X", **variable}]}, POD, fetch)


async def test_whole_objects_become_variables_under_those_that_are_named() -> None:
    sources: list[JSON] = [
        {"configMapRef": {"name": "c"}, "prefix": "C_"},
        {"secretRef": {"name": "s"}},
        {"secretRef": {"name": "absent", "optional": True}},
    ]
    container: Object = {"envFrom": sources, "env": [{"name": "C_size", "value": "8"}]}
    found = await environments.variables(container, POD, fetch)
    assert found == {"C_colour": "blue", "C_size": "8", "word": "swordfish"}


@pytest.mark.parametrize(
    ("image", "stdin", "first"),
    [
        ("busybox", False, "sleep"),
        ("busybox", True, "sh"),
        ("docker.io/library/alpine:3", False, "sleep"),
        ("localhost:5000/ubuntu@sha256:00", False, "sleep"),
        ("registry.k8s.io/pause:3.10", False, "sleep"),
        ("example.com/other:1", False, None),
        ("", False, None),
    ],
)
def test_an_image_chooses_its_command(image: str, stdin: bool, first: str | None) -> None:
    chosen = images.default_command(image, stdin=stdin, port=80)
    assert (chosen[0] if chosen else None) == first


def test_a_web_server_listens_where_the_pod_says() -> None:
    chosen = images.default_command("nginx:1", stdin=False, port=8081)
    assert chosen is not None
    assert chosen[-1] == "8081"
