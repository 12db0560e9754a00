"""A sandbox member under the real kubectl, without a gateway between them: identity, rights and objects."""

import base64
import json
import urllib.error
import urllib.request

import pytest
from tests.e2e.sandbox.members import SECONDS, Member, client_tls, read_line
from tests.waiting import eventually

pytestmark = pytest.mark.e2e

CONFIG = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "c"}, "data": {"a": "1"}}


@pytest.mark.parametrize("kubectl", ["direct"], indirect=True)
def test_both_credentials_are_the_gateway_and_no_credential_is_nobody(kubectl: Member) -> None:
    for context in ("certificate", "token"):
        assert "onepass-gateway" in kubectl("--context", context, "auth", "whoami")
    kubectl("config", "set-credentials", "wrong", "--token=wrong")
    kubectl("config", "set-context", "wrong", "--cluster=member", "--user=wrong")
    wrong = kubectl.run("--context", "wrong", "get", "pods", check=False)
    assert wrong.returncode == 1
    assert "You must be logged in to the server" in wrong.stderr
    assert kubectl.direct is not None
    with pytest.raises(urllib.error.HTTPError, match="401") as refused:
        urllib.request.urlopen(kubectl.direct.endpoint + "/api/v1/pods", context=client_tls(kubectl), timeout=SECONDS)
    refused.value.close()


def test_the_version_and_the_kinds_are_told(kubectl: Member) -> None:
    assert "v1.36.0+sandbox" in kubectl("version")
    kinds = kubectl("api-resources", "-o", "name").split()
    assert {"pods", "nodes", "events", "clusterroles.rbac.authorization.k8s.io"} <= set(kinds)
    assert " Ready " in kubectl("get", "nodes")


def test_rights_follow_rbac_for_whoever_is_impersonated(kubectl: Member) -> None:
    assert kubectl("auth", "can-i", "create", "pods").strip() == "yes"
    denied = kubectl.run("auth", "can-i", "list", "pods", "--as=jane", check=False)
    assert (denied.stdout.strip(), denied.returncode) == ("no", 1)
    kubectl("create", "rolebinding", "jane", "--clusterrole=view", "--user=jane")
    eventually(lambda: kubectl.run("get", "pods", "--as=jane", check=False).returncode == 0)
    refused = kubectl.run("run", "x", "--image=busybox", "--as=jane", check=False)
    assert 'User "jane" cannot create' in refused.stderr


def test_objects_are_created_applied_patched_replaced_and_deleted(kubectl: Member) -> None:
    kubectl("create", "configmap", "c", "--from-literal=a=1")
    assert '"a":"1"' in kubectl("get", "cm", "c", "-o", "jsonpath={.data}")
    changed = json.dumps(CONFIG | {"data": {"a": "2", "b": "x"}})
    dry = kubectl("apply", "-f", "-", "--dry-run=server", input=changed)
    assert "server dry run" in dry
    assert kubectl("get", "cm", "c", "-o", "jsonpath={.data.a}") == "1"
    kubectl("apply", "-f", "-", input=changed)
    kubectl("patch", "cm", "c", "--type=json", "-p", '[{"op":"replace","path":"/data/a","value":"3"}]')
    kubectl("patch", "cm", "c", "--type=merge", "-p", '{"data":{"b":null}}')
    kubectl("patch", "cm", "c", "--type=strategic", "-p", '{"metadata":{"labels":{"l":"1"}}}')
    assert json.loads(kubectl("get", "cm", "c", "-o", "jsonpath={.data}")) == {"a": "3"}
    kubectl("replace", "-f", "-", input=json.dumps(CONFIG))
    assert "kind: ConfigMap" in kubectl("get", "cm", "c", "-o", "yaml")
    assert " c " in kubectl("get", "cm", "-A").replace("\n", " ")
    kubectl("delete", "cm", "c")
    gone = kubectl.run("get", "cm", "c", check=False)
    assert 'configmaps "c" not found' in gone.stderr


def test_a_watch_tells_what_happens(kubectl: Member) -> None:
    watch = kubectl.start("get", "cm", "-w")
    kubectl("create", "configmap", "seen", "--from-literal=a=1")
    assert "seen" in read_line(watch, lambda line: line.startswith("seen"))


def test_the_strings_of_a_secret_become_data(kubectl: Member) -> None:
    secret = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "s"}, "stringData": {"p": "swordfish"}}
    kubectl("apply", "-f", "-", input=json.dumps(secret))
    assert kubectl("get", "secret", "s", "-o", "jsonpath={.data.p}") == base64.b64encode(b"swordfish").decode()


def test_a_pod_that_makes_no_sense_is_refused_with_the_field_that_is_wrong(kubectl: Member) -> None:
    containers = [{"name": "a", "image": "busybox"}, {"name": "a", "image": ""}]
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p"}, "spec": {"containers": containers}}
    refused = kubectl.run("create", "-f", "-", input=json.dumps(pod), check=False)
    assert refused.returncode == 1
    assert 'spec.containers[1].name: Duplicate value: "a"' in refused.stderr
    assert "spec.containers[1].image: Required value" in refused.stderr
