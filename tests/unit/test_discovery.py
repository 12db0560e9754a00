"""What a provider may say of itself, and the file in which operators name providers."""

import json
from pathlib import Path

import pytest
import yaml
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from jwt.algorithms import ECAlgorithm, HMACAlgorithm, OKPAlgorithm, RSAAlgorithm

from onepass.gateway import ir
from onepass.pki import tokens
from onepass.runtime import authnconfig, discovery
from onepass.runtime.settings import Claim, Issuer, SettingsError

ISSUER = Issuer("https://idp.example", ("onepass",), Claim("sub"))


@pytest.mark.parametrize(
    ("uri", "found"),
    [
        ("https://idp.example/keys", ("idp.example", 443, "/keys")),
        ("https://keys.example:8443/a/b?c=d", ("keys.example", 8443, "/a/b?c=d")),
        ("https://[::1]:1/", ("::1", 1, "/")),
        ("https://idp.example", ("idp.example", 443, "/")),
    ],
)
def test_where_the_keys_are(uri: str, found: tuple[str, int, str]) -> None:
    document = {"issuer": ISSUER.url, "jwks_uri": uri}
    assert discovery.source(ISSUER, document, 60) == ir.KeySource(*found, refresh=60)


@pytest.mark.parametrize(
    "document",
    [
        None,
        [],
        {},
        {"issuer": ISSUER.url},
        {"issuer": "https://idp.example/", "jwks_uri": "https://idp.example/keys"},
        {"issuer": ISSUER.url, "jwks_uri": "http://idp.example/keys"},
        {"issuer": ISSUER.url, "jwks_uri": "file:///etc/passwd"},
        {"issuer": ISSUER.url, "jwks_uri": "https:///keys"},
        {"issuer": ISSUER.url, "jwks_uri": "https://idp.example:x/keys"},
        {"issuer": ISSUER.url, "jwks_uri": "https://idp.example/\r\nkeys"},
        {"issuer": ISSUER.url, "jwks_uri": 7},
    ],
)
def test_what_a_provider_may_not_say(document: object) -> None:
    with pytest.raises(discovery.DiscoveryError):
        discovery.source(ISSUER, document, 60)


def test_only_keys_that_verify_signatures_are_taken() -> None:
    rsa_key = RSAAlgorithm.to_jwk(rsa.generate_private_key(65537, 2048).public_key(), as_dict=True)
    small = RSAAlgorithm.to_jwk(rsa.generate_private_key(65537, 1024).public_key(), as_dict=True)
    curve = ECAlgorithm.to_jwk(ec.generate_private_key(ec.SECP256R1()), as_dict=True)
    odd = ECAlgorithm.to_jwk(ec.generate_private_key(ec.SECP256K1()).public_key(), as_dict=True)
    edwards = OKPAlgorithm.to_jwk(ed25519.Ed25519PrivateKey.generate().public_key(), as_dict=True)
    shared = HMACAlgorithm.to_jwk(b"secret", as_dict=True)
    assert "d" in curve
    given = [
        rsa_key,
        small,
        curve,
        odd,
        edwards,
        shared,
        curve | {"use": "enc"},
        {"kty": "EC"},
        7,
        {"kty": "EC", "x": 1},
    ]
    taken = json.loads(tokens.public_keys({"keys": given}))["keys"]
    assert sorted(key["kty"] for key in taken) == ["EC", "OKP", "RSA"]
    assert not any("d" in key for key in taken)
    nothing: object
    for nothing in ({"keys": [shared]}, {"keys": 7}, {}, [], None):
        with pytest.raises(ValueError, match="no key"):
            tokens.public_keys(nothing)


def config(tmp_path: Path, document: object) -> tuple[Issuer, ...]:
    path = tmp_path / "authentication.yaml"
    path.write_text(document if isinstance(document, str) else yaml.safe_dump(document))
    return authnconfig.read(path)


def whole(**jwt: object) -> dict[str, object]:
    usual = {
        "issuer": {"url": "https://idp.example", "audiences": ["onepass"]},
        "claimMappings": {"username": {"claim": "sub", "prefix": "idp:"}},
    }
    return {"apiVersion": "apiserver.config.k8s.io/v1", "kind": "AuthenticationConfiguration", "jwt": [usual | jwt]}


def test_the_file_is_kubernetes_own(tmp_path: Path) -> None:
    (issuer,) = config(tmp_path, whole())
    assert issuer == Issuer("https://idp.example", ("onepass",), Claim("sub", "idp:"))
    rules = [{"claim": "hd", "requiredValue": "example.com"}]
    mappings = {"username": {"claim": "email", "prefix": ""}, "groups": {"claim": "roles", "prefix": "g:"}}
    (issuer,) = config(tmp_path, whole(claimMappings=mappings, claimValidationRules=rules))
    assert (issuer.username, issuer.groups) == (Claim("email"), Claim("roles", "g:"))
    assert issuer.required == (("hd", "example.com"),)


@pytest.mark.parametrize(
    ("document", "why"),
    [
        ("a: [", "is not YAML"),
        ("[]", "the document"),
        (whole() | {"kind": "Other"}, "must be an AuthenticationConfiguration"),
        (whole() | {"anonymous": {"enabled": True}}, "anonymous"),
        (whole(issuer={"url": "http://idp.example", "audiences": ["a"]}), "must begin with https://"),
        (whole(issuer={"url": "https://a:b@idp.example", "audiences": ["a"]}), "must not contain a user"),
        (whole(issuer={"url": "https://idp.example", "audiences": []}), "audiences"),
        (whole(issuer={"url": "https://idp.example", "audiences": [""]}), "needs an audience"),
        (whole(issuer={"url": "https://idp.example"}), "audiences"),
        (
            whole(issuer={"url": "https://idp.example", "audiences": ["a"], "certificateAuthority": "x"}),
            "certificate authority",
        ),
        (whole(claimMappings={"username": {"expression": "claims.sub"}}), "expression is not supported"),
        (whole(claimMappings={"username": {"claim": "sub"}}), "prefix is required"),
        (whole(claimMappings={"username": {"claim": "", "prefix": ""}}), "claim is required"),
        (whole(userValidationRules=[{"expression": "true"}]), "userValidationRules is not supported"),
        (whole(claimValidationRules=[{"expression": "true"}]), "claimValidationRules.expression is not supported"),
        (whole() | {"jwt": whole()["jwt"] * 2}, "given twice"),  # type: ignore[operator]
    ],
)
def test_a_file_that_cannot_be_is_refused_with_its_place(tmp_path: Path, document: object, why: str) -> None:
    with pytest.raises(SettingsError, match=why):
        config(tmp_path, document)


def test_flags_mean_what_they_mean_to_kubernetes() -> None:
    def prefix(claim: str, given: str | None) -> str:
        return authnconfig.from_flags("https://i.example", "c", claim, given, "", "", b"").username.prefix

    assert prefix("sub", None) == "https://i.example#"
    assert prefix("email", None) == ""
    assert prefix("sub", "-") == ""
    assert prefix("sub", "x:") == "x:"
    with pytest.raises(SettingsError, match="needs an audience"):
        authnconfig.from_flags("https://i.example", "", "sub", None, "", "", b"")


def test_what_was_found_is_known_after_a_restart(tmp_path: Path) -> None:
    import asyncio

    key = ECAlgorithm.to_jwk(ec.generate_private_key(ec.SECP256R1()).public_key(), as_dict=True)
    where = ir.KeySource("idp.example", 443, "/keys", refresh=60)
    told: list[ir.Issuer] = []

    def made(issuer: Issuer) -> discovery.Discovery:
        return discovery.Discovery((issuer,), 60, tmp_path, lambda issuers: told.extend(issuers))

    asyncio.run(made(ISSUER)._take(ISSUER, where, {"keys": [key]}))
    assert made(ISSUER)._kept(ISSUER) == told[0]
    assert made(ISSUER)._kept(Issuer("https://other.example", ("onepass",), Claim("sub"))) is None
    (kept,) = tmp_path.iterdir()
    assert kept.stat().st_mode & 0o777 == 0o600
    for damaged in ("", "{}", '{"source": 1, "keys": "{}"}'):
        kept.write_text(damaged)
        assert made(ISSUER)._kept(ISSUER) is None
