"""helm: a chart installed, upgraded, rolled back and removed, on a cluster, and on it through the gateway."""

import json
import os
import re
import secrets
import subprocess
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
import yaml
from tests.clients.matrix import MEMBER, OWN, Matrix
from tests.e2e import ways
from tests.e2e.conftest import Gateway
from tests.e2e.ways import Way
from tests.programs import golang
from tests.programs.gomembers import GoMember

CLIENT = "helm"
SOURCE = Path(golang.__file__).parent / "helm"
pytestmark = [pytest.mark.e2e, pytest.mark.client(CLIENT)]

VARYING = re.compile(
    r"\b\d+[smh]\b|\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d\S*( [+-]\d{4} \w+)?|\w{3} \w{3} +\d+ \d\d:\d\d:\d\d \d{4}"
)
# The resources of a release by their kind, in an order that is new each time.
SECTION = re.compile(r"==> (?:.+\n)+\n")
SECTIONS = re.compile(rf"(?:{SECTION.pattern})+")

TEMPLATES: Mapping[str, Mapping[str, object]] = {
    "settings": {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": "{{ .Release.Name }}"},
        "data": {"colour": "{{ .Values.colour }}", "version": "{{ .Capabilities.KubeVersion.Version }}"},
    },
    "workload": {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "{{ .Release.Name }}"},
        "spec": {"containers": [{"name": "main", "image": "any"}]},
    },
    "hook": {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": "{{ .Release.Name }}-hook", "annotations": {"helm.sh/hook": "pre-install,pre-upgrade"}},
    },
}
OWN_TEMPLATES: Mapping[str, Mapping[str, object]] = {
    "account": {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "{{ .Release.Name }}"}},
    "role": {
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "ClusterRole",
        "metadata": {"name": "{{ .Release.Name }}-{{ .Release.Namespace }}"},
        "rules": [{"apiGroups": [""], "resources": ["namespaces"], "verbs": ["get"]}],
    },
}


def version() -> str:
    found = re.search(r"helm\.sh/helm/v4 (v\S+)", (SOURCE / "go.mod").read_text())
    assert found is not None
    return found[1]


def chart(folder: Path, templates: Mapping[str, Mapping[str, object]]) -> Path:
    (folder / "templates").mkdir(parents=True)
    (folder / "Chart.yaml").write_text(yaml.safe_dump({"apiVersion": "v2", "name": "sample", "version": "1.0.0"}))
    (folder / "values.yaml").write_text(yaml.safe_dump({"colour": "red"}))
    for name, template in templates.items():
        (folder / "templates" / f"{name}.yaml").write_text(yaml.safe_dump(template))
    return folder


def runner(helm: Path, way: Way, namespace: str, **environment: str) -> Callable[..., str]:
    """Runs helm; gives what it says, without what is new each time. Raises AssertionError when it fails."""

    def run(*words: str) -> str:
        done = subprocess.run(
            [str(helm), *words, "--kubeconfig", str(way.directory / "config"), "--namespace", namespace],
            env={"PATH": os.environ["PATH"], "HOME": str(way.directory)} | environment,
            capture_output=True,
            text=True,
            timeout=600,
            check=False,
        )
        assert done.returncode == 0, f"helm {' '.join(words)}: {done.stdout}{done.stderr}"
        said = done.stdout if words[0] == "template" else done.stdout + done.stderr
        said = VARYING.sub("<time>", said.replace(namespace, "<namespace>"))
        return SECTIONS.sub(lambda found: "".join(sorted(SECTION.findall(found[0]))), said)

    return run


def story(helm: Path, way: Way, folder: Path) -> list[tuple[str, str]]:
    """Each step and what came of it."""
    run = runner(helm, way, namespace := f"helm-{secrets.token_hex(4)}")
    values = ("--set", "colour=green")

    def colour() -> str:
        return way.kubectl("get", "configmap", "it", "-n", namespace, "-o", "jsonpath={.data}").stdout.decode()

    told = [
        ("install", run("install", "it", str(folder), "--create-namespace", "--wait", "--timeout=300s")),
        ("what it made", colour()),
        ("list", json.dumps(json.loads(run("list", "-o", "json")), sort_keys=True)),
        ("status", run("status", "it")),
        ("get manifest", run("get", "manifest", "it")),
        ("dry run on the server", run("upgrade", "it", str(folder), *values, "--dry-run=server")),
        ("upgrade", run("upgrade", "it", str(folder), *values)),
        ("what it changed", colour()),
        ("history", run("history", "it")),
        ("rollback", run("rollback", "it", "1")),
        ("what it changed back", colour()),
        ("uninstall", run("uninstall", "it", "--wait", "--timeout=300s")),
        ("what is left", run("list") + colour()),
    ]
    way.kubectl("delete", "namespace", namespace, "--wait=false")
    return told


@pytest.fixture(scope="module")
def sample(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return chart(tmp_path_factory.mktemp("chart") / "sample", TEMPLATES)


def test_a_release_is_the_same_through_the_gateway(
    helm: Path, gateway: Gateway, kubemember: GoMember, sample: Path, matrix: Matrix, tmp_path: Path
) -> None:
    gateway.register("helm", endpoint=kubemember.endpoint, ca=kubemember.ca.encode(), **kubemember.proof("token"))
    folders = {name: tmp_path / name for name in ("direct", "through")}
    for folder in folders.values():
        folder.mkdir()
    direct = story(helm, ways.direct(folders["direct"], kubemember, "token"), sample)
    assert '"colour":"red"' in dict(direct)["what it made"]
    assert '"colour":"green"' in dict(direct)["what it changed"]
    assert '"colour":"red"' in dict(direct)["what it changed back"]
    way = ways.through(folders["through"], gateway.kubeconfig, gateway.url, "helm", "token")
    through = story(helm, way, sample)
    for (step, here), (_, there) in zip(direct, through, strict=True):
        with matrix.record(CLIENT, version(), MEMBER, step):
            assert there == here


def test_a_chart_of_the_own_api(helm: Path, gateway: Gateway, matrix: Matrix, tmp_path: Path) -> None:
    """What helm shows of a chart, after it asked the API about its kinds, is what kubectl then applies."""
    way = ways.through(tmp_path, gateway.kubeconfig, gateway.url, "", "x509", "")
    namespace = f"helm-{secrets.token_hex(4)}"
    (tmp_path / "releases").write_text("[]")
    run = runner(helm, way, namespace, HELM_DRIVER="memory", HELM_MEMORY_DRIVER_DATA=str(tmp_path / "releases"))
    folder = chart(tmp_path / "sample", OWN_TEMPLATES)
    gateway.kubectl("create", "namespace", namespace, context="onepass")
    with matrix.record(CLIENT, version(), OWN, "dry run on the server"):
        assert "kind: ClusterRole" in run("install", "it", str(folder), "--dry-run=server")
    with matrix.record(CLIENT, version(), OWN, "template that kubectl applies"):
        text = run("template", "it", str(folder), "--validate").replace("<namespace>", namespace)
        applied = way.kubectl("apply", "-n", namespace, "-f", "-", input=text.encode())
        assert applied.returncode == 0, applied.stderr
        named = ("serviceaccount/it", f"clusterrole/it-{namespace}")
        got = way.kubectl("get", *named, "-n", namespace, "-o", "name")
        assert got.stdout.decode().split() == [
            "serviceaccount/it",
            f"clusterrole.rbac.authorization.k8s.io/it-{namespace}",
        ]
    gateway.kubectl("delete", f"clusterrole/it-{namespace}", f"namespace/{namespace}", context="onepass")
    reason = "helm keeps releases in Secrets or ConfigMaps, which the gateway's own API does not have"
    matrix.add(CLIENT, version(), OWN, "install", "skipped", reason)
