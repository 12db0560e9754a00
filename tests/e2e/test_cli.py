"""The command line against the running product."""

import base64
import json
import os
import re
import shlex
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any  # what commands print is JSON

import pytest
import yaml
from tests import waiting
from tests.e2e.conftest import Gateway
from tests.programs import golang, gomembers
from tests.programs.gomembers import GoMember

from onepass.api.meta import Object

pytestmark = pytest.mark.e2e

ENFORCED_SECONDS = 60.0  # far above the second in which a change is enforced


@pytest.fixture(scope="module")
def member() -> Iterator[GoMember]:
    try:
        with gomembers.running() as running:
            yield running
    except golang.GoMissing as missing:
        pytest.skip(str(missing))


@pytest.fixture
def clusters(gateway: Gateway) -> list[str]:
    """Names of the sandbox members."""
    listed = json.loads(gateway.onepass("cluster", "list", "-o", "json").stdout)["items"]
    names = sorted(str(item["metadata"]["name"]) for item in listed)
    return [name for name in names if name.startswith("sandbox-")]


def kubeconfig(path: Path, entries: Sequence[tuple[str, str, Object]], ca: str) -> Path:
    """A member's kubeconfig with contexts (name, server, user)."""
    authority = base64.b64encode(ca.encode()).decode()
    config = {
        "current-context": entries[0][0],
        "clusters": [
            {"name": name, "cluster": {"server": server, "certificate-authority-data": authority}}
            for name, server, _ in entries
        ],
        "contexts": [{"name": name, "context": {"cluster": name, "user": name}} for name, _, _ in entries],
        "users": [{"name": name, "user": user} for name, _, user in entries],
    }
    path.write_text(yaml.safe_dump(config))
    return path


def eventually(gateway: Gateway, path: Path, context: str, *arguments: str, fails: bool) -> str:
    """kubectl until it fails, or succeeds, as it should; its output then."""
    deadline = time.monotonic() + ENFORCED_SECONDS
    while True:
        done = gateway.kubectl(*arguments, context=context, kubeconfig=path, check=False)
        if (done.returncode != 0) == fails:
            return done.stdout + done.stderr
        if time.monotonic() > deadline:
            raise AssertionError(f"kubectl {arguments}: exit {done.returncode}\n{done.stdout}{done.stderr}")


def test_a_member_is_added_used_and_removed(gateway: Gateway, member: GoMember, tmp_path: Path) -> None:
    config = kubeconfig(tmp_path / "config", [("ctx", member.endpoint, {"token": member.token})], member.ca)
    added = gateway.onepass("cluster", "add", "added", "--kubeconfig", str(config), "--label", "via=cli")
    try:
        assert "added is registered and healthy" in added.stdout
        assert member.token not in gateway.onepass("cluster", "show", "added", "-o", "yaml").stdout
        assert "ServiceAccountToken sha256:" in gateway.onepass("cluster", "show", "added").stdout
        listed = json.loads(gateway.onepass("cluster", "list", "-l", "via=cli", "-o", "json").stdout)
        assert [item["metadata"]["name"] for item in listed["items"]] == ["added"]
        again = gateway.onepass("cluster", "add", "added", "--kubeconfig", str(config), check=False)
        assert again.returncode == 1
        assert "registered already" in again.stderr
    finally:
        removed = gateway.onepass("cluster", "remove", "added")
    assert "removed" in removed.stdout
    gone = gateway.onepass("cluster", "remove", "added", check=False)
    assert (gone.returncode, gone.stdout) == (1, "")
    assert "no cluster added" in gone.stderr


@pytest.mark.parametrize(
    ("server", "told"),
    [("https://127.0.0.1:1", "nothing listens on 127.0.0.1:1"), ("", "refuses the credential of context ctx")],
)
def test_a_member_that_does_not_answer_is_told_and_not_kept(
    gateway: Gateway, member: GoMember, tmp_path: Path, server: str, told: str
) -> None:
    config = kubeconfig(tmp_path / "config", [("ctx", server or member.endpoint, {"token": "wrong"})], member.ca)
    done = gateway.onepass("cluster", "add", "wrong", "--kubeconfig", str(config), check=False)
    assert done.returncode == 1
    assert "wrong is not registered" in done.stderr
    assert told in done.stderr
    assert "onepass cluster" not in done.stderr, "of a cluster that is not there no command can be of use"
    assert "wrong" not in gateway.onepass("cluster", "list").stdout
    kept = gateway.onepass("cluster", "add", "wrong", "--kubeconfig", str(config), "--no-wait")
    try:
        assert "wrong is registered" in kept.stdout
    finally:
        gateway.onepass("cluster", "remove", "wrong")


def test_what_is_told_of_a_wrong_token_is_typed_and_helps(gateway: Gateway, member: GoMember, tmp_path: Path) -> None:
    config = kubeconfig(tmp_path / "config", [("ctx", member.endpoint, {"token": "wrong"})], member.ca)
    gateway.onepass("cluster", "add", "mistyped", "--kubeconfig", str(config), "--no-wait")
    try:
        gateway.kubectl("wait", "--for=condition=Ready=false", "cluster/mistyped", "--timeout=60s", context="onepass")
        (told,) = re.findall(r"Health .*: onepass (.*)", gateway.onepass("cluster", "show", "mistyped").stdout)
        right = kubeconfig(tmp_path / "right", [("ctx", member.endpoint, {"token": member.token})], member.ca)
        gateway.onepass(*(str(right) if word == "FILE" else word for word in shlex.split(told)))
        gateway.kubectl("wait", "--for=condition=Ready", "cluster/mistyped", "--timeout=60s", context="onepass")
    finally:
        gateway.onepass("cluster", "remove", "mistyped")


@pytest.mark.parametrize(("name", "server"), [("Not_A_Name", ""), ("metadata", "https://169.254.169.254")])
def test_nothing_remains_of_a_member_that_is_refused(
    gateway: Gateway, member: GoMember, tmp_path: Path, name: str, server: str
) -> None:
    config = kubeconfig(tmp_path / "config", [("ctx", server or member.endpoint, {"token": "t"})], member.ca)
    done = gateway.onepass("cluster", "add", name, "--kubeconfig", str(config), check=False)
    assert done.returncode == 1
    assert done.stderr.startswith("error: ")
    assert "Traceback" not in done.stderr
    assert name not in gateway.onepass("cluster", "list").stdout


def test_a_whole_kubeconfig_is_imported_and_again(gateway: Gateway, member: GoMember, tmp_path: Path) -> None:
    entries: list[tuple[str, str, Object]] = [
        ("team:One", member.endpoint, {"token": member.token}),
        ("the-same", member.endpoint, {"token": member.token}),
        ("by-program", "https://127.0.0.1:2", {"exec": {"command": "aws", "apiVersion": "v1"}}),
        ("itself", gateway.url, {"token": "t"}),
    ]
    config = kubeconfig(tmp_path / "config", entries, member.ca)
    first = gateway.onepass("cluster", "import", "--kubeconfig", str(config), "-o", "json", check=False)
    try:
        results = {item["context"]: item for item in json.loads(first.stdout)["items"]}
        assert {name: item["outcome"] for name, item in results.items()} == {
            "team:One": "healthy",
            "the-same": "skipped",
            "by-program": "failed",
            "itself": "skipped",
        }
        assert results["team:One"]["cluster"] == "team-one"
        assert "aws" in results["by-program"]["reason"]
        assert first.returncode == 1
        again = gateway.onepass("cluster", "import", "--kubeconfig", str(config), check=False)
        assert re.search(r"team:One +team-one +skipped +registered already", again.stdout)
    finally:
        gateway.onepass("cluster", "remove", "team-one")


def test_a_pass_opens_what_it_says_until_it_is_revoked(gateway: Gateway, clusters: list[str], tmp_path: Path) -> None:
    path = tmp_path / "alice.kubeconfig"
    issued = gateway.onepass(
        *("pass", "issue", "alice", "--group", "web", "--cluster", clusters[0], "--for", "1h", "-o", str(path))
    )
    name = re.search(r"onepass pass revoke (\S+)", issued.stdout)
    assert name is not None
    assert path.stat().st_mode & 0o777 == 0o600
    first = clusters[0]
    eventually(gateway, path, first, "get", "pods", "-A", fails=False)
    assert "alice" in gateway.kubectl("auth", "whoami", context=first, kubeconfig=path).stdout
    refused = eventually(gateway, path, first, "create", "configmap", "no", fails=True)
    assert "alice" in refused
    assert "forbidden" in refused.lower()
    shown = gateway.onepass("pass", "show", name[1]).stdout
    assert "get,list,watch on *" in shown
    assert "in force" in shown
    assert re.search(rf"{name[1]} +User alice +{first} ", gateway.onepass("pass", "list").stdout)
    assert "no longer may" in gateway.onepass("pass", "revoke", name[1]).stdout
    eventually(gateway, path, first, "get", "pods", "-A", fails=True)
    assert "suspended before" in gateway.onepass("pass", "revoke", name[1]).stdout
    assert "suspended" in gateway.onepass("pass", "list").stdout


def test_a_pass_by_labels_has_a_context_for_each_cluster(gateway: Gateway, clusters: list[str], tmp_path: Path) -> None:
    path = tmp_path / "bob.kubeconfig"
    for name in clusters:
        gateway.kubectl("label", "cluster", name, "tier=trial", "--overwrite", context="onepass")
    gateway.onepass(
        *("pass", "issue", "bob", "--selector", "tier=trial", "--resource", "pods", "--resource", "pods/log"),
        *("--namespace", "default", "-o", str(path)),
    )
    for name in clusters:
        eventually(gateway, path, name, "get", "pods", fails=False)
        assert "forbidden" in eventually(gateway, path, name, "get", "secrets", fails=True).lower()
        assert "forbidden" in eventually(gateway, path, name, "get", "pods", "-n", "kube-system", fails=True).lower()
    names = [context["name"] for context in yaml.safe_load(path.read_text())["contexts"]]
    assert sorted(names) == sorted([*clusters, "onepass"])


@pytest.mark.parametrize("user", ["system:admin", "onepass:root"])
def test_a_reserved_name_is_refused_and_nothing_remains(
    gateway: Gateway, clusters: list[str], tmp_path: Path, user: str
) -> None:
    path = tmp_path / "never.kubeconfig"
    done = gateway.onepass(
        "pass", "issue", user, "--cluster", clusters[0], "--name", "never", "-o", str(path), check=False
    )
    assert done.returncode == 1
    assert user in done.stderr
    assert "Traceback" not in done.stderr
    assert not path.exists()
    for kind in ("csr", "passes"):
        assert gateway.kubectl("get", kind, "never", context="onepass", check=False).returncode != 0


def test_status_and_version_tell_how_things_are(gateway: Gateway) -> None:
    told: dict[str, Any] = {}

    def both_healthy() -> bool:
        told.update(json.loads(gateway.onepass("status", "-o", "json").stdout))
        return bool(told["clusters"]["healthy"] >= 2)

    waiting.eventually(both_healthy)
    assert told["gateway"] == gateway.url
    assert told["ready"] is True
    assert told["checks"]
    assert all(told["checks"].values())
    assert gateway.url in gateway.onepass("status").stdout
    version = yaml.safe_load(gateway.onepass("version", "-o", "yaml").stdout)
    assert set(version) == {"client", "server"}
    assert version["server"]
    assert gateway.onepass("--version").stdout == f"onepass {version['client']}\n"


def test_names_are_completed_in_the_shell(gateway: Gateway, clusters: list[str]) -> None:
    done = gateway.run(
        str(Path(sys.executable).parent / "onepass"),
        env={
            "ONEPASS_KUBECONFIG": str(gateway.kubeconfig),
            "_ONEPASS_COMPLETE": "complete_bash",
            "COMP_WORDS": f"onepass cluster show {clusters[0][:-1]}",
            "COMP_CWORD": "3",
        },
    )
    assert clusters[0] in done.stdout.split()


def test_an_expired_kubeconfig_says_so(gateway: Gateway, clusters: list[str], tmp_path: Path) -> None:
    path = tmp_path / "carol.kubeconfig"
    issued = gateway.onepass("pass", "issue", "carol", "--cluster", clusters[0], "-o", str(path))
    name = re.search(r"onepass pass revoke (\S+)", issued.stdout)
    assert name is not None
    gateway.onepass("pass", "revoke", name[1])
    deadline = time.monotonic() + ENFORCED_SECONDS
    while True:
        done = gateway.onepass("--kubeconfig", str(path), "cluster", "list", check=False)
        assert done.returncode == 1
        assert "Traceback" not in done.stderr
        if "ask for a new pass" in done.stderr:
            return
        assert time.monotonic() < deadline, done.stderr


def test_without_a_gateway_the_sentence_says_what_to_start(tmp_path: Path) -> None:
    done = subprocess.run(
        [str(Path(sys.executable).parent / "onepass"), "status"],
        cwd=tmp_path,
        env={key: value for key, value in os.environ.items() if not key.startswith("ONEPASS")},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stdout) == (1, "")
    assert "onepass up" in done.stderr
