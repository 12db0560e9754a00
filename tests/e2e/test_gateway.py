"""The gateway as people meet it, with the real kubectl: start and stop, clusters, passes, answers."""

import base64
import json
import signal
import socket
import ssl
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx2
import pytest
import yaml
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID
from tests.e2e.conftest import BIN, Gateway, Start
from tests.machine import free_port
from tests.waiting import eventually

from onepass.pki import keys

pytestmark = pytest.mark.e2e

SECONDS = 60.0
# Several controllers write conditions, in no order.
READY_REASON = 'jsonpath={.status.conditions[?(@.type=="Ready")].reason}'
PROXY = "/apis/cluster.karpor.io/v1beta1/clusters/{}/proxy"


def applied(gateway: Gateway, *objects: dict[str, object]) -> None:
    listed = {"apiVersion": "v1", "kind": "List", "items": list(objects)}
    gateway.kubectl("apply", "-f", "-", context="onepass", input=json.dumps(listed))


def granted(name: str, user: str, *verbs: str, resources: tuple[str, ...] = ("pods",)) -> dict[str, object]:
    return {
        "apiVersion": "access.karpor.io/v1beta1",
        "kind": "Pass",
        "metadata": {"name": name},
        "spec": {
            "subjects": [{"kind": "User", "name": user, "apiGroup": "rbac.authorization.k8s.io"}],
            "clusters": {"names": ["sandbox-1"]},
            "rules": [{"apiGroups": ["*"], "resources": list(resources), "verbs": list(verbs)}],
        },
    }


def user_kubeconfig(gateway: Gateway, path: Path, user: dict[str, str], cluster: str = "sandbox-1") -> Path:
    """The administrator's kubeconfig with another user, on one member."""
    config = yaml.safe_load(gateway.kubeconfig.read_text())
    for entry in config["users"]:
        entry["user"] = user
    path.write_text(yaml.safe_dump(config | {"current-context": cluster}))
    return path


def signed_by_csr(gateway: Gateway, user: str, path: Path, group: str = "") -> Path:
    """The documentation's way: a CSR, its approval, the certificate."""
    key = keys.generate()
    names = [x509.NameAttribute(NameOID.COMMON_NAME, user)]
    names += [x509.NameAttribute(NameOID.ORGANIZATION_NAME, group)] if group else []
    request = x509.CertificateSigningRequestBuilder().subject_name(x509.Name(names)).sign(key, hashes.SHA256())
    name = f"{user}-{time.monotonic_ns()}"
    applied(
        gateway,
        {
            "apiVersion": "certificates.k8s.io/v1",
            "kind": "CertificateSigningRequest",
            "metadata": {"name": name},
            "spec": {
                "request": base64.b64encode(request.public_bytes(Encoding.PEM)).decode(),
                "signerName": "kubernetes.io/kube-apiserver-client",
                "expirationSeconds": 3600,
                "usages": ["client auth"],
            },
        },
    )
    gateway.kubectl("certificate", "approve", name, context="onepass")
    wanted = ("get", "csr", name, "-o", "jsonpath={.status.certificate}")
    eventually(lambda: bool(gateway.kubectl(*wanted, context="onepass").stdout))
    certificate = gateway.kubectl(*wanted, context="onepass").stdout
    proof = {
        "client-certificate-data": certificate,
        "client-key-data": base64.b64encode(keys.to_pem(key)).decode(),
    }
    return user_kubeconfig(gateway, path, proof)


@pytest.fixture(scope="module")
def pod(gateway: Gateway) -> Iterator[str]:
    """A pod that runs on sandbox-1."""
    gateway.kubectl("run", "shell", "--image=busybox", "--", "sleep", "600", context="sandbox-1")
    gateway.kubectl("wait", "--for=condition=Ready", "pod/shell", context="sandbox-1")
    yield "shell"
    gateway.kubectl("delete", "pod", "shell", "--now", context="sandbox-1")


@contextmanager
def watching(gateway: Gateway, kubeconfig: Path) -> Iterator[list[str]]:
    """Lines of `kubectl get pods -w`, which must outlive the block."""
    process = subprocess.Popen(
        [str(BIN / "kubectl"), "--kubeconfig", str(kubeconfig), "get", "pods", "-w", "--no-headers"],
        env=gateway.environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert process.stdout is not None
    seen: list[str] = []
    reader = threading.Thread(target=lambda: seen.extend(process.stdout or ()))
    reader.start()
    try:
        yield seen
        assert process.poll() is None, "".join(seen)
    finally:
        process.kill()
        process.wait()
        reader.join(SECONDS)
        process.stdout.close()


def test_it_starts_stops_and_finds_everything_again(start: Start, tmp_path: Path) -> None:
    port = free_port()
    first = start("--sandbox", "1", port=port)
    assert any(line.startswith(f"onepass is ready: https://127.0.0.1:{port}") for line in first.output)
    kubeconfig = first.kubeconfig.read_bytes()
    first.kubectl("create", "namespace", "kept", context="sandbox-1")
    first.kubectl("create", "namespace", "kept", context="onepass")
    assert first.stop(signal.SIGINT) == 0
    again = start("--sandbox", "1", port=port)
    assert again.kubeconfig.read_bytes().split(b"users:")[1] == kubeconfig.split(b"users:")[1]
    for context in ("onepass", "sandbox-1"):
        assert "kept" in again.kubectl("get", "namespaces", context=context).stdout
    assert again.stop(signal.SIGTERM) == 0
    assert oct(again.kubeconfig.stat().st_mode)[-3:] == "600"


def test_what_cannot_start_says_why(gateway: Gateway, tmp_path: Path) -> None:
    def refused(*options: str) -> str:
        done = gateway.run(str(BIN / "onepass"), "up", *options, check=False)
        assert done.returncode in (1, 2)
        assert "Traceback" not in done.stderr
        return " ".join(done.stderr.split())

    taken = gateway.url.removeprefix("https://")
    assert "another program listens there" in refused("--data-dir", str(tmp_path / "a"), "--listen", taken)
    free = f"127.0.0.1:{free_port()}"
    assert "process" in refused("--data-dir", str(gateway.data_dir), "--listen", free)
    assert "give an IP address and a port" in refused("--data-dir", str(tmp_path / "b"), "--listen", "nowhere")
    assert "sqlite:///PATH" in refused("--data-dir", str(tmp_path / "c"), "--listen", free, "--storage", "mysql://x")
    (tmp_path / "file").write_text("")
    assert "directory" in refused("--data-dir", str(tmp_path / "file"), "--listen", free)
    rest = ("--data-dir", str(tmp_path / "d"), "--listen", free)
    assert "--client-ca-file /nowhere: No such file" in refused(*rest, "--client-ca-file", "/nowhere")
    assert "--oidc-issuer-url is missing" in refused(*rest, "--oidc-client-id", "onepass")


def test_clusters_are_a_table_and_never_show_a_credential(gateway: Gateway) -> None:
    rows = gateway.kubectl("get", "clusters", context="onepass").stdout.splitlines()
    assert rows[0].split() == ["NAME", "PROVIDER", "ENDPOINT", "HEALTHY", "VERSION", "AGE"]
    assert {"sandbox-1", "sandbox-2"} <= {row.split()[0] for row in rows[1:]}
    shown = gateway.kubectl("get", "clusters", "-o", "yaml", "--show-managed-fields", context="onepass").stdout
    for word in ("serviceAccountToken:", "privateKey:", "PRIVATE"):
        assert word not in shown.replace(f"f:{word}", "")  # managed fields name a field, and show no value


def test_a_cluster_lives_by_kubectl_and_its_endpoint_is_bound_to_its_credential(gateway: Gateway) -> None:
    port = free_port()
    token = "canary-token-0123456789"
    cluster: dict[str, object] = {
        "apiVersion": "cluster.karpor.io/v1beta1",
        "kind": "Cluster",
        "metadata": {"name": "dead", "labels": {"env": "test"}},
        "spec": {
            "access": {
                "endpoint": f"https://127.0.0.1:{port}",
                "credential": {"type": "ServiceAccountToken", "serviceAccountToken": token},
            }
        },
    }
    applied(gateway, cluster)
    try:
        gateway.kubectl(
            "patch", "cluster", "dead", "--type=merge", "-p", '{"spec":{"description":"none"}}', context="onepass"
        )
        moved = '{"spec":{"access":{"endpoint":"https://127.0.0.1:1"}}}'
        refused = gateway.kubectl(
            "patch", "cluster", "dead", "--type=merge", "-p", moved, context="onepass", check=False
        )
        assert refused.returncode == 1
        assert "credential" in refused.stderr
        assert token not in gateway.kubectl("get", "cluster", "dead", "-o", "json", context="onepass").stdout
        for file in gateway.data_dir.glob("onepass.db*"):
            assert token.encode() not in file.read_bytes()
        reason = ("get", "cluster", "dead", "-o", READY_REASON)
        eventually(lambda: gateway.kubectl(*reason, context="onepass").stdout == "ConnectionRefused")
        dead = gateway.kubectl("get", "--raw", PROXY.format("dead") + "/api/v1/pods", context="onepass", check=False)
        assert 'cluster "dead" is unreachable' in dead.stderr
        eventually(lambda: "name: dead\n" in gateway.kubeconfig.read_text())
    finally:
        gateway.kubectl("delete", "cluster", "dead", context="onepass")
    eventually(lambda: "name: dead\n" not in gateway.kubeconfig.read_text())
    asked = ("get", "--raw", PROXY.format("dead") + "/version")
    eventually(lambda: "NotFound" in gateway.kubectl(*asked, context="onepass", check=False).stderr)


def test_a_certificate_by_csr_opens_what_a_pass_says_and_no_more(gateway: Gateway, pod: str, tmp_path: Path) -> None:
    bob = signed_by_csr(gateway, "erin", tmp_path / "erin")
    pods = PROXY.format("sandbox-1") + "/api/v1/namespaces/default/pods"
    before = gateway.kubectl("get", "--raw", pods, kubeconfig=bob, context="onepass", check=False)
    assert "Forbidden" in before.stderr
    assert 'User "erin"' in before.stderr
    absent = gateway.kubectl(
        *("get", "--raw", PROXY.format("absent") + "/api"), kubeconfig=bob, context="onepass", check=False
    )
    denied = gateway.kubectl(
        *("get", "--raw", PROXY.format("sandbox-2") + "/api"), kubeconfig=bob, context="onepass", check=False
    )
    assert absent.stderr.replace("absent", "X") == denied.stderr.replace("sandbox-2", "X")
    applied(gateway, granted("erin", "erin", "get", "list", "watch"))
    try:
        eventually(lambda: gateway.kubectl("get", "pods", kubeconfig=bob, check=False).returncode == 0)
        assert (
            gateway.kubectl("auth", "whoami", "-o", "jsonpath={.status.userInfo.username}", kubeconfig=bob).stdout
            == "erin"
        )
        for verb, expected in (("list", "yes"), ("delete", "no")):
            assert (
                gateway.kubectl("auth", "can-i", verb, "pods", kubeconfig=bob, check=False).stdout.strip() == expected
            )
        for refused in (("get", "secrets"), ("delete", "pod", pod), ("exec", pod, "--", "id"), ("get", "nodes")):
            assert "orbidden" in gateway.kubectl(*refused, kubeconfig=bob, check=False).stderr
        posed = gateway.kubectl("get", "pods", "--as=admin", kubeconfig=bob, check=False)
        assert "cannot impersonate" in posed.stderr
    finally:
        gateway.kubectl("delete", "pass", "erin", context="onepass")
    eventually(lambda: gateway.kubectl("get", "pods", kubeconfig=bob, check=False).returncode == 1)


def test_a_changed_permission_counts_and_cuts_no_watch(gateway: Gateway, tmp_path: Path) -> None:
    carol = signed_by_csr(gateway, "frank", tmp_path / "frank")
    applied(gateway, granted("frank", "frank", "get", "list", "watch"))
    try:
        eventually(lambda: gateway.kubectl("get", "pods", kubeconfig=carol, check=False).returncode == 0)
        with watching(gateway, carol) as seen:
            gateway.kubectl("run", "one", "--image=busybox", "--", "sleep", "600", context="sandbox-1")
            eventually(lambda: any(line.startswith("one ") for line in seen))
            applied(gateway, granted("frank", "frank", "get", "list", "watch", "delete"))
            eventually(
                lambda: gateway.kubectl("delete", "pod", "one", "--now", kubeconfig=carol, check=False).returncode == 0
            )
            gateway.kubectl("run", "two", "--image=busybox", "--", "sleep", "600", context="sandbox-1")
            eventually(lambda: any(line.startswith("two ") for line in seen))
    finally:
        gateway.kubectl("delete", "pass", "frank", context="onepass")
        gateway.kubectl("delete", "pod", "one", "two", "--now", "--ignore-not-found", context="sandbox-1")


def test_a_service_account_token_works_until_its_account_goes(gateway: Gateway, tmp_path: Path) -> None:
    gateway.kubectl("create", "serviceaccount", "ci", context="onepass")
    token = gateway.kubectl("create", "token", "ci", context="onepass").stdout.strip()
    robot = user_kubeconfig(gateway, tmp_path / "robot", {"token": token})
    applied(gateway, granted("robot", "system:serviceaccount:default:ci", "list"))
    try:
        eventually(lambda: gateway.kubectl("get", "pods", kubeconfig=robot, check=False).returncode == 0)
        who = gateway.kubectl("auth", "whoami", "-o", "jsonpath={.status.userInfo.username}", kubeconfig=robot)
        assert who.stdout == "system:serviceaccount:default:ci"
        gateway.kubectl("delete", "serviceaccount", "ci", context="onepass")
        eventually(lambda: "logged in" in gateway.kubectl("get", "pods", kubeconfig=robot, check=False).stderr)
    finally:
        gateway.kubectl("delete", "pass", "robot", context="onepass")
        gateway.kubectl("delete", "serviceaccount", "ci", "--ignore-not-found", context="onepass")
    forged = user_kubeconfig(gateway, tmp_path / "forged", {"token": token[:-4] + "AAAA"})
    assert "logged in" in gateway.kubectl("get", "pods", kubeconfig=forged, check=False).stderr


def test_rbac_on_clusters_proxy_carries_by_the_method(gateway: Gateway, pod: str, tmp_path: Path) -> None:
    dave = signed_by_csr(gateway, "dave", tmp_path / "dave", group="readers")
    rule = ("--verb=get", "--resource=clusters.cluster.karpor.io/proxy", "--resource-name=sandbox-1")
    gateway.kubectl("create", "clusterrole", "readers", *rule, context="onepass")
    gateway.kubectl(
        "create", "clusterrolebinding", "readers", "--clusterrole=readers", "--group=readers", context="onepass"
    )
    try:
        eventually(lambda: gateway.kubectl("get", "pods", "-A", kubeconfig=dave, check=False).returncode == 0)
        assert "orbidden" in gateway.kubectl("create", "namespace", "x", kubeconfig=dave, check=False).stderr
        assert "orbidden" in gateway.kubectl("exec", pod, "--", "id", kubeconfig=dave, check=False).stderr
        other = gateway.kubectl("get", "pods", "--context", "sandbox-2", kubeconfig=dave, check=False)
        assert "orbidden" in other.stderr
    finally:
        gateway.kubectl("delete", "clusterrolebinding", "readers", context="onepass")
        gateway.kubectl("delete", "clusterrole", "readers", context="onepass")


@pytest.mark.parametrize("path", ["/", "/api", "/version", "/metrics", PROXY.format("sandbox-1") + "/version"])
def test_nobody_gets_nothing(gateway: Gateway, path: str) -> None:
    config = yaml.safe_load(gateway.kubeconfig.read_text())
    ca = base64.b64decode(config["clusters"][0]["cluster"]["certificate-authority-data"]).decode()
    trusted = ssl.create_default_context(cadata=ca)
    answer = httpx2.get(gateway.url + path, verify=trusted, trust_env=False, timeout=SECONDS)
    assert answer.status_code == 401
    assert (answer.json()["kind"], answer.json()["reason"]) == ("Status", "Unauthorized")


def test_a_member_that_says_nothing_holds_up_no_other(gateway: Gateway) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        cluster: dict[str, object] = {
            "apiVersion": "cluster.karpor.io/v1beta1",
            "kind": "Cluster",
            "metadata": {"name": "silent"},
            "spec": {"access": {"endpoint": f"https://127.0.0.1:{silent.getsockname()[1]}"}},
        }
        applied(gateway, cluster)
        try:
            known = ("get", "cluster", "silent", "-o", READY_REASON)
            eventually(lambda: gateway.kubectl(*known, context="onepass").stdout == "Timeout")
            waiting = subprocess.Popen(
                [str(BIN / "kubectl"), "--context", "onepass", "get", "--raw", PROXY.format("silent") + "/api"],
                env=gateway.environment(),
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                text=True,
            )
            assert "sandbox-1-node" in gateway.kubectl("get", "nodes", context="sandbox-1").stdout
            _, told = waiting.communicate(timeout=SECONDS)
            assert 'cluster "silent"' in told
        finally:
            gateway.kubectl("delete", "cluster", "silent", context="onepass")
