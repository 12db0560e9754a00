"""The keys of one gateway, made at the first start and found again at the next."""

import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import structlog
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric import ec

from onepass.access.identity import ADMINISTRATORS
from onepass.pki import authority, certificates, keys, sealing
from onepass.pki.authority import Authority
from onepass.runtime import datadir
from onepass.runtime.datadir import DataDir
from onepass.runtime.settings import Settings, SettingsError

log = structlog.get_logger(__name__)

ISSUER = "https://onepass"  # `iss` of service-account tokens, and their audience when a request names none
ADMIN = "admin"
_SERVING_SECONDS = 365 * 86400.0
_ADMIN_SECONDS = 365 * 86400.0
_CLIENT_LONGEST_SECONDS = 365 * 86400  # of a certificate by CSR; what a request gets that names no expirationSeconds
_CLIENT_SHORTEST_SECONDS = 600  # as k8s.io/api/certificates/v1 has it
_RENEW_SECONDS = 30 * 86400.0  # a certificate of our own with less left than this is made anew


@dataclass(frozen=True, slots=True)
class Pair:
    """A certificate chain and its key, in PEM."""

    certificate: bytes
    private_key: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class Trust:
    """Everything secret that a gateway holds, but for members' credentials, which are sealed in the database."""

    serving_ca: Authority
    client_ca: Authority
    serving: Pair
    admin: Pair
    accounts: ec.EllipticCurvePrivateKey = field(repr=False)
    sealer: sealing.Keyring = field(repr=False)

    @property
    def serving_ca_pem(self) -> bytes:
        return certificates.to_pem([self.serving_ca.certificate])

    @property
    def client_ca_pem(self) -> bytes:
        return certificates.to_pem([self.client_ca.certificate])

    def sign_client(self, request: bytes, seconds: int | None) -> bytes:
        """The certificate for a PKCS#10 request in PEM, for the lifetime asked, within bounds. Raises ValueError."""
        asked = authority.parse_request(request)
        lifetime = min(max(seconds or _CLIENT_LONGEST_SECONDS, _CLIENT_SHORTEST_SECONDS), _CLIENT_LONGEST_SECONDS)
        return certificates.to_pem([authority.issue_client(self.client_ca, asked, time.time(), lifetime)])

    def revocations(self, serials: frozenset[str]) -> bytes:
        """The revocation list of the client authority."""
        return authority.revocation_list(self.client_ca, serials)


def load(data: DataDir, settings: Settings, new: bool, now: float) -> Trust:
    """Read what is there, make what is not; `new` says that the database is empty.

    Raises SettingsError for a file that is damaged or missing its partner.
    """
    serving_ca = _authority(data, "serving-ca", "onepass serving authority", now)
    client_ca = _authority(data, "client-ca", "onepass client authority", now)
    return Trust(
        serving_ca=serving_ca,
        client_ca=client_ca,
        serving=_serving(serving_ca, settings, now),
        admin=_admin(data, client_ca, now),
        accounts=keys.from_pem(_key(data.pki / "accounts.key", lambda: keys.to_pem(keys.generate()))),
        sealer=_sealer(data.pki / "seal.key", new),
    )


def _authority(data: DataDir, name: str, common_name: str, now: float) -> Authority:
    certificate, key = data.pki / f"{name}.crt", data.pki / f"{name}.key"
    if not certificate.exists() and not key.exists():
        made = authority.create(common_name, now)
        datadir.write_private(key, keys.to_pem(made.key))
        datadir.write_private(certificate, certificates.to_pem([made.certificate]))
        return made
    try:
        return authority.load(_read(certificate), _read(key))
    except ValueError as error:
        raise SettingsError(f"{certificate}: {error}; restore both {certificate.name} and {key.name}") from error


def _serving(ca: Authority, settings: Settings, now: float) -> Pair:
    """A new one at each start: its names follow the settings."""
    key = keys.generate()
    issued = authority.issue_serving(ca, key.public_key(), serving_names(settings), now, _SERVING_SECONDS)
    return Pair(certificates.to_pem([issued]), keys.to_pem(key))


def serving_names(settings: Settings) -> Sequence[str]:
    """What clients may call the gateway: its address, loopback, this machine's name, and what the operator adds."""
    host = settings.listen.reachable.removeprefix("[").removesuffix("]")
    return tuple(dict.fromkeys([*settings.names, host, "localhost", "127.0.0.1", "::1", os.uname().nodename]))


def _admin(data: DataDir, ca: Authority, now: float) -> Pair:
    """The first administrator's certificate, as it is kept; a new one when it ends soon or is another authority's."""
    certificate, key = data.pki / "admin.crt", data.pki / "admin.key"
    if certificate.exists() and key.exists():
        kept = Pair(_read(certificate), _read(key))
        try:
            leaf = certificates.pair(kept.certificate, kept.private_key, now)
            leaf.verify_directly_issued_by(ca.certificate)
            if certificates.not_after(leaf) - now > _RENEW_SECONDS:
                return kept
        except (ValueError, TypeError, InvalidSignature):
            log.warning("the administrator's certificate is not usable, making another", file=str(certificate))
    private = keys.generate()
    request = authority.Request(ADMIN, (ADMINISTRATORS,), private.public_key())
    issued = authority.issue_client(ca, request, now, _ADMIN_SECONDS)
    made = Pair(certificates.to_pem([issued]), keys.to_pem(private))
    datadir.write_private(key, made.private_key)
    datadir.write_private(certificate, made.certificate)
    return made


def _sealer(path: Path, new: bool) -> sealing.Keyring:
    """The key that credentials are sealed with. It is not made anew beside a database that needs the old one."""
    if not path.exists() and not new:
        raise SettingsError(f"{path} is missing; without it the stored credentials cannot be read: restore it")
    try:
        return sealing.Keyring.parse(_key(path, lambda: sealing.generate().encode()).decode())
    except ValueError as error:
        raise SettingsError(f"{path}: {error}") from error


def _key(path: Path, make: Callable[[], bytes]) -> bytes:
    if not path.exists():
        datadir.write_private(path, make())
    return _read(path)


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise SettingsError(f"{path}: {error.strerror}") from error
