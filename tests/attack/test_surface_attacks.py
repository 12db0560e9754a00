"""What can be had without a credential, and what names can do (THREATS 25)."""

import json
import socket
import ssl
from pathlib import Path

import grpc
import psutil
import pytest
from tests.attack.conftest import C1, CLUSTERS, CSRS, EVERYTHING, PASSES, Person, Site, granting
from tests.attack.rawhttp import request

pytestmark = pytest.mark.e2e

DISCOVERY = "/envoy.service.discovery.v3.AggregatedDiscoveryService/DeltaAggregatedResources"
OPEN = [
    "/",
    "/healthz",
    "/livez",
    "/readyz",
    "/version",
    "/openapi/v2",
    "/openapi/v3",
    "/metrics",
    "/api",
    "/apis",
    "/api/v1/namespaces",
    "/config_dump",
    "/quitquitquit",
    "/stats",
    "/.well-known/openid-configuration",
    "/openid/v1/jwks",
    CLUSTERS,
    C1 + "/version",
    C1 + "/healthz",
    C1,
    "/apis/kusionstack.io/Cluster/c1/proxy/version",
    DISCOVERY,
]


@pytest.mark.parametrize("http2", [False, True], ids=["http1", "http2"])
@pytest.mark.parametrize("path", OPEN)
def test_without_a_credential_there_is_nothing(site: Site, path: str, http2: bool) -> None:
    before = len(site.c1.requests())
    for method in ("GET", "POST"):
        answer = site.ask(None, path, method=method, http2=http2)
        assert answer.code == 401, answer
        assert answer.json()["reason"] == "Unauthorized"
    assert len(site.c1.requests()) == before


def test_every_port_is_known(site: Site) -> None:
    """One TCP port, the gateway's; the rest are unix sockets that only the owner may open."""
    family = [psutil.Process(site.gateway.process.pid)]
    family += family[0].children(recursive=True)
    listening = {
        (each.laddr.ip, each.laddr.port)
        for process in family
        for each in process.net_connections(kind="inet")
        if each.status == psutil.CONN_LISTEN or each.type == socket.SOCK_DGRAM
    }
    assert listening == {site.address}
    sockets = [path for path in site.gateway.data_dir.rglob("*") if path.is_socket()]
    assert {path.stem for path in sockets} >= {"ads", "admin", "apiserver", "probe"}
    for path in sockets:
        assert path.stat().st_mode & 0o077 == 0 or path.parent.stat().st_mode & 0o077 == 0, path


def test_the_port_speaks_nothing_but_tls(site: Site) -> None:
    with socket.create_connection(site.address) as plain:
        plain.settimeout(60)
        plain.sendall(b"GET / HTTP/1.1\r\nhost: gateway\r\n\r\n")
        try:
            answer = plain.recv(100)
        except ConnectionResetError:
            answer = b""
    assert not answer.startswith(b"HTTP/")


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1, ssl.TLSVersion.TLSv1_1])
def test_old_tls_is_refused(site: Site, version: ssl.TLSVersion) -> None:
    context = site.context()
    with pytest.warns(DeprecationWarning, match="TLS"):
        context.minimum_version = context.maximum_version = version
    context.set_ciphers("ALL:@SECLEVEL=0")
    with socket.create_connection(site.address, timeout=20) as plain, pytest.raises((ssl.SSLError, ConnectionError)):
        context.wrap_socket(plain)


@pytest.mark.parametrize("proof", ["serving", "member", "self"])
def test_a_certificate_of_another_authority_is_none(site: Site, proof: str, tmp_path: Path) -> None:
    """Those of members' authorities, and any that was made at home in the administrator's name."""
    authority = site.c1.clients if proof == "member" else type(site.c1.clients)()
    issued = authority.issue_cert(common_name="admin", organization_name="onepass:administrators")
    path = tmp_path / "proof.pem"
    path.write_bytes(b"".join(each.bytes() for each in issued.cert_chain_pems) + issued.private_key_pem.bytes())
    with pytest.raises((ssl.SSLError, ConnectionError, AssertionError)):
        assert site.ask(Person("admin", path), "/version").code == 401


def test_discovery_is_for_envoy_alone(site: Site) -> None:
    """xDS listens on a unix socket; the gateway's port does not speak it, whoever asks."""
    pem = site.admin.proof
    assert pem
    credentials = grpc.ssl_channel_credentials(site.ca.encode(), pem.read_bytes(), pem.read_bytes())
    host, port = site.address
    options = (("grpc.ssl_target_name_override", "localhost"),)
    with grpc.secure_channel(f"{host}:{port}", credentials, options) as channel:
        ask = channel.unary_unary(
            "/envoy.service.discovery.v3.AggregatedDiscoveryService/DeltaAggregatedResources", bytes, bytes
        )
        with pytest.raises(grpc.RpcError):
            ask(b"", timeout=20)


@pytest.mark.parametrize("path", ["/version", "/api/v1/pods", "/api/v1/pods?watch=1", ""])
def test_a_denied_cluster_and_an_absent_one_are_alike(site: Site, path: str) -> None:
    stranger = site.person("stranger")
    known = site.ask(stranger, C1 + path)
    absent = site.ask(stranger, f"{CLUSTERS}/zz/proxy{path}")
    assert known.code == absent.code == 403
    assert known.body.replace(b"c1", b"zz") == absent.body
    hidden = ("date", "x-request-id", "audit-id")
    told = [sorted(h for h in answer.headers if h[0] not in hidden) for answer in (known, absent)]
    assert told[0] == told[1]  # their order is Lua's, and the same for both by chance only


NAMES = [
    ".*",
    "a]]b",
    "a]=]b",
    'a"b',
    "a'b",
    "a%b",
    "a\nb",
    "a\\b",
    "a/b",
    "..",
    ".",
    "",
    "A",
    "a" * 254,
    "é",
    "xn--a_b",
    "a\x00b",
    "--[[x",
    "${x}",
    "%DOWNSTREAM_PEER_CERT%",
    "a b",
    "a,b",
]


@pytest.mark.parametrize("name", NAMES)
def test_a_name_that_is_none_names_nothing(site: Site, name: str) -> None:
    assert site.api("POST", CLUSTERS, site.member(name, site.c1)).code == 422
    assert site.api("POST", PASSES, granting(name, [EVERYTHING], user="somebody")).code == 422


USERS = [
    'o"brien\\',
    "]]..os.exit()..[[",
    "]=]",
    "%d%s%n",
    "--[[",
    "a.*b",
    "${jndi:x}",
    "%REQ(AUTHORIZATION)%",
    "Zoë",
    "a,b",
    "a'b",
    "x" * 200,
    "admin ",
    "sys\u200btem:admin",
    "\u202eadmin",
]


def test_hostile_names_of_users_break_no_configuration(site: Site, reader: Person) -> None:
    """Names that a pass may carry come through Python, Lua and JSON unchanged, and Envoy takes what is made of them."""
    rejected = site.counter("update_rejected")
    rules = [{"apiGroups": ["*"], "resources": ["*"], "verbs": ["get"], "resourceNames": USERS}]
    body = granting("hostile", rules)
    kinds = ("User", "Group")
    body["spec"]["subjects"] = [
        {"kind": kind, "name": name, "apiGroup": "rbac.authorization.k8s.io"} for name in USERS for kind in kinds
    ]
    answer = site.api("POST", PASSES, body)
    try:
        if answer.code == 422:  # those that admission refuses are left out
            bad = {int(each["field"].split("[")[1].split("]")[0]) for each in answer.json()["details"]["causes"]}
            body["spec"]["subjects"] = [s for n, s in enumerate(body["spec"]["subjects"]) if n not in bad]
            answer = site.api("POST", PASSES, body)
        assert answer.code == 201, answer.body
        told = site.person("hostile-witness", {"apiGroups": [""], "resources": ["pods"], "verbs": ["get"]})
        assert site.ask(told, C1 + "/api/v1/namespaces/d/pods/p").code == 200  # a later policy is in force
        assert site.ask(reader, C1 + "/api/v1/pods").code == 200
        assert site.counter("update_rejected") == rejected
        log = (site.gateway.data_dir / "envoy" / "envoy.log").read_text()
        assert "gatekeeper:" not in log
        assert "rejected" not in log.lower()
    finally:
        site.gone(f"{PASSES}/hostile")


@pytest.mark.parametrize("body", [b"{", b"[]", b"null", b'"x"', b"{}" * 2, b"\xff\xfe", b"[" * 20000, b'{"a":' * 5000])
@pytest.mark.parametrize("path", [CLUSTERS, PASSES, CSRS])
def test_a_body_that_is_no_object_is_answered_with_words(site: Site, path: str, body: bytes) -> None:
    with site.wire(site.admin) as wire:
        wire.send(request("POST", path, ("content-type", "application/json"), body=body))
        answer = wire.answer()
    assert answer.code in (400, 413, 415, 422), answer
    assert answer.json()["kind"] == "Status"
    assert b"Traceback" not in answer.body


def test_a_yaml_bomb_is_no_bomb(site: Site) -> None:
    bomb = "a: &a [x,x,x,x,x,x,x,x,x]\n" + "\n".join(
        f"{chr(98 + n)}: &{chr(98 + n)} [{','.join(['*' + chr(97 + n)] * 9)}]" for n in range(8)
    )
    with site.wire(site.admin) as wire:
        wire.send(request("POST", CLUSTERS, ("content-type", "application/yaml"), body=bomb.encode()))
        answer = wire.answer()
    assert answer.code in (400, 413, 415, 422)
    assert json.loads(answer.body)["kind"] == "Status"
