"""Objects and settings to Envoy's resources: YAML in, YAML out.

`pytest tests/golden --update-golden` writes the expectations anew; the difference is then for a person to read.
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from envoy.config.cluster.v3 import cluster_pb2
from envoy.config.core.v3 import extension_pb2
from envoy.config.listener.v3 import listener_pb2
from envoy.extensions.transport_sockets.tls.v3 import secret_pb2
from google.protobuf import json_format
from google.protobuf.message import Message

from onepass.access.policy import Policy, Target
from onepass.gateway import bootstrap, ir, members, resources
from onepass.xds.snapshot import Snapshot

CASES = Path(__file__).with_name("gateway")
MESSAGES: Mapping[str, type[Message]] = {
    resources.CLUSTER: cluster_pb2.Cluster,
    resources.SECRET: secret_pb2.Secret,
    resources.LISTENER: listener_pb2.Listener,
    resources.EXTENSION: extension_pb2.TypedExtensionConfig,
}
LISTENER = ir.Listener(host="127.0.0.1", port=6443, certificate=b"certificate", private_key=b"key")
GATEWAY = ir.Gateway(LISTENER, ir.Sockets(apiserver="/api.sock", probe="/probe.sock"), Policy())


def readable(kind: type[Message], body: bytes) -> object:
    message = kind()
    message.ParseFromString(body)
    return json.loads(json_format.MessageToJson(message, preserving_proto_field_name=True))


def told(snapshot: Snapshot, keep: Callable[[str], bool]) -> dict[str, dict[str, object]]:
    """The resources whose name is to be kept, as the JSON that Envoy's documentation speaks."""
    return {
        url.rpartition(".")[2]: {
            name: readable(MESSAGES[url], resource.body)
            for name, resource in sorted(snapshot.of_type(url).items())
            if keep(name)
        }
        for url in MESSAGES
    }


def of_members(given: Any) -> object:
    built = [
        members.member(each["cluster"], json.dumps(each["secret"]).encode() if "secret" in each else None)
        for each in given
    ]
    gateway = ir.Gateway(LISTENER, GATEWAY.sockets, Policy(), members={member.name: member for member in built})
    return told(resources.Builder(lambda *_: "").build(gateway), lambda name: name.startswith(("member/", "tunnel")))


def of_listener(given: Any) -> object:
    listener = {k: v.encode() if k not in ("host", "port") else v for k, v in given["listener"].items()}
    issuers = tuple(ir.Issuer(each["issuer"], tuple(each["audiences"]), each["jwks"]) for each in given["issuers"])
    gateway = ir.Gateway(
        ir.Listener(**listener, issuers=issuers),
        ir.Sockets(**given["sockets"]),
        Policy(),
        audit_log=given["audit_log"],
    )
    return told(resources.Builder(lambda *_: "-- the gatekeeper").build(gateway), lambda _: True)


def of_extension(given: Any) -> object:
    front = {k: v if isinstance(v, str | int) else tuple(v) for k, v in given.items()}
    gateway = replace(GATEWAY, front=ir.Front(**front | {"ca": given["ca"].encode()}))
    made = resources.Builder(lambda *_: "-- the gatekeeper").build(gateway)
    return told(made, lambda name: name in ("extension", "gatekeeper/extension", "front-proxy-ca"))


def of_bootstrap(given: Any) -> object:
    return json.loads(bootstrap.document(bootstrap.Start(**given)))


@pytest.mark.parametrize("case", [of_members, of_listener, of_extension, of_bootstrap])
def test_golden(case: Callable[[Any], object], request: pytest.FixtureRequest) -> None:
    name = case.__name__.removeprefix("of_")
    given = yaml.safe_load((CASES / f"{name}.in.yaml").read_text())
    made = yaml.safe_dump(case(given), width=120)
    expected = CASES / f"{name}.out.yaml"
    if request.config.getoption("--update-golden"):
        expected.write_text(made)
    assert made == expected.read_text()


PLAIN = ir.Member("a", "10.0.0.1", 6443, "a", ca=b"ca", insecure=False, http2=False)


def of(*shown: ir.Member, policy: Policy | None = None) -> ir.Gateway:
    return ir.Gateway(LISTENER, GATEWAY.sockets, policy or Policy(), members={each.name: each for each in shown})


def bodies(snapshot: Snapshot) -> Mapping[tuple[str, str], bytes]:
    return {(url, name): r.body for url, named in snapshot.types.items() for name, r in named.items()}


def test_the_same_gateway_gives_the_same_bytes_whatever_came_before() -> None:
    a, b = PLAIN, replace(PLAIN, name="b")
    used = resources.Builder(lambda *_: "lua")
    used.build(of(b, replace(a, port=1)))
    used.build(of())
    assert bodies(used.build(of(b, a))) == bodies(resources.Builder(lambda *_: "lua").build(of(a, b)))


def test_what_has_not_changed_is_not_serialised_again() -> None:
    builder = resources.Builder(lambda *_: "lua")
    b = replace(PLAIN, name="b")
    before = builder.build(of(PLAIN, b)).of_type(resources.CLUSTER)
    after = builder.build(of(PLAIN, replace(b, port=1))).of_type(resources.CLUSTER)
    assert after["member/a"] is before["member/a"]
    assert after["member/b"] != before["member/b"]


def test_the_policy_is_written_only_when_it_changes() -> None:
    written: list[Policy] = []

    def source(policy: Policy, _known: ir.Known) -> str:
        written.append(policy)
        return f"-- {len(written)}"

    builder = resources.Builder(source)
    other = Policy(targets={"a": Target("a", "a", "", "Gateway")})
    for policy in (Policy(), Policy(), other, other, Policy()):
        builder.build(of(policy=policy))
    assert written == [Policy(), other, Policy()]


@pytest.mark.parametrize(
    ("changed", "types"),
    [
        ({"http2": True}, {resources.CLUSTER}),
        ({"ca": b"other"}, {resources.CLUSTER}),
        ({"credential": ir.Credential(b"new", b"new", "t")}, {resources.CLUSTER, resources.SECRET}),
        ({"credential": ir.Credential(b"c", b"k", "new")}, {resources.SECRET}),
    ],
)
def test_a_change_sends_only_what_it_must(changed: dict[str, Any], types: set[str]) -> None:
    builder = resources.Builder(lambda *_: "lua")
    first = replace(PLAIN, credential=ir.Credential(b"c", b"k", "t"))
    before, after = (bodies(builder.build(of(each))) for each in (first, replace(first, **changed)))
    assert {
        url for url, name in before.keys() | after.keys() if before.get((url, name)) != after.get((url, name))
    } == types


@pytest.mark.parametrize("endpoint", ["", "http://10.0.0.1", "https://", "10.0.0.1:6443", "https://h:99999"])
def test_an_endpoint_that_is_none_is_refused(endpoint: str) -> None:
    with pytest.raises(ValueError, match=r"endpoint|[Pp]ort"):
        members.member({"metadata": {"name": "a"}, "spec": {"access": {"endpoint": endpoint}}}, None)


def test_no_secret_shows_in_what_is_printed() -> None:
    secret = b'{"serviceAccountToken": "canary", "x509": {"certificate": "YQ==", "privateKey": "Y2FuYXJ5"}}'
    made = members.member({"metadata": {"name": "a"}, "spec": {"access": {"endpoint": "https://h"}}}, secret)
    assert (made.credential.token, made.credential.private_key) == ("canary", b"canary")
    assert "canary" not in repr(made)
    assert "canary" not in repr(of(made))
