"""Attacks by bearer tokens: where they may stand, what they must say, and that nobody behind the gateway sees them."""

import base64
import json
import time
from collections.abc import Iterator
from typing import Any  # claims are JSON

import jwt
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from tests.attack.conftest import C1, C2, PASSES, Site, granting
from tests.waiting import eventually

from onepass.pki import keys, tokens

pytestmark = pytest.mark.e2e

ISSUER = "https://onepass"
ROBOT = "token-bearer"  # the site is shared: a name of our own
ACCOUNTS = "/api/v1/namespaces/default/serviceaccounts"
WORK = {"apiGroups": ["*"], "resources": ["*"], "verbs": ["get", "list", "create"]}
PODS = "/api/v1/namespaces/default/pods"
PREFIX = "base64url.bearer.authorization.k8s.io."
WEBSOCKET = (
    ("connection", "Upgrade"),
    ("upgrade", "websocket"),
    ("sec-websocket-version", "13"),
    ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ=="),
)


@pytest.fixture(scope="module")
def robot(site: Site) -> Iterator[str]:
    """The token of a service account that may get, list and create on both members."""
    site.made(ACCOUNTS, {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": ROBOT}})
    user = f"system:serviceaccount:default:{ROBOT}"
    site.made(PASSES, granting(ROBOT, [WORK], ("c1", "c2"), user=user))
    token = asked(site, ROBOT)
    eventually(lambda: site.ask(None, f"{C1}{PODS}", bearer(token)).code == 200)
    yield token
    site.gone(f"{PASSES}/{ROBOT}")
    site.gone(f"{ACCOUNTS}/{ROBOT}")


def asked(site: Site, account: str, *audiences: str) -> str:
    spec = {"audiences": list(audiences)} if audiences else {}
    body = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": spec}
    return str(site.made(f"{ACCOUNTS}/{account}/token", body)["status"]["token"])


def bearer(token: str) -> tuple[str, str]:
    return "authorization", f"Bearer {token}"


def among_protocols(token: str) -> tuple[str, str]:
    encoded = base64.urlsafe_b64encode(token.encode()).rstrip(b"=").decode()
    return "sec-websocket-protocol", f"{PREFIX}{encoded}, v5.channel.k8s.io"


def test_a_token_among_the_subprotocols_opens_a_websocket_and_goes_no_further(site: Site, robot: str) -> None:
    for member, url in ((site.c1, C1), (site.c2, C2)):
        target = f"{url}{PODS}/protocol/exec?command=id"
        with site.wire() as wire:
            wire.send(f"GET {target} HTTP/1.1\r\nhost: gateway\r\n".encode())
            for name, value in (*WEBSOCKET, among_protocols(robot)):
                wire.send(f"{name}: {value}\r\n".encode())
            wire.send(b"\r\n")
            answer = wire.answer()
        assert answer.code == 101, answer.body
        assert answer.all("sec-websocket-protocol") == ["v5.channel.k8s.io"]
        (seen,) = member.requests("/protocol/exec")
        assert seen.all("sec-websocket-protocol") == ["v5.channel.k8s.io"]


def test_no_upstream_ever_sees_a_token(site: Site, robot: str) -> None:
    parts = [robot, *robot.split("."), base64.urlsafe_b64encode(robot.encode()).rstrip(b"=").decode()]
    for url in (C1, C2):
        site.ask(None, f"{url}{PODS}/leak", bearer(robot), ("cookie", f"token={robot}"))
        site.ask(None, f"{url}{PODS}/leak?access_token={robot}&limit=1", bearer(robot))
        site.ask(None, f"{url}{PODS}/leak?access%5Ftoken={robot}", bearer(robot))
        site.ask(None, f"{url}{PODS}/leak", bearer(robot), ("proxy-authorization", f"Bearer {robot}"))
        site.ask(None, f"{url}{PODS}/leak/exec?command=id", bearer(robot), among_protocols(robot), *WEBSOCKET)
    for member in (site.c1, site.c2):
        assert len(member.requests("/leak")) == 5
        everything = member.everything() + str(member.requests()).encode()  # HTTP/2 packs headers
        assert not [part for part in parts if part.encode() in everything]
    (seen, *_) = site.c1.requests("/leak?limit=1")
    assert seen.target == f"{PODS}/leak?limit=1"


def protocols(value: str) -> tuple[str, str]:
    return "sec-websocket-protocol", value


def test_what_is_wrong_with_a_token_among_the_subprotocols_is_401(site: Site, robot: str) -> None:
    good, other = among_protocols(robot), asked(site, ROBOT)
    encoded = good[1].split(",")[0]
    exec_ = f"{C1}{PODS}/refused/exec?command=id"
    cases = {
        "another in Authorization": [good, bearer(other), *WEBSOCKET],
        "a bad one in Authorization": [good, bearer("x"), *WEBSOCKET],
        "two": [protocols(f"{encoded}, {encoded}, v5.channel.k8s.io"), *WEBSOCKET],
        "two headers": [good, good, *WEBSOCKET],
        "nothing beside it": [protocols(encoded), *WEBSOCKET],
        "not a token": [protocols(f"{PREFIX}eHg, v5.channel.k8s.io"), *WEBSOCKET],
        "not base64url": [protocols(f"{PREFIX}e+g, v5.channel.k8s.io"), *WEBSOCKET],
        "empty": [protocols(f"{PREFIX}, v5.channel.k8s.io"), *WEBSOCKET],
        "no upgrade": [good],
        "SPDY": [good, ("connection", "Upgrade"), ("upgrade", "SPDY/3.1")],
        "in capitals": [protocols(good[1].replace("base64url.bearer", "BASE64URL.bearer")), *WEBSOCKET],
    }
    wrong = {name: code for name, sent in cases.items() if (code := site.ask(None, exec_, *sent).code) != 401}
    assert wrong == {}
    assert not site.c1.requests("/refused/")
    again = site.ask(None, exec_.replace("refused", "both"), good, bearer(robot), *WEBSOCKET)
    assert again.code == 101


def test_every_token_that_does_not_hold_is_401(site: Site, robot: str) -> None:
    """Numbers 16 and 17 of the threats: 401 and never 403, or kubectl would not ask for a new one."""
    key = keys.from_pem((site.gateway.data_dir / "pki" / "accounts.key").read_bytes())
    claims: dict[str, Any] = jwt.decode(robot, options={"verify_signature": False})
    kid = tokens.thumbprint(key.public_key())
    now = int(time.time())
    public = key.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    foreign = ec.generate_private_key(ec.SECP256R1())

    def signed(*, by: ec.EllipticCurvePrivateKey = key, kid: str = kid, **changed: Any) -> str:
        said = {name: value for name, value in (claims | changed).items() if value is not None}
        return jwt.encode(said, by, "ES256", {"kid": kid})

    def b64(content: object) -> str:
        return base64.urlsafe_b64encode(json.dumps(content).encode()).rstrip(b"=").decode()

    def hmac_signed() -> str:
        import hashlib
        import hmac

        text = f"{b64({'alg': 'HS256', 'kid': kid})}.{b64(claims)}"
        mac = hmac.new(public, text.encode(), hashlib.sha256).digest()
        return f"{text}.{base64.urlsafe_b64encode(mac).rstrip(b'=').decode()}"

    site.made(ACCOUNTS, {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "token-gone"}})
    gone = asked(site, "token-gone")
    site.gone(f"{ACCOUNTS}/token-gone")
    site.made(ACCOUNTS, {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "token-reborn"}})
    before = asked(site, "token-reborn")
    site.gone(f"{ACCOUNTS}/token-reborn")
    site.made(ACCOUNTS, {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "token-reborn"}})

    member: dict[str, Any] = {
        "iss": "https://kubernetes.default.svc.cluster.local",
        "aud": ["https://kubernetes.default.svc"],
    }
    cases = {
        "a member's own": signed(by=foreign, **member),
        "another audience": asked(site, ROBOT, "https://elsewhere"),
        "two audiences": asked(site, ROBOT, ISSUER, "https://elsewhere"),
        "two other audiences": signed(aud=["a", "b"]),
        "no audience": signed(aud=None),
        "an empty audience": signed(aud=[]),
        "another issuer": signed(iss="https://elsewhere"),
        "no issuer": signed(iss=None),
        "no expiry": signed(exp=None),
        "expired": signed(exp=now - 11),
        "not yet": signed(nbf=now + 1800),
        "alg none": f"{b64({'alg': 'none', 'kid': kid})}.{b64(claims)}.",
        "HS256 with the public key": hmac_signed(),
        "unknown kid": signed(kid="unknown", by=foreign),
        "our kid, another key": signed(by=foreign),
        "a deleted account": gone,
        "an account made anew": before,
        "another account named": signed(sub="system:serviceaccount:kube-system:admin"),
        "a user named": signed(sub="admin"),
        "no account": signed(by=key, kid=kid, **{"kubernetes.io": None}),
        "long": signed(filler="x" * 48_000),
        "cut": robot[:-4],
        "a changed signature": robot[:-4] + ("AAAA" if robot[-4:] != "AAAA" else "BBBB"),
        "nothing": "",
        "no token": "x.y.z",
    }
    eventually(lambda: site.ask(None, f"{C1}{PODS}", bearer(gone)).code == 401)
    eventually(lambda: site.ask(None, f"{C1}{PODS}", bearer(before)).code == 401)
    for target in (f"{C1}{PODS}/matrix", "/api", "/version"):
        for http2 in (False, True):
            wrong = {
                name: code
                for name, token in cases.items()
                if (code := site.ask(None, target, bearer(token), http2=http2).code) != 401
            }
            assert wrong == {}, (target, http2)
    for sent in ([bearer(robot), bearer(robot)], [bearer(robot), bearer("x")], [("authorization", f"Basic {robot}")]):
        assert site.ask(None, f"{C1}{PODS}/matrix", *sent).code == 401
    assert site.ask(None, f"{C1}{PODS}/matrix?access_token={robot}").code == 401
    assert not site.c1.requests("/matrix")
    assert site.ask(None, f"{C1}{PODS}", bearer(signed())).code == 200  # the matrix itself signs well
    site.gone(f"{ACCOUNTS}/token-reborn")
