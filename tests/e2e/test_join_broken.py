"""Joining and leaving cut short at every step: run again it is done, and nothing is left that nobody knows of."""

import base64
import itertools
import json
import signal
import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import yaml
from tests.e2e import breaking, joins
from tests.e2e.breaking import Breaker
from tests.e2e.conftest import BIN, Gateway
from tests.e2e.joins import Member, b64, onepass, refused
from tests.waiting import eventually

from onepass.api import meta
from onepass.api.meta import Object
from onepass.cli import claims, foothold, memberclient
from onepass.cli.foothold import Foothold

pytestmark = pytest.mark.e2e

NAME = "broken"
VARYING = ("events", "leases", "componentstatuses")


@dataclass(frozen=True)
class Ended:
    code: int
    out: str
    err: str
    changes: list[str]


@dataclass
class Bench:
    """A gateway and a member, and how the command line comes to both: by proxies at which it is cut short."""

    gateway: Gateway
    member: Member
    breaker: Breaker
    ours: Path
    theirs: Path
    kinds: str
    before: dict[str, object] = field(default_factory=dict)

    def start(self, *words: str) -> subprocess.Popen[str]:
        command = [str(BIN / "onepass"), "--kubeconfig", str(self.ours), "cluster", *words]
        return subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=self.gateway.environment(),
        )

    def run(self, word: str, *, after: int = 0, broken: Callable[[subprocess.Popen[str]], None] | None = None) -> Ended:
        """`onepass cluster WORD` until its end; `broken` happens after so many changes, whose last has no answer."""
        begun: list[subprocess.Popen[str]] = []
        self.breaker.set(after, lambda: broken(begun[0]) if broken else None)
        begun.append(self.start(word, NAME, "--kubeconfig", str(self.theirs)))
        out, err = begun[0].communicate(timeout=180)
        return Ended(begun[0].returncode, out, err, list(self.breaker.seen))

    def objects(self) -> dict[str, object]:
        """Everything in the member, but for what changes by itself."""
        found = json.loads(self.member.kubectl("get", self.kinds, "-A", "-o", "json"))["items"]
        for each in found:
            for key in ("resourceVersion", "managedFields"):
                each["metadata"].pop(key, None)
        return {f"{each['kind']} {each['metadata']['uid']}": each for each in found}

    def untouched(self) -> bool:
        listed = self.gateway.kubectl("get", "clusters", "-o", "name", context="onepass").stdout
        return self.objects() == self.before and NAME not in listed


@pytest.fixture(scope="module")
def joiner(gateway: Gateway) -> Iterator[str]:
    """The token of somebody who may do everything at the gateway."""
    own = ("--context", "onepass", "-n", "default")
    gateway.kubectl("create", "serviceaccount", "joiner", *own)
    rights = ("--clusterrole=cluster-admin", "--serviceaccount=default:joiner")
    gateway.kubectl("create", "clusterrolebinding", "joiner", *own, *rights)
    yield gateway.kubectl("create", "token", "joiner", "--duration=2h", *own).stdout.strip()
    gateway.kubectl("delete", "serviceaccount/joiner", "clusterrolebinding/joiner", *own)


@pytest.fixture(scope="module")
def bench(gateway: Gateway, joiner: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    with joins.kubernetes(tmp_path_factory.mktemp("kubernetes")) as member, between(gateway, joiner, member) as found:
        yield found


@pytest.fixture(scope="module")
def quick(gateway: Gateway, joiner: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    with joins.sandbox(tmp_path_factory.mktemp("sandbox")) as member, between(gateway, joiner, member) as found:
        yield found


@contextmanager
def between(gateway: Gateway, token: str, member: Member) -> Iterator[Bench]:
    config = yaml.safe_load(gateway.kubeconfig.read_text())
    authority = next(each for each in config["clusters"] if each["name"] == "onepass")["cluster"]
    ca = base64.b64decode(authority["certificate-authority-data"]).decode()
    listed = member.kubectl("api-resources", "--verbs=list", "-o", "name").split()
    breaker, paths = Breaker(), []
    with ExitStack() as stack:
        for name, url, trusted, by in (
            ("gateway", gateway.url, ca, token),
            ("member", member.endpoint, member.ca, member.token),
        ):
            reached, authority = stack.enter_context(breaking.proxy(url, trusted, by, breaker))
            path = member.config.parent / f"{name}-by-proxy"
            cluster = {"server": reached, "certificate_authority_data": b64(authority)}
            paths.append(member.altered(path, {"token": by}, **cluster))
        kinds = ",".join(each for each in listed if each.partition(".")[0] not in VARYING)
        found = Bench(gateway, member, breaker, paths[0], paths[1], kinds)

        def settled() -> bool:
            """What a member makes by itself as it begins is there."""
            last, found.before = found.before, found.objects()
            return found.before == last

        eventually(settled)
        yield found


def kill(process: subprocess.Popen[str]) -> None:
    process.kill()
    process.wait(30)


def test_what_outlives_the_namespace_of_an_earlier_attempt_is_taken_away(
    quick: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    create = memberclient.Member.create

    def late(member: memberclient.Member, path: str, obj: Object) -> Object:
        """As if what was in the namespace before this one were not swept up yet."""
        made = create(member, path, obj)
        if obj["kind"] == "Namespace":
            _, *inside = Foothold(NAME, meta.name(obj), "").objects(
                {**meta.annotations(obj), claims.ATTEMPT: "earlier"}
            )
            for where, each in inside:
                if meta.name(each) == foothold.ACCOUNT:
                    create(member, where, each)
        return made

    monkeypatch.setattr(memberclient.Member, "create", late)
    onepass(quick.gateway, "cluster", "join", NAME, "--kubeconfig", str(quick.member.config))
    onepass(quick.gateway, "cluster", "leave", NAME, "--kubeconfig", str(quick.member.config))
    eventually(quick.untouched)


def test_killed_at_every_step_it_is_run_again_and_then_left(quick: Bench) -> None:
    for step in itertools.count(1):
        done = quick.run("join", after=step, broken=kill)
        if done.code >= 0:
            break
        assert done.code == -signal.SIGKILL
    assert step > 10, done
    # The last one was killed when all was done, and had only not been told.
    assert (done.code, "registered already" in done.err) in ((0, False), (1, True)), done.err
    shown = json.loads(onepass(quick.gateway, "cluster", "show", NAME, "-o", "json"))
    assert shown["status"]["healthy"] is True
    assert claims.ATTEMPT not in shown["metadata"]["annotations"]
    through = quick.gateway.kubectl(
        "get",
        "--raw",
        f"/apis/cluster.karpor.io/v1beta1/clusters/{NAME}/proxy/api/v1/namespaces/onepass-system",
        context="onepass",
    )
    assert NAME in through.stdout
    for _ in itertools.count():
        done = quick.run("leave", after=1, broken=kill)
        if done.code >= 0:
            break
    assert done.code == 0 or "nothing of it in the member" in done.err
    eventually(quick.untouched)


def test_without_an_answer_it_takes_back_what_it_made(quick: Bench) -> None:
    for step, change in ((1, "POST /api/v1/namespaces"), (5, "clusterrolebindings"), (6, "/token"), (7, "/clusters")):
        done = quick.run("join", after=step)
        assert change in done.changes[step - 1]
        assert done.code == 1
        assert "broke off" in done.err or "cannot be reached" in done.err, done.err
        assert "may remain" not in done.err, done.err
        eventually(quick.untouched)
    done = quick.run("join", after=8)  # by which it is done: it asks again
    assert done.code == 0, done.err
    assert [each for each in done.changes if each.startswith("PATCH")] == done.changes[7:]
    assert quick.run("leave").code == 0
    eventually(quick.untouched)


def test_interrupted_it_takes_back_what_it_made(quick: Bench) -> None:
    def interrupt(process: subprocess.Popen[str]) -> None:
        process.send_signal(signal.SIGINT)
        process.wait(60)

    for step in (3, 7):
        done = quick.run("join", after=step, broken=interrupt)
        assert done.code == 130, done.err
        eventually(quick.untouched)


def test_when_nobody_answers_any_more_it_tells_what_remains(bench: Bench) -> None:
    def cut(_: subprocess.Popen[str]) -> None:
        bench.breaker.away = True

    done = bench.run("join", after=5, broken=cut)
    assert done.code == 1
    assert "may remain: " in done.err
    assert "/api/v1/namespaces/onepass-system" in done.err
    assert "join again, which begins anew" in done.err
    bench.breaker.set(0)
    elsewhere = refused(bench.gateway, "cluster", "join", NAME, "-f", str(bench.theirs), "--namespace", "second")
    assert "has left the namespace onepass-system in the member" in elsewhere.what
    other = refused(bench.gateway, "cluster", "join", "other", "-f", str(bench.theirs))
    assert f"has a Namespace onepass-system already, which belongs to the cluster {NAME}" in other.what
    assert f"onepass cluster leave {NAME} --kubeconfig" in other.hint
    assert bench.run("leave").code == 0  # though no Cluster says where it is
    eventually(bench.untouched)


def test_what_another_gateway_holds_is_refused_with_its_name(bench: Bench) -> None:
    assert bench.run("join").code == 0
    kubectl, space = bench.member.kubectl, "onepass-system"
    held = json.loads(kubectl("get", "namespace", space, "-o", "json"))["metadata"]["annotations"][claims.GATEWAY]
    theirs = (f"{claims.GATEWAY}=another", f"{claims.URL}=https://other.example.com")
    kubectl("annotate", "--overwrite", "namespace", space, *theirs)
    told = f"belongs to the cluster {NAME} of another gateway, https://other.example.com"
    done = bench.run("leave")
    assert (done.code, told in done.err) == (1, True), done.err
    onepass(bench.gateway, "cluster", "remove", NAME)
    done = bench.run("join")
    assert (done.code, told in done.err) == (1, True), done.err
    kubectl("annotate", "--overwrite", "namespace", space, f"{claims.GATEWAY}={held}")
    assert bench.run("leave").code == 0
    eventually(bench.untouched)


def test_nothing_that_was_there_before_is_built_upon(bench: Bench) -> None:
    """Who may make namespaces can copy every mark; their roles in it must not outlive the next join."""
    uid = bench.gateway.kubectl(
        "get", "namespace", "kube-system", "-o", "jsonpath={.metadata.uid}", context="onepass"
    ).stdout
    kubectl, space = bench.member.kubectl, "onepass-system"
    marks = {claims.GATEWAY: uid, claims.CLUSTER: NAME, claims.ATTEMPT: "guessed"}
    forged = {"name": space, "labels": {"app.kubernetes.io/managed-by": "onepass"}, "annotations": marks}
    kubectl("create", "-f", "-", input=json.dumps({"apiVersion": "v1", "kind": "Namespace", "metadata": forged}))
    kubectl("create", "serviceaccount", "onepass", "-n", space)
    kubectl("create", "rolebinding", "trap", "-n", space, "--clusterrole=admin", "--user=mallory")
    account = kubectl("get", "serviceaccount", "onepass", "-n", space, "-o", "jsonpath={.metadata.uid}")
    assert bench.run("join").code == 0
    assert kubectl("get", "rolebindings", "-n", space, "-o", "name").split() == [
        "rolebinding.rbac.authorization.k8s.io/onepass"
    ]
    assert kubectl("get", "serviceaccount", "onepass", "-n", space, "-o", "jsonpath={.metadata.uid}") != account
    assert bench.run("leave").code == 0
    eventually(bench.untouched)


def test_of_two_at_once_one_is_done_or_none(quick: Bench) -> None:
    quick.breaker.set(0)
    both = [quick.start("join", NAME, "--kubeconfig", str(quick.theirs)) for _ in range(2)]
    told = [each.communicate(timeout=180) for each in both]
    done = sorted(each.returncode for each in both)
    assert done in ([0, 1], [1, 1]), told
    if done == [0, 1]:
        shown = json.loads(onepass(quick.gateway, "cluster", "show", NAME, "-o", "json"))
        assert shown["status"]["healthy"] is True
        assert quick.run("leave").code == 0
    eventually(quick.untouched)


def test_a_member_that_is_gone_is_left_by_force(bench: Bench, tmp_path: Path) -> None:
    assert bench.run("join").code == 0
    without = f"onepass cluster leave {NAME} --force"
    entry = yaml.safe_load(bench.theirs.read_text())["clusters"][0]["cluster"]
    trust = {"server": entry["server"], "certificate_authority_data": entry["certificate-authority-data"]}
    config = bench.member.altered(tmp_path / "config", {"token": "ended"}, **trust)
    tries: list[list[str]] = [[], ["-f", str(tmp_path / "absent")], ["-f", str(config)]]
    for words in tries:
        assert without in refused(bench.gateway, "cluster", "leave", NAME, *words).hint, words
    done = bench.gateway.onepass("cluster", "leave", NAME, "--force", "-f", str(config))
    assert done.stdout.splitlines() == [f"Cluster {NAME} is removed."]
    assert "does not know its user" in done.stderr
    commands = [line.split() for line in done.stderr.splitlines() if line.startswith("  kubectl ")]
    assert len(commands) == 2
    for _, *words in commands:
        others = [word.replace("=onepass-system", "=default") for word in words]
        assert others == words or "No resources found" in bench.member.kubectl.run(*others).stdout
        bench.member.kubectl(*words)
    bench.member.kubectl("get", "namespace", "default")
    eventually(bench.untouched)
    again = refused(bench.gateway, "cluster", "leave", NAME, "--force")
    assert f"there is no cluster {NAME}" in again.what
    assert "was not joined" in refused(bench.gateway, "cluster", "leave", "sandbox-1", "--force").what
