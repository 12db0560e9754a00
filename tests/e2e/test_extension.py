"""The gateway as an extension of a host cluster's own API: Kubernetes' kube-apiserver with its aggregator in front, and
a member made of Kubernetes' own streaming libraries behind. Everything goes through the host."""

import base64
import json
import secrets
import socket
import ssl
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.e2e import conftest, hosts, ways
from tests.e2e.auditlog import awaited
from tests.e2e.conftest import Gateway
from tests.e2e.hosts import GROUP, Host, Knocker
from tests.e2e.test_gomember import read_until, receive
from tests.e2e.ways import Way
from tests.machine import free_port
from tests.programs import golang, gomembers
from tests.programs.gomembers import GoMember
from tests.waiting import eventually

from onepass.api import meta

pytestmark = pytest.mark.e2e

PROXY = GROUP + "/clusters/{}/proxy"
PODS = PROXY.format("c1") + "/api/v1/namespaces/default/pods"
ALICE = ("X-Remote-User", "alice")
WEBSOCKET = (
    ("Connection", "Upgrade"),
    ("Upgrade", "websocket"),
    ("Sec-WebSocket-Version", "13"),
    ("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ=="),
    ("Sec-WebSocket-Protocol", "v5.channel.k8s.io"),
)


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Host]:
    try:
        with hosts.running(tmp_path_factory.mktemp("host")) as running:
            yield running
    except golang.GoMissing as missing:
        pytest.skip(str(missing))


@pytest.fixture(scope="module")
def behind(host: Host) -> Iterator[GoMember]:
    del host  # only so that this skips with it
    with gomembers.running() as member:
        yield member


@pytest.fixture(scope="module")
def port() -> int:
    return free_port()


@pytest.fixture(scope="module")
def extension(host: Host, behind: GoMember, port: int, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    """A gateway that knows the host by a kubeconfig with the rights that the manifests give, and nothing else."""
    directory = tmp_path_factory.mktemp("extension")
    host.apply(
        *hosts.registration(port), *hosts.granted("alice", ["*"], "c1", "home"), *hosts.granted("carol", ["get"], "c1")
    )
    config = host.kubeconfig(directory / "host.kubeconfig", "onepass", "onepass")
    options = ("--extension-listen", f"127.0.0.1:{port}", "--authentication-kubeconfig", str(config))
    with conftest.running(directory / "gw", "--extension", *options, "--name", hosts.SERVICE) as gateway:
        host.kubectl("wait", "--for=condition=Available", "apiservice/v1beta1.cluster.karpor.io", "--timeout=90s")
        host.discovered("cluster.karpor.io")
        host.apply(cluster("c1", behind))
        host.kubectl("wait", "--for=jsonpath={.status.healthy}=true", "cluster/c1", "--timeout=60s")
        yield gateway


def cluster(name: str, member: GoMember) -> dict[str, object]:
    access = {
        "endpoint": member.endpoint,
        "caBundle": base64.b64encode(member.ca.encode()).decode(),
        "credential": {"type": "ServiceAccountToken", "serviceAccountToken": member.token},
    }
    return {
        "apiVersion": "cluster.karpor.io/v1beta1",
        "kind": "Cluster",
        "metadata": {"name": name},
        "spec": {"access": access},
    }


@pytest.fixture
def alice(host: Host, extension: Gateway) -> Way:
    """A kubeconfig whose server is the host's, and ends in `/proxy`."""
    del extension
    return host.way("alice", PROXY.format("c1"), **{"as": "alice"})


@pytest.fixture
def at_home(host: Host, extension: Gateway) -> Way:
    """The host is a member as well: a kube-apiserver behind the gateway as in front of it."""
    del extension
    host.apply(cluster("home", host.server))
    host.kubectl("wait", "--for=jsonpath={.status.healthy}=true", "cluster/home", "--timeout=60s")
    return host.way("alice-at-home", PROXY.format("home"), **{"as": "alice"})


@pytest.fixture
def carol(host: Host, extension: Gateway) -> Way:
    del extension
    return host.way("carol", PROXY.format("c1"), **{"as": "carol"})


@pytest.fixture
def front(host: Host, extension: Gateway, port: int) -> Knocker:
    """By the certificate that only the front proxy of the host has."""
    chain = (host.front.directory / f"{hosts.NAME}.crt", host.front.directory / f"{hosts.NAME}.key")
    return Knocker(port, authority(extension), chain)


def authority(gateway: Gateway) -> bytes:
    return ways.through(gateway.data_dir, gateway.kubeconfig, gateway.url, "", "", "").ca


# Through the host ---------------------------------------------------------------------------------------------------


def test_the_hosts_own_api_has_clusters(host: Host, extension: Gateway) -> None:
    del extension
    at_host = host.way("alice-at-host", **{"as": "alice"})
    got = at_host.kubectl("get", "clusters")
    assert got.returncode == 0, got.stderr
    assert got.stdout.split()[0] == b"NAME"
    assert b"\nc1 " in got.stdout
    eventually(lambda: b"caBundle" in host.admin.kubectl("explain", "clusters.spec.access").stdout, "the schema")
    raw = at_host.kubectl("get", "--raw", PROXY.format("c1") + "/api/v1/pods")
    assert json.loads(raw.stdout)["kind"] == "PodList"
    refused = at_host.kubectl("delete", "cluster", "c1")
    assert b'cannot delete resource "clusters"' in refused.stderr


def test_get_and_dry_run(alice: Way, at_home: Way) -> None:
    assert alice.kubectl("get", "pod", "demo", "-o", "name").stdout == b"pod/demo\n"
    wanted = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "dry", "namespace": "default"}}
    done = at_home.kubectl("create", "--dry-run=server", "-f", "-", "-o", "name", input=json.dumps(wanted).encode())
    assert done.stdout == b"configmap/dry\n", done.stderr
    assert at_home.kubectl("get", "configmap", "dry").returncode != 0


@pytest.mark.parametrize("protocol", sorted(ways.PROTOCOLS))
def test_exec(alice: Way, protocol: str) -> None:
    """kubectl falls back to SPDY where the host has judged a WebSocket as a read."""
    done = alice.kubectl("exec", "demo", "--", "sh", "-c", "echo out; echo err >&2; exit 7", protocol=protocol)
    assert (done.returncode, done.stdout) == (7, b"out\n")
    assert b"err\n" in done.stderr
    content = secrets.token_bytes(1 << 20)
    assert alice.kubectl("exec", "-i", "demo", "--", "cat", protocol=protocol, input=content).stdout == content


def test_logs_are_followed(alice: Way) -> None:
    with alice.started("logs", "-f", "demo") as following:
        assert following.stdout is not None
        read_until(following.stdout, b"started|\n")


def test_a_watch_tells_until_its_cluster_is_gone(at_home: Way, host: Host, extension: Gateway) -> None:
    """The host has decided when it began; the gateway's own rules, which say nothing of alice, are not asked later."""
    name = f"seen-{secrets.token_hex(3)}"
    assert at_home.kubectl("create", "configmap", f"{name}-before").returncode == 0
    with at_home.started("get", "configmaps", "--watch", "-o", "name") as watching:
        assert watching.stdout is not None
        read_until(watching.stdout, f"configmap/{name}-before".encode())

        def of_alice() -> list[dict[str, str]]:
            return [each for each in streams(extension) if (each["user"], each["resource"]) == ("alice", "configmaps")]

        eventually(of_alice, "the watch is not told of")
        (told,) = of_alice()
        assert told["cluster"] == "home"
        extension.kubectl("apply", "-f", "-", context="onepass", input=json.dumps(a_pass(name, "other")))
        assert at_home.kubectl("create", "configmap", name).returncode == 0
        read_until(watching.stdout, name.encode())
        assert told in streams(extension)
        extension.kubectl("delete", "pass", name, context="onepass")
        at_home.kubectl("delete", "configmap", name)
        host.kubectl("delete", "cluster", "home")
        eventually(lambda: told not in streams(extension), "the watch goes on")


def streams(gateway: Gateway) -> list[dict[str, str]]:
    listed = json.loads(gateway.kubectl("get", "streams", "-o", "json", context="onepass").stdout)
    return [each["spec"] for each in listed["items"]]


def test_port_forward(alice: Way) -> None:
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen()
        port = server.getsockname()[1]
        with alice.started("port-forward", "pod/demo", f":{port}") as forwarding:
            assert forwarding.stdout is not None
            told = read_until(forwarding.stdout, rb"127\.0\.0\.1:(\d+) ->")
            local = int(told.split(b"127.0.0.1:")[1].split(b" ")[0])
            with socket.create_connection(("127.0.0.1", local), timeout=60) as client:
                client.sendall(b"ping")
                server.settimeout(60)
                accepted, _ = server.accept()
                with accepted:
                    assert receive(accepted, 4) == b"ping"


def test_the_rbac_of_the_host_decides(host: Host, carol: Way, extension: Gateway) -> None:
    del extension
    assert carol.kubectl("get", "pod", "demo", "-o", "name").stdout == b"pod/demo\n"
    for arguments in (("delete", "pod", "demo"), ("create", "configmap", "no")):
        assert b"cannot" in carol.kubectl(*arguments).stderr
    stranger = host.way("stranger", PROXY.format("c1"), **{"as": "stranger"})
    assert b'cannot get resource "clusters/proxy"' in stranger.kubectl("get", "--raw", "/api/v1/pods").stderr


@pytest.mark.parametrize("protocol", sorted(ways.PROTOCOLS))
def test_who_may_only_read_executes_nothing(carol: Way, protocol: str, behind: GoMember) -> None:
    """The host judges a WebSocket as "get": what it has let through is no more than that."""
    before = len([each for each in behind.seen() if "/exec" in each.uri])
    done = carol.kubectl("exec", "demo", "--", "true", protocol=protocol)
    assert done.returncode != 0
    assert len([each for each in behind.seen() if "/exec" in each.uri]) == before


def test_it_is_in_the_audit_log(alice: Way, extension: Gateway) -> None:
    alice.kubectl("get", "--raw", "/api/v1/namespaces/audited/pods")
    (record, *_) = awaited(extension, lambda r: r.get("objectRef", {}).get("namespace") == "audited")
    assert record["user"]["username"] == "alice"
    assert record["user"]["groups"] == ["system:authenticated"]
    assert record["annotations"]["access.karpor.io/cluster"] == "c1"
    assert "host cluster" in record["annotations"]["authorization.k8s.io/reason"]


def test_an_object_as_karpor_writes_it(host: Host, extension: Gateway) -> None:
    del extension
    karpor = {
        "apiVersion": "cluster.karpor.io/v1beta1",
        "kind": "Cluster",
        "metadata": {"name": "from-karpor"},
        "spec": {
            "provider": "",
            "displayName": "",
            "description": "",
            "finalized": False,
            "access": {
                "endpoint": "https://127.0.0.2:1",
                "insecure": True,
                "credential": {"type": "ServiceAccountToken", "serviceAccountToken": "a.b.c"},
            },
        },
        "status": {},
    }
    host.apply(karpor)
    shown = host.kubectl("get", "cluster", "from-karpor", "-o", "json")
    assert "a.b.c" not in shown
    host.kubectl("delete", "cluster", "from-karpor")


# At the listener itself ---------------------------------------------------------------------------------------------


def test_the_front_proxy_is_believed(front: Knocker) -> None:
    assert front.ask(PODS, ALICE).status == 200
    assert front.ask(GROUP + "/clusters", ALICE, ("X-Remote-Group", "a"), ("X-Remote-Extra-Scopes", "b")).status == 200


@pytest.mark.parametrize("who", ["nobody", "stranger", "client"])
def test_nobody_else_gets_a_connection(front: Knocker, extension: Gateway, tmp_path: Path, who: str) -> None:
    proof: tuple[Path, Path] | None = None
    if who == "stranger":
        proof = hosts.FrontProxy(tmp_path).certificate(hosts.NAME)
    elif who == "client":  # the gateway's own administrator, who is no front proxy
        proof = (extension.data_dir / "pki" / "admin.crt", extension.data_dir / "pki" / "admin.key")
    with pytest.raises((ssl.SSLError, ConnectionError)):
        Knocker(front.port, front.ca, proof).ask(PODS, ALICE)


def test_another_name_of_the_same_authority_is_not_the_front_proxy(front: Knocker, host: Host) -> None:
    said = Knocker(front.port, front.ca, host.front.certificate("somebody")).ask(PODS, ALICE)
    assert (said.status, "not the front proxy's" in said.body) == (401, True)


def test_x_remote_headers_are_believed_nowhere_else(extension: Gateway, front: Knocker) -> None:
    own = Knocker(int(extension.url.rpartition(":")[2]), front.ca, None)
    for path in (PODS, GROUP + "/clusters"):
        assert own.ask(path, ALICE, ("X-Remote-Group", "onepass:administrators")).status == 401
        assert own.ask(path, ALICE, ("X-OnePass-Judged", "host")).status == 401
    # Not even with the front proxy's certificate.
    assert front.proof is not None
    with pytest.raises((ssl.SSLError, ConnectionError)):
        Knocker(own.port, front.ca, front.proof).ask(PODS, ALICE)


@pytest.mark.parametrize(
    "headers",
    [
        (),
        (("X-Remote-User", ""),),
        (("X-Remote-Group", "developers"),),
        (ALICE, ("X-Remote-User", "bob")),
        (("X-Remote-User", "onepass:administrators"),),
        (ALICE, ("X-Remote-Group", "onepass:administrators")),
        (ALICE, ("X-Remote-Group", " ")),
        (("X-Remote-User", "system:anonymous"), ("X-Remote-Group", "system:unauthenticated")),
    ],
)
def test_who_is_nobody_gets_401(front: Knocker, headers: tuple[tuple[str, str], ...]) -> None:
    assert front.ask(PODS, *headers).status == 401


@pytest.mark.parametrize(
    ("path", "status"),
    [
        (PROXY.format("c1") + "/../../c2/proxy/api", 400),  # the host has judged it as c1
        (PROXY.format("c1") + "/%2e%2e/%2e%2e/c2/proxy/api", 400),
        (GROUP + "/clusters//c1/proxy/api", 400),  # the host has judged it as a list
        (GROUP + "/clusters/c1%2Fproxy/api", 400),
        ("/apis/kusionstack.io/Cluster/c1/proxy/api/v1/pods", 404),
        (GROUP + "/namespaces/default/clusters", 404),  # a Role would do at the host
        (GROUP + "/namespaces/default/clusters/c1/proxy/api", 404),
        (GROUP + "/watch/namespaces/default/clusters", 404),
        ("/apis/access.karpor.io/v1beta1/passes", 404),
        ("/apis/rbac.authorization.k8s.io/v1/clusterroles", 404),
        ("/api/v1/namespaces", 404),
        ("/metrics", 404),
        (PROXY.format("unknown") + "/api", 404),
    ],
)
def test_what_the_host_has_not_judged_is_not_served(front: Knocker, path: str, status: int) -> None:
    said = front.ask(path, ("X-Remote-User", "admin"), ("X-Remote-Group", "system:masters"))
    assert said.status == status, said.body


def test_what_a_client_asks_to_be_is_the_hosts_to_grant(front: Knocker, behind: GoMember) -> None:
    mark = secrets.token_hex(4)
    assert front.ask(f"{PODS}?labelSelector={mark}", ALICE, ("Impersonate-User", "admin")).status == 200
    (seen,) = [each for each in behind.seen() if mark in each.uri]
    assert not [name for name in seen.header if name.lower().startswith(("impersonate-", "x-remote-", "x-onepass-"))]


def test_a_websocket_that_the_host_judged_as_a_read_needs_a_pass(front: Knocker, extension: Gateway) -> None:
    path = f"{PODS}/demo/exec?command=true&stdout=true"
    said = front.ask(path, ALICE, *WEBSOCKET)
    assert (said.status, "SPDY" in said.body) == (403, True)
    extension.kubectl("apply", "-f", "-", context="onepass", input=json.dumps(a_pass("exec-alice", "alice")))
    eventually(lambda: front.ask(path, ALICE, *WEBSOCKET).status == 101, "the pass")
    extension.kubectl("delete", "pass", "exec-alice", context="onepass")


def a_pass(name: str, user: str) -> dict[str, object]:
    rule = {"verbs": ["get", "list", "create"], "apiGroups": [""], "resources": ["pods", "pods/exec"]}
    return {
        "apiVersion": "access.karpor.io/v1beta1",
        "kind": "Pass",
        "metadata": {"name": name},
        "spec": {
            "subjects": [{"kind": "User", "name": user}],
            "clusters": {"names": ["*"]},
            "rules": [rule],
        },
    }


def test_passes_narrow_what_the_host_lets_in(start: conftest.Start, tmp_path: Path) -> None:
    """Without a host to ask: its front proxy is told by flags."""
    proxy, port = hosts.FrontProxy(tmp_path), free_port()
    gateway = start(
        "--sandbox=1",
        "--extension",
        "--extension-passes=narrow",
        f"--extension-listen=127.0.0.1:{port}",
        f"--requestheader-client-ca-file={proxy.ca}",
        f"--requestheader-allowed-names={hosts.NAME},other",
        "--requestheader-username-headers=X-User",
        "--requestheader-group-headers=X-Groups",
    )
    front = Knocker(port, authority(gateway), proxy.certificate(hosts.NAME))
    pods = PROXY.format("sandbox-1") + "/api/v1/namespaces/default/pods"
    user = ("X-User", "alice")
    said = front.ask(pods, user)
    assert (said.status, "pass issue alice" in said.body) == (403, True)
    assert front.ask(pods, ALICE).status == 401
    gateway.kubectl("apply", "-f", "-", context="onepass", input=json.dumps(a_pass("narrow", "alice")))
    eventually(lambda: front.ask(pods, user).status == 200, "the pass")
    assert front.ask(pods.replace("pods", "secrets"), user).status == 403
    assert front.ask(GROUP + "/clusters", user).status == 200  # that the host alone decides
    # The file of authorities is followed: two side by side, then the new one alone.
    (later := tmp_path / "later").mkdir()
    new = hosts.FrontProxy(later)
    other = Knocker(port, authority(gateway), new.certificate(hosts.NAME))
    old, pods = proxy.ca.read_text(), GROUP + "/clusters"
    with front.kept(pods, user) as ask, front.watching(pods, user) as event:
        assert (ask(), event()["type"]) == (200, "ADDED")
        proxy.ca.write_text("no authority at all")
        proxy.ca.write_text(old + new.ca.read_text())
        eventually(lambda: not shut_out(other), "the new authority")
        assert ask() == 200
        proxy.ca.write_text(new.ca.read_text())
        eventually(lambda: shut_out(front), "the old authority is gone")
        eventually(lambda: ask() == 401, "the connection of before is still believed")
        gateway.kubectl("label", "cluster", "sandbox-1", "seen=yes", context="onepass")
        while "seen" not in json.dumps(event()):
            pass
    assert other.ask(pods, user).status == 200


def shut_out(front: Knocker) -> bool:
    """Whether no new connection is taken."""
    try:
        front.ask(PODS, ALICE)
    except (ssl.SSLError, ConnectionError):
        return True
    return False


def test_the_front_proxy_changes_with_the_config_map_of_the_host(
    host: Host, extension: Gateway, front: Knocker, tmp_path: Path
) -> None:
    """kube-apiserver keeps its own authority in the map, and leaves what others have added."""
    added = hosts.FrontProxy(tmp_path)
    other = Knocker(front.port, front.ca, added.certificate(hosts.NAME))
    assert shut_out(other)
    key = "requestheader-client-ca-file"
    told = ("configmap", "extension-apiserver-authentication", "-n", "kube-system")
    before = json.loads(host.kubectl("get", *told, "-o", "json"))["data"][key]
    host.kubectl("patch", *told, "-p", json.dumps({"data": {key: before + added.ca.read_text()}}))
    eventually(lambda: not shut_out(other), "the added authority")
    assert front.ask(PODS, ALICE).status == 200  # the two side by side
    records = GROUP + "/clusters"
    with other.kept(records, ALICE) as ask, other.watching(records, ALICE) as event:
        assert ask() == 200
        assert event()["type"] == "ADDED"
        host.kubectl("patch", *told, "-p", json.dumps({"data": {key: before}}))
        eventually(lambda: shut_out(other), "the authority that is gone")
        eventually(lambda: ask() == 401, "the connection of before is still believed")
        host.apply(cluster("seen-by-the-watch", host.server))
        while meta.name(meta.section(event(), "object")) != "seen-by-the-watch":
            pass  # what was asked before goes on
        host.kubectl("delete", "cluster", "seen-by-the-watch")
    assert front.ask(PODS, ALICE).status == 200
    del extension


def test_a_host_that_cannot_be_asked_is_told(tmp_path: Path) -> None:
    with (
        pytest.raises(AssertionError, match="outside of a cluster give --authentication-kubeconfig"),
        conftest.running(tmp_path / "gw", "--extension"),
    ):
        pass
