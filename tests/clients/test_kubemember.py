"""The member made of Kubernetes' own parts is a cluster: asked directly, so that comparisons with it mean something."""

import json
from pathlib import Path

import pytest
from tests.e2e import ways
from tests.e2e.ways import Way
from tests.programs import kubemembers
from tests.programs.gomembers import GoMember

pytestmark = pytest.mark.e2e


@pytest.fixture(scope="module", params=["x509", "token"])
def direct(request: pytest.FixtureRequest, kubemember: GoMember, tmp_path_factory: pytest.TempPathFactory) -> Way:
    return ways.direct(tmp_path_factory.mktemp("direct"), kubemember, request.param)


def test_it_is_the_version_that_it_says(direct: Way) -> None:
    said = json.loads(direct.kubectl("get", "--raw", "/version").stdout)
    assert said["gitVersion"] == kubemembers.VERSION
    assert f"k8s.io/kubernetes {kubemembers.VERSION}\n" in (kubemembers.SOURCE / "go.mod").read_text()


def test_a_pod_runs_and_goes(direct: Way) -> None:
    name = f"pod-{direct.by}"
    assert direct.kubectl("run", name, "--image=any").returncode == 0
    assert direct.kubectl("wait", "--for=condition=Ready", f"pod/{name}", "--timeout=300s").returncode == 0
    for protocol in ways.PROTOCOLS:
        done = direct.kubectl("exec", name, "--", "sh", "-c", "echo out; echo err >&2; exit 7", protocol=protocol)
        assert (done.returncode, done.stdout) == (7, b"out\n")
        assert b"err\n" in done.stderr
    assert direct.kubectl("logs", name).stdout == b"started\n"
    assert direct.kubectl("delete", "pod", name, "--timeout=300s").returncode == 0
    assert direct.kubectl("get", "pods", "-o", "name").stdout == b""


def test_a_namespace_gets_an_account_and_goes_with_what_is_in_it(direct: Way) -> None:
    name = f"namespace-{direct.by}"
    assert direct.kubectl("create", "namespace", name).returncode == 0
    waited = direct.kubectl("wait", "--for=create", "serviceaccount/default", "-n", name, "--timeout=300s")
    assert waited.returncode == 0, waited.stderr
    assert direct.kubectl("create", "configmap", "it", "-n", name).returncode == 0
    assert direct.kubectl("delete", "namespace", name, "--timeout=300s").returncode == 0


def test_what_belongs_to_an_object_goes_with_it(direct: Way) -> None:
    owner, owned = f"owner-{direct.by}", f"owned-{direct.by}"
    direct.kubectl("create", "configmap", owner)
    uid = direct.kubectl("get", "configmap", owner, "-o", "jsonpath={.metadata.uid}").stdout.decode()
    reference = {"apiVersion": "v1", "kind": "ConfigMap", "name": owner, "uid": uid}
    wanted = {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": owned, "namespace": "default", "ownerReferences": [reference]},
    }
    assert direct.kubectl("create", "-f", "-", input=json.dumps(wanted).encode()).returncode == 0
    assert direct.kubectl("delete", "configmap", owner).returncode == 0
    gone = direct.kubectl("wait", "--for=delete", f"configmap/{owned}", "--timeout=300s")
    assert gone.returncode == 0, gone.stderr


def test_started_again_it_is_the_same_cluster(kubemember: GoMember, tmp_path: Path) -> None:
    del kubemember  # only so that this skips with it
    state = tmp_path / "state"
    state.mkdir()
    with kubemembers.running(state) as before:
        assert ways.direct(tmp_path, before, "token").kubectl("create", "namespace", "kept").returncode == 0
    with kubemembers.running(state, port=int(before.endpoint.rpartition(":")[2])) as after:
        assert (after.endpoint, after.ca) == (before.endpoint, before.ca)
        assert b"kept" in ways.direct(tmp_path, before, "token").kubectl("get", "namespaces").stdout
