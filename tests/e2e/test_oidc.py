"""Tokens of an OpenID Connect provider at the running product."""

import base64
import json
import signal
import ssl
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping

import pytest
import yaml
from tests.e2e.conftest import Gateway, running
from tests.programs.oidcprovider import CLIENT, Provider, serving

DEADLINE = 60.0
OTHER = "another-client"


@pytest.fixture(scope="module")
def provider() -> Iterator[Provider]:
    made = Provider(users={"alice": {"email": "alice@example.com", "groups": ["dev", "qa team"]}})
    with serving(made):
        yield made


@pytest.fixture(scope="module")
def down() -> Provider:
    """Another provider, which nobody has started."""
    from tests.machine import free_port

    return Provider(port=free_port())


@pytest.fixture(scope="module")
def gateway(provider: Provider, down: Provider, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    folder = tmp_path_factory.mktemp("oidc")
    config = folder / "authentication.yaml"

    def issuer(of: Provider, prefix: str) -> dict[str, object]:
        return {
            "issuer": {"url": of.url, "audiences": [CLIENT], "certificateAuthority": of.ca_pem.decode()},
            "claimMappings": {
                "username": {"claim": "sub", "prefix": prefix},
                "groups": {"claim": "groups", "prefix": prefix},
            },
        }

    document = {
        "apiVersion": "apiserver.config.k8s.io/v1",
        "kind": "AuthenticationConfiguration",
        "jwt": [issuer(provider, "oidc:"), issuer(down, "down:")],
    }
    config.write_text(yaml.safe_dump(document))
    with running(folder / "gw", "--sandbox", "1", "--oidc-config", str(config), "--oidc-refresh", "1") as started:
        yield started


Ask = Callable[..., tuple[int, dict[str, object]]]


@pytest.fixture(scope="module")
def ask(gateway: Gateway) -> Ask:
    config = yaml.safe_load(gateway.kubeconfig.read_text())
    ca = base64.b64decode(config["clusters"][0]["cluster"]["certificate-authority-data"]).decode()
    context = ssl.create_default_context(cadata=ca)

    def send(
        token: str = "", path: str = "/apis/authentication.k8s.io/v1/selfsubjectreviews", **headers: str
    ) -> tuple[int, dict[str, object]]:
        given = {"Content-Type": "application/json"} | ({"Authorization": f"Bearer {token}"} if token else {})
        given |= {name.replace("_", "-"): value for name, value in headers.items()}
        body = json.dumps({"apiVersion": "authentication.k8s.io/v1", "kind": "SelfSubjectReview"}).encode()
        request = urllib.request.Request(gateway.url + path, body if "selfsubject" in path else None, given)
        try:
            with urllib.request.urlopen(request, context=context, timeout=30) as answer:
                return answer.status, json.load(answer)
        except urllib.error.HTTPError as error:
            with error:
                return error.code, json.load(error)

    return send


def until(ask: Ask, token: Callable[[], str], code: int) -> dict[str, object]:
    """What is answered once `code` is."""
    deadline = time.monotonic() + DEADLINE
    while True:
        found, body = ask(token())
        if found == code:
            return body
        assert time.monotonic() < deadline, (found, body)
        time.sleep(0.1)


def user(body: Mapping[str, object]) -> dict[str, object]:
    status = body["status"]
    assert isinstance(status, dict)
    return dict(status["userInfo"])


def test_claims_name_the_user_and_the_groups(ask: Ask, provider: Provider) -> None:
    who = user(until(ask, lambda: provider.token("alice"), 201))
    assert who["username"] == "oidc:alice"
    assert who["groups"] == ["oidc:dev", "oidc:qa team", "system:authenticated"]
    assert user(ask(provider.token("zoë"))[1])["username"] == "oidc:zoë"


def test_a_pass_for_a_group_of_the_provider_opens_a_cluster(gateway: Gateway, ask: Ask, provider: Provider) -> None:
    until(ask, lambda: provider.token("alice"), 201)
    granted = {
        "apiVersion": "access.karpor.io/v1beta1",
        "kind": "Pass",
        "metadata": {"name": "oidc-dev"},
        "spec": {
            "subjects": [{"kind": "Group", "apiGroup": "rbac.authorization.k8s.io", "name": "oidc:dev"}],
            "clusters": {"names": ["sandbox-1"]},
            "rules": [{"verbs": ["list"], "apiGroups": [""], "resources": ["pods"]}],
        },
    }
    gateway.kubectl("apply", "-f", "-", context="onepass", input=json.dumps(granted))
    pods = "/apis/cluster.karpor.io/v1beta1/clusters/sandbox-1/proxy/api/v1/pods"
    deadline = time.monotonic() + DEADLINE
    while (answer := ask(provider.token("alice"), pods))[0] != 200:
        assert time.monotonic() < deadline, answer
        time.sleep(0.1)
    assert ask(provider.token("bob"), pods)[0] == 403
    assert ask("x", pods)[0] == 401


def test_every_other_token_is_401(ask: Ask, provider: Provider, down: Provider) -> None:
    until(ask, lambda: provider.token("alice"), 201)
    now = int(time.time())
    foreign = Provider(port=provider.port)
    cases = {
        "another audience": provider.token("alice", aud=OTHER),
        "two other audiences": provider.token("alice", aud=[OTHER, "third"]),
        "no audience": provider.token("alice", aud=None),
        "another issuer": provider.token("alice", iss="https://elsewhere.example"),
        "no issuer": provider.token("alice", iss=None),
        "no expiry": provider.token("alice", exp=None),
        "expired": provider.token("alice", exp=now - 12),
        "not yet": provider.token("alice", nbf=now + 240),
        "another's key": foreign.token("alice"),
        "unknown kid": provider.sign(provider.claims("alice"), {"kid": "unknown"}),
        "an issuer that is down": down.token("alice"),
        "no user": provider.token("alice", sub=None),
        "an empty user": provider.token("", sub=""),
        "a user that is no text": provider.token("alice", sub=7),
        "groups that are no list": provider.token("alice", groups=7),
        "a group that is no text": provider.token("alice", groups=["dev", 7]),
        "a user with a line end": provider.token("alice\r\nx"),
        "a long token": provider.token("alice", filler="x" * 60_000),
        "no token": "x",
    }
    wrong = {name: found for name, token in cases.items() if (found := ask(token)[0]) != 401}
    assert wrong == {}


def test_keys_of_the_provider_are_followed_and_kept_while_it_is_away(ask: Ask, provider: Provider) -> None:
    until(ask, lambda: provider.token("alice"), 201)
    before = provider.token("alice")
    provider.rotate(keep=True)
    until(ask, lambda: provider.token("alice"), 201)
    assert ask(before)[0] == 201
    provider.rotate()
    until(ask, lambda: provider.token("alice"), 201)
    until(ask, lambda: before, 401)


def test_keys_are_followed_without_a_control_plane(ask: Ask, provider: Provider, gateway: Gateway) -> None:
    """A user without a pass is 403 once known, 401 before; both are said by the data plane alone."""
    until(ask, lambda: provider.token("bob"), 201)
    pods = "/apis/cluster.karpor.io/v1beta1/clusters/sandbox-1/proxy/api/v1/secrets"
    gateway.process.send_signal(signal.SIGSTOP)
    try:
        provider.rotate()
        deadline = time.monotonic() + DEADLINE
        while (code := ask(provider.token("bob"), pods)[0]) != 403:
            assert code == 401
            assert time.monotonic() < deadline
            time.sleep(0.1)
    finally:
        gateway.process.send_signal(signal.SIGCONT)
    until(ask, lambda: provider.token("bob"), 201)


def test_a_provider_that_comes_later_is_found(ask: Ask, provider: Provider, down: Provider, gateway: Gateway) -> None:
    until(ask, lambda: provider.token("alice"), 201)
    assert gateway.kubectl("get", "pods", context="sandbox-1").returncode == 0
    assert ask(down.token("carol"))[0] == 401
    with serving(down):
        assert user(until(ask, lambda: down.token("carol"), 201))["username"] == "down:carol"
    # What it signed holds while it is away again: Envoy itself forgets keys that it cannot fetch after six seconds.
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        assert ask(down.token("carol"))[0] == 201
        time.sleep(0.5)
    assert ask(provider.token("alice"))[0] == 201


def test_a_query_parameter_is_no_credential(ask: Ask, provider: Provider) -> None:
    until(ask, lambda: provider.token("alice"), 201)
    members = "/apis/cluster.karpor.io/v1beta1/clusters/sandbox-1/proxy/api/v1/pods"
    assert ask(path=f"{members}?access_token={provider.token('alice')}")[0] == 401
