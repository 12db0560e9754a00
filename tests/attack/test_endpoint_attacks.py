"""Attacks by whoever may write clusters: where they lead, and whose credential goes there (THREATS 12 to 15)."""

import base64
import json
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest
from tests.attack import echo
from tests.attack.conftest import CLUSTERS, Person, Site, certificate_of
from tests.attack.echo import Echo
from tests.attack.rawhttp import Answer
from tests.programs import beside, connectproxy
from tests.waiting import eventually

from onepass.runtime import whereabouts

pytestmark = pytest.mark.e2e


def cluster(name: str, endpoint: str, **access: object) -> dict[str, Any]:
    return {
        "apiVersion": "cluster.karpor.io/v1beta1",
        "kind": "Cluster",
        "metadata": {"name": name},
        "spec": {"access": {"endpoint": endpoint} | access},
    }


def own_address() -> str:
    """An address of this machine on a network, or "" when it is on none."""
    own = whereabouts._own_addresses()
    return next((str(each) for each in sorted(own, key=str) if each.version == 4), "")


FORBIDDEN = [
    "https://169.254.169.254",
    "https://169.254.169.254:443/latest",
    "https://[fe80::1]",
    "https://[fd00:ec2::254]",
    "https://100.100.100.200",
    "https://metadata.google.internal",
    "https://[::ffff:127.0.0.1]",
    "https://[::ffff:7f00:1]",
    "https://[64:ff9b::a9fe:a9fe]",
    "https://[2002:7f00:1::]",
    "https://0.0.0.0",
    "https://[::]",
    "https://2130706433",
    "https://0x7f000001",
    "https://0177.0.0.1",
    "https://127.1",
    "http://192.0.2.1",
    "file:///etc/passwd",
    "unix:///run/admin.sock",
    "https://user:pw@192.0.2.1",
    "https://192.0.2.1?x=y",
    "https://192.0.2.1#x",
    "https://192.0.2.1/../x",
    "https://192.0.2.1/%2e%2e/x",
    "https://192.0.2.1:0",
    "https://192.0.2.1\\@169.254.169.254",
    "https://169.254.169.254 ",
    "https://192.0.2.1\r\nx: y",
    "//192.0.2.1",
    "",
]


@pytest.mark.parametrize("endpoint", FORBIDDEN)
def test_an_endpoint_that_leads_astray_is_refused_when_written(site: Site, endpoint: str) -> None:
    answer = site.api("POST", CLUSTERS, cluster("astray", endpoint))
    assert answer.code == 422
    assert answer.json()["details"]["causes"][0]["field"] == "spec.access.endpoint"
    patch = {"spec": {"access": {"endpoint": endpoint}}}
    assert site.api("PATCH", f"{CLUSTERS}/c1", patch, kind="merge-patch+json").code == 422
    assert site.api("GET", f"{CLUSTERS}/astray").code == 404


def test_the_gateway_is_no_member_of_itself(site: Site) -> None:
    port = site.address[1]
    hosts = ["127.0.0.1", "localhost", "127.77.0.1", "[::1]"]
    hosts += [own_address()] if own_address() else []
    for host in hosts:
        assert site.api("POST", CLUSTERS, cluster("itself", f"https://{host}:{port}")).code == 422


def test_a_name_that_leads_to_this_machine_is_refused_when_connected_to(site: Site) -> None:
    """The name of this machine is an address of its own: it may be written, and leads nowhere."""
    try:
        led = socket.gethostbyname(socket.gethostname())
    except OSError:
        pytest.skip("this machine's name does not resolve")
    if led.startswith("127."):
        pytest.skip("this machine's name leads to loopback, where a gateway on loopback takes members")
    with socket.create_server((led, 0)) as trap:
        trap.settimeout(0.5)
        site.made(CLUSTERS, cluster("mirror", f"https://{socket.gethostname().lower()}:{trap.getsockname()[1]}"))
        try:
            eventually(lambda: b"EndpointForbidden" in site.api("GET", f"{CLUSTERS}/mirror").body)
            assert site.ask(site.admin, f"{CLUSTERS}/mirror/proxy/version").code in (403, 503)
            with pytest.raises(TimeoutError):
                trap.accept()
        finally:
            site.gone(f"{CLUSTERS}/mirror")


@contextmanager
def attacker() -> Iterator[Echo]:
    with echo.running("attacker") as member:
        yield member


def patched(site: Site, name: str, access: object) -> Answer:
    return site.api("PATCH", f"{CLUSTERS}/{name}", {"spec": {"access": access}}, kind="merge-patch+json")


@pytest.mark.parametrize("by", ["token", "certificate"])
def test_who_moves_a_member_does_not_take_its_credential_along(site: Site, by: str) -> None:
    name, secret = f"moved-{by}", f"canary-moved-{by}"
    with echo.running(name) as there, attacker() as elsewhere:
        credential: dict[str, Any] = {"type": "ServiceAccountToken", "serviceAccountToken": secret}
        if by == "certificate":
            credential = certificate_of(there, secret)
        site.made(CLUSTERS, site.member(name, there, credential=credential))
        try:
            site.healthy(name)
            ca = base64.b64encode(elsewhere.ca).decode()
            tries: list[dict[str, object]] = [
                {"endpoint": elsewhere.endpoint},
                {"endpoint": elsewhere.endpoint, "caBundle": ca},
                {"caBundle": ca},
                {"insecure": True},
                {"insecure": True, "caBundle": None},
                {"serverName": "member.example"},
                {"endpoint": elsewhere.endpoint, "insecure": True, "credential": {"type": credential["type"]}},
                {"endpoint": there.endpoint + "/elsewhere"},
            ]
            for each in tries:
                assert patched(site, name, each).code == 422, each
            whole = site.api("GET", f"{CLUSTERS}/{name}").json()
            del whole["metadata"]["resourceVersion"]  # the prober may write a status meanwhile
            whole["spec"]["access"] |= {"endpoint": elsewhere.endpoint, "insecure": True}
            assert site.api("PUT", f"{CLUSTERS}/{name}", whole).code == 422
            whole["metadata"] = {"name": name}
            applied = f"{CLUSTERS}/{name}?fieldManager=thief&force=true"
            assert site.api("PATCH", applied, whole, kind="apply-patch+yaml").code in (415, 422)
            # Without the credential it may be moved, and the other end sees nobody.
            bare = {"endpoint": elsewhere.endpoint, "caBundle": ca, "credential": None}
            if patched(site, name, bare).code == 200:
                site.healthy(name)
            assert secret.encode() not in elsewhere.everything()
            assert not [each for each in elsewhere.seen if each.peer or each.all("authorization")]
        finally:
            site.gone(f"{CLUSTERS}/{name}")


def test_a_member_of_the_same_name_does_not_inherit_a_credential(site: Site) -> None:
    with echo.running("first") as first, attacker() as elsewhere:
        token = {"type": "ServiceAccountToken", "serviceAccountToken": "canary-inherited"}
        site.made(CLUSTERS, site.member("heir", first, credential=token))
        site.healthy("heir")
        assert b"canary-inherited" in first.everything()
        site.gone(f"{CLUSTERS}/heir")
        site.made(CLUSTERS, site.member("heir", elsewhere))
        try:
            site.healthy("heir")
            assert b"canary-inherited" not in elsewhere.everything()
        finally:
            site.gone(f"{CLUSTERS}/heir")


@pytest.mark.parametrize(
    "program",
    [
        {"command": "/bin/sh", "args": ["-c", "touch PWNED"]},
        {"command": "/bin/sh -c 'touch PWNED'"},
        {"command": "sh", "args": ["-c", "touch PWNED"]},
        {"command": "../../bin/touch", "args": ["PWNED"]},
        {"command": "/usr/bin/touch", "args": ["PWNED;x"], "env": [{"name": "PATH", "value": "/tmp"}]},
        {"command": "/usr/bin/touch", "args": ["PWNED"], "env": [{"name": "LD_PRELOAD", "value": "/tmp/x.so"}]},
        {"command": ""},
    ],
)
@pytest.mark.parametrize("kind", ["OIDC", "ServiceAccountToken", "X509Certificate"])
def test_no_program_runs_that_the_operator_did_not_list(site: Site, program: dict[str, Any], kind: str) -> None:
    exec_config = {"apiVersion": "client.authentication.k8s.io/v1", "interactiveMode": "Never"} | program
    body = cluster("runner", "https://192.0.2.1", credential={"type": kind, "execConfig": exec_config})
    assert site.api("POST", CLUSTERS, body).code in (400, 422)
    assert site.api("GET", f"{CLUSTERS}/runner").code == 404
    assert not [each for each in (Path.cwd(), site.gateway.data_dir, Path("/")) if (each / "PWNED").exists()]


CANARY = "canary-c0ffee-7b1d"


def holders(site: Site) -> Iterator[tuple[str, bytes]]:
    """Everything that may be read by somebody, or lies on a disk, with its name."""
    for each in (f"{CLUSTERS}/canary", CLUSTERS, f"{CLUSTERS}?fieldSelector=metadata.name=canary"):
        yield f"GET {each}", site.api("GET", each).body
        table = site.ask(site.admin, each, ("accept", "application/json;as=Table;v=v1;g=meta.k8s.io,application/json"))
        yield f"table {each}", table.body
    yield "watch", site.ask(site.admin, f"{CLUSTERS}?watch=1&timeoutSeconds=1&resourceVersion=0").body
    for each in ("/openapi/v2", "/openapi/v3", "/openapi/v3/apis/cluster.karpor.io/v1beta1", "/metrics"):
        yield each, site.api("GET", each).body
    for each in ("/config_dump?include_eds", "/certs", "/clusters", "/stats", "/server_info", "/listeners"):
        yield f"Envoy {each}", site.admin_socket(each)
    yield from ((str(path), content) for path, content in site.gateway.files())
    yield "standard output", "".join(site.gateway.output).encode()


@pytest.mark.parametrize("by", ["token", "certificate"])
def test_a_canary_in_a_credential_is_found_nowhere(site: Site, reader: Person, by: str) -> None:
    with echo.running("canary") as member:
        credential: dict[str, Any] = {"type": "ServiceAccountToken", "serviceAccountToken": CANARY}
        needles = [CANARY.encode(), base64.b64encode(CANARY.encode())]
        if by == "certificate":
            credential = certificate_of(member, "canary")
            encoded = credential["x509"]["privateKey"]
            key = base64.b64decode(encoded)
            needles = [encoded.encode(), key, key.splitlines()[2]]
        written = site.member("canary", member, credential=credential)
        text = json.dumps(written)

        def kubectl(*options: str) -> bytes:
            done = site.gateway.kubectl("apply", "-f", "-", *options, context="onepass", input=text, check=False)
            return (done.stdout + done.stderr).encode()

        unknown = credential | {"type": "Unknown"}
        answers = [
            site.api("POST", f"{CLUSTERS}?dryRun=All", written).body,
            kubectl("-o", "yaml", "--show-managed-fields"),
            kubectl("-o", "json", "--dry-run=server"),
            kubectl("-o", "yaml", "--server-side", "--force-conflicts", "--show-managed-fields"),
            patched(site, "canary", {"credential": credential}).body,
            site.api("PATCH", f"{CLUSTERS}/canary?dryRun=All", {"spec": written["spec"]}, kind="merge-patch+json").body,
            # refused, in several ways
            patched(site, "canary", {"endpoint": "https://169.254.169.254", "credential": credential}).body,
            patched(site, "canary", {"credential": unknown}).body,
            site.api("POST", CLUSTERS, written).body,
            site.api("POST", CLUSTERS, written, person=reader).body,
            site.api("POST", CLUSTERS, written | {"metadata": {"name": "UPPER"}}).body,
            site.api("POST", CLUSTERS, written | {"kind": "Pass"}).body,
        ]
        try:
            assert site.api("GET", f"{CLUSTERS}/canary").code == 200
            site.healthy("canary")
            reached = CANARY.encode() in member.everything() if by == "token" else member.seen[-1].peer == "canary"
            assert reached  # the member itself does see it
            for number, answer in enumerate(answers):
                assert answer
                assert not [each for each in needles if each in answer], number
            for name, content in holders(site):
                assert not [each for each in needles if each in content], name
        finally:
            site.gone(f"{CLUSTERS}/canary")


def test_a_canary_in_the_password_of_a_proxy_is_found_nowhere(site: Site) -> None:
    basic = base64.b64encode(f"user:{CANARY}".encode())
    with echo.running("canary") as member, beside.running(connectproxy.running) as (proxy, _):
        proxy.credential = basic.decode()
        token = {"type": "ServiceAccountToken", "serviceAccountToken": "a-token"}
        url = f"http://user:{CANARY}@127.0.0.1:{proxy.port}"
        written = site.member("canary", member, credential=token, proxyURL=url)
        answers = [
            site.api("POST", f"{CLUSTERS}?dryRun=All", written).body,
            site.api("POST", CLUSTERS, written).body,
            patched(site, "canary", {"proxyURL": url}).body,
            # refused, in several ways
            site.api("POST", CLUSTERS, written).body,
            patched(site, "canary", {"proxyURL": url.replace("http:", "socks5:"), "credential": token}).body,
            patched(site, "canary", {"proxyURL": url.replace("127.0.0.1", "169.254.169.254")}).body,
            patched(site, "canary", {"proxyURL": url.replace("@", "@@")}).body,
        ]
        try:
            site.healthy("canary")
            assert any(basic.decode() in head for head in proxy.heads)
            assert not [each for each in (CANARY.encode(), basic) if each in member.everything()]
            for number, answer in enumerate(answers):
                assert answer
                assert not [each for each in (CANARY.encode(), basic) if each in answer], number
            for name, content in holders(site):
                assert not [each for each in (CANARY.encode(), basic, base64.b64encode(basic)) if each in content], name
        finally:
            site.gone(f"{CLUSTERS}/canary")


def test_what_lies_on_the_disk_is_its_owners_alone(site: Site) -> None:
    root = site.gateway.data_dir
    for path in (root, *root.rglob("*")):
        if path.is_symlink() or "home" in path.relative_to(root).parts:
            continue
        try:
            mode = path.stat().st_mode & 0o777
        except FileNotFoundError:  # one that is written beside another, and has taken its place
            continue
        if path.is_dir() and path != root and (path.parent.stat().st_mode & 0o077) == 0:
            continue  # within a directory that nobody else may enter
        assert mode & 0o077 == 0 or (root.stat().st_mode & 0o077) == 0, (path, oct(mode))
    assert root.stat().st_mode & 0o077 == 0


def test_no_process_shows_a_secret_in_its_arguments_or_environment(site: Site) -> None:
    gateway = psutil.Process(site.gateway.process.pid)
    family = [gateway, *gateway.children(recursive=True)]
    assert len(family) > 1  # Envoy is one of them
    for each in family:
        said = " ".join([*each.cmdline(), *each.environ().values()])
        assert "canary" not in said
        assert "PRIVATE KEY" not in said


@pytest.mark.parametrize(
    "beside",
    [
        pytest.param(b"-----BEGIN X509 CRL-----\nAAAA\n-----END X509 CRL-----\n", id="a broken list"),
        pytest.param(b"-----BEGIN CERTIFICATE-----\n", id="half a certificate"),
    ],
)
def test_what_stands_beside_a_certificate_keeps_no_change_from_the_data_plane(site: Site, beside: bytes) -> None:
    """Envoy refuses such a text, and would go on with the authority before: perhaps the one that was to be replaced."""
    bundle = base64.b64encode(site.c1.ca + beside).decode()
    site.made(CLUSTERS, site.member("odd-bundle", site.c1, caBundle=bundle))
    try:
        site.healthy("odd-bundle")
    finally:
        site.gone(f"{CLUSTERS}/odd-bundle")
    assert b"Failed to load trusted CA" not in (site.gateway.data_dir / "envoy" / "envoy.log").read_bytes()
