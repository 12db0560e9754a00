"""What people see of rights: can-i on a member, explain, who-can, and the refusal to give what one does not hold."""

import json
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from tests.e2e.conftest import Gateway

from onepass.api.meta import JSON, Object

pytestmark = pytest.mark.e2e

RBAC = "rbac.authorization.k8s.io"
USER = "rita"
CLUSTER = "sandbox-1"
DEADLINE = 60.0


def given(gateway: Gateway, *objects: Object) -> None:
    gateway.kubectl(
        "apply",
        "-f",
        "-",
        context="onepass",
        input=json.dumps({"kind": "List", "apiVersion": "v1", "items": list(objects)}),
    )


def subjects(user: str) -> list[JSON]:
    return [{"kind": "User", "apiGroup": RBAC, "name": user}]


def a_pass(name: str, user: str, *rules: JSON, **more: JSON) -> Object:
    spec: Object = {"subjects": subjects(user), "clusters": {"names": [CLUSTER]}, "rules": [*rules], **more}
    return {"apiVersion": "access.karpor.io/v1beta1", "kind": "Pass", "metadata": {"name": name}, "spec": spec}


@pytest.fixture(scope="module")
def rita(gateway: Gateway, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The kubeconfig of somebody who may read pods in one namespace and write passes."""
    path = tmp_path_factory.mktemp("rita") / "kubeconfig"
    gateway.onepass(
        *("pass", "issue", USER, "--cluster", CLUSTER, "--verbs", "get,list", "--resource", "pods", "-n", "default"),
        *("--for", "2h", "--name", "ritas", "-o", str(path)),
    )
    paths: JSON = {"verbs": ["get"], "nonResourceURLs": ["/metrics"]}
    acting: JSON = {"verbs": ["impersonate"], "apiGroups": [""], "resources": ["users"], "resourceNames": ["zoe"]}
    binding: Object = {
        "apiVersion": f"{RBAC}/v1",
        "kind": "ClusterRoleBinding",
        "metadata": {"name": "rita-delegates"},
        "roleRef": {"apiGroup": RBAC, "kind": "ClusterRole", "name": "onepass:pass-delegate"},
        "subjects": subjects(USER),
    }
    given(gateway, a_pass("ritas-more", USER, paths, acting), binding)
    until(gateway, path, "auth", "can-i", "get", "/metrics")
    until(gateway, path, "auth", "can-i", "create", "passes.access.karpor.io", context="onepass")
    yield path
    for kind, name in (("pass", "ritas"), ("pass", "ritas-more"), ("clusterrolebinding", "rita-delegates")):
        gateway.kubectl("delete", kind, name, context="onepass")


def until(gateway: Gateway, path: Path, *arguments: str, context: str = CLUSTER) -> None:
    deadline = time.monotonic() + DEADLINE
    while gateway.kubectl(*arguments, context=context, kubeconfig=path, check=False).returncode:
        assert time.monotonic() < deadline, arguments


@pytest.mark.parametrize(
    ("arguments", "allowed"),
    [
        (("get", "pods"), True),
        (("list", "pods", "-n", "default"), True),
        (("get", "pods/web", "-n", "default"), True),
        (("get", "pods", "-n", "kube-system"), False),
        (("get", "pods", "-A"), False),
        (("delete", "pods"), False),
        (("get", "pods", "--subresource", "log"), False),
        (("get", "secrets"), False),
        (("get", "/metrics"), True),
        (("get", "/version"), True),
        (("get", "/configz"), False),
        (("impersonate", "users/zoe"), True),
        (("impersonate", "users/eve"), False),
        (("create", "selfsubjectaccessreviews.authorization.k8s.io"), True),
        (("*", "*"), False),
    ],
)
def test_can_i_tells_the_truth_about_a_member(
    gateway: Gateway, rita: Path, arguments: tuple[str, ...], allowed: bool
) -> None:
    done = gateway.kubectl("auth", "can-i", *arguments, context=CLUSTER, kubeconfig=rita, check=False)
    assert (done.stdout.split()[0], done.returncode) == (("yes", 0) if allowed else ("no", 1)), done


def test_can_i_list_tells_the_rules_of_the_namespace(gateway: Gateway, rita: Path) -> None:
    def listed(namespace: str) -> dict[str, str]:
        told = gateway.kubectl("auth", "can-i", "--list", "-n", namespace, context=CLUSTER, kubeconfig=rita).stdout
        return {line.split()[0]: line for line in told.splitlines()[1:]}

    here, there = listed("default"), listed("kube-system")
    assert "[get list]" in here["pods.*"]
    assert "pods.*" not in there
    for told in (here, there):
        assert "[zoe]" in told["users"]
        assert "[impersonate]" in told["users"]
        assert any("[/metrics]" in line for line in told.values())
        assert "selfsubjectaccessreviews.authorization.k8s.io" in told


def test_can_i_as_somebody_else_takes_the_right_to_act_as_them(gateway: Gateway, rita: Path) -> None:
    done = gateway.kubectl("auth", "can-i", "get", "pods", "--as", "eve", context=CLUSTER, kubeconfig=rita, check=False)
    assert 'User "rita" cannot impersonate resource "users"' in done.stderr
    own = gateway.kubectl("auth", "can-i", "list", "passes.access.karpor.io", "--as", USER, context="onepass")
    assert own.stdout.strip() == "yes"


def test_explain_names_what_allows_it_and_what_would(gateway: Gateway, rita: Path) -> None:
    on = ("--cluster", CLUSTER)
    yes = gateway.onepass("explain", USER, "get", "po", *on, "-n", "default").stdout
    assert f"Yes, {USER} may get pods in namespace default on cluster {CLUSTER}:" in yes
    assert f"Pass ritas gives it to User {USER}, until " in yes
    no = gateway.onepass("explain", USER, "get", "cm", *on, "-n", "web").stdout
    assert f"No, {USER} may not get configmaps in namespace web on cluster {CLUSTER}." in no
    near = gateway.onepass("explain", USER, "delete", "pods", *on, "-n", "default").stdout
    assert "Pass ritas would allow it, but it allows get, list there, not delete." in near
    command = (
        f"onepass pass issue {USER} --cluster {CLUSTER} --verbs delete --resource pods --namespace default -o FILE"
    )
    assert command in near
    # What is told is what works: applied, it allows this.
    told = json.loads(gateway.onepass("explain", USER, "delete", "pods", *on, "-n", "default", "-o", "json").stdout)
    assert told["allowed"] is False
    given(gateway, *told["smallest"])
    try:
        until(gateway, rita, "auth", "can-i", "delete", "pods", "-n", "default")
    finally:
        gateway.kubectl("delete", "-f", "-", context="onepass", input=yaml.safe_dump_all(told["smallest"]))


def test_explain_offers_no_command_that_would_be_refused(gateway: Gateway) -> None:
    on = ("--cluster", CLUSTER)
    account = "system:serviceaccount:ci:deployer"
    for asked in ((USER, "get", "/debug"), (account, "delete", "pods"), (USER, "impersonate", "users", "--name", "a")):
        told = gateway.onepass("explain", *asked, *on).stdout
        assert "The least that would allow it, with kubectl apply -f FILE:" in told
        assert "pass issue" not in told
    assert "User zoe" not in gateway.onepass("who-can", "impersonate", "users", *on).stdout
    nonsense = gateway.onepass("explain", USER, "frob", "pods", *on, check=False)
    assert (nonsense.returncode, "frob is no verb" in nonsense.stderr) == (1, True)


def test_explain_and_who_can_know_the_gateways_own_api(gateway: Gateway, rita: Path) -> None:
    yes = gateway.onepass("explain", USER, "create", "passes").stdout
    assert "ClusterRoleBinding rita-delegates gives it to User rita" in yes
    no = gateway.onepass("explain", USER, "update", "clusters", "--name", "prod").stdout
    create = "kubectl create clusterrole rita-update-clusters --verb=update --resource=clusters.cluster.karpor.io"
    assert f"{create} --resource-name=prod" in no
    assert "kubectl create clusterrolebinding rita-update-clusters --clusterrole=rita-update-clusters --user=rita" in no
    assert "ClusterRoleBinding cluster-admin gives it to Group onepass:administrators: is the user in it?" in no
    who = gateway.onepass("who-can", "get", "pods", "--cluster", CLUSTER, "-n", "default").stdout
    assert {"User rita", "Group onepass:administrators"} <= {
        line[:28].split("  ")[0].strip() for line in who.splitlines()
    }
    told = json.loads(gateway.onepass("who-can", "create", "passes", "-o", "json").stdout)
    assert {"by": "ClusterRoleBinding/rita-delegates", "subject": "User rita", "identity": "Gateway"} in told["rights"]
    unknown = gateway.onepass("explain", USER, "get", "pods", "--cluster", "nowhere", check=False)
    assert (unknown.returncode, "there is no cluster nowhere" in unknown.stderr) == (1, True)
    nonsense = gateway.onepass("explain", USER, "get", "gizmos", check=False)
    assert (nonsense.returncode, "knows no resource gizmos" in nonsense.stderr) == (1, True)


def test_a_delegate_gives_by_kubectl_what_they_hold_and_no_more(gateway: Gateway, rita: Path) -> None:
    reading: JSON = {"verbs": ["get"], "apiGroups": [""], "resources": ["pods"], "namespaces": ["default"]}
    secrets: JSON = {"verbs": ["get"], "apiGroups": [""], "resources": ["secrets"], "namespaces": ["default"]}
    until_soon: JSON = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time.time() + 600))

    def apply(obj: Object) -> str:
        done = gateway.kubectl(
            "create", "-f", "-", context="onepass", kubeconfig=rita, input=json.dumps(obj), check=False
        )
        return done.stdout + done.stderr

    assert "created" in apply(a_pass("by-rita", "sam", reading, notAfter=until_soon))
    try:
        refused = apply(a_pass("by-rita-2", "sam", secrets, notAfter=until_soon))
        assert 'user "rita"' in refused
        assert '{APIGroups:[""], Resources:["secrets"], Namespaces:["default"], Verbs:["get"]}' in refused
        assert f'on cluster "{CLUSTER}"' in apply(a_pass("by-rita-2", "sam", reading))
    finally:
        gateway.kubectl("delete", "pass", "by-rita", context="onepass", kubeconfig=rita)


def test_a_pass_tells_when_it_was_last_used(gateway: Gateway, rita: Path) -> None:
    gateway.kubectl("get", "pods", "-n", "default", context=CLUSTER, kubeconfig=rita)
    gateway.kubectl("wait", "pass/ritas", "--for=jsonpath={.status.lastUsed}", "--timeout=60s", context="onepass")
    assert "It was last used " in gateway.onepass("pass", "show", "ritas").stdout
    row = gateway.kubectl("get", "pass", "ritas", "-o", "wide", context="onepass").stdout
    assert "LAST USED" in row.splitlines()[0]
    assert "<unknown>" not in row


def test_the_default_roles_are_there_and_gathered(gateway: Gateway) -> None:
    deadline = time.monotonic() + DEADLINE
    while True:
        role = json.loads(gateway.kubectl("get", "clusterrole", "admin", "-o", "json", context="onepass").stdout)
        resources = {resource for rule in role.get("rules") or [] for resource in rule["resources"]}
        if {"clusters", "serviceaccounts/token", "rolebindings"} <= resources:
            break
        assert time.monotonic() < deadline, role
    assert role["aggregationRule"]["clusterRoleSelectors"]


def test_the_issuer_of_service_account_tokens_can_be_found(gateway: Gateway) -> None:
    raw = gateway.kubectl("get", "--raw", "/.well-known/openid-configuration", context="onepass").stdout
    configuration = json.loads(raw)
    assert configuration["jwks_uri"] == f"{gateway.url}/openid/v1/jwks"
    keys = json.loads(gateway.kubectl("get", "--raw", "/openid/v1/jwks", context="onepass").stdout)["keys"]
    assert [(key["kty"], key["use"], "d" in key) for key in keys] == [("EC", "sig", False)]
