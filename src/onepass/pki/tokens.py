"""Service-account tokens: ES256 JWTs with the claims of Kubernetes' bound tokens, and the key set that verifies them.

    TokenRefused   not a token of ours, or not for this audience, or not now; the message never shows the token

Claims: https://kubernetes.io/docs/reference/access-authn-authz/service-accounts-admin/#bound-service-account-tokens
"""

import base64
import hashlib
import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import jwt
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from jwt.algorithms import ECAlgorithm

_ALGORITHM = "ES256"
_LIMIT = 16 * 1024  # characters
_SKEW = 10  # seconds; what the data plane allows
_CLAIM = "kubernetes.io"


class TokenRefused(ValueError):
    """Not a token of ours, or not for this audience, or not now."""


@dataclass(frozen=True, slots=True)
class Account:
    """A ServiceAccount."""

    namespace: str
    name: str
    uid: str

    @property
    def user(self) -> str:
        return f"system:serviceaccount:{self.namespace}:{self.name}"


@dataclass(frozen=True, slots=True)
class Token:
    """What a token says. Times are Unix seconds; `id` is its jti, unique to it."""

    account: Account
    audiences: tuple[str, ...]
    issued: int
    expires: int
    id: str


def sign(key: ec.EllipticCurvePrivateKey, issuer: str, token: Token) -> str:
    """The token as a compact JWS, valid from `token.issued` on."""
    account = token.account
    claims = {
        "aud": list(token.audiences),
        "exp": token.expires,
        "iat": token.issued,
        "iss": issuer,
        "jti": token.id,
        _CLAIM: {
            "namespace": account.namespace,
            "serviceaccount": {"name": account.name, "uid": account.uid},
        },
        "nbf": token.issued,
        "sub": account.user,
    }
    return jwt.encode(claims, key, algorithm=_ALGORITHM, headers={"kid": thumbprint(key.public_key())})


def verify(
    text: str,
    keys: Sequence[ec.EllipticCurvePublicKey],
    issuers: Collection[str],
    audiences: Collection[str],
    now: float,
) -> Token:
    """What the token says, once one of `keys` signed it for one of `issuers`, and one of `audiences` is meant, at `now`
    (Unix seconds).

    Whether the account still exists is not known here. Raises TokenRefused.
    """
    if len(text) > _LIMIT:
        raise TokenRefused("the token is too long")
    try:
        known = {thumbprint(key): key for key in keys}
        key = known.get(jwt.get_unverified_header(text).get("kid", ""))
        if key is None:
            raise TokenRefused("the token is not signed by a key of this gateway")
        claims: Mapping[str, object] = jwt.decode(
            text,
            key,
            algorithms=[_ALGORITHM],
            audience=list(audiences),
            issuer=issuers,
            # The library asks the clock itself; the times are checked below.
            options={"require": ["exp", "nbf"], "verify_exp": False, "verify_nbf": False, "verify_iat": False},
        )
    except (jwt.PyJWTError, RecursionError) as error:  # deep nesting in the header exhausts the JSON parser
        raise TokenRefused("the token is not valid") from error
    token = _token(claims)
    if now >= token.expires + _SKEW:
        raise TokenRefused("the token has expired")
    if now < _number(claims, "nbf") - _SKEW:
        raise TokenRefused("the token is not valid yet")
    return token


def jwks(keys: Sequence[ec.EllipticCurvePublicKey]) -> str:
    """The JSON Web Key Set (RFC 7517) of `keys`, the same bytes for the same keys."""
    told = {thumbprint(key): _jwk(key) for key in keys}
    described = [{**told[kid], "alg": _ALGORITHM, "kid": kid, "use": "sig"} for kid in sorted(told)]
    return json.dumps({"keys": described}, sort_keys=True)


def public_keys(document: object) -> str:
    """Another's key set (RFC 7517) reduced to what may verify signatures, the same bytes for the same keys.

    Asymmetric keys of the usual kinds alone: a set with a symmetric key would let everybody sign who reads it. Raises
    ValueError when nothing remains.
    """
    listed = document.get("keys") if isinstance(document, dict) else None
    found = [kept for each in (listed if isinstance(listed, list) else []) if (kept := _public_key(each))]
    if not found:
        raise ValueError("the key set has no key that may verify signatures")
    return json.dumps({"keys": sorted(found, key=lambda key: json.dumps(key, sort_keys=True))}, sort_keys=True)


def _public_key(key: object) -> dict[str, str] | None:
    if not isinstance(key, dict) or key.get("kty") not in _MEMBERS or key.get("use", "sig") != "sig":
        return None
    kept = {name: key[name] for name in (*_MEMBERS[key["kty"]], "kty", "kid", "alg", "use") if name in key}
    if not all(isinstance(value, str) for value in kept.values()):
        return None
    try:
        public = jwt.PyJWK(kept).key
    except (jwt.PyJWTError, ValueError, TypeError, KeyError):
        return None
    if isinstance(public, rsa.RSAPublicKey) and public.key_size < 2048:
        return None
    if isinstance(public, ec.EllipticCurvePublicKey) and kept["crv"] not in ("P-256", "P-384", "P-521"):
        return None
    return kept


_MEMBERS = {"EC": ("crv", "x", "y"), "RSA": ("n", "e"), "OKP": ("crv", "x")}


def thumbprint(key: ec.EllipticCurvePublicKey) -> str:
    """The key id: the SHA-256 thumbprint of RFC 7638, in base64url without padding."""
    canonical = json.dumps(_jwk(key), sort_keys=True, separators=(",", ":")).encode()
    return base64.urlsafe_b64encode(hashlib.sha256(canonical).digest()).rstrip(b"=").decode()


def _jwk(key: ec.EllipticCurvePublicKey) -> dict[str, str]:
    """The members that RFC 7638 requires of an EC key, and no other."""
    described = ECAlgorithm.to_jwk(key, as_dict=True)
    return {member: str(described[member]) for member in ("crv", "kty", "x", "y")}


def _token(claims: Mapping[str, object]) -> Token:
    bound = _mapping(claims, _CLAIM)
    named = _mapping(bound, "serviceaccount")
    account = Account(_text(bound, "namespace"), _text(named, "name"), _text(named, "uid"))
    if claims.get("sub") != account.user:
        raise TokenRefused("the token does not name the service account that it is bound to")
    audiences = claims.get("aud")
    listed = audiences if isinstance(audiences, list) else [audiences]
    return Token(
        account,
        tuple(audience for audience in listed if isinstance(audience, str)),
        _number(claims, "iat"),
        _number(claims, "exp"),
        _text(claims, "jti"),
    )


def _mapping(claims: Mapping[str, object], name: str) -> Mapping[str, object]:
    value = claims.get(name)
    if not isinstance(value, dict):
        raise TokenRefused(f"the token has no claim {name}")
    return value


def _text(claims: Mapping[str, object], name: str) -> str:
    value = claims.get(name)
    if not isinstance(value, str) or not value:
        raise TokenRefused(f"the token has no claim {name}")
    return value


def _number(claims: Mapping[str, object], name: str) -> int:
    value = claims.get(name)
    if not isinstance(value, int) or isinstance(value, bool):
        raise TokenRefused(f"the token has no claim {name}")
    return value
