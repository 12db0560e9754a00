"""What a newcomer does after `make up`: join a sandbox member by its own kubeconfig, as any other cluster."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.e2e import conftest
from tests.e2e.conftest import Gateway
from tests.e2e.sandbox.members import Member as Kubectl
from tests.waiting import eventually

pytestmark = pytest.mark.e2e

ACCOUNT = "system:serviceaccount:onepass-system:onepass"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("joining")


@pytest.fixture
def gateway(folder: Path) -> Iterator[Gateway]:
    """A new start for each test, on the data of the one before."""
    with conftest.running(folder / "gw", "--sandbox", "1") as started:
        yield started


@pytest.fixture
def member(gateway: Gateway, tmp_path: Path) -> Kubectl:
    """The member as its own administrator reaches it, without the gateway."""
    return Kubectl(tmp_path, own(gateway).read_text())


def own(gateway: Gateway) -> Path:
    return gateway.data_dir / "sandbox" / "sandbox-1.kubeconfig"


def review(member: Kubectl, verb: str, resource: str) -> bool:
    done = member.run("auth", "can-i", verb, resource, "--as", ACCOUNT, "-n", "onepass-system", check=False)
    return done.stdout.strip() == "yes"


def test_it_is_joined_used_and_rotated(gateway: Gateway, member: Kubectl) -> None:
    assert oct(own(gateway).stat().st_mode & 0o777) == "0o600"
    said = gateway.onepass("cluster", "join", "mine", "--kubeconfig", str(own(gateway))).stdout
    assert "mine is joined and healthy" in said
    assert f"comes as {ACCOUNT}, which has cluster-admin" in said
    assert review(member, "delete", "pods")
    assert "onepass-system" in gateway.kubectl("get", "namespaces", context="mine").stdout
    assert "has a new credential" in gateway.onepass("cluster", "rotate", "mine").stdout
    assert "has a new credential" in gateway.onepass("cluster", "rotate", "mine", "-f", str(own(gateway))).stdout
    assert gateway.kubectl("get", "namespaces", context="mine").returncode == 0
    no_other_account_is_taken(gateway, member)


def no_other_account_is_taken(gateway: Gateway, member: Kubectl) -> None:
    """Whoever may update clusters says where the account is, and the member's administrator gets its tokens."""
    member("create", "namespace", "stronger")
    member("create", "serviceaccount", "onepass", "-n", "stronger")
    for namespace, told in (
        ("stronger", "was not made by OnePass"),
        ("stronger/serviceaccounts/onepass/token?", "is no name of a namespace"),
        ("/../onepass:onepass-system", "is no name of a namespace"),
    ):
        annotation = f"onepass.karpor.io/namespace={namespace}"
        gateway.kubectl("annotate", "--overwrite", "cluster/mine", annotation, context="onepass")
        for command in ("rotate", "leave"):
            refused = gateway.onepass("cluster", command, "mine", "-f", str(own(gateway)), check=False)
            assert refused.returncode == 1
            assert told in refused.stderr
    annotation = "onepass.karpor.io/namespace=onepass-system"
    gateway.kubectl("annotate", "--overwrite", "cluster/mine", annotation, context="onepass")
    member("delete", "namespace", "stronger")


def test_it_is_joined_after_another_start_and_left(gateway: Gateway, member: Kubectl) -> None:
    """The member has the address and the authority of before, and knows its tokens."""
    assert gateway.kubectl("get", "namespaces", context="mine").returncode == 0
    gateway.onepass("cluster", "rotate", "mine")
    member("delete", "serviceaccount", "onepass", "-n", "onepass-system")
    eventually(lambda: gateway.kubectl("get", "pods", context="mine", check=False).returncode != 0)
    refused = gateway.onepass("cluster", "rotate", "mine", "-f", str(own(gateway)), check=False)
    assert "the account is gone" in refused.stderr
    assert "Cluster mine is removed" in gateway.onepass("cluster", "leave", "mine", "-f", str(own(gateway))).stdout
    kinds = "namespaces,clusterroles,clusterrolebindings"
    eventually(lambda: member("get", kinds, "-l", "app.kubernetes.io/managed-by=onepass", "-o", "name") == "")


def test_in_the_mode_impersonate_the_member_judges_each_user(gateway: Gateway, member: Kubectl) -> None:
    gateway.onepass("cluster", "join", "named", "--impersonate", "--kubeconfig", str(own(gateway)))
    may = {
        ("impersonate", "users"): True,
        ("impersonate", "groups"): True,
        ("create", "serviceaccounts/onepass"): False,
        ("list", "pods"): False,
        ("list", "secrets"): False,
        ("create", "clusterrolebindings"): False,
    }
    assert {asked: review(member, *asked) for asked in may} == may
    denied = gateway.kubectl("get", "pods", context="named", check=False)
    assert 'User "admin" cannot list resource "pods"' in denied.stderr  # of the member: whose name is the user's
    member("create", "clusterrolebinding", "admin-reads", "--clusterrole=view", "--user=admin")
    eventually(lambda: gateway.kubectl("get", "pods", context="named", check=False).returncode == 0)
    gateway.onepass("cluster", "rotate", "named")  # with these rights alone
    gateway.onepass("cluster", "leave", "named", "--kubeconfig", str(own(gateway)))


def test_a_token_is_its_accounts_as_long_as_that_is_there(member: Kubectl) -> None:
    member("create", "serviceaccount", "robot")
    member("create", "rolebinding", "robot", "--clusterrole=admin", "--serviceaccount=default:robot")
    token = member("create", "token", "robot").strip()
    member("config", "set-credentials", "robot", f"--token={token}")
    member("config", "set-context", "robot", "--cluster=sandbox-1", "--user=robot")
    assert "system:serviceaccount:default:robot" in member("--context", "robot", "auth", "whoami")
    eventually(lambda: member.run("--context", "robot", "get", "pods", check=False).returncode == 0)
    assert "cannot list" in member.run("--context", "robot", "get", "nodes", check=False).stderr
    review = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenReview", "spec": {"token": token}}
    told = json.loads(member("create", "-f", "-", "-o", "json", input=json.dumps(review)))
    assert told["status"]["user"]["username"] == "system:serviceaccount:default:robot"
    # Who may write roles gives away no more than they hold.
    own_role = ("--context", "robot", "create", "role", "more", "--verb=get", "--resource=nodes")
    assert "attempting to grant RBAC permissions not currently held" in member.run(*own_role, check=False).stderr
    other = member("create", "token", "robot", "--audience=elsewhere").strip()
    member("config", "set-credentials", "other", f"--token={other}")
    assert "must be logged in" in member.run("--user", "other", "get", "pods", check=False).stderr
    member("delete", "serviceaccount", "robot")
    eventually(lambda: "must be logged in" in member.run("--context", "robot", "get", "pods", check=False).stderr)
