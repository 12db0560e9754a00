"""The issuer of service-account tokens changes, as with kube-apiserver's --service-account-issuer."""

import base64
import json
from pathlib import Path

from tests.e2e.conftest import Gateway, Start

USUAL, CHOSEN = "https://onepass", "https://gateway.example:6443"


def test_tokens_of_a_former_issuer_hold_as_long_as_it_is_named(start: Start, tmp_path: Path) -> None:
    before = start()
    before.kubectl("create", "serviceaccount", "robot", "-n", "default", context="onepass")
    old = _token(before, USUAL)
    assert _told(before) == {"issuer": USUAL, "jwks_uri": f"{before.url}/openid/v1/jwks"}
    before.stop()

    both = start("--service-account-issuer", CHOSEN, "--service-account-issuer", USUAL)
    new = _token(both, CHOSEN)
    assert _told(both) == {"issuer": CHOSEN, "jwks_uri": f"{CHOSEN}/openid/v1/jwks"}
    for token in (old, new):
        assert "system:serviceaccount:default:robot" in _whoami(both, token, tmp_path)
        assert _reviewed(both, token) is True
    both.stop()

    after = start("--service-account-issuer", CHOSEN)
    assert "system:serviceaccount:default:robot" in _whoami(after, new, tmp_path)
    assert "the bearer token is not valid here" in _whoami(after, old, tmp_path)
    assert (_reviewed(after, new), _reviewed(after, old)) == (True, False)


def _token(gateway: Gateway, issuer: str) -> str:
    token = gateway.kubectl("create", "token", "robot", "-n", "default", context="onepass").stdout.strip()
    payload = token.split(".")[1]
    claims = json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))
    assert (claims["iss"], claims["aud"]) == (issuer, [issuer])
    return token


def _told(gateway: Gateway) -> dict[str, str]:
    raw = gateway.kubectl("get", "--raw", "/.well-known/openid-configuration", context="onepass").stdout
    document = json.loads(raw)
    return {key: document[key] for key in ("issuer", "jwks_uri")}


def _whoami(gateway: Gateway, token: str, folder: Path) -> str:
    """What kubectl says to somebody who has the token and nothing else."""
    config = json.loads(gateway.kubectl("config", "view", "--raw", "-o", "json", context="onepass").stdout)
    for user in config["users"]:
        user["user"] = {"token": token}
    path = folder / "token.kubeconfig"
    path.write_text(json.dumps(config))
    done = gateway.kubectl("auth", "whoami", context="onepass", kubeconfig=path, check=False)
    return done.stdout + done.stderr


def _reviewed(gateway: Gateway, token: str) -> bool:
    review = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenReview", "spec": {"token": token}}
    made = gateway.kubectl("create", "-f", "-", "-o", "json", context="onepass", input=json.dumps(review)).stdout
    return json.loads(made)["status"].get("authenticated", False) is True
