"""`onepass login` and kubectl with what it writes, against the running product and a provider."""

import base64
import json
import os
import subprocess
import sys
import threading
import time
import urllib.parse
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml
from cryptography import x509
from tests.e2e.conftest import BIN, Gateway, running
from tests.e2e.test_gateway import user_kubeconfig
from tests.programs.oidcprovider import CLIENT, Provider, serving
from tests.waiting import eventually

pytestmark = pytest.mark.e2e

DEADLINE = 60.0
RULES = [{"verbs": ["get", "list"], "apiGroups": [""], "resources": ["pods", "namespaces"]}]

# What a person does in the browser: goes where the URL leads, signs in, and is sent back to this machine.
BROWSER = """#!{python}
import ssl, sys, urllib.request
url = sys.argv[1] + "&login={login}"
context = ssl.create_default_context(cafile={ca!r})
urllib.request.urlopen(url, context=context, timeout=30).read()
"""


@dataclass
class Desk:
    """A person's machine: a home, a browser, kubectl and onepass."""

    home: Path
    gateway: Gateway
    provider: Provider

    def __post_init__(self) -> None:
        self.home.mkdir()
        (self.home / "idp.pem").write_bytes(self.provider.ca_pem)
        config = yaml.safe_load(self.gateway.kubeconfig.read_text())
        ca = base64.b64decode(config["clusters"][0]["cluster"]["certificate-authority-data"])
        (self.home / "gateway.pem").write_bytes(ca)
        self.browser("alice")

    def browser(self, login: str) -> None:
        script = self.home / "browser"
        text = BROWSER.format(python=sys.executable, login=login, ca=str(self.home / "idp.pem"))
        script.write_text(text)
        script.chmod(0o700)

    @property
    def kubeconfig(self) -> Path:
        return self.home / ".kube" / "config"

    def environment(self, **more: str) -> dict[str, str]:
        kept = {k: v for k, v in os.environ.items() if not k.startswith(("KUBE", "ONEPASS", "XDG", "DISPLAY"))}
        path = f"{BIN}{os.pathsep}{kept['PATH']}"
        own = {"HOME": str(self.home), "PATH": path, "NO_COLOR": "1", "BROWSER": f"{self.home / 'browser'} %s"}
        return kept | own | more

    def run(self, *command: str, check: bool = True, **more: str) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            command,
            env=self.environment(**more),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert not check or done.returncode == 0, (done.stdout, done.stderr)
        return done

    def login_command(self, *options: str) -> list[str]:
        return [
            *("onepass", "login", self.gateway.url, "--issuer-url", self.provider.url, "--client-id", CLIENT),
            *("--certificate-authority", str(self.home / "gateway.pem"), "--issuer-ca", str(self.home / "idp.pem")),
            *options,
        ]

    def login(self, *options: str, check: bool = True, **more: str) -> subprocess.CompletedProcess[str]:
        return self.run(*self.login_command(*options), check=check, **more)

    def kubectl(self, *arguments: str, check: bool = True, **more: str) -> subprocess.CompletedProcess[str]:
        return self.run("kubectl", *arguments, check=check, **more)

    def config(self) -> dict[str, object]:
        found = yaml.safe_load(self.kubeconfig.read_text())
        assert isinstance(found, dict)
        return found

    def cache(self) -> Path:
        (found,) = (self.home / ".cache" / "onepass").glob("*.json")
        return found

    def plugin(self) -> list[str]:
        users = self.config()["users"]
        assert isinstance(users, list)
        told = users[0]["user"]["exec"]
        return [told["command"], *told["args"]]


def exec_info(interactive: bool) -> str:
    spec = {"interactive": interactive}
    return json.dumps({"apiVersion": "client.authentication.k8s.io/v1", "kind": "ExecCredential", "spec": spec})


@pytest.fixture(scope="module")
def provider() -> Iterator[Provider]:
    users: dict[str, dict[str, object]] = {"alice": {"groups": ["dev"]}, "bob": {}}
    with serving(Provider(users=users)) as made:
        yield made


@pytest.fixture(scope="module")
def gateway(provider: Provider, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    folder = tmp_path_factory.mktemp("login")
    (folder / "idp.pem").write_bytes(provider.ca_pem)
    options = ["--oidc-issuer-url", provider.url, "--oidc-client-id", CLIENT, "--oidc-username-prefix", "-"]
    options += ["--oidc-groups-claim", "groups", "--oidc-ca-file", str(folder / "idp.pem"), "--oidc-refresh", "1"]
    with running(folder / "gw", "--sandbox", "2", *options) as started:
        granted = {
            "apiVersion": "access.karpor.io/v1beta1",
            "kind": "Pass",
            "metadata": {"name": "dev"},
            "spec": {
                "subjects": [{"kind": "Group", "apiGroup": "rbac.authorization.k8s.io", "name": "dev"}],
                "clusters": {"names": ["sandbox-1"]},
                "rules": RULES,
            },
        }
        started.kubectl("apply", "-f", "-", context="onepass", input=json.dumps(granted))
        alice = user_kubeconfig(
            started, folder / "alice.kubeconfig", {"token": provider.token("alice", groups=["dev"])}
        )
        eventually(lambda: started.kubectl("get", "pods", kubeconfig=alice, check=False).returncode == 0)
        yield started


@pytest.fixture
def desk(tmp_path: Path, gateway: Gateway, provider: Provider) -> Desk:
    provider.lifetime = 300
    return Desk(tmp_path / "home", gateway, provider)


def test_a_login_in_the_browser_opens_every_cluster_that_is_open_to_the_user(desk: Desk) -> None:
    told = desk.login()
    assert "You are alice" in told.stdout
    assert "sandbox-1" in told.stdout
    contexts = desk.config()["contexts"]
    assert isinstance(contexts, list)
    assert [each["name"] for each in contexts] == ["onepass", "sandbox-1"]
    assert desk.kubeconfig.stat().st_mode & 0o777 == 0o600
    assert desk.cache().stat().st_mode & 0o777 == 0o600
    assert desk.cache().parent.stat().st_mode & 0o777 == 0o700
    assert "alice" in desk.kubectl("--context", "sandbox-1", "auth", "whoami").stdout
    assert desk.kubectl("--context", "sandbox-1", "get", "pods").returncode == 0
    denied = desk.kubectl("--context", "sandbox-1", "get", "secrets", check=False)
    assert "Forbidden" in denied.stderr
    # Neither the token nor the code stands where somebody could see it.
    everything = desk.kubeconfig.read_text() + told.stdout
    assert str(json.loads(desk.cache().read_text())["id_token"]) not in everything


def test_what_else_is_in_the_kubeconfig_stays(desk: Desk) -> None:
    desk.kubeconfig.parent.mkdir()
    other = {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "sandbox-1",
        "clusters": [{"name": "mine", "cluster": {"server": "https://mine.example"}}],
        "contexts": [{"name": "sandbox-1", "context": {"cluster": "mine", "user": "me", "namespace": "ns"}}],
        "users": [{"name": "me", "user": {"token": "t"}}],
        "preferences": {"colors": True},
    }
    desk.kubeconfig.write_text(yaml.safe_dump(other))
    for _ in range(2):
        told = desk.login().stdout
        assert "onepass-sandbox-1" in told
        config = desk.config()
        assert config["current-context"] == "sandbox-1"
        assert config["preferences"] == {"colors": True}
        for kind in ("clusters", "contexts", "users"):
            found = config[kind]
            assert isinstance(found, list)
            assert found[0] == other[kind][0]  # type: ignore[index]
            assert len(found) == (2 if kind == "users" else 3)
    assert desk.kubectl("--context", "onepass-sandbox-1", "get", "pods").returncode == 0


def test_an_ended_token_is_refreshed_once_for_many_kubectl(desk: Desk) -> None:
    desk.provider.lifetime = 30  # less than what is handed out
    desk.login()
    before, desk.provider.lifetime = desk.provider.refresh_uses, 300
    outcomes: list[int] = []

    def get() -> None:
        outcomes.append(desk.kubectl("--context", "sandbox-1", "get", "pods").returncode)

    threads = [threading.Thread(target=get) for _ in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert outcomes == [0] * 5
    assert desk.provider.refresh_uses == before + 1


def test_a_sign_in_that_has_ended_is_told_or_made_anew(desk: Desk) -> None:
    desk.provider.lifetime = 30
    desk.login()
    desk.provider.refreshes.clear()
    told = desk.kubectl("--context", "sandbox-1", "get", "pods", check=False)
    assert told.returncode != 0
    assert "has ended" in told.stderr
    assert "onepass login" in told.stderr
    desk.provider.lifetime = 300
    again = desk.run(*desk.plugin(), KUBERNETES_EXEC_INFO=exec_info(True))
    credential = json.loads(again.stdout)
    assert (credential["kind"], credential["apiVersion"]) == ("ExecCredential", "client.authentication.k8s.io/v1")
    assert credential["status"]["token"].count(".") == 2
    assert "expirationTimestamp" in credential["status"]
    assert desk.kubectl("--context", "sandbox-1", "get", "pods").returncode == 0


def test_a_device_code_needs_no_browser_here(desk: Desk) -> None:
    command = desk.login_command("--device")
    environment = desk.environment(BROWSER="/bin/false %s")
    with subprocess.Popen(
        command, env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stderr is not None
        lines: list[str] = []
        while not any("user_code=" in line for line in lines):
            line = process.stderr.readline()
            assert line, lines
            lines.append(line)
        url = next(line for line in lines if "user_code=" in line).strip()
        (code,) = urllib.parse.parse_qs(urllib.parse.urlsplit(url).query)["user_code"]
        desk.provider.approved[code] = ("alice", True)
        out, err = process.communicate(timeout=60)
    assert process.returncode == 0, err
    assert "You are alice" in out
    assert code in "".join(lines) + err
    assert "--device" in desk.plugin()
    assert desk.kubectl("--context", "sandbox-1", "get", "pods").returncode == 0


def test_a_device_that_is_refused_is_told(desk: Desk) -> None:
    known = {str(each["user_code"]) for each in desk.provider.devices.values()}
    with subprocess.Popen(
        desk.login_command("--device"),
        env=desk.environment(),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        deadline = time.monotonic() + DEADLINE
        while not (codes := {str(each["user_code"]) for each in desk.provider.devices.values()} - known):
            assert time.monotonic() < deadline
            time.sleep(0.05)
        desk.provider.approved |= dict.fromkeys(codes, ("alice", False))
        _, err = process.communicate(timeout=60)
    assert process.returncode == 1
    assert "refuses" in err


def test_who_has_no_pass_gets_the_gateway_alone(desk: Desk) -> None:
    desk.browser("bob")
    assert "No cluster is open to you yet" in desk.login().stdout
    assert "bob" in desk.kubectl("auth", "whoami").stdout


@pytest.mark.parametrize(
    ("changed", "why"),
    [
        (["--issuer-url", "https://localhost:1"], "does not answer"),
        (["--issuer-url", "http://localhost"], "it begins with https://"),
        (["--issuer-ca", "gateway.pem"], "--issuer-ca"),
        (["--certificate-authority", "idp.pem"], "is not the gateway"),
    ],
)
def test_what_goes_wrong_is_told_in_a_sentence(desk: Desk, changed: list[str], why: str) -> None:
    option, value = changed
    value = str(desk.home / value) if value.endswith(".pem") else value
    done = desk.login(option, value, check=False)
    assert done.returncode == 1
    assert why in done.stderr
    assert "Traceback" not in done.stderr
    assert not desk.kubeconfig.exists()


def allow_self_renewal(gateway: Gateway, user: str) -> None:
    role = {
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "ClusterRole",
        "metadata": {"name": "own-certificates"},
        "rules": [
            {
                "apiGroups": ["certificates.k8s.io"],
                "resources": ["certificatesigningrequests"],
                "verbs": ["create", "get", "list", "watch"],
            },
            {
                "apiGroups": ["certificates.k8s.io"],
                "resources": ["certificatesigningrequests/selfclient"],
                "verbs": ["create"],
            },
        ],
    }
    binding = {
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "ClusterRoleBinding",
        "metadata": {"name": f"own-certificates-{user}"},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "own-certificates"},
        "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": user}],
    }
    for each in (role, binding):
        gateway.kubectl("apply", "-f", "-", context="onepass", input=json.dumps(each))


def test_a_certificate_for_a_key_of_ones_own_renews_itself(desk: Desk, gateway: Gateway) -> None:
    allow_self_renewal(gateway, "alice")
    desk.login("--certificate")
    assert "certificate" in desk.plugin()

    def kept() -> dict[str, object]:
        slots = (json.loads(each.read_text()) for each in (desk.home / ".cache" / "onepass").glob("*.json"))
        return next(each for each in slots if "private_key" in each)

    first = kept()
    leaf = x509.load_pem_x509_certificate(str(first["certificate"]).encode())
    assert leaf.subject.rfc4514_string() == "CN=alice,O=dev"
    assert desk.kubectl("--context", "sandbox-1", "get", "pods").returncode == 0
    assert kept() == first
    # The private key is in no request, and nowhere on the gateway.
    requests = gateway.kubectl("get", "csr", "-o", "yaml", context="onepass").stdout
    assert "PRIVATE KEY" not in requests

    path = next(p for p in (desk.home / ".cache" / "onepass").glob("*.json") if "private_key" in p.read_text())
    now = time.time()
    path.write_text(json.dumps(first | {"begins": now - 7 * 3600, "expires": now + 3600}))
    assert desk.kubectl("--context", "sandbox-1", "get", "pods").returncode == 0
    renewed = kept()
    assert renewed["certificate"] != first["certificate"]
    assert renewed["private_key"] != first["private_key"]

    path.write_text(json.dumps(renewed | {"expires": now - 1}))
    told = desk.kubectl("--context", "sandbox-1", "get", "pods", check=False)
    assert "has ended" in told.stderr
    assert "onepass login --certificate" in told.stderr


def test_a_certificate_waits_for_an_administrator_where_nobody_has_allowed_it(desk: Desk, gateway: Gateway) -> None:
    desk.browser("carol")
    gateway.kubectl(
        "create",
        "clusterrole",
        "asking",
        "--verb=create,get,list,watch",
        "--resource=certificatesigningrequests.certificates.k8s.io",
        context="onepass",
    )
    gateway.kubectl("create", "clusterrolebinding", "asking", "--clusterrole=asking", "--user=carol", context="onepass")
    with subprocess.Popen(
        desk.login_command("--certificate"),
        env=desk.environment(),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        deadline = time.monotonic() + DEADLINE
        while "login-carol-" not in (listed := gateway.kubectl("get", "csr", "-o", "name", context="onepass").stdout):
            assert time.monotonic() < deadline
            time.sleep(0.1)
        (name,) = (line for line in listed.splitlines() if "login-carol-" in line)
        assert "Pending" in gateway.kubectl("get", name, context="onepass").stdout
        gateway.kubectl("certificate", "approve", name.partition("/")[2], context="onepass")
        out, err = process.communicate(timeout=60)
    assert process.returncode == 0, err
    assert "You are carol" in out
    assert "kubectl certificate approve login-carol-" in err
    assert "carol" in desk.kubectl("auth", "whoami").stdout
