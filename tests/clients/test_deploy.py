"""What `deploy` holds: the chart is linted, rendered and taken by a kube-apiserver, the plain manifests are made from
it, and the systemd unit is one. `pytest tests/clients/test_deploy.py --update-golden` makes the manifests anew."""

import base64
import json
import re
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

import pytest
import yaml
from tests.e2e import ways
from tests.e2e.conftest import BIN, Gateway
from tests.machine import ROOT
from tests.programs.gomembers import GoMember

from onepass.runtime import settings

pytestmark = pytest.mark.e2e

DEPLOY = ROOT / "deploy"
CHART = DEPLOY / "helm" / "onepass"
MODES = ("standalone", "extension")
HEADER = "# Made from deploy/helm/onepass by `pytest tests/clients/test_deploy.py --update-golden`; change it there.\n"
NAMESPACE = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "onepass"}}


def run(helm: Path, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([str(helm), *words], capture_output=True, text=True, timeout=120, check=False)


def rendered(helm: Path, mode: str, *settings: str) -> str:
    values = [
        word
        for setting in (f"mode={mode}", *settings)
        for word in ("--set-json" if "[" in setting or "{" in setting else "--set", setting)
    ]
    done = run(helm, "template", "onepass", str(CHART), "--namespace", "onepass", *values)
    assert done.returncode == 0, done.stderr
    return done.stdout


def documents(text: str) -> Sequence[dict[str, object]]:
    return [each for each in yaml.safe_load_all(text) if each]


@pytest.mark.parametrize("mode", MODES)
def test_the_chart_is_sound(helm: Path, mode: str) -> None:
    done = run(helm, "lint", "--strict", str(CHART), "--set", f"mode={mode}")
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize(
    "setting",
    [
        "mode=other",
        "extension.passes=perhaps",
        "extension.pases=narrow",
        "persistence.size=",
        "seal.kms.socket=kms.sock",
        "seal.kms.socket=../kms.sock",
    ],
)
def test_settings_that_cannot_be_are_refused(helm: Path, setting: str) -> None:
    assert run(helm, "template", "onepass", str(CHART), "--set", setting).returncode != 0


@pytest.mark.parametrize("mode", MODES)
def test_the_manifests_are_the_charts(helm: Path, mode: str, request: pytest.FixtureRequest) -> None:
    made = HEADER + yaml.safe_dump_all([NAMESPACE, *documents(rendered(helm, mode))], sort_keys=False)
    kept = DEPLOY / "manifests" / f"{mode}.yaml"
    if request.config.getoption("--update-golden"):
        kept.write_text(made)
    assert kept.read_text() == made


@pytest.mark.parametrize("mode", MODES)
def test_a_kube_apiserver_takes_them(mode: str, kubemember: GoMember, tmp_path: Path) -> None:
    """With strict validation; the objects of the namespace are asked for one by one in a namespace that is there."""
    way = ways.direct(tmp_path, kubemember, "token")
    text = (DEPLOY / "manifests" / f"{mode}.yaml").read_text()
    namespaced = [each for each in documents(text) if each["kind"] != "Namespace"]
    for each in namespaced:
        metadata = each["metadata"]
        assert isinstance(metadata, dict)
        if metadata.get("namespace") == "onepass":
            metadata["namespace"] = "default"
    done = way.kubectl(
        "apply", "--dry-run=server", "--validate=strict", "-f", "-", input=yaml.safe_dump_all(namespaced).encode()
    )
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.splitlines()) == len(namespaced)


@pytest.mark.parametrize("mode", MODES)
def test_the_options_of_the_pod_are_options_of_the_program(helm: Path, mode: str) -> None:
    """As the names of options change, the chart has to."""
    lists = ('names=["gateway.example.com"]', 'allowEndpointCIDRs=["10.0.0.0/8"]')
    arguments = container(rendered(helm, mode, *lists))["args"]
    assert isinstance(arguments, list)
    help_ = subprocess.run(
        [str(BIN / "onepass"), "up", "--help"],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
        env={"COLUMNS": "300", "NO_COLOR": "1", "TERM": "dumb"},
    ).stdout
    asked = {argument.partition("=")[0] for argument in arguments if argument.startswith("--")}
    assert {"--name", "--allow-endpoint-cidr", "--data-dir"} <= asked
    for option in asked:
        assert re.search(rf"{re.escape(option)}\b", help_), option


def test_keys_come_from_secrets_and_from_a_plugin(helm: Path) -> None:
    """The plugin seals before the secrets, which open; no key stands in the pod."""
    secrets = 'seal.secrets=[{"name":"onepass-seal","key":"key"},{"name":"onepass-seal-old","key":"key"}]'
    kms = """seal.kms={"socket":"kms.sock","volume":{"emptyDir":{}},"sidecar":{"name":"kms","image":"kms:1",
        "volumeMounts":[{"name":"tmp","mountPath":"/tmp"}]}}"""
    pod = template(rendered(helm, "standalone", secrets, kms))
    (gateway,), (plugin,) = pod["containers"], pod["initContainers"]
    keys = [argument for argument in gateway["args"] if argument.startswith("--seal-key")]
    assert keys == [
        "--seal-key=unix:///run/kms/kms.sock",
        "--seal-key=env:ONEPASS_SEAL_KEY_0",
        "--seal-key=env:ONEPASS_SEAL_KEY_1",
    ]
    assert [str(settings.SealKey.parse(key.partition("=")[2])) for key in keys] == [k.partition("=")[2] for k in keys]
    assert [each["valueFrom"]["secretKeyRef"] for each in gateway["env"]] == [
        {"name": "onepass-seal", "key": "key"},
        {"name": "onepass-seal-old", "key": "key"},
    ]
    mount = {"name": "kms", "mountPath": "/run/kms"}
    assert mount in gateway["volumeMounts"]
    assert (plugin["name"], plugin["restartPolicy"]) == ("kms", "Always")
    assert plugin["volumeMounts"] == [{"name": "tmp", "mountPath": "/tmp"}, mount]
    assert {"name": "kms", "emptyDir": {}} in pod["volumes"]


def test_the_pod_may_do_nothing_that_it_need_not(helm: Path) -> None:
    pod = template(rendered(helm, "standalone"))
    assert pod["automountServiceAccountToken"] is False
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    (only,) = pod["containers"]
    assert only["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert {"startupProbe", "readinessProbe", "livenessProbe", "resources"} <= only.keys()
    assert template(rendered(helm, "extension"))["automountServiceAccountToken"] is True


def template(text: str):  # type: ignore[no-untyped-def]  # YAML
    (found,) = [each for each in documents(text) if each["kind"] == "StatefulSet"]
    return found["spec"]["template"]["spec"]  # type: ignore[index]


def container(text: str) -> dict[str, object]:
    return template(text)["containers"][0]  # type: ignore[no-any-return]


def test_the_systemd_unit_is_one(tmp_path: Path) -> None:
    analyze = shutil.which("systemd-analyze")
    if analyze is None:
        pytest.skip("there is no `systemd-analyze` on PATH: install systemd to run this")
    unit = (DEPLOY / "systemd" / "onepass.service").read_text()
    assert "/opt/onepass/bin/onepass up " in unit
    (tmp_path / "onepass.service").write_text(unit.replace("/opt/onepass/bin/onepass", str(BIN / "onepass")))
    done = subprocess.run(
        [analyze, "verify", "--man=no", str(tmp_path / "onepass.service")],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, [each for each in done.stderr.splitlines() if "onepass.service" in each]) == (0, [])


def test_the_image_has_the_versions_of_the_lock() -> None:
    """What the Dockerfile makes of the lock is a constraint for each package."""
    command = re.search(r"RUN (sed .*) > constraints\.txt", (DEPLOY / "Dockerfile").read_text())
    assert command is not None
    made = subprocess.run(["bash", "-c", command[1]], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    lines = [line for line in made.splitlines() if line]
    assert len(lines) > 20
    for line in lines:
        assert re.fullmatch(r"[A-Za-z0-9._-]+==[^ ]+( ;.*)?", line.strip()), line
    assert json.dumps(lines).count("grpcio==") == 1


def test_the_clusters_of_cluster_gateway_are_taken(gateway: Gateway, kubemember: GoMember) -> None:
    """By the program in the guide, from Secrets as cluster-gateway keeps them."""
    jq = shutil.which("jq")
    if jq is None:
        pytest.skip("there is no `jq` on PATH: install jq to run this")
    guide = (ROOT / "docs" / "guides" / "from-cluster-gateway.md").read_text()
    program = re.search(r"```jq\n(.*?)```", guide, re.DOTALL)
    assert program is not None
    data = {"endpoint": kubemember.endpoint, "ca.crt": kubemember.ca}
    secrets = {
        "by-token": ("ServiceAccountToken", data | {"token": kubemember.token}),
        "by-certificate": ("X509Certificate", data | {"tls.crt": kubemember.certificate, "tls.key": kubemember.key}),
    }
    items = [
        {
            "metadata": {"name": name, "labels": {"cluster.core.oam.dev/cluster-credential-type": type_}},
            "data": {key: base64.b64encode(value.encode()).decode() for key, value in held.items()},
        }
        for name, (type_, held) in secrets.items()
    ]
    made = gateway.run(jq, program[1], input=json.dumps({"items": items})).stdout
    gateway.kubectl("apply", "-f", "-", context="onepass", input=made)
    for name in secrets:
        gateway.kubectl(
            "wait", "--for=jsonpath={.status.healthy}=true", f"cluster/{name}", "--timeout=60s", context="onepass"
        )
    gateway.kubectl("delete", "cluster", *secrets, context="onepass")


def test_the_clusters_of_karpor_are_taken(gateway: Gateway) -> None:
    """By the filter in the guide, from an object as Karpor gives it, with what its server adds."""
    jq = shutil.which("jq")
    if jq is None:
        pytest.skip("there is no `jq` on PATH: install jq to run this")
    program = re.search(r"\| jq '(.*?)'", (ROOT / "docs" / "guides" / "from-karpor.md").read_text())
    assert program is not None
    added = {"uid": "6d4f", "resourceVersion": "17", "generation": 1, "creationTimestamp": "2024-01-01T00:00:00Z"}
    karpor = {
        "apiVersion": "cluster.karpor.io/v1beta1",
        "kind": "Cluster",
        "metadata": {"name": "from-karpor", "managedFields": [{"manager": "karpor"}], **added},
        "spec": {
            "provider": "",
            "displayName": "",
            "description": "",
            "finalized": False,
            "access": {
                "endpoint": "https://karpor.example.com:6443",
                "insecure": True,
                "credential": {"type": "ServiceAccountToken", "serviceAccountToken": "a.b.c"},
            },
        },
        "status": {"healthy": True},
    }
    made = gateway.run(jq, program[1], input=json.dumps({"apiVersion": "v1", "kind": "List", "items": [karpor]})).stdout
    gateway.kubectl("apply", "--validate=strict", "-f", "-", context="onepass", input=made)
    shown = gateway.kubectl("get", "cluster", "from-karpor", "-o", "json", context="onepass").stdout
    assert "karpor.example.com" in shown
    assert "a.b.c" not in shown
    gateway.kubectl("delete", "cluster", "from-karpor", context="onepass")
