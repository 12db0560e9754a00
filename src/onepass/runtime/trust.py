"""The keys of one gateway, made at the first start and found again at the next."""

import os
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

import structlog
from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric import ec

from onepass.access.identity import ADMINISTRATORS
from onepass.pki import authority, certificates, keys
from onepass.pki.authority import Authority
from onepass.runtime import authorities, datadir
from onepass.runtime.authorities import Generation, Others
from onepass.runtime.datadir import DataDir
from onepass.runtime.settings import Settings

log = structlog.get_logger(__name__)

ADMIN = "admin"
_SERVING_SECONDS = 365 * 86400.0
_ADMIN_SECONDS = 365 * 86400.0
_CLIENT_LONGEST_SECONDS = (
    authorities.LEAF_SECONDS
)  # of a certificate by CSR; what a request gets that names no expirationSeconds
_CLIENT_SHORTEST_SECONDS = 600  # as k8s.io/api/certificates/v1 has it
_RENEW_SECONDS = 30 * 86400.0  # a certificate of our own with less left than this is made anew


@dataclass(frozen=True, slots=True)
class Pair:
    """A certificate chain and its key, in PEM."""

    certificate: bytes
    private_key: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class Trust:
    """The keys by which a gateway is known and knows others. What seals members' credentials is the sealer's."""

    serving_cas: tuple[Generation, ...]  # oldest first
    client_cas: tuple[Generation, ...]  # oldest first; the last issues
    others: Others
    serving: Pair
    admin: Pair
    accounts: ec.EllipticCurvePrivateKey = field(repr=False)

    @property
    def serving_ca_pem(self) -> bytes:
        """What a kubeconfig needs to know the gateway by, now and after the next change of authority."""
        return certificates.to_pem([each.authority.certificate for each in self.serving_cas])

    @property
    def client_ca_pem(self) -> bytes:
        own = [each.authority.certificate for each in self.client_cas]
        return certificates.to_pem([*own, *self.others.certificates])

    @property
    def own_digests(self) -> frozenset[str]:
        return frozenset(certificates.digest(each.authority.certificate) for each in self.client_cas)

    def sign_client(self, request: bytes, seconds: int | None) -> bytes:
        """The certificate for a PKCS#10 request in PEM, for the lifetime asked, within bounds. Raises ValueError."""
        asked = authority.parse_request(request)
        lifetime = min(max(seconds or _CLIENT_LONGEST_SECONDS, _CLIENT_SHORTEST_SECONDS), _CLIENT_LONGEST_SECONDS)
        issuer = self.client_cas[-1].authority
        return certificates.to_pem([authority.issue_client(issuer, asked, time.time(), lifetime)])

    def revocations(self, serials: frozenset[str]) -> bytes:
        """The revocation lists of every client authority, or nothing where one of them has none.

        Our own serial numbers are random, so each of our lists may name those of all.
        """
        if not self.others.covered:
            return b""
        own = [authority.revocation_list(each.authority, serials) for each in self.client_cas]
        return b"".join(own) + self.others.crls


def prepare(data: DataDir, now: float) -> None:
    """Make what keys are not there yet, or are to follow others soon. Raises SettingsError for a damaged file."""
    for name in (authorities.SERVING, authorities.CLIENT):
        authorities.prepare(data.pki, name, now)
    accounts = data.pki / "accounts.key"
    if not accounts.exists():
        datadir.write_private(accounts, keys.to_pem(keys.generate()))


def load(data: DataDir, settings: Settings, now: float, before: Trust | None = None) -> Trust:
    """Read what `prepare` has made, and issue the certificates of this gateway.

    What of `before` is still good is kept. Raises SettingsError for a file that is damaged or missing its partner.
    """
    serving_cas = authorities.generations(data.pki, authorities.SERVING, now)
    client_cas = authorities.generations(data.pki, authorities.CLIENT, now)
    own = [each.authority for each in client_cas]
    return Trust(
        serving_cas=serving_cas,
        client_cas=client_cas,
        others=authorities.others(settings, own, now),
        serving=_serving(authorities.serving(serving_cas, now).authority, settings, now, before),
        admin=_admin(data, own, now),
        accounts=keys.from_pem(datadir.read(data.pki / "accounts.key")),
    )


def _serving(ca: Authority, settings: Settings, now: float, before: Trust | None) -> Pair:
    """A new one at each start: its names follow the settings. While running, a new one when the old ends soon."""
    if before is not None:
        kept = certificates.chain(before.serving.certificate)[0]
        if _is_issued_by(kept, ca) and certificates.not_after(kept) - now > _RENEW_SECONDS:
            return before.serving
    key = keys.generate()
    issued = authority.issue_serving(ca, key.public_key(), serving_names(settings), now, _SERVING_SECONDS)
    return Pair(certificates.to_pem([issued]), keys.to_pem(key))


def _is_issued_by(certificate: x509.Certificate, ca: Authority) -> bool:
    try:
        certificate.verify_directly_issued_by(ca.certificate)
    except (ValueError, TypeError, InvalidSignature):
        return False
    return True


def serving_names(settings: Settings) -> Sequence[str]:
    """What clients may call the gateway: its address, loopback, this machine's name, and what the operator adds."""
    host = settings.listen.reachable.removeprefix("[").removesuffix("]")
    return tuple(dict.fromkeys([*settings.names, host, "localhost", "127.0.0.1", "::1", os.uname().nodename]))


def _admin(data: DataDir, own: Sequence[Authority], now: float) -> Pair:
    """The first administrator's certificate, as it is kept; a new one when it ends soon or is another authority's."""
    certificate, key = data.pki / "admin.crt", data.pki / "admin.key"
    if certificate.exists() and key.exists():
        kept = Pair(datadir.read(certificate), datadir.read(key))
        try:
            leaf = certificates.pair(kept.certificate, kept.private_key, now)
            if any(_is_issued_by(leaf, ca) for ca in own) and certificates.not_after(leaf) - now > _RENEW_SECONDS:
                return kept
        except ValueError:
            log.warning("the administrator's certificate is not usable, making another", file=str(certificate))
    private = keys.generate()
    request = authority.Request(ADMIN, (ADMINISTRATORS,), private.public_key())
    issued = authority.issue_client(own[-1], request, now, _ADMIN_SECONDS)
    made = Pair(certificates.to_pem([issued]), keys.to_pem(private))
    datadir.write_private(key, made.private_key)
    datadir.write_private(certificate, made.certificate)
    return made
