"""Joining a member by an account of the gateway's own, renewing its credential under load, and leaving again."""

import base64
import json
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import trustme
import yaml
from tests.e2e import joins
from tests.e2e.conftest import Gateway, Start
from tests.e2e.joins import Member, b64, clean, onepass, refused, traces
from tests.waiting import eventually

from onepass.api import meta
from onepass.api.meta import Object
from onepass.cli import client
from onepass.cli.failure import Failure

pytestmark = pytest.mark.e2e

ACCOUNT = "system:serviceaccount:onepass-system:onepass"


@pytest.fixture(scope="module")
def member(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Member]:
    with joins.kubernetes(tmp_path_factory.mktemp("kubernetes")) as started:
        yield started


@pytest.fixture(scope="module")
def api(gateway: Gateway) -> Iterator[client.Gateway]:
    with client.Gateway(gateway.kubeconfig) as asked:
        yield asked


def credential(api: client.Gateway, name: str) -> Object:
    cluster = api.get(f"{client.CLUSTERS}/{name}")
    return meta.section(meta.section(meta.section(cluster, "spec"), "access"), "credential")


@dataclass
class Load:
    """Requests to a member without a pause."""

    api: client.Gateway
    path: str
    sent: int = 0
    failed: list[str] = field(default_factory=list)
    _stop: threading.Event = field(default_factory=threading.Event)

    @contextmanager
    def running(self) -> Iterator["Load"]:
        thread = threading.Thread(target=self._run)
        thread.start()
        try:
            yield self
            eventually(lambda: self.sent > 20)
        finally:
            self._stop.set()
            thread.join(30)

    def _run(self) -> None:
        while not self._stop.is_set():
            try:
                code, text = self.api.raw(self.path)
            except Failure as failure:
                self.failed.append(failure.what)
            else:
                self.failed += [] if code == 200 else [f"{code} {text[:200]}"]
            self.sent += 1

    def more(self) -> None:
        """Returns when many more have been sent."""
        goal = self.sent + 20
        eventually(lambda: self.sent >= goal)


def test_a_member_is_joined_rotated_under_load_and_left(
    gateway: Gateway, api: client.Gateway, member: Member, tmp_path: Path
) -> None:
    said = onepass(gateway, "cluster", "join", "joined", "--kubeconfig", str(member.config), "--label", "a=b")
    try:
        assert "joined is joined and healthy" in said
        assert f"comes as {ACCOUNT}, which has cluster-admin" in said
        first = credential(api, "joined")
        assert (first["type"], first["renew"]) == ("ServiceAccountToken", True)
        with Load(
            api, f"{client.CLUSTERS}/joined/proxy/api/v1/namespaces/onepass-system/serviceaccounts"
        ).running() as load:
            load.more()
            assert "has a new credential" in onepass(gateway, "cluster", "rotate", "joined")
            renewed = credential(api, "joined")
            assert renewed["fingerprint"] != first["fingerprint"]
            assert "onepass.karpor.io/rotate" not in json.dumps(api.get(f"{client.CLUSTERS}/joined"))
            load.more()
            other = trustme.CA().cert_pem.bytes().decode()
            both = member.altered(tmp_path / "both", certificate_authority_data=b64(other + member.ca))
            onepass(gateway, "cluster", "rotate", "joined", "--kubeconfig", str(both), "--token-duration", "1h")
            load.more()
            third = credential(api, "joined")
            assert third["fingerprint"] != renewed["fingerprint"]
            assert third["renew"] is True
            back = str(member.config)
            onepass(gateway, "cluster", "rotate", "joined", "--kubeconfig", back)
            load.more()
        assert load.failed == []

        def told() -> bool:
            shown = api.get(f"{client.CLUSTERS}/joined")
            listed = meta.section(shown, "status").get("conditions")
            return "days left; it is renewed before that" in json.dumps(listed)

        eventually(told)
    finally:
        left = onepass(gateway, "cluster", "leave", "joined", "--kubeconfig", str(member.config))
    assert "Cluster joined is removed" in left
    clean(gateway, member, "joined")
    again = refused(gateway, "cluster", "leave", "joined", "--kubeconfig", str(member.config))
    assert "nothing of it in the member" in again.what


def review(account: str, verb: str, resource: str) -> Object:
    """`resource` as GROUP/RESOURCE/SUBRESOURCE:NAME, or the path of what is no resource."""
    spec: Object = {"user": account}
    if resource.startswith("/"):
        spec["nonResourceAttributes"] = {"verb": verb, "path": resource}
    else:
        kind, _, name = resource.partition(":")
        group, plural, sub = kind.split("/")
        attributes: Object = {"verb": verb, "resource": plural, "subresource": sub, "name": name, "namespace": "gate"}
        spec["resourceAttributes"] = attributes | {"group": "" if group == "core" else group}
    return {"apiVersion": "authorization.k8s.io/v1", "kind": "SubjectAccessReview", "spec": spec}


def test_to_impersonate_the_account_may_do_nothing_else(gateway: Gateway, member: Member) -> None:
    onepass(gateway, "cluster", "join", "named", "-f", str(member.config), "--impersonate", "--namespace", "gate")
    authentication = "authentication.k8s.io"
    may = {
        ("impersonate", "core/users/"): True,
        ("impersonate", "core/groups/"): True,
        ("impersonate", "core/serviceaccounts/"): True,
        ("impersonate", f"{authentication}/uids/"): True,
        ("impersonate", f"{authentication}/userextras/scopes"): True,
        ("get", "/version"): True,
        ("create", "core/serviceaccounts/token:onepass"): True,
        ("create", "core/serviceaccounts/token:default"): False,
        ("get", "core/serviceaccounts/:onepass"): False,
        ("get", "core/secrets/"): False,
        ("list", "core/pods/"): False,
        ("create", "rbac.authorization.k8s.io/clusterrolebindings/"): False,
        ("create", f"{authentication}/tokenreviews/"): False,
        ("get", "/metrics"): False,
    }
    try:
        account = "system:serviceaccount:gate:onepass"
        asked = [review(account, verb, what) for verb, what in may]
        listed = {"apiVersion": "v1", "kind": "List", "items": asked}
        shown = "jsonpath={.status.allowed}{'\\n'}"

        def answers() -> list[bool]:
            told = member.kubectl("create", "-f", "-", "-o", shown, input=json.dumps(listed)).split()
            return [each == "true" for each in told]

        eventually(lambda: sum(answers()) >= sum(may.values()))  # the member's caches follow what was written
        assert dict(zip(may, answers(), strict=True)) == may
        onepass(gateway, "cluster", "rotate", "named")  # with these rights alone
    finally:
        onepass(gateway, "cluster", "leave", "named", "-f", str(member.config))
    clean(gateway, member, "named")


PLUGIN = """import json, os, sys
asked = json.loads(os.environ["KUBERNETES_EXEC_INFO"])
assert asked["kind"] == "ExecCredential"
status = json.load(open(sys.argv[1]))
print(json.dumps({"apiVersion": asked["apiVersion"], "kind": "ExecCredential", "status": status}))
"""


def test_a_cloud_s_program_may_log_the_administrator_in(gateway: Gateway, member: Member, tmp_path: Path) -> None:
    user = yaml.safe_load(member.config.read_text())["users"][0]["user"]
    pair = {
        "clientCertificateData": base64.b64decode(user["client-certificate-data"]).decode(),
        "clientKeyData": base64.b64decode(user["client-key-data"]).decode(),
    }
    (tmp_path / "status").write_text(json.dumps(pair))
    (tmp_path / "plugin").write_text(PLUGIN)
    program = {
        "apiVersion": "client.authentication.k8s.io/v1beta1",
        "command": sys.executable,
        "args": [str(tmp_path / "plugin"), str(tmp_path / "status")],
        "interactiveMode": "IfAvailable",
    }
    config = member.altered(tmp_path / "config", {"exec": program})
    onepass(gateway, "cluster", "join", "cloud", "--kubeconfig", str(config), "--role", "view")
    assert "clusterrolebinding.rbac.authorization.k8s.io/onepass:onepass-system" in traces(member)
    onepass(gateway, "cluster", "leave", "cloud", "--kubeconfig", str(config))
    clean(gateway, member, "cloud")


def test_what_cannot_be_joined_is_told_and_leaves_nothing(gateway: Gateway, member: Member, tmp_path: Path) -> None:
    other = trustme.CA()
    leaf = other.issue_cert(common_name="stranger", not_after=None)
    stranger = {
        "client-certificate-data": b64(leaf.cert_chain_pems[0].bytes().decode()),
        "client-key-data": b64(leaf.private_key_pem.bytes().decode()),
    }
    program = {"apiVersion": "client.authentication.k8s.io/v1", "command": sys.executable, "args": ["-c", "print(1)"]}
    cases: list[tuple[str, Path, tuple[str, ...]]] = [
        ("cannot be reached", member.altered(tmp_path / "1", server="https://127.0.0.1:1"), ()),
        (
            "is not trusted",
            member.altered(tmp_path / "2", certificate_authority_data=b64(other.cert_pem.bytes().decode())),
            (),
        ),
        (
            "insecure-skip-tls-verify",
            member.altered(tmp_path / "3", certificate_authority_data=None, insecure_skip_tls_verify=True),
            (),
        ),
        ("auth-provider", member.altered(tmp_path / "4", {"auth-provider": {"name": "gcp"}}), ()),
        ("does not know its user", member.altered(tmp_path / "5", {"token": "wrong"}), ()),
        ("does not know its user|cannot be reached", member.altered(tmp_path / "6", stranger), ()),
        ("did not answer with an ExecCredential", member.altered(tmp_path / "7", {"exec": program}), ()),
        ("cannot be run", member.altered(tmp_path / "8", {"exec": program | {"command": "/absent"}}), ()),
        (
            "failed with exit status 3",
            member.altered(tmp_path / "9", {"exec": program | {"args": ["-c", "exit(3)"]}}),
            (),
        ),
        (
            "which Kubernetes itself has removed",
            member.altered(
                tmp_path / "10", {"exec": program | {"apiVersion": "client.authentication.k8s.io/v1alpha1"}}
            ),
            (),
        ),
        ("no ClusterRole absent", member.config, ("--role", "absent")),
        ("at least ten minutes", member.config, ("--token-duration", "5m")),
        ("no role but", member.config, ("--role", "view", "--impersonate")),
        ("is not a label", member.config, ("--label", "x")),
        ("leads to this gateway itself", member.altered(tmp_path / "11", server=gateway.url), ()),
    ]
    for told, config, options in cases:
        error = refused(gateway, "cluster", "join", "bad", "--kubeconfig", str(config), *options)
        assert any(each in error.what for each in told.split("|")), (told, error.what)
    assert "registered already" in refused(gateway, "cluster", "join", "sandbox-1", "-f", str(member.config)).what
    clean(gateway, member, "bad")


def test_what_was_made_is_taken_back_when_it_cannot_be_finished(
    gateway: Gateway, member: Member, tmp_path: Path
) -> None:
    """By an administrator who may do everything but bind roles for the whole cluster, which comes last."""
    kubectl = member.kubectl
    kubectl("create", "serviceaccount", "helper", "-n", "default")
    kinds = "namespaces,serviceaccounts,serviceaccounts/token,roles,rolebindings,clusterroles"
    kubectl("create", "clusterrole", "helping", "--verb=get,create,delete", f"--resource={kinds}")
    kubectl("create", "clusterrolebinding", "helping", "--clusterrole=helping", "--serviceaccount=default:helper")
    as_helper = ("--as", "system:serviceaccount:default:helper", "--quiet")
    eventually(lambda: kubectl.run("auth", "can-i", "create", "clusterroles", *as_helper, check=False).returncode == 0)
    config = member.altered(tmp_path / "config", {"token": kubectl("create", "token", "helper").strip()})
    error = refused(gateway, "cluster", "join", "half", "--kubeconfig", str(config))
    assert "may not do this on the member" in error.what
    assert "clusterrolebindings" in error.what
    clean(gateway, member, "half")


def test_nothing_of_somebody_else_is_taken_over_or_away(gateway: Gateway, member: Member) -> None:
    kubectl = member.kubectl
    kubectl("create", "namespace", "theirs")
    error = refused(gateway, "cluster", "join", "mine", "-f", str(member.config), "--namespace", "theirs")
    assert "has a Namespace theirs already, which was not made by OnePass" in error.what
    error = refused(gateway, "cluster", "leave", "mine", "-f", str(member.config), "--namespace", "theirs")
    assert "was not made by OnePass: nothing is taken away" in error.what
    kubectl("get", "namespace", "theirs")
    error = refused(gateway, "cluster", "leave", "sandbox-1", "-f", str(member.config))
    assert "was not joined" in error.what
    error = refused(gateway, "cluster", "rotate", "sandbox-1")
    assert "cannot renew the credential of sandbox-1 by itself" in error.what
    error = refused(gateway, "cluster", "rotate", "sandbox-1", "-f", str(member.config))
    assert "is registered at" in error.what
    clean(gateway, member, "mine")


def test_a_listed_program_gets_the_credential_and_its_next_one(member: Member, start: Start, tmp_path: Path) -> None:
    """A stand-in for the programs of clouds, with tokens of an account of the member."""
    member.kubectl("create", "serviceaccount", "cloud", "-n", "default")
    member.kubectl(
        "create", "clusterrolebinding", "cloud", "--clusterrole=cluster-admin", "--serviceaccount=default:cloud"
    )
    (tmp_path / "plugin").write_text(
        f"#!{sys.executable}\nimport json, os, sys\nfrom datetime import UTC, datetime, timedelta\n"
        f"open({str(tmp_path / 'runs')!r}, 'a').write(' '.join(sys.argv[1:]) + '\\n')\n"
        f"token = open({str(tmp_path / 'token')!r}).read()\n"
        f"ends = datetime.now(UTC) + timedelta(seconds=int(open({str(tmp_path / 'lasts')!r}).read()))\n"
        "status = {'token': token, 'expirationTimestamp': ends.isoformat()}\n"
        "version = json.loads(os.environ['KUBERNETES_EXEC_INFO'])['apiVersion']\n"
        "print(json.dumps({'apiVersion': version, 'kind': 'ExecCredential', 'status': status}))\n"
    )
    (tmp_path / "plugin").chmod(0o700)
    first, second = (member.kubectl("create", "token", "cloud", "--duration", span).strip() for span in ("1h", "2h"))
    listed = {"command": str(tmp_path / "plugin"), "args": ["token", "--name", "*"], "endpoints": ["127.0.0.1"]}
    (tmp_path / "plugins.yaml").write_text(yaml.safe_dump({"plugins": [listed]}))
    gateway = start("--exec-plugins", str(tmp_path / "plugins.yaml"))
    entry = yaml.safe_load(member.config.read_text())["clusters"][0]["cluster"]
    program: Object = {
        "command": "plugin",
        "args": ["token", "--name", "c1"],
        "apiVersion": "client.authentication.k8s.io/v1beta1",
    }
    access: Object = {
        "endpoint": entry["server"],
        "caBundle": entry["certificate-authority-data"],
        "credential": {"type": "OIDC", "execConfig": program},
    }
    cluster: Object = {
        "apiVersion": "cluster.karpor.io/v1beta1",
        "kind": "Cluster",
        "metadata": {"name": "cloud"},
        "spec": {"access": access},
    }
    with client.Gateway(gateway.kubeconfig) as api:
        api.create(client.CLUSTERS, cluster)
        eventually(lambda: "ProgramFails" in json.dumps(api.get(f"{client.CLUSTERS}/cloud")))
        code, text = api.raw(f"{client.CLUSTERS}/cloud/proxy/api/v1/namespaces/default/pods")
        assert code == 503  # and not as nobody to the member
        assert "is being set up; try again in a moment" in text
        eventually(lambda: "NoCredential" in json.dumps(api.get(f"{client.CLUSTERS}/cloud")))
        (tmp_path / "lasts").write_text("15")
        (tmp_path / "token").write_text(first)
        healthy = lambda: meta.section(api.get(f"{client.CLUSTERS}/cloud"), "status").get("healthy") is True  # noqa: E731
        eventually(healthy, seconds=180)  # the program is given longer and longer pauses while it fails
        with Load(api, f"{client.CLUSTERS}/cloud/proxy/api/v1/namespaces/default/pods").running() as load:
            before = credential(api, "cloud")["fingerprint"]
            (tmp_path / "lasts").write_text("3600")
            (tmp_path / "token").write_text(second)
            eventually(lambda: credential(api, "cloud")["fingerprint"] != before)
            load.more()
        assert load.failed == []
        shown = json.dumps(api.get(f"{client.CLUSTERS}/cloud"))
        assert first not in shown
        assert second not in shown
        runs = (tmp_path / "runs").read_text().splitlines()
        assert set(runs) == {"token --name c1"}
        assert 2 * len(runs) < load.sent  # the answer is kept: not once a request
        # Long before its end the member refuses the token: the program is asked again by itself.
        member.kubectl("delete", "serviceaccount", "cloud", "-n", "default")
        member.kubectl("create", "serviceaccount", "cloud", "-n", "default")
        before = credential(api, "cloud")["fingerprint"]
        (tmp_path / "token").write_text(member.kubectl("create", "token", "cloud", "--duration", "1h").strip())
        eventually(lambda: credential(api, "cloud")["fingerprint"] != before)
        eventually(lambda: api.raw(f"{client.CLUSTERS}/cloud/proxy/api/v1/namespaces/default/pods")[0] == 200)
