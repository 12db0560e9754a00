"""Members behind a proxy, and with several endpoints: `onepass up` with kubectl and `onepass cluster`."""

import base64
import json
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any  # objects are JSON
from urllib.parse import urlsplit

import pytest
import yaml
from tests.e2e.conftest import BIN, Gateway
from tests.machine import free_port
from tests.programs import beside, connectproxy, forwarder
from tests.programs.connectproxy import ConnectProxy
from tests.waiting import eventually

pytestmark = pytest.mark.e2e

PASSWORD = "canary-of-a-proxy"
BASIC = base64.b64encode(f"user:{PASSWORD}".encode()).decode()
CLUSTERS = "/apis/cluster.karpor.io/v1beta1/clusters"
POD = """
apiVersion: v1
kind: Pod
metadata: {name: behind}
spec:
  containers: [{name: c, image: none, command: [sh, -c, "echo first; sleep 600"]}]
"""


@pytest.fixture
def proxy() -> Iterator[ConnectProxy]:
    with beside.running(connectproxy.running) as (started, _):
        yield started


def member(gateway: Gateway) -> dict[str, Any]:
    """Where a sandbox member is, and the proof of its administrator, as spec.access."""
    config = yaml.safe_load((gateway.data_dir / "sandbox" / "sandbox-1.kubeconfig").read_text())
    place, user = config["clusters"][0]["cluster"], config["users"][0]["user"]
    pair = {"certificate": user["client-certificate-data"], "privateKey": user["client-key-data"]}
    return {
        "endpoint": place["server"],
        "caBundle": place["certificate-authority-data"],
        "credential": {"type": "X509Certificate", "x509": pair},
    }


def apply(gateway: Gateway, name: str, access: dict[str, Any], *options: str) -> str:
    cluster = {
        "apiVersion": "cluster.karpor.io/v1beta1",
        "kind": "Cluster",
        "metadata": {"name": name},
        "spec": {"access": access},
    }
    done = gateway.kubectl("apply", "-f", "-", *options, context="onepass", input=json.dumps(cluster))
    return done.stdout + done.stderr


@contextmanager
def registered(gateway: Gateway, name: str, access: dict[str, Any]) -> Iterator[None]:
    apply(gateway, name, access)
    try:
        yield
    finally:
        gateway.kubectl("delete", "cluster", name, context="onepass")


def healthy(gateway: Gateway, name: str) -> None:
    wanted = ("--for=jsonpath={.status.healthy}=true", f"cluster/{name}", "--timeout=60s")
    gateway.kubectl("wait", *wanted, context="onepass")


def to(gateway: Gateway, name: str, *arguments: str, check: bool = True, input: str | None = None) -> str:
    server = f"--server={gateway.url}{CLUSTERS}/{name}/proxy"
    done = gateway.kubectl(server, *arguments, context="onepass", check=check, input=input)
    return str(done.stdout + done.stderr)


def reachable(gateway: Gateway, name: str) -> tuple[str, str, str]:
    """The condition, as status, reason and message."""
    cluster = json.loads(gateway.kubectl("get", "cluster", name, "-o", "json", context="onepass").stdout)
    listed = cluster.get("status", {}).get("conditions", [])
    found: dict[str, str] = next((each for each in listed if each["type"] == "Reachable"), {})
    return found.get("status", ""), found.get("reason", ""), found.get("message", "")


@contextmanager
def started(gateway: Gateway, name: str, *arguments: str) -> Iterator[subprocess.Popen[str]]:
    """A kubectl that goes on."""
    server = f"--server={gateway.url}{CLUSTERS}/{name}/proxy"
    process = subprocess.Popen(
        [str(BIN / "kubectl"), "--kubeconfig", str(gateway.kubeconfig), "--context=onepass", server, *arguments],
        env=gateway.environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert process.stdout is not None
    try:
        yield process
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


def written_back(gateway: Gateway, name: str, place: tuple[str, str] = ("", "")) -> tuple[str, str, str]:
    """What is read of a cluster, and what is said when that is written again, with another place in it. Until the
    prober has not written its status in between."""
    for _ in range(20):
        read = gateway.kubectl("get", "cluster", name, "-o", "json", context="onepass").stdout
        done = gateway.kubectl("replace", "-f", "-", context="onepass", input=read.replace(*place), check=False)
        if "the object has been modified" not in done.stderr:
            return read, done.stdout, done.stderr
    raise AssertionError(done.stderr)


@pytest.mark.parametrize("userinfo", ["", f"user:{PASSWORD}@"], ids=["open", "password"])
def test_everything_works_through_a_proxy_that_sees_nothing_of_it(
    gateway: Gateway, proxy: ConnectProxy, userinfo: str
) -> None:
    proxy.credential = BASIC if userinfo else ""
    access = member(gateway) | {"proxyURL": f"http://{userinfo}127.0.0.1:{proxy.port}"}
    with registered(gateway, "hidden", access):
        healthy(gateway, "hidden")
        assert reachable(gateway, "hidden")[:2] == ("True", "Connected")
        to(gateway, "hidden", "apply", "-f", "-", input=POD)
        try:
            to(gateway, "hidden", "wait", "--for=condition=Ready", "pod/behind", "--timeout=60s")
            assert "behind" in to(gateway, "hidden", "get", "pods")
            assert to(gateway, "hidden", "exec", "behind", "--", "echo", "canary-of-an-exec") == "canary-of-an-exec\n"
            with (
                started(gateway, "hidden", "logs", "-f", "behind") as logs,
                started(gateway, "hidden", "get", "pods", "-w", "-o", "name") as watch,
            ):
                assert logs.stdout is not None
                assert watch.stdout is not None
                assert logs.stdout.readline() == "first\n"
                assert watch.stdout.readline() == "pod/behind\n"
                to(gateway, "hidden", "label", "pod", "behind", "seen=yes")
                assert watch.stdout.readline() == "pod/behind\n"
        finally:
            to(gateway, "hidden", "delete", "pod", "behind", "--now")
    there = urlsplit(access["endpoint"]).netloc
    assert set(proxy.asked) == {there}
    assert all((BASIC in head) == bool(userinfo) for head in proxy.heads)
    assert b"canary-of-an-exec" not in proxy.seen
    assert b"/api/v1" not in proxy.seen
    assert len(proxy.seen) > 10_000


MOODS = {
    "407": ("ProxyUnauthorized", "refuses the user name and password of proxyURL"),
    "403": ("ProxyRefused", "does not lead to"),
    "502": ("ProxyRefused", "does not lead to"),
    "hangs": ("Timeout", "through the proxy"),
    "away": ("ProxyUnreachable", "cannot be reached"),
}


def spoiled(proxy: ConnectProxy, mood: str) -> int:
    """The port of a proxy in that mood."""
    match mood:
        case "407":
            proxy.credential = "another"
        case "403":
            proxy.refusal = "403 Forbidden"
        case "502":
            proxy.refusal = "502 Bad Gateway"
        case "hangs":
            proxy.answers.clear()
        case "away":
            return free_port()
    return proxy.port


@pytest.mark.parametrize("mood", MOODS)
def test_what_is_wrong_with_a_proxy_is_told_to_users_and_by_the_condition(
    gateway: Gateway, proxy: ConnectProxy, mood: str
) -> None:
    port = spoiled(proxy, mood)
    reason, told = MOODS[mood]
    name = f"lost-{mood}"
    with registered(gateway, name, member(gateway) | {"proxyURL": f"http://user:{PASSWORD}@127.0.0.1:{port}"}):
        eventually(lambda: reachable(gateway, name)[0] == "False")
        status, found, message = reachable(gateway, name)
        assert (status, found) == ("False", reason), message
        assert told in message
        assert f"http://127.0.0.1:{port}" in message
        answer = to(gateway, name, "get", "--raw", "/api/v1/namespaces", check=False)
        assert f'cluster "{name}" is unreachable' in answer
        assert f"proxy http://127.0.0.1:{port}" in answer
        assert PASSWORD not in answer + message
        assert "default" in to(gateway, "sandbox-2", "get", "namespaces")


def test_the_password_of_a_proxy_is_found_nowhere_and_survives_kubectl(gateway: Gateway, proxy: ConnectProxy) -> None:
    proxy.credential = BASIC
    access = member(gateway) | {"proxyURL": f"http://user:{PASSWORD}@127.0.0.1:{proxy.port}"}
    shown = f"http://user:xxxxx@127.0.0.1:{proxy.port}"
    with registered(gateway, "masked", access):
        healthy(gateway, "masked")
        said = [apply(gateway, "masked", access, "-o", "yaml", "--show-managed-fields")]
        assert shown in said[0]
        said.append(apply(gateway, "masked", access, "--server-side", "--force-conflicts", "-o", "yaml"))
        said.append(apply(gateway, "masked", access, "--dry-run=server", "-o", "json"))
        changes = (
            ("annotate", "cluster", "masked", "a=b"),
            ("patch", "cluster", "masked", "--type=merge", "-p", json.dumps({"spec": {"access": {"proxyURL": shown}}})),
            ("patch", "cluster", "masked", "--type=merge", "-p", '{"spec":{"displayName":"Masked"}}'),
        )
        said += [gateway.kubectl(*change, context="onepass").stdout for change in changes]
        read, replaced, refused = written_back(gateway, "masked")
        assert (replaced, refused) == ("cluster.cluster.karpor.io/masked replaced\n", "")
        said += [read, replaced]
        _, replaced, refused = written_back(gateway, "masked", (f"127.0.0.1:{proxy.port}", "attacker.example:3128"))
        assert replaced == ""
        assert "supply the password itself" in refused
        said.append(refused)
        assert to(gateway, "masked", "get", "--raw", "/healthz") == "ok"
        said.append(gateway.kubectl("get", "--raw", CLUSTERS + "?watch=1&timeoutSeconds=1", context="onepass").stdout)
        said.append(gateway.kubectl("get", "--raw", "/metrics", context="onepass").stdout)
        said.append("".join(gateway.output))
        for text in said:
            assert PASSWORD not in text
            assert BASIC not in text
        for path, content in gateway.files():
            assert PASSWORD.encode() not in content, path
            assert BASIC.encode() not in content, path


def test_a_member_with_two_endpoints_loses_one_and_then_both(gateway: Gateway) -> None:
    access = member(gateway)
    there = urlsplit(access["endpoint"])
    assert there.port
    port = there.port
    with (
        beside.running(lambda: forwarder.running(port)) as (first, run),
        beside.running(lambda: forwarder.running(port)) as (second, run_second),
    ):
        urls = [f"https://127.0.0.1:{each.port}" for each in (first, second)]
        with registered(gateway, "double", access | {"endpoint": urls[0], "endpoints": urls[1:]}):
            healthy(gateway, "double")
            assert reachable(gateway, "double")[1] == "Connected"
            run(first.stop())
            for _ in range(10):
                assert "default" in to(gateway, "double", "get", "namespaces")
            run_second(second.stop())
            answer = to(gateway, "double", "get", "--raw", "/api/v1/namespaces", check=False)
            assert 'cluster "double" is unreachable' in answer
            run(first.start())
            eventually(lambda: "default" in to(gateway, "double", "get", "namespaces", check=False))


def test_an_endpoint_that_is_missing_is_told_by_the_condition(gateway: Gateway) -> None:
    gone = free_port()
    with registered(gateway, "half", member(gateway) | {"endpoints": [f"https://127.0.0.1:{gone}"]}):
        healthy(gateway, "half")
        status, reason, message = reachable(gateway, "half")
        assert (status, reason) == ("True", "SomeEndpointsUnreachable")
        assert message.startswith(f"1 of 2 endpoints fail: nothing listens on 127.0.0.1:{gone}")
        for _ in range(5):
            assert "default" in to(gateway, "half", "get", "namespaces")


def test_a_member_behind_a_proxy_is_joined_rotated_and_left_through_it(
    gateway: Gateway, proxy: ConnectProxy, tmp_path: Path
) -> None:
    own = gateway.data_dir / "sandbox" / "sandbox-1.kubeconfig"
    behind = yaml.safe_load(own.read_text())
    url = f"http://user:{PASSWORD}@127.0.0.1:{proxy.port}"
    behind["clusters"][0]["cluster"]["proxy-url"] = url
    kubeconfig = tmp_path / "behind.kubeconfig"
    kubeconfig.write_text(yaml.safe_dump(behind))
    proxy.credential = "another"
    refused = gateway.onepass("cluster", "join", "joined", "--kubeconfig", str(kubeconfig), check=False)
    assert refused.returncode != 0
    assert "its proxy does not lead to" in refused.stderr
    assert "407" in refused.stderr
    assert PASSWORD not in refused.stdout + refused.stderr
    assert gateway.kubectl("get", "cluster", "joined", context="onepass", check=False).returncode != 0
    proxy.credential = BASIC
    assert not any(BASIC not in head for head in proxy.heads)
    proxy.heads.clear()
    said = gateway.onepass("cluster", "join", "joined", "--kubeconfig", str(kubeconfig)).stdout
    assert "joined is joined and healthy" in said
    assert len(proxy.heads) >= 3  # from here, the handshake of the prober, and Envoy
    assert "default" in to(gateway, "joined", "get", "namespaces")
    shown = gateway.kubectl("get", "cluster", "joined", "-o", "yaml", context="onepass").stdout
    assert f"http://user:xxxxx@127.0.0.1:{proxy.port}" in shown
    assert "has a new credential" in gateway.onepass("cluster", "rotate", "joined").stdout
    options = ("--kubeconfig", str(own), "--proxy-url", url)
    assert "has a new credential" in gateway.onepass("cluster", "rotate", "joined", *options).stdout
    assert "default" in to(gateway, "joined", "get", "namespaces")
    assert "Cluster joined is removed" in gateway.onepass("cluster", "leave", "joined", *options).stdout
