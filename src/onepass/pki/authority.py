"""Certificate authorities of our own, and the requests that are put to them.

    AuthorityRefused       not an authority, not its key, or expired
    RequestError           a request that no certificate is issued for; the message says why, for the requester
      MalformedRequest       not one PKCS #10 request in PEM, or not signed by its key
      WeakKey                a key that is too weak, or that the gateway could not verify
      SubjectRefused         a common name or organization that cannot be a user or a group
      ExtensionRefused       asks for more than a client certificate

Who may have which name is decided elsewhere.
"""

import ipaddress
import secrets
import warnings
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.asymmetric.types import PublicKeyTypes
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from onepass.pki import certificates, keys

_DAY = 86400
_LIFETIME = 3650 * _DAY
_BACKDATED = 300  # seconds, for clients whose clock is behind
_NAME_LIMIT = 64  # characters: ub-common-name and ub-organization-name of RFC 5280, appendix A
_GROUPS_LIMIT = 32
_REQUEST_LIMIT = 16 * 1024  # bytes; an RSA 8192 request has 4 KiB


class AuthorityRefused(ValueError):
    """Not an authority, not its key, or expired."""


class RequestError(ValueError):
    """A request that no certificate is issued for."""


class MalformedRequest(RequestError):
    """Not one PKCS #10 request in PEM, or not signed by its key."""


class WeakKey(RequestError):
    """A key that is too weak, or that the gateway could not verify."""


class SubjectRefused(RequestError):
    """A common name or organization that cannot be a user or a group."""


class ExtensionRefused(RequestError):
    """Asks for more than a client certificate."""


@dataclass(frozen=True, slots=True)
class Authority:
    """A certificate authority with its key."""

    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey = field(repr=False)


@dataclass(frozen=True, slots=True)
class Request:
    """What a PKCS #10 request asks for. `usages` in the words of certificates.k8s.io ("client auth")."""

    common_name: str
    organizations: tuple[str, ...]
    public_key: ec.EllipticCurvePublicKey | rsa.RSAPublicKey
    usages: frozenset[str] = frozenset()


def create(common_name: str, now: float) -> Authority:
    """A new self-signed authority for ten years, which may sign leaves and no other authority."""
    key = keys.generate()
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])
    usage = _key_usage(key_cert_sign=True, crl_sign=True)
    builder = (
        _builder(name, key.public_key(), now - _BACKDATED, now + _LIFETIME)
        .issuer_name(name)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(usage, critical=True)
    )
    return Authority(builder.sign(key, hashes.SHA256()), key)


def load(certificate: bytes, key: bytes) -> Authority:
    """The authority from its PEM. Raises AuthorityRefused, also when its key is another one."""
    try:
        found = certificates.chain(certificate)[0]
        private = keys.from_pem(key)
    except keys.KeyRefused as error:
        raise AuthorityRefused(f"the authority's key {error}") from error
    except certificates.CertificateRefused as error:
        raise AuthorityRefused(f"the authority's certificate {error}") from error
    if found.public_key() != private.public_key():
        raise AuthorityRefused("the authority's key does not belong to its certificate")
    try:
        basic = found.extensions.get_extension_for_class(x509.BasicConstraints).value
    except (ValueError, x509.ExtensionNotFound) as error:
        raise AuthorityRefused("the certificate is not an authority's") from error
    if not basic.ca:
        raise AuthorityRefused("the certificate is not an authority's")
    return Authority(found, private)


def issue_serving(
    authority: Authority, public_key: ec.EllipticCurvePublicKey, names: Sequence[str], now: float, lifetime: float
) -> x509.Certificate:
    """A certificate for a server that is reached as any of `names`, DNS names (also `*.a.b`) or IP addresses.

    `lifetime` in seconds; it ends with the authority's at the latest. Raises AuthorityRefused and ValueError.
    """
    if not names:
        raise ValueError("a serving certificate needs a name")
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, names[0][:_NAME_LIMIT])])
    alternatives = x509.SubjectAlternativeName([_general_name(name) for name in names])
    builder = _leaf(authority, subject, public_key, now, lifetime, ExtendedKeyUsageOID.SERVER_AUTH)
    return builder.add_extension(alternatives, critical=False).sign(authority.key, hashes.SHA256())


def issue_client(authority: Authority, request: Request, now: float, lifetime: float) -> x509.Certificate:
    """A certificate that proves its holder to be the user `request.common_name` in the groups `.organizations`.

    Only the names and the key come from the request; the rest is ours: client authentication and nothing else, for
    `lifetime` seconds, but not beyond the authority. Raises AuthorityRefused and RequestError.
    """
    _check_key(request.public_key)
    subject = _subject(request.common_name, request.organizations)
    builder = _leaf(authority, subject, request.public_key, now, lifetime, ExtendedKeyUsageOID.CLIENT_AUTH)
    return builder.sign(authority.key, hashes.SHA256())


def revocation_list(authority: Authority, serials: Iterable[str]) -> bytes:
    """The PEM of a revocation list that names `serials` (hex), the same bytes for the same serials.

    It holds as long as the authority: a data plane whose control plane is away must not take it for outdated and
    refuse everyone (RFC 5280, 5.1.2.5, leaves the time of the next update to the issuer).
    """
    since, until = authority.certificate.not_valid_before_utc, authority.certificate.not_valid_after_utc
    numbers = sorted({int(serial, 16) for serial in serials})
    builder = (
        x509.CertificateRevocationListBuilder()
        .issuer_name(authority.certificate.subject)
        .last_update(since)
        .next_update(until)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(authority.key.public_key()), critical=False)
        .add_extension(x509.CRLNumber(len(numbers)), critical=False)
    )
    for number in numbers:
        revoked = x509.RevokedCertificateBuilder().serial_number(number).revocation_date(since).build()
        builder = builder.add_revoked_certificate(revoked)
    return builder.sign(authority.key, hashes.SHA256(), ecdsa_deterministic=True).public_bytes(Encoding.PEM)


def parse_request(pem: bytes) -> Request:
    """A request for a client certificate, once nothing is wrong with it. Raises RequestError.

    Other attributes of the subject than the common name and organizations are passed over.
    """
    if len(pem) > _REQUEST_LIMIT:
        raise MalformedRequest(f"is longer than {_REQUEST_LIMIT} bytes")
    if pem.count(b"-----BEGIN ") != 1 or b"-----BEGIN CERTIFICATE REQUEST-----" not in pem:
        raise MalformedRequest("must be one PEM block, with the line BEGIN CERTIFICATE REQUEST")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of values that are refused below
            request = x509.load_pem_x509_csr(pem)
            key, subject, extensions = request.public_key(), list(request.subject), list(request.extensions)
    except UnsupportedAlgorithm as error:
        raise WeakKey("has a key of a kind that is not supported: use ECDSA P-256 or RSA") from error
    except (ValueError, x509.DuplicateExtension, x509.InvalidVersion, x509.UnsupportedGeneralNameType) as error:
        raise MalformedRequest("is not a certificate request (PKCS #10)") from error
    checked = _check_key(key)
    if not _signed(request):
        raise MalformedRequest("is not signed by its own key")
    names = [str(attribute.value) for attribute in subject if attribute.oid == NameOID.COMMON_NAME]
    if len(names) != 1:
        raise SubjectRefused(f"needs one common name, which becomes the user, and has {len(names)}")
    groups = [str(attribute.value) for attribute in subject if attribute.oid == NameOID.ORGANIZATION_NAME]
    _subject(names[0], groups)
    usages: set[str] = set()
    for extension in extensions:
        usages |= _usages(extension.value)
    return Request(names[0], tuple(dict.fromkeys(groups)), checked, frozenset(usages))


def _check_key(key: PublicKeyTypes) -> ec.EllipticCurvePublicKey | rsa.RSAPublicKey:
    try:
        keys.check_client(key)
    except keys.KeyRefused as error:
        raise WeakKey(f"the key {error}") from error
    assert isinstance(key, ec.EllipticCurvePublicKey | rsa.RSAPublicKey)
    return key


def _signed(request: x509.CertificateSigningRequest) -> bool:
    try:
        return request.is_signature_valid
    except (ValueError, UnsupportedAlgorithm):  # MD5 and the like
        return False


def _subject(common_name: str, organizations: Sequence[str]) -> x509.Name:
    """The subject of a client certificate. Raises SubjectRefused."""
    if len(organizations) > _GROUPS_LIMIT:
        raise SubjectRefused(f"has {len(organizations)} organizations; at most {_GROUPS_LIMIT} can be groups")
    for what, name in [("common name", common_name), *(("organization", group) for group in organizations)]:
        if not 0 < len(name) <= _NAME_LIMIT:
            raise SubjectRefused(
                f"has {what} {name[:_NAME_LIMIT]!a} of {len(name)} characters; 1 to {_NAME_LIMIT} may be"
            )
        # Users and groups travel in HTTP headers, where other characters mean different things to different readers.
        if not name.isascii() or not name.isprintable() or name != name.strip() or set(name) & {'"', "\\"}:
            raise SubjectRefused(
                f"has {what} {name!a}: printable ASCII without quotes and backslashes, no space at either end"
            )
    return x509.Name(
        [
            *(x509.NameAttribute(NameOID.ORGANIZATION_NAME, group) for group in dict.fromkeys(organizations)),
            x509.NameAttribute(NameOID.COMMON_NAME, common_name),
        ]
    )


def _usages(extension: x509.ExtensionType) -> set[str]:
    """What an extension of a request asks for. Raises ExtensionRefused unless a client certificate has it anyway."""
    match extension:
        case x509.BasicConstraints(ca=False) | x509.SubjectKeyIdentifier():
            return set()
        case x509.KeyUsage():
            asked = {name for name in _KEY_USAGES if getattr(extension, name)}
            if refused := asked - _CLIENT_KEY_USAGES.keys():
                raise ExtensionRefused(f"asks for the key usage {_told(refused)}, which a client certificate has not")
            return {_CLIENT_KEY_USAGES[name] for name in asked}
        case x509.ExtendedKeyUsage():
            if refused := {usage.dotted_string for usage in extension if usage != ExtendedKeyUsageOID.CLIENT_AUTH}:
                raise ExtensionRefused(f"asks for the extended key usage {_told(refused)}; only client auth is given")
            return {"client auth"}
        case x509.BasicConstraints():
            raise ExtensionRefused("asks to be a certificate authority")
        case x509.SubjectAlternativeName():
            raise ExtensionRefused("has subject alternative names; the user is the common name alone")
    raise ExtensionRefused(f"has the extension {extension.oid.dotted_string}, which a client certificate has not")


_KEY_USAGES = (
    "digital_signature",
    "content_commitment",
    "key_encipherment",
    "data_encipherment",
    "key_agreement",
    "key_cert_sign",
    "crl_sign",
)
_CLIENT_KEY_USAGES = {"digital_signature": "digital signature", "key_encipherment": "key encipherment"}


def _told(names: Iterable[str]) -> str:
    return ", ".join(sorted(name.replace("_", " ") for name in names))


def _key_usage(**usages: bool) -> x509.KeyUsage:
    every = dict.fromkeys((*_KEY_USAGES, "encipher_only", "decipher_only"), False)
    return x509.KeyUsage(**(every | usages))


def _builder(
    subject: x509.Name, key: ec.EllipticCurvePublicKey | rsa.RSAPublicKey, since: float, until: float
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .public_key(key)
        # 126 random bits behind one that is always set: then the hex has no leading zero to be shown or left out,
        # which BoringSSL (whole bytes) and others (digits) do differently, and the number is positive in 16 bytes.
        .serial_number(1 << 126 | secrets.randbits(126))
        .not_valid_before(datetime.fromtimestamp(int(since), UTC))
        .not_valid_after(datetime.fromtimestamp(int(until), UTC))
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
    )


def _leaf(
    authority: Authority,
    subject: x509.Name,
    key: ec.EllipticCurvePublicKey | rsa.RSAPublicKey,
    now: float,
    lifetime: float,
    purpose: x509.ObjectIdentifier,
) -> x509.CertificateBuilder:
    if lifetime <= 0:
        raise ValueError("a certificate needs a lifetime")
    first, last = certificates.not_before(authority.certificate), certificates.not_after(authority.certificate)
    if not first <= now < last:
        raise AuthorityRefused(f"the authority {authority.certificate.subject.rfc4514_string()} is not valid now")
    issuer = x509.AuthorityKeyIdentifier.from_issuer_public_key(authority.key.public_key())
    return (
        _builder(subject, key, max(now - _BACKDATED, first), min(now + lifetime, last))
        .issuer_name(authority.certificate.subject)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(
            _key_usage(digital_signature=True, key_encipherment=isinstance(key, rsa.RSAPublicKey)), critical=True
        )
        .add_extension(x509.ExtendedKeyUsage([purpose]), critical=False)
        .add_extension(issuer, critical=False)
    )


def _general_name(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)
