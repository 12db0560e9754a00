"""Short-lived client certificates by the CSR API: the key is made and stays here, a new one comes before the old ends.

Nobody approves one's own request. A gateway approves it by itself for whom an administrator has allowed
`create certificatesigningrequests/selfclient`, as Kubernetes does for kubelets; otherwise it waits for a person.
"""

import base64
import re
import secrets
import time
from collections.abc import Mapping
from dataclasses import dataclass, field

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID

from onepass.api import meta
from onepass.api.meta import Object
from onepass.cli import client, clusterviews, credentialcache, output
from onepass.cli.failure import Failure
from onepass.pki import keys

LIFE_SECONDS = 8 * 3600
_RENEWAL_SECONDS = 15.0  # how long kubectl is kept waiting for a new certificate while the old one is good
_APPROVAL_SECONDS = 300.0  # how long a person at a terminal is
_SIGNER = "kubernetes.io/kube-apiserver-client"


@dataclass(frozen=True, slots=True)
class Kept:
    """A certificate with its key, in PEM. Times are Unix seconds; `ca` is the gateway's authority, "" the system's."""

    certificate: str
    private_key: str = field(repr=False)
    begins: float
    expires: float
    ca: str
    groups: tuple[str, ...]

    def is_young(self, now: float) -> bool:
        """Whether less than half of its life is over."""
        return now < (self.begins + self.expires) / 2

    def plain(self) -> dict[str, object]:
        return {
            "certificate": self.certificate,
            "private_key": self.private_key,
            "begins": self.begins,
            "expires": self.expires,
            "ca": self.ca,
            "groups": list(self.groups),
        }

    @classmethod
    def of(cls, kept: Mapping[str, object]) -> "Kept | None":
        """What `plain` gave; None for anything else."""
        texts = [kept.get(name) for name in ("certificate", "private_key", "ca")]
        times = [kept.get(name) for name in ("begins", "expires")]
        groups = kept.get("groups")
        if not (
            all(isinstance(text, str) for text in texts)
            and all(isinstance(moment, int | float) for moment in times)
            and isinstance(groups, list)
        ):
            return None
        certificate, private_key, ca = map(str, texts)
        begins, expires = (float(str(moment)) for moment in times)
        return cls(certificate, private_key, begins, expires, ca, tuple(map(str, groups)))


def slot(server: str, user: str) -> credentialcache.Slot:
    return credentialcache.Slot.of(credentialcache.folder(), "certificate", server, user)


def first(gateway: client.Gateway, server: str, ca: bytes, user: str, groups: tuple[str, ...]) -> Kept:
    """Ask for a certificate in one's own name, wait until it is signed, and keep it. Raises Failure."""
    place = slot(server, user)
    with place.locked():
        made = _issued(gateway, user, groups, ca.decode(), _APPROVAL_SECONDS, tell=True)
        place.write(made.plain())
        return made


def current(server: str, user: str, clock: float | None = None) -> Kept:
    """The certificate that is kept, renewed when it is time. Raises Failure."""
    place = slot(server, user)
    with place.locked():
        kept = Kept.of(place.read())
        now = time.time() if clock is None else clock
        if kept is None or now >= kept.expires:
            what = "has ended" if kept else "is not on this machine"
            raise Failure(f"the certificate of {user} for {server} {what}", "log in again: onepass login --certificate")
        if kept.is_young(now):
            return kept
        try:
            with client.by_certificate(server, kept.ca.encode(), kept.certificate, kept.private_key) as gateway:
                renewed = _issued(gateway, user, kept.groups, kept.ca, _RENEWAL_SECONDS, tell=False)
        except Failure as error:
            output.note(f"[yellow]warning:[/] the certificate is not renewed yet: {output.safe(error.what)}")
            return kept
        place.write(renewed.plain())
        return renewed


def _issued(
    gateway: client.Gateway, user: str, groups: tuple[str, ...], ca: str, seconds: float, *, tell: bool
) -> Kept:
    key = keys.generate()
    stem = re.sub(r"[^a-z0-9]+", "-", user.lower()).strip("-")[:40].strip("-") or "user"
    name = f"login-{stem}-{secrets.token_hex(4)}"
    request: Object = {
        "apiVersion": "certificates.k8s.io/v1",
        "kind": "CertificateSigningRequest",
        "metadata": {"name": name},
        "spec": {
            "request": base64.b64encode(_request(user, groups, key)).decode(),
            "signerName": _SIGNER,
            "usages": ["client auth"],
            "expirationSeconds": LIFE_SECONDS,
        },
    }
    gateway.create(client.REQUESTS, request)
    if tell:
        output.note(f"If nobody else does, ask an administrator: kubectl certificate approve {name}")

    def settled(obj: Object) -> bool:
        kinds = {c.get("type") for c in clusterviews.conditions(obj)}
        return bool(meta.section(obj, "status").get("certificate")) or bool(kinds & {"Denied", "Failed"})

    signed = gateway.wait(client.REQUESTS, name, settled, seconds)
    if signed is None:
        raise Failure(f"the request {name} was not approved in time", f"kubectl certificate approve {name}, then again")
    pem = base64.b64decode(meta.text(meta.section(signed, "status"), "certificate"))
    if not pem:
        said = [
            meta.text(c, "message") for c in clusterviews.conditions(signed) if c.get("type") in ("Denied", "Failed")
        ]
        raise Failure(f"the request {name} was refused: {'; '.join(filter(None, said)) or 'no reason is given'}")
    leaf = x509.load_pem_x509_certificates(pem)[0]
    begins, expires = leaf.not_valid_before_utc.timestamp(), leaf.not_valid_after_utc.timestamp()
    return Kept(pem.decode(), keys.to_pem(key).decode(), begins, expires, ca, groups)


def _request(user: str, groups: tuple[str, ...], key: ec.EllipticCurvePrivateKey) -> bytes:
    try:
        names = [x509.NameAttribute(NameOID.COMMON_NAME, user)]
        names += [x509.NameAttribute(NameOID.ORGANIZATION_NAME, group) for group in groups]
        built = x509.CertificateSigningRequestBuilder().subject_name(x509.Name(names)).sign(key, hashes.SHA256())
    except ValueError as error:
        told = f"no certificate can carry {user} and these groups: each must have 1 to 64 characters of Unicode"
        raise Failure(told, "log in without --certificate") from error
    return built.public_bytes(Encoding.PEM)
