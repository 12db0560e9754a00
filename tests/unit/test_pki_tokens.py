"""Service-account tokens, as their verifiers and their forgers see them."""

import base64
import hashlib
import hmac
import json
from dataclasses import replace

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from hypothesis import given
from hypothesis import strategies as st

from onepass.pki import keys, tokens
from onepass.pki.tokens import Account, Token, TokenRefused

KEY, OLD_KEY, OTHER_KEY = keys.generate(), keys.generate(), keys.generate()
KEYS = [KEY.public_key(), OLD_KEY.public_key()]
ISSUER = "https://onepass.example"
NOW = 1_800_000_000
TOKEN = Token(Account("ci", "robot", "uid-1"), (ISSUER,), NOW, NOW + 3600, "id-1")
CLAIMS = {
    "aud": [ISSUER],
    "exp": NOW + 3600,
    "iat": NOW,
    "iss": ISSUER,
    "jti": "id-1",
    "kubernetes.io": {"namespace": "ci", "serviceaccount": {"name": "robot", "uid": "uid-1"}},
    "nbf": NOW,
    "sub": "system:serviceaccount:ci:robot",
}


def verify(text: str, now: float = NOW) -> Token:
    return tokens.verify(text, KEYS, [ISSUER], {ISSUER, "api"}, now)


def forge(claims: object, key: ec.EllipticCurvePrivateKey = KEY, kid: object = None) -> str:
    """A token with any claims, rightly signed by `key`."""
    assert isinstance(claims, dict)
    return jwt.encode(claims, key, "ES256", {"kid": kid or tokens.thumbprint(KEY.public_key())})


def encode(part: object) -> str:
    raw = part if isinstance(part, bytes) else json.dumps(part).encode()
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def test_a_token_says_what_it_was_signed_for() -> None:
    assert verify(tokens.sign(KEY, ISSUER, TOKEN)) == TOKEN
    assert TOKEN.account.user == "system:serviceaccount:ci:robot"


def test_a_token_has_the_claims_of_kubernetes() -> None:
    header, payload, _ = tokens.sign(KEY, ISSUER, TOKEN).split(".")
    kid = tokens.thumbprint(KEY.public_key())
    assert json.loads(base64.urlsafe_b64decode(header + "==")) == {"alg": "ES256", "kid": kid, "typ": "JWT"}
    assert json.loads(base64.urlsafe_b64decode(payload + "==")) == CLAIMS


def test_a_token_of_an_older_key_is_good_while_the_key_is_known() -> None:
    text = tokens.sign(OLD_KEY, ISSUER, TOKEN)
    assert verify(text) == TOKEN
    with pytest.raises(TokenRefused, match="not signed by a key of this gateway"):
        tokens.verify(text, KEYS[:1], [ISSUER], {ISSUER}, NOW)


def test_one_audience_in_common_is_enough() -> None:
    token = replace(TOKEN, audiences=("vault", "api"))
    assert verify(tokens.sign(KEY, ISSUER, token)) == token
    with pytest.raises(TokenRefused):
        verify(tokens.sign(KEY, ISSUER, replace(TOKEN, audiences=("vault",))))


@pytest.mark.parametrize(
    ("now", "refusal"),
    [
        (NOW - 11, "the token is not valid yet"),
        (NOW - 10, ""),
        (NOW, ""),
        (NOW + 3609, ""),
        (NOW + 3610, "the token has expired"),
        (NOW + 3611, "the token has expired"),
    ],
)
def test_a_token_holds_in_its_time_with_ten_seconds_at_either_end(now: float, refusal: str) -> None:
    text = tokens.sign(KEY, ISSUER, TOKEN)
    if refusal:
        with pytest.raises(TokenRefused, match=refusal):
            verify(text, now)
    else:
        assert verify(text, now) == TOKEN


def without(*names: str) -> dict[str, object]:
    return {name: value for name, value in CLAIMS.items() if name not in names}


def public_pem() -> bytes:
    return KEY.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)


def hs256_with_the_public_key() -> str:
    signed = f"{encode({'alg': 'HS256', 'kid': tokens.thumbprint(KEY.public_key())})}.{encode(CLAIMS)}"
    return f"{signed}.{encode(hmac.digest(public_pem(), signed.encode(), hashlib.sha256))}"


def alg_none(kid: bool) -> str:
    header = {"alg": "none"} | ({"kid": tokens.thumbprint(KEY.public_key())} if kid else {})
    return f"{encode(header)}.{encode(CLAIMS)}."


def with_other_claims() -> str:
    header, _, signature = tokens.sign(KEY, ISSUER, TOKEN).split(".")
    return f"{header}.{encode(CLAIMS | {'sub': 'system:serviceaccount:kube-system:admin'})}.{signature}"


BOUND = {"namespace": "ci", "serviceaccount": {"name": "robot", "uid": "uid-1"}}
FORGERIES = {
    "empty": "",
    "text": "hunter2",
    "dots": "..",
    "no token": "a.b.c",
    "not ASCII": "é.é.é",
    "binary header": f"{encode(bytes(range(256)))}.{encode(CLAIMS)}.",
    "a list as header": f"{encode([])}.{encode(CLAIMS)}.AA",
    "deep header": f"{encode(b'[' * 8000)}.{encode(CLAIMS)}.AA",
    "64 KiB": forge(CLAIMS | {"pad": "x" * 65536}),
    "kid of a number": f"{encode({'alg': 'ES256', 'kid': 7})}.{encode(CLAIMS)}.AA",
    "no kid": jwt.encode(CLAIMS, KEY, "ES256"),
    "unknown kid": forge(CLAIMS, kid="unknown"),
    "another key": forge(CLAIMS, OTHER_KEY),
    "another key of ours": forge(CLAIMS, OLD_KEY),
    "alg none": alg_none(kid=True),
    "alg none without kid": alg_none(kid=False),
    "HS256 with the public key": hs256_with_the_public_key(),
    "other claims": with_other_claims(),
    "no signature": tokens.sign(KEY, ISSUER, TOKEN).rsplit(".", 1)[0] + ".",
    "another issuer": forge(CLAIMS | {"iss": "https://kubernetes.default.svc"}),
    "no issuer": forge(without("iss")),
    "no audience": forge(without("aud")),
    "empty audience": forge(CLAIMS | {"aud": []}),
    "another audience": forge(CLAIMS | {"aud": ["vault"]}),
    "another audience as a word": forge(CLAIMS | {"aud": "vault"}),
    "audience of a number": forge(CLAIMS | {"aud": 7}),
    "no expiry": forge(without("exp")),
    "expiry as a word": forge(CLAIMS | {"exp": "tomorrow"}),
    "expiry null": forge(CLAIMS | {"exp": None}),
    "expiry true": forge(CLAIMS | {"exp": True}),
    "no beginning": forge(without("nbf")),
    "beginning as a word": forge(CLAIMS | {"nbf": "now"}),
    "no id": forge(without("jti")),
    "no subject": forge(without("sub")),
    "another subject": forge(CLAIMS | {"sub": "system:serviceaccount:ci:root"}),
    "a person": forge(CLAIMS | {"sub": "alice"}),
    "not bound": forge(without("kubernetes.io")),
    "bound to nothing": forge(CLAIMS | {"kubernetes.io": {}}),
    "bound to a word": forge(CLAIMS | {"kubernetes.io": "ci"}),
    "bound to no namespace": forge(CLAIMS | {"kubernetes.io": BOUND | {"namespace": ""}}),
    "bound to no uid": forge(CLAIMS | {"kubernetes.io": BOUND | {"serviceaccount": {"name": "robot"}}}),
}


@pytest.mark.parametrize("text", FORGERIES.values(), ids=FORGERIES.keys())
def test_what_is_no_token_of_ours_is_refused_without_being_shown(text: str) -> None:
    with pytest.raises(TokenRefused) as caught:
        verify(text)
    assert str(caught.value).startswith("the token ")
    assert not text or text not in str(caught.value)


def test_the_forgeries_would_be_good_tokens_if_nothing_were_wrong_with_them() -> None:
    assert verify(forge(CLAIMS)) == TOKEN


@given(st.text() | st.binary().map(lambda raw: f"{encode(raw)}.{encode(CLAIMS)}.AA"))
def test_any_text_is_refused_in_words(text: str) -> None:
    with pytest.raises(TokenRefused):
        verify(text)


# The key set


def test_another_library_call_verifies_by_the_key_set() -> None:
    text = tokens.sign(OLD_KEY, ISSUER, TOKEN)
    found = jwt.PyJWKSet.from_json(tokens.jwks(KEYS))
    key = found[jwt.get_unverified_header(text)["kid"]]
    options: jwt.types.Options = {"verify_exp": False, "verify_nbf": False, "verify_iat": False}
    assert jwt.decode(text, key, ["ES256"], options=options, audience=ISSUER, issuer=ISSUER) == CLAIMS


def test_the_key_set_is_the_same_bytes_for_the_same_keys_and_holds_nothing_private() -> None:
    told = tokens.jwks(KEYS)
    assert told == tokens.jwks(KEYS[::-1]) == tokens.jwks([*KEYS, KEYS[0]])
    for key in json.loads(told)["keys"]:
        assert set(key) == {"alg", "crv", "kid", "kty", "use", "x", "y"}
        assert (key["alg"], key["crv"], key["kty"], key["use"]) == ("ES256", "P-256", "EC", "sig")
        assert len(base64.urlsafe_b64decode(key["x"] + "=")) == len(base64.urlsafe_b64decode(key["y"] + "=")) == 32


def test_a_key_id_is_its_thumbprint() -> None:
    # The key of RFC 7515, appendix A.3.1; the thumbprint by the rule of RFC 7638, section 3.
    x, y = "f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU", "x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0"
    at_x, at_y = (int.from_bytes(base64.urlsafe_b64decode(part + "=")) for part in (x, y))
    numbers = ec.EllipticCurvePublicNumbers(at_x, at_y, ec.SECP256R1())
    canonical = f'{{"crv":"P-256","kty":"EC","x":"{x}","y":"{y}"}}'
    assert tokens.thumbprint(numbers.public_key()) == encode(hashlib.sha256(canonical.encode()).digest())
