"""Several gateways on one etcd: what is given or taken at one holds at all, and etcd may be away."""

import functools
import json
import re
import signal
import ssl
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import httpx2
import pytest
import trustme
from tests.e2e import ways
from tests.e2e.conftest import BIN, Gateway, running
from tests.machine import free_port
from tests.programs import etcds
from tests.programs.debian import DebianMissing
from tests.programs.etcds import Etcd
from tests.waiting import eventually

from onepass.pki import sealkeys

pytestmark = pytest.mark.e2e

SECONDS = 60.0
CLUSTER = "sandbox-1"
PODS = f"/apis/cluster.karpor.io/v1beta1/clusters/{CLUSTER}/proxy/api/v1/pods"
LEADS = "runs the controllers from now on"
LOSES = "no longer runs the controllers"


@dataclass
class Fleet:
    """Two replicas; the first has a sandbox member and began first."""

    etcd: Etcd
    storage: str  # the option
    first: Gateway
    second: Gateway


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    folder = tmp_path_factory.mktemp("fleet")
    seal = folder / "seal.key"
    seal.write_text(f"{sealkeys.generate()}\n")
    with ExitStack() as stack:
        try:
            etcd = stack.enter_context(etcds.running())[0]
        except DebianMissing as missing:
            pytest.skip(str(missing))
        storage = f"--storage=etcd://{etcd.server}/fleet"
        options = storage, f"--seal-key=file:{seal}"
        first = stack.enter_context(running(folder / "first", "--sandbox", "1", *options))
        second = stack.enter_context(running(folder / "second", *options))
        yield Fleet(etcd, storage, first, second)


def log(gateway: Gateway) -> str:
    return (gateway.data_dir / "onepass.log").read_text()


def client(gateway: Gateway) -> httpx2.Client:
    """The administrator of this replica."""
    way = ways.through(gateway.data_dir / "home", gateway.kubeconfig, gateway.url, CLUSTER, "x509")
    return httpx2.Client(base_url=gateway.url, verify=way.tls(), trust_env=False, timeout=SECONDS)


def test_one_replica_runs_the_controllers(fleet: Fleet) -> None:
    eventually(lambda: leads(fleet.first) is not leads(fleet.second))
    # On a machine that does nothing else the first one does, which began before: only one that lost it is followed.
    assert LEADS not in log(fleet.second) or LOSES in log(fleet.first)


def leads(gateway: Gateway) -> bool:
    """Whether a replica says that it leads, and has said nothing else since."""
    said = re.findall(f"{LEADS}|{LOSES}", log(gateway))
    return bool(said) and said[-1] == LEADS


def test_replicas_have_the_same_authorities_and_the_storage_has_them_sealed(fleet: Fleet) -> None:
    for name in ("client-ca.crt", "client-ca.key", "serving-ca.crt", "serving-ca.key", "accounts.key"):
        ours = (fleet.first.data_dir / "pki" / name).read_bytes()
        assert (fleet.second.data_dir / "pki" / name).read_bytes() == ours
        if name.endswith(".key"):
            stored = fleet.etcd.ctl("get", "/fleet/", "--prefix", "--write-out=json")
            assert "PRIVATE KEY" not in stored


def test_what_is_given_at_one_holds_at_the_other_until_it_is_taken_back_at_either(fleet: Fleet, tmp_path: Path) -> None:
    path = tmp_path / "wanda.kubeconfig"
    # Issued at the replica that runs no controllers: the other one signs.
    fleet.second.onepass("pass", "issue", "wanda", "--cluster", CLUSTER, "--name", "wandas", "-o", str(path))

    def works(gateway: Gateway) -> bool:
        ask = (
            "get",
            "pods",
            "-A",
            "--server",
            f"{gateway.url}/apis/cluster.karpor.io/v1beta1/clusters/{CLUSTER}/proxy",
        )
        return gateway.kubectl(*ask, context=CLUSTER, kubeconfig=path, check=False).returncode == 0

    eventually(lambda: works(fleet.first) and works(fleet.second))
    fleet.first.onepass("pass", "revoke", "wandas")
    eventually(lambda: not works(fleet.second) and not works(fleet.first))


def test_a_token_of_one_replica_is_taken_by_the_other(fleet: Fleet) -> None:
    fleet.first.kubectl("create", "serviceaccount", "robot", "-n", "default", context="onepass")
    token = fleet.first.kubectl("create", "token", "robot", "-n", "default", context="onepass").stdout.strip()
    trusted = ssl.create_default_context(cafile=fleet.second.data_dir / "pki" / "serving-ca.crt")
    with httpx2.Client(verify=trusted, trust_env=False, timeout=SECONDS) as anybody:
        review = {"apiVersion": "authentication.k8s.io/v1", "kind": "SelfSubjectReview"}
        url = f"{fleet.second.url}/apis/authentication.k8s.io/v1/selfsubjectreviews"
        asked = functools.partial(anybody.post, url, json=review, headers={"authorization": f"Bearer {token}"})
        eventually(lambda: asked().status_code == 201)
        answer = asked()
    assert answer.json()["status"]["userInfo"]["username"] == "system:serviceaccount:default:robot"


def test_a_new_authority_comes_to_all_replicas(fleet: Fleet) -> None:
    assert (
        "issues from now on"
        in fleet.second.onepass("--data-dir", str(fleet.second.data_dir), "ca", "rotate", "--client").stdout
    )
    made = (fleet.second.data_dir / "pki" / "client-ca-2.crt").read_bytes()
    theirs = fleet.first.data_dir / "pki" / "client-ca-2.crt"
    eventually(lambda: theirs.exists() and theirs.read_bytes() == made)


def test_a_replica_with_another_seal_key_says_what_it_lacks(fleet: Fleet, tmp_path: Path) -> None:
    wrong = tmp_path / "wrong.key"
    wrong.write_text(f"{sealkeys.generate()}\n")
    done = fleet.first.run(
        *(str(BIN / "onepass"), "up", "--data-dir", str(tmp_path / "third")),
        *(fleet.storage, f"--seal-key=file:{wrong}"),
        check=False,
    )
    assert done.returncode == 1
    assert re.search(r"own keys in the storage cannot be opened.*--seal-key", done.stderr + done.stdout, re.DOTALL)


def test_etcd_is_reached_by_tls_certificate_and_password(tmp_path: Path) -> None:
    authority = trustme.CA()
    authority.cert_pem.write_to_path(tmp_path / "ca.crt")
    for name, leaf in (("server", authority.issue_cert("127.0.0.1")), ("client", authority.issue_cert("c.test"))):
        leaf.private_key_pem.write_to_path(tmp_path / f"{name}.key")
        leaf.cert_chain_pems[0].write_to_path(tmp_path / f"{name}.crt")
    (tmp_path / "password").write_text("s3cret\n")
    flags = (
        f"--cert-file={tmp_path / 'server.crt'}",
        f"--key-file={tmp_path / 'server.key'}",
        "--client-cert-auth",
        f"--trusted-ca-file={tmp_path / 'ca.crt'}",
    )
    with etcds.running(1, flags) as [etcd]:
        tls = ("--cacert", tmp_path / "ca.crt", "--cert", tmp_path / "client.crt", "--key", tmp_path / "client.key")
        as_us = (*map(str, tls), f"--endpoints=https://{etcd.server}")
        setup: Sequence[Sequence[str]] = (
            ("user", "add", "root:toor"),
            ("user", "grant-role", "root", "root"),
            ("user", "add", "onepass:s3cret"),
            ("role", "add", "onepass"),
            ("role", "grant-permission", "--prefix=true", "onepass", "readwrite", "/onepass/"),
            ("user", "grant-role", "onepass", "onepass"),
            ("auth", "enable"),
        )
        for each in setup:
            etcd.ctl(*as_us, *each)
        with running(
            tmp_path / "gw",
            f"--storage=etcds://{etcd.server}",
            f"--etcd-cafile={tmp_path / 'ca.crt'}",
            f"--etcd-certfile={tmp_path / 'client.crt'}",
            f"--etcd-keyfile={tmp_path / 'client.key'}",
            "--etcd-user=onepass",
            f"--etcd-password-file={tmp_path / 'password'}",
        ) as gateway:
            gateway.kubectl("create", "namespace", "kept", context="onepass")
            assert "kept" in etcd.ctl(*as_us, "--user=root:toor", "get", "/onepass/", "--prefix", "--keys-only")
            written = "".join(gateway.output) + log(gateway)
            arguments = Path(f"/proc/{gateway.process.pid}/cmdline").read_text()
            assert "s3cret" not in written + arguments


def test_a_start_says_that_it_waits_for_etcd_and_can_be_ended(tmp_path: Path) -> None:
    command = [str(BIN / "onepass"), "up", "--data-dir", str(tmp_path / "gw"), "--listen", f"127.0.0.1:{free_port()}"]
    with subprocess.Popen(
        [*command, f"--storage=etcd://127.0.0.1:{free_port()}"], stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline().startswith("waiting for etcd at 127.0.0.1:")
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=SECONDS) == 0


@pytest.mark.parametrize("how", ["hangs", "is gone"])
def test_requests_to_members_go_on_while_etcd_is_away_and_all_heals_by_itself(fleet: Fleet, how: str) -> None:
    label = how.replace(" ", "-")
    with client(fleet.second) as admin:
        assert admin.get(PODS).status_code == 200
        if how == "hangs":
            fleet.etcd.signal(signal.SIGSTOP)
        else:
            fleet.etcd.kill()
        try:
            clusters = f"/apis/cluster.karpor.io/v1beta1/clusters/{CLUSTER}"
            patch = json.dumps({"metadata": {"labels": {"away": label}}}).encode()
            sent = {"content-type": "application/merge-patch+json"}
            refused = admin.patch(clusters, content=patch, headers=sent)
            assert refused.status_code in (500, 503, 504)
            assert refused.json()["kind"] == "Status"
            ready = admin.get("/readyz?verbose")
            assert ready.status_code == 500
            assert "[-]storage" in ready.text
            assert admin.get("/readyz?exclude=storage").status_code == 200
            for _ in range(50):
                assert admin.get(PODS).status_code == 200
        finally:
            if how == "hangs":
                fleet.etcd.signal(signal.SIGCONT)
            else:
                fleet.etcd.start()
                fleet.etcd.ready()
        eventually(lambda: admin.patch(clusters, content=patch, headers=sent).status_code == 200)
        with client(fleet.first) as other:
            eventually(lambda: other.get(clusters).json().get("metadata", {}).get("labels", {}).get("away") == label)
            eventually(lambda: other.get("/readyz").status_code == 200 and admin.get("/readyz").status_code == 200)


def test_another_replica_goes_on_with_the_controllers_when_the_first_is_killed(fleet: Fleet, tmp_path: Path) -> None:
    """Last, since the first replica and its member are gone after it."""
    # The outages may have changed who leads: who began to last does.
    began = {
        str(each.data_dir): re.findall(rf"{LEADS}.*?\"timestamp\": \"([^\"]+)", log(each))
        for each in (fleet.first, fleet.second)
    }
    leader, survivor = fleet.first, fleet.second
    if max(began[str(survivor.data_dir)], default="") > max(began[str(leader.data_dir)], default=""):
        leader, survivor = survivor, leader
    leader.process.send_signal(signal.SIGKILL)
    leader.process.wait()
    eventually(lambda: len(re.findall(LEADS, log(survivor))) > len(began[str(survivor.data_dir)]))
    survivor.onepass("pass", "issue", "vera", "--cluster", CLUSTER, "-o", str(tmp_path / "vera"))
