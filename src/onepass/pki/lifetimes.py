"""What can be read from a credential without asking who made it: whose it is, when it begins and when it ends.

Nothing here is verified: it tells when to get a new credential, and never what somebody may do.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass

import jwt
from cryptography import x509

# RFC 1123 labels and subdomains, as the names of namespaces and service accounts are: they become parts of a path.
_SUBJECT = re.compile(
    r"system:serviceaccount:(?P<namespace>[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?)"
    r":(?P<name>[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?)",
    re.ASCII,
)
SOON = 30 * 86400.0  # seconds before its end from which a credential that nobody renews is warned of
_LAST = 253_402_300_800  # the end of the year 9999, beyond which no date can be told


@dataclass(frozen=True, slots=True)
class Lifetime:
    """Unix seconds; `begins` is 0 when the credential does not say."""

    begins: float
    ends: float

    def at(self, share: float) -> float:
        """When `share` of it has passed; of one without a beginning, its end."""
        return self.begins + share * (self.ends - self.begins) if self.begins else self.ends

    @property
    def seconds(self) -> int:
        return int(self.ends - self.begins) if self.begins else 0


@dataclass(frozen=True, slots=True)
class BoundToken:
    """The token of a service account, with an end (the TokenRequest API makes such)."""

    namespace: str
    account: str
    lifetime: Lifetime


def of_token(token: str) -> Lifetime | None:
    """None for what is no JWT (RFC 7519), or has no end."""
    return _lifetime(_claims(token))


def bound(token: str) -> BoundToken | None:
    """None for every other token: of somebody else, or one that says not when it began and ends."""
    claims = _claims(token)
    lifetime, subject = _lifetime(claims), claims.get("sub")
    found = _SUBJECT.fullmatch(subject) if isinstance(subject, str) else None
    if lifetime is None or not 0 < lifetime.begins < lifetime.ends or found is None:
        return None
    return BoundToken(found["namespace"], found["name"], lifetime)


def of_certificate(pem: bytes) -> Lifetime | None:
    """Of the first certificate in `pem`; None for what is none."""
    try:
        leaf = x509.load_pem_x509_certificate(pem)
    except ValueError:
        return None
    return Lifetime(leaf.not_valid_before_utc.timestamp(), leaf.not_valid_after_utc.timestamp())


def _claims(token: str) -> Mapping[str, object]:
    try:
        found = jwt.decode(token, options={"verify_signature": False, "verify_exp": False, "verify_aud": False})
    except jwt.InvalidTokenError:
        return {}
    return found if isinstance(found, dict) else {}


def _lifetime(claims: Mapping[str, object]) -> Lifetime | None:
    ends, begins = claims.get("exp"), claims.get("iat", 0)
    if not _is_time(ends) or not isinstance(ends, int | float):
        return None
    return Lifetime(float(begins) if _is_time(begins) and isinstance(begins, int | float) else 0.0, float(ends))


def _is_time(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 < value < _LAST
