"""What `deploy` holds: the chart is linted, rendered and taken by a kube-apiserver, the plain manifests are made from
it, and the systemd unit is one. `pytest tests/clients/test_deploy.py --update-golden` makes the manifests anew."""

import base64
import json
import re
import shutil
import subprocess
import zipfile
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path

import pytest
import typer.main
import yaml
from tests.e2e import ways
from tests.e2e.conftest import BIN, Gateway
from tests.machine import ROOT
from tests.programs.gomembers import GoMember

from onepass.cli import main
from onepass.runtime import settings

pytestmark = pytest.mark.e2e

DEPLOY = ROOT / "deploy"
CHART = DEPLOY / "helm" / "onepass"
MODES = ("standalone", "extension")
ETCD = (
    "storage.type=etcd",
    'storage.etcd.endpoints=["etcd-0.etcd:2379","etcd-1.etcd:2379","etcd-2.etcd:2379"]',
    "storage.etcd.tlsSecret=etcd-client",
    "storage.etcd.clientCertificate=true",
    'seal.secrets=[{"name":"onepass-seal","key":"key"}]',
)
# What each of the plain manifests is made with.
VARIANTS = {
    **{mode: (f"mode={mode}",) for mode in MODES},
    **{f"{mode}-etcd": (f"mode={mode}", *ETCD) for mode in MODES},
}
HEADER = "# Made from deploy/helm/onepass by `pytest tests/clients/test_deploy.py --update-golden`; change it there.\n"
NAMESPACE = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "onepass"}}


def run(helm: Path, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([str(helm), *words], capture_output=True, text=True, timeout=300, check=False)


def chosen(*settings: str) -> list[str]:
    return [
        word
        for setting in settings
        for word in ("--set-json" if "[" in setting or "{" in setting else "--set", setting)
    ]


def rendered(helm: Path, variant: str, *settings: str) -> str:
    values = chosen(*VARIANTS[variant], *settings)
    done = run(helm, "template", "onepass", str(CHART), "--namespace", "onepass", *values)
    assert done.returncode == 0, done.stderr
    return done.stdout


def documents(text: str) -> Sequence[dict[str, object]]:
    return [each for each in yaml.safe_load_all(text) if each]


@pytest.mark.parametrize("variant", VARIANTS)
def test_the_chart_is_sound(helm: Path, variant: str) -> None:
    done = run(helm, "lint", "--strict", str(CHART), *chosen(*VARIANTS[variant]))
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
        "storage.type=other",
        "replicas=0",
        'storage.etcd.endpoints=["https://etcd:2379"]',
        'storage.etcd.endpoints=["etcd"]',
    ],
)
def test_settings_that_cannot_be_are_refused(helm: Path, setting: str) -> None:
    assert run(helm, "template", "onepass", str(CHART), *chosen(setting)).returncode != 0


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        (["replicas=2"], "with SQLite there can be one"),
        (["storage.type=etcd"], "storage.etcd.endpoints: name at least one"),
        ([*ETCD, "seal.secrets=[]"], "need the same key to open what is in it"),
        ([*ETCD, "storage.etcd.tlsSecret="], "name the Secret that holds it in storage.etcd.tlsSecret"),
        ([*ETCD, "storage.etcd.user=onepass"], "name the Secret with its password"),
    ],
    ids=["sqlite-replicas", "no-endpoints", "no-seal-key", "no-certificate", "no-password"],
)
def test_what_does_not_fit_together_is_told(helm: Path, settings: Sequence[str], sentence: str) -> None:
    done = run(helm, "template", "onepass", str(CHART), *chosen(*settings))
    assert done.returncode != 0
    assert sentence in done.stderr


@pytest.mark.parametrize("variant", VARIANTS)
def test_the_manifests_are_the_charts(helm: Path, variant: str, request: pytest.FixtureRequest) -> None:
    made = HEADER + yaml.safe_dump_all([NAMESPACE, *documents(rendered(helm, variant))], sort_keys=False)
    kept = DEPLOY / "manifests" / f"{variant}.yaml"
    if request.config.getoption("--update-golden"):
        kept.write_text(made)
    assert kept.read_text() == made


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_kube_apiserver_takes_them(variant: str, kubemember: GoMember, tmp_path: Path) -> None:
    """With strict validation; the objects of the namespace are asked for one by one in a namespace that is there."""
    way = ways.direct(tmp_path, kubemember, "token")
    text = (DEPLOY / "manifests" / f"{variant}.yaml").read_text()
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


@pytest.mark.parametrize("variant", VARIANTS)
def test_the_program_takes_the_options_of_the_pod(helm: Path, variant: str) -> None:
    """By the parser of the real command line, each option and its value."""
    lists = ('names=["gateway.example.com"]', 'allowEndpointCIDRs=["10.0.0.0/8"]')
    password = (
        "storage.etcd.user=onepass",
        "storage.etcd.passwordSecret.name=etcd",
        "storage.etcd.compactionInterval=5m",
    )
    etcd = variant.endswith("etcd")
    text = rendered(helm, variant, *lists, *(password if etcd else ()))
    word, *options = container(text)["args"]
    assert word == "up"
    up = typer.main.get_command(main.app).commands["up"]  # type: ignore[attr-defined]  # a group, as the app has several
    if etcd and not any("--etcd-cafile" in each.opts for each in up.params):
        pytest.skip("this version of the program has no options for etcd")
    parsed = up.make_context("up", list(options)).params
    assert parsed["name"][1:] == ["gateway.example.com"]
    assert parsed["allow_endpoint_cidr"] == ["10.0.0.0/8"]
    if etcd:
        assert parsed["storage"] == "etcds://etcd-0.etcd:2379,etcd-1.etcd:2379,etcd-2.etcd:2379"


def test_replicas_share_etcd_and_need_no_volume(helm: Path) -> None:
    """Files that options name are in what is mounted; replicas come before others go, and are kept apart."""
    text = rendered(
        helm,
        "standalone-etcd",
        "storage.etcd.prefix=/one",
        "storage.etcd.user=me",
        "storage.etcd.passwordSecret.name=pw",
    )
    (workload,) = workloads(text)
    assert (workload["kind"], workload["spec"]["replicas"]) == ("Deployment", 2)
    assert workload["spec"]["strategy"]["rollingUpdate"] == {"maxSurge": 1, "maxUnavailable": 0}
    assert "volumeClaimTemplates" not in workload["spec"]
    pod = template(text)
    (only,) = pod["containers"]
    assert "--storage=etcds://etcd-0.etcd:2379,etcd-1.etcd:2379,etcd-2.etcd:2379/one" in only["args"]
    mounted = {each["name"]: each["mountPath"] for each in only["volumeMounts"]}
    assert mounted.keys() == {each["name"] for each in pod["volumes"]}
    paths = [value for each in only["args"] if (value := each.partition("=")[2]).startswith("/run/")]
    assert paths == [f"{mounted['etcd-tls']}/{name}" for name in ("ca.crt", "tls.crt", "tls.key")] + [
        f"{mounted['etcd-password']}/password"
    ]
    assert [each["topologyKey"] for each in pod["topologySpreadConstraints"]] == [
        "kubernetes.io/hostname",
        "topology.kubernetes.io/zone",
    ]
    assert only["readinessProbe"]["httpGet"]["path"] == "/readyz?exclude=storage"
    (three,) = workloads(rendered(helm, "standalone-etcd", "replicas=3"))
    assert three["spec"]["replicas"] == 3


def test_a_narrow_network_policy_leaves_the_way_to_etcd(helm: Path) -> None:
    egress = 'networkPolicy.egress=[{"to":[{"ipBlock":{"cidr":"10.0.0.0/8"}}]}]'
    for variant, ports in (("standalone", [53, 53]), ("standalone-etcd", [53, 53, 2379])):
        (policy,) = [each for each in documents(rendered(helm, variant, egress)) if each["kind"] == "NetworkPolicy"]
        rules = policy["spec"]["egress"]  # type: ignore[index]
        assert [port["port"] for rule in rules for port in rule.get("ports", ())] == ports
        assert rules[-1]["to"] == [{"ipBlock": {"cidr": "10.0.0.0/8"}}]


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


def workloads(text: str):  # type: ignore[no-untyped-def]  # YAML
    return [each for each in documents(text) if each["kind"] in ("StatefulSet", "Deployment")]


def template(text: str):  # type: ignore[no-untyped-def]  # YAML
    (found,) = workloads(text)
    return found["spec"]["template"]["spec"]


def container(text: str):  # type: ignore[no-untyped-def]  # YAML
    return template(text)["containers"][0]


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
        timeout=300,
        check=False,
    )
    assert (done.returncode, [each for each in done.stderr.splitlines() if "onepass.service" in each]) == (0, [])


def locked(path: Path) -> dict[str, frozenset[str]]:
    """The packages of a lock with their versions and conditions: the hashes of each."""
    entries = re.split(r"\n(?=\S)", path.read_text().strip())
    return {entry.split("\\")[0].strip(): frozenset(re.findall(r"sha256:\w{64}", entry)) for entry in entries}


def test_the_image_has_what_is_locked_and_no_more() -> None:
    """By hash, as everything else is installed; `make lock` makes the locks together."""
    everything = locked(ROOT / "requirements.lock")
    image, build = (locked(DEPLOY / name) for name in ("requirements.lock", "build-requirements.lock"))
    both = image | build
    assert {package: everything.get(package) for package in both} == both
    assert all(both.values())
    names = {re.split(r"[=\[ ]", each)[0] for each in image}
    wanted = [each for each in metadata.requires("onepass") or () if "extra ==" not in each]
    needed = {re.split(r"[^A-Za-z0-9._-]", each)[0].lower().replace("_", "-") for each in wanted}
    assert len(needed) > 15
    assert needed <= names
    assert not names & {"pytest", "mypy", "ruff", "hatchling"}


def test_what_the_dockerfile_copies_is_there_and_not_ignored() -> None:
    lines = (ROOT / ".dockerignore").read_text().split()
    let_in = {line[1:] for line in lines if line.startswith("!")}
    assert lines[0] == "*"
    copied = re.findall(r"^COPY (?!--from)(.*) \S+$", (DEPLOY / "Dockerfile").read_text(), re.MULTILINE)
    sources = {source for each in copied for source in each.split()}
    assert sources == let_in
    assert all((ROOT / each).exists() for each in sources)


def test_the_program_is_whole_in_its_package(tmp_path: Path) -> None:
    """Built as for the image: nothing but `src` and what it stands beside, and no network."""
    for each in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / each, tmp_path)
    shutil.copytree(ROOT / "src", tmp_path / "src", ignore=shutil.ignore_patterns("__pycache__"))
    command = re.search(r"/opt/build/bin/pip (wheel .*?) \\\n", (DEPLOY / "Dockerfile").read_text())
    assert command is not None
    subprocess.run(
        [str(BIN / "pip"), "--disable-pip-version-check", *command[1].split()],
        cwd=tmp_path,
        check=True,
        capture_output=True,
        timeout=300,
    )
    (wheel,) = (tmp_path / "wheels").glob("onepass-*.whl")
    with zipfile.ZipFile(wheel) as packed:
        names = {name for name in packed.namelist() if name.startswith("onepass/")}
    there = {str(path.relative_to(tmp_path / "src")) for path in (tmp_path / "src").rglob("*") if path.is_file()}
    assert names == there
    assert "onepass/gateway/gatekeeper.lua" in names


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
            "data": {key: b64(value) for key, value in held.items()},
        }
        for name, (type_, held) in secrets.items()
    ]
    made = gateway.run(jq, program[1], input=json.dumps({"items": items})).stdout
    gateway.kubectl("apply", "-f", "-", context="onepass", input=made)
    for name in secrets:
        gateway.kubectl(
            "wait", "--for=jsonpath={.status.healthy}=true", f"cluster/{name}", "--timeout=300s", context="onepass"
        )
    gateway.kubectl("delete", "cluster", *secrets, context="onepass")


def test_the_clusters_of_karpor_are_taken(gateway: Gateway, kubemember: GoMember) -> None:
    """By the filter in the guide, from objects as Karpor gives them: with what its server adds, and every field without
    `omitempty` in its types (pkg/kubernetes/apis/cluster/v1beta1)."""
    jq = shutil.which("jq")
    if jq is None:
        pytest.skip("there is no `jq` on PATH: install jq to run this")
    program = re.search(r"\| jq '(.*?)'", (ROOT / "docs" / "guides" / "from-karpor.md").read_text())
    assert program is not None
    added = {"uid": "6d4f", "resourceVersion": "17", "generation": 1, "creationTimestamp": "2024-01-01T00:00:00Z"}
    token = {"type": "ServiceAccountToken", "serviceAccountToken": "a.b.c"}
    pair = {"certificate": b64(kubemember.certificate), "privateKey": b64(kubemember.key)}
    accesses = {
        "karpor-token": {"endpoint": "https://karpor.example.com:6443", "insecure": True, "credential": token},
        "karpor-certificate": {
            "endpoint": kubemember.endpoint,
            "caBundle": b64(kubemember.ca),
            "credential": {"type": "X509Certificate", "x509": pair},
        },
        "karpor-nobody": {"endpoint": "https://karpor.example.com"},
    }
    items = [
        {
            "apiVersion": "cluster.karpor.io/v1beta1",
            "kind": "Cluster",
            "metadata": {"name": name, "managedFields": [{"manager": "karpor"}], **added},
            "spec": {"provider": "", "displayName": "", "description": "", "finalized": False, "access": access},
            "status": {"healthy": True},
        }
        for name, access in accesses.items()
    ]
    own = "onepass"
    made = gateway.run(jq, program[1], input=json.dumps({"apiVersion": "v1", "kind": "List", "items": items})).stdout
    gateway.kubectl("apply", "--validate=strict", "-f", "-", context=own, input=made)
    shown = gateway.kubectl("get", "clusters", "-o", "json", context=own).stdout
    assert "karpor.example.com" in shown
    for secret in ("a.b.c", pair["privateKey"]):
        assert secret not in shown
    healthy = ("--for=jsonpath={.status.healthy}=true", "cluster/karpor-certificate", "--timeout=300s")
    gateway.kubectl("wait", *healthy, context=own)
    gateway.kubectl("delete", "cluster", *accesses, context=own)


def b64(text: str) -> str:
    return base64.b64encode(text.encode()).decode()
