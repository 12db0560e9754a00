"""Streams that are open: listed, ended by who may, and ended when they lose their right, while others live on."""

import json
import signal
import subprocess
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml
from tests.e2e.auditlog import awaited
from tests.e2e.conftest import BIN, Gateway, Start
from tests.e2e.test_gateway import PROXY, applied, granted, signed_by_csr, user_kubeconfig
from tests.e2e.test_gomember import gomember
from tests.programs.gomembers import GoMember
from tests.waiting import eventually

pytestmark = pytest.mark.e2e

__all__ = ["gomember"]  # a fixture

BOUND = 30.0  # seconds, as docs/concepts/streams.md has it
EVERYTHING = ("pods", "pods/log", "pods/exec", "pods/portforward")
WATCH = ("get", "pods", "-w")
LOGS = ("logs", "-f", "steady")
EXEC = ("exec", "-i", "steady", "--", "cat")
FORWARD = ("port-forward", "pod/steady", ":80")
SPDY = {"KUBECTL_REMOTE_COMMAND_WEBSOCKETS": "false", "KUBECTL_PORT_FORWARD_WEBSOCKETS": "false"}
WEBSOCKET: dict[str, str] = {}


@dataclass
class Streaming:
    """A kubectl with a stream open."""

    process: subprocess.Popen[str]

    def alive(self) -> bool:
        return self.process.poll() is None

    def echoes(self) -> bool:
        """Whether an exec of cat still answers."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write("are you there\n")
        self.process.stdin.flush()
        return self.process.stdout.readline() == "are you there\n"


def opened(gateway: Gateway, user: str) -> list[str]:
    """The ids of the streams that somebody has open, asked of the API."""
    asked = ("get", "streams", f"--field-selector=spec.user={user}", "-o", "json")
    items = json.loads(gateway.kubectl(*asked, context="onepass").stdout)["items"]
    return [item["metadata"]["name"] for item in items]


@contextmanager
def streaming(
    gateway: Gateway, user: str, kubeconfig: Path, *wanted: tuple[tuple[str, ...], dict[str, str]]
) -> Iterator[list[Streaming]]:
    """Streams of one user, from the moment that all are open."""
    # From its own command on nobody else asks again: a pass may be on its way to the data plane.
    of = "clusters" if "clusters" in wanted[0][0] else "pods"
    eventually(lambda: gateway.kubectl("get", of, kubeconfig=kubeconfig, check=False).returncode == 0)
    with ExitStack() as stack:
        found: list[Streaming] = []
        for arguments, env in wanted:
            process = subprocess.Popen(
                [str(BIN / "kubectl"), "--kubeconfig", str(kubeconfig), *arguments],
                env=gateway.environment(env),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                text=True,
            )
            stack.enter_context(process)
            stack.callback(process.kill)
            found.append(Streaming(process))
        eventually(lambda: len(opened(gateway, user)) >= len(wanted), f"{user} has not {len(wanted)} streams open")
        yield found


def ended(streams: list[Streaming], bound: float = BOUND) -> float:
    """How many seconds it takes until all have ended."""
    began = time.monotonic()
    while any(stream.alive() for stream in streams):
        assert time.monotonic() - began < bound, [stream.process.args for stream in streams if stream.alive()]
        time.sleep(0.05)
    return time.monotonic() - began


@pytest.fixture(scope="module")
def steady(gateway: Gateway) -> Iterator[str]:
    """A pod on sandbox-1."""
    gateway.kubectl("run", "steady", "--image=busybox", "--", "sleep", "900", context="sandbox-1")
    gateway.kubectl("wait", "--for=condition=Ready", "pod/steady", context="sandbox-1")
    yield "steady"
    gateway.kubectl("delete", "pod", "steady", "--now", context="sandbox-1")


@pytest.fixture(scope="module")
def bystander(gateway: Gateway, steady: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[Streaming]]:
    """A watch and an exec of somebody to whom nothing happens: alive before and after every test here."""
    user = "streams-bystander"
    applied(gateway, granted(user, user, "get", "list", "watch", "create", resources=EVERYTHING))
    path = signed_by_csr(gateway, user, tmp_path_factory.mktemp("bystander") / "kubeconfig")
    with streaming(gateway, user, path, (WATCH, WEBSOCKET), (EXEC, WEBSOCKET)) as streams:
        yield streams


@pytest.fixture(autouse=True)
def untouched(bystander: list[Streaming]) -> Iterator[None]:
    yield
    assert all(stream.alive() for stream in bystander)
    assert bystander[1].echoes()


@pytest.fixture
def user() -> str:
    return f"streams-{uuid.uuid4().hex[:8]}"


def changed(gateway: Gateway, name: str, change: dict[str, object]) -> None:
    patch = json.dumps({"spec": change})
    gateway.kubectl("patch", "pass", name, "--type=merge", "-p", patch, context="onepass")


def revoke(gateway: Gateway, name: str) -> None:
    listed = json.loads(gateway.kubectl("get", "csr", "-o", "json", context="onepass").stdout)["items"]
    (csr,) = [item for item in listed if item["metadata"]["name"].startswith(f"{name}-")]
    condition = {"type": "Revoked", "status": "True", "reason": "Test", "message": "taken back"}
    csr["status"]["conditions"].append(condition)
    path = f"/apis/certificates.k8s.io/v1/certificatesigningrequests/{csr['metadata']['name']}/approval"
    gateway.kubectl("replace", "--raw", path, "-f", "-", input=json.dumps(csr), context="onepass")


def suspend(gateway: Gateway, name: str) -> None:
    changed(gateway, name, {"suspended": True})


def narrow(gateway: Gateway, name: str) -> None:
    rules = [{"apiGroups": [""], "resources": ["configmaps"], "verbs": ["get", "list", "watch"]}]
    changed(gateway, name, {"rules": rules})


def delete(gateway: Gateway, name: str) -> None:
    gateway.kubectl("delete", "pass", name, context="onepass")


def impersonate(gateway: Gateway, name: str) -> None:
    changed(gateway, name, {"identity": {"mode": "Impersonate"}})


def shorten(gateway: Gateway, name: str) -> None:
    moment = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time.time() + 2))
    changed(gateway, name, {"notAfter": moment})


ALL = ((WATCH, WEBSOCKET), (LOGS, WEBSOCKET), (EXEC, WEBSOCKET), (FORWARD, WEBSOCKET))
SOME = ((WATCH, WEBSOCKET), (EXEC, WEBSOCKET))


@pytest.mark.parametrize(
    ("take", "kinds"),
    [
        pytest.param(take, kinds, id=take.__name__)
        for take, kinds in (
            (suspend, ALL), (revoke, ALL), (delete, SOME), (narrow, SOME), (impersonate, SOME), (shorten, SOME),
        )
    ],
)  # fmt: skip
def test_streams_end_with_their_right(
    gateway: Gateway,
    steady: str,
    user: str,
    tmp_path: Path,
    take: Callable[[Gateway, str], None],
    kinds: tuple[tuple[tuple[str, ...], dict[str, str]], ...],
) -> None:
    applied(gateway, granted(user, user, "get", "list", "watch", "create", resources=EVERYTHING))
    kubeconfig = signed_by_csr(gateway, user, tmp_path / "kubeconfig")
    with streaming(gateway, user, kubeconfig, *kinds) as streams:
        take(gateway, user)
        ended(streams)
    eventually(lambda: gateway.kubectl("get", "pods", kubeconfig=kubeconfig, check=False).returncode != 0)
    eventually(lambda: not opened(gateway, user))
    told = awaited(
        gateway,
        lambda r: (
            r.get("user", {}).get("username") == user
            and r["annotations"].get("access.karpor.io/details", "").startswith("onepass_right_lost")
        ),
        len(kinds) - (1 if take is shorten else 0),  # Envoy's own clock may be first there
    )
    assert {record["stage"] for record in told} == {"ResponseComplete"}


def test_a_right_that_another_pass_keeps_ends_nothing(gateway: Gateway, steady: str, user: str, tmp_path: Path) -> None:
    for name in (user, f"{user}-too"):
        applied(gateway, granted(name, user, "get", "list", "watch", "create", resources=EVERYTHING))
    kubeconfig = signed_by_csr(gateway, user, tmp_path / "kubeconfig")
    with streaming(gateway, user, kubeconfig, *SOME) as streams:
        suspend(gateway, user)
        eventually(lambda: not json.loads(the_pass(gateway, user))["status"]["inForce"])
        moment = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time.time() - 1))
        changed(gateway, user, {"suspended": False, "notBefore": None, "notAfter": moment})
        eventually(lambda: not json.loads(the_pass(gateway, user))["status"]["inForce"])
        assert streams[1].echoes()
        assert streams[0].alive()
        delete(gateway, f"{user}-too")
        ended(streams)


def the_pass(gateway: Gateway, name: str) -> str:
    return gateway.kubectl("get", "pass", name, "-o", "json", context="onepass").stdout


def test_not_after_ends_a_stream_on_time_by_envoys_own_clock(
    gateway: Gateway, steady: str, user: str, tmp_path: Path
) -> None:
    began = time.monotonic()
    kubeconfig = signed_by_csr(gateway, user, tmp_path / "kubeconfig")
    span = max(12.0, 5 * (time.monotonic() - began))  # until which all must be open: longer where commands take longer
    until = time.time() + span
    given = granted(user, user, "get", "list", "watch", "create", resources=EVERYTHING)
    spec = given["spec"]
    assert isinstance(spec, dict)
    spec["notAfter"] = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(until))
    applied(gateway, given)
    with streaming(gateway, user, kubeconfig, *SOME) as streams:
        ended(streams, span + BOUND)
    assert time.time() >= int(until) - 1


def test_not_after_ends_streams_without_a_control_plane(start: Start, gomember: GoMember, tmp_path: Path) -> None:
    """The Python process is stopped: streams go on, new ones begin, and Envoy ends them at the end of the pass."""
    gateway = start()
    gateway.register("go", endpoint=gomember.endpoint, ca=gomember.ca.encode(), **gomember.proof("token"))
    began = time.monotonic()
    kubeconfig = signed_by_csr(gateway, "short", tmp_path / "kubeconfig")
    span = max(30, int(12 * (time.monotonic() - began)))  # longer where commands take longer
    until = int(time.time()) + span
    given = granted("short", "short", "get", "list", "watch", "create", resources=EVERYTHING)
    spec = given["spec"]
    assert isinstance(spec, dict)
    moment = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(until))
    applied(gateway, given | {"spec": spec | {"clusters": {"names": ["go"]}, "notAfter": moment}})
    config = yaml.safe_load(kubeconfig.read_text())
    for cluster in config["clusters"]:
        cluster["cluster"]["server"] = gateway.url + PROXY.format("go")
    kubeconfig.write_text(yaml.safe_dump(config | {"current-context": "onepass"}))
    session = ("exec", "-i", "demo", "--", "cat")
    with streaming(gateway, "short", kubeconfig, (WATCH, WEBSOCKET), (session, WEBSOCKET), (session, SPDY)) as streams:
        gateway.process.send_signal(signal.SIGSTOP)
        try:
            assert streams[1].echoes()
            assert streams[2].echoes()
            done = gateway.kubectl("exec", "demo", "--", "echo", "new", kubeconfig=kubeconfig)
            assert done.stdout == "new\n"
            assert all(stream.alive() for stream in streams)
            assert time.time() < until, "this machine is too slow to see anything"
            ended(streams, span + BOUND)
        finally:
            gateway.process.send_signal(signal.SIGCONT)
    assert time.time() >= until - 1


@pytest.mark.parametrize("take", [revoke, suspend, shorten])
def test_spdy_streams_end_too(
    gateway: Gateway, gomember: GoMember, user: str, tmp_path: Path, take: Callable[[Gateway, str], None]
) -> None:
    """On a member made of Kubernetes' own streaming libraries: the sandbox speaks WebSocket only."""
    gateway.register("spdy", endpoint=gomember.endpoint, ca=gomember.ca.encode(), **gomember.proof("token"))
    given = granted(user, user, "get", "list", "watch", "create", resources=EVERYTHING)
    spec = given["spec"]
    assert isinstance(spec, dict)
    applied(gateway, given | {"spec": spec | {"clusters": {"names": ["spdy"]}}})
    config = yaml.safe_load(signed_by_csr(gateway, user, tmp_path / "kubeconfig").read_text())
    for cluster in config["clusters"]:
        cluster["cluster"]["server"] = gateway.url + PROXY.format("spdy")
    kubeconfig = tmp_path / "kubeconfig"
    kubeconfig.write_text(yaml.safe_dump(config))
    session = ("exec", "-i", "demo", "--", "cat")
    forward = ("port-forward", "pod/demo", ":80")
    with streaming(gateway, user, kubeconfig, (session, SPDY), (session, WEBSOCKET), (forward, SPDY)) as streams:
        assert streams[0].echoes()
        take(gateway, user)
        ended(streams)


def test_a_service_accounts_streams_end_with_it(gateway: Gateway, steady: str, user: str, tmp_path: Path) -> None:
    gateway.kubectl("create", "serviceaccount", user, context="onepass")
    name = f"system:serviceaccount:default:{user}"
    applied(gateway, granted(user, name, "get", "list", "watch", "create", resources=EVERYTHING))
    token = gateway.kubectl("create", "token", user, context="onepass").stdout.strip()
    kubeconfig = user_kubeconfig(gateway, tmp_path / "kubeconfig", {"token": token})
    with streaming(gateway, name, kubeconfig, *SOME) as streams:
        gateway.kubectl("delete", "serviceaccount", user, context="onepass")
        ended(streams)


def test_a_watch_of_the_gateways_own_api_ends_with_its_role(gateway: Gateway, user: str, tmp_path: Path) -> None:
    role = ("create", "clusterrolebinding", user, "--clusterrole=cluster-admin", f"--user={user}")
    gateway.kubectl(*role, context="onepass")
    kubeconfig = signed_by_csr(gateway, user, tmp_path / "kubeconfig")
    config = kubeconfig.read_text().replace("current-context: sandbox-1", "current-context: onepass")
    kubeconfig.write_text(config)
    with streaming(gateway, user, kubeconfig, (("get", "clusters", "-w"), {})) as streams:
        gateway.kubectl("delete", "clusterrolebinding", user, context="onepass")
        ended(streams)


def test_streams_are_objects_that_kubectl_lists_watches_and_deletes(
    gateway: Gateway, steady: str, user: str, tmp_path: Path
) -> None:
    applied(gateway, granted(user, user, "get", "list", "watch", "create", resources=EVERYTHING))
    kubeconfig = signed_by_csr(gateway, user, tmp_path / "kubeconfig")
    with streaming(gateway, user, kubeconfig, *SOME) as (watch, session):
        rows = gateway.kubectl("get", "streams", context="onepass").stdout.splitlines()
        assert rows[0].split() == ["NAME", "USER", "CLUSTER", "VERB", "RESOURCE", "NAMESPACE", "OBJECT", "AGE"]
        mine = sorted(row.split()[1:7] for row in rows if user in row)
        assert mine[0] == [user, "sandbox-1", "create", "pods/exec", "default", "steady"]
        (name,) = [row.split()[0] for row in rows if user in row and "exec" in row]
        refused = gateway.kubectl("delete", "stream", name, "--as", "nobody", context="onepass", check=False)
        assert "cannot delete resource" in refused.stderr
        refused = gateway.kubectl("annotate", "stream", name, "a=b", context="onepass", check=False)
        assert refused.returncode != 0
        assert session.alive()
        gateway.kubectl("delete", "stream", name, context="onepass")
        ended([session])
        assert watch.alive()
        assert "not found" in gateway.kubectl("delete", "stream", name, context="onepass", check=False).stderr


def test_the_command_line_lists_follows_and_ends(gateway: Gateway, steady: str, user: str, tmp_path: Path) -> None:
    applied(gateway, granted(user, user, "get", "list", "watch", "create", resources=EVERYTHING))
    kubeconfig = signed_by_csr(gateway, user, tmp_path / "kubeconfig")
    with streaming(gateway, user, kubeconfig, *SOME) as (watch, session), ExitStack() as stack:
        listed = gateway.onepass("streams", "--user", user, "--cluster", "sandbox-1").stdout.splitlines()
        assert listed[0].split() == ["ID", "USER", "CLUSTER", "VERB", "WHAT", "NAMESPACE", "SINCE", "FROM"]
        assert sorted(row.split()[3] for row in listed[1:]) == ["exec", "watch"]
        (id,) = [row.split()[0] for row in listed if "exec" in row]
        asked = json.loads(gateway.onepass("streams", "--user", user, "-o", "json").stdout)
        assert {item["spec"]["user"] for item in asked["items"]} == {user}
        assert "No such stream" in gateway.onepass("streams", "--user", "nobody").stderr
        told: list[str] = []
        follow = subprocess.Popen(
            [str(BIN / "onepass"), "streams", "--user", user, "-w"],
            env=gateway.environment({"ONEPASS_KUBECONFIG": str(gateway.kubeconfig), "PYTHONUNBUFFERED": "1"}),
            stdout=subprocess.PIPE,
            text=True,
        )
        stack.enter_context(follow)
        stack.callback(follow.kill)
        reader = threading.Thread(target=lambda: told.extend(follow.stdout or ()), daemon=True)
        reader.start()
        eventually(lambda: sum(line.startswith("+") for line in told) == 2)
        done = gateway.onepass("streams", "end", id)
        assert done.stdout == f"Ended: {user}'s exec of pods/steady on sandbox-1.\n"
        ended([session])
        eventually(lambda: any(line.startswith("-") and id in line for line in told))
        assert watch.alive()
        refused = gateway.onepass("streams", "end", id, check=False)
        assert (refused.returncode, "no open stream" in refused.stderr) == (1, True)


def test_a_deleted_clusters_streams_end(start: Start) -> None:
    gateway = start("--sandbox", "1")
    gateway.kubectl("run", "steady", "--image=busybox", "--", "sleep", "900", context="sandbox-1")
    gateway.kubectl("wait", "--for=condition=Ready", "pod/steady", context="sandbox-1")
    path = gateway.data_dir / "copy"
    path.write_text(gateway.kubeconfig.read_text().replace("current-context: onepass", "current-context: sandbox-1"))
    with streaming(gateway, "admin", path, *SOME) as streams:
        gateway.kubectl("delete", "cluster", "sandbox-1", context="onepass")
        ended(streams)
