"""Certificates as values: what people give us, and what is told about one.

CertificateRefused   what was given cannot be used; the message is a sentence that fits after the name of the field
"""

import hashlib
from collections.abc import Sequence
from datetime import UTC, datetime

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.serialization import Encoding

from onepass.pki import keys


class CertificateRefused(ValueError):
    """What was given cannot be used."""


def chain(pem: bytes) -> Sequence[x509.Certificate]:
    """The certificates in `pem`, at least one. Raises CertificateRefused."""
    if b"PRIVATE KEY-----" in pem:
        raise CertificateRefused("contains a private key: give the certificates alone")
    if b"-----BEGIN CERTIFICATE-----" not in pem:
        raise CertificateRefused("is not PEM: it has no BEGIN CERTIFICATE line")
    try:
        return x509.load_pem_x509_certificates(pem)
    except ValueError as error:
        raise CertificateRefused("holds something between BEGIN and END that is not a certificate") from error


def bundle(pem: bytes, now: float) -> Sequence[x509.Certificate]:
    """A bundle of authorities. Raises CertificateRefused, also when none is valid at `now` (Unix seconds)."""
    found = chain(pem)
    reasons = [_why_not_valid(certificate, now) for certificate in found]
    # Old authorities stay in bundles for years; one that can still verify something is enough.
    if all(reasons):
        raise CertificateRefused(reasons[0])
    return found


def pair(certificate: bytes, key: bytes, now: float) -> x509.Certificate:
    """The leaf of the chain in `certificate` (PEM, leaf first), once it is known to fit `key` and to be valid at `now`.

    Raises CertificateRefused, and keys.KeyRefused when the key is at fault.
    """
    leaf = chain(certificate)[0]
    private = keys.any_from_pem(key)
    try:
        public = leaf.public_key()
    except (ValueError, UnsupportedAlgorithm) as error:
        raise CertificateRefused("has a public key of a kind that is not supported") from error
    if private.public_key() != public:
        raise keys.KeyRefused("does not belong to the certificate, which has to be the first in its chain")
    keys.check_upstream(public)
    if why := _why_not_valid(leaf, now):
        raise CertificateRefused(why)
    return leaf


def to_pem(certificates: Sequence[x509.Certificate]) -> bytes:
    return b"".join(certificate.public_bytes(Encoding.PEM) for certificate in certificates)


def serial(certificate: x509.Certificate) -> str:
    """The serial number in lower-case hex without leading zeros, as Policy.revoked has it."""
    return format(certificate.serial_number, "x")


def fingerprint(certificate: x509.Certificate) -> str:
    """`sha256:` and the hash of the DER in hex."""
    return "sha256:" + hashlib.sha256(certificate.public_bytes(Encoding.DER)).hexdigest()


def digest(certificate: x509.Certificate) -> str:
    """The SHA-256 of the DER in lower-case hex, as the data plane tells of a certificate."""
    return certificate.fingerprint(hashes.SHA256()).hex()


def is_authority(certificate: x509.Certificate) -> bool:
    """Whether it may issue certificates (RFC 5280, 4.2.1.9)."""
    try:
        return bool(certificate.extensions.get_extension_for_class(x509.BasicConstraints).value.ca)
    except (ValueError, x509.ExtensionNotFound):
        return False


def not_before(certificate: x509.Certificate) -> int:
    """Unix seconds."""
    return int(certificate.not_valid_before_utc.timestamp())


def not_after(certificate: x509.Certificate) -> int:
    """Unix seconds."""
    return int(certificate.not_valid_after_utc.timestamp())


def _why_not_valid(certificate: x509.Certificate, now: float) -> str:
    """Nothing when the certificate is valid at `now`."""
    name = certificate.subject.rfc4514_string() or "a certificate without a name"
    if now > not_after(certificate):
        return f"has expired: {name} was valid until {_told(not_after(certificate))}"
    if now < not_before(certificate):
        return f"is not valid yet: {name} is valid from {_told(not_before(certificate))}"
    return ""


def _told(seconds: int) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M UTC")
