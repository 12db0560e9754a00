"""The authorities of one gateway in its data directory: generations of our own, and those that an operator adds.

A generation is a pair of files, NAME.crt and NAME.key for the first, NAME-2.crt and NAME-2.key for the second. The
newest client authority issues; the ones before it are trusted until nothing that they issued can still be valid. The
newest serving authority is handed out in kubeconfigs at once, and serves when these have had time to arrive.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import structlog
from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import Encoding

from onepass.pki import authority, certificates, keys
from onepass.pki.authority import Authority
from onepass.runtime import datadir
from onepass.runtime.settings import Settings, SettingsError

log = structlog.get_logger(__name__)

CLIENT, SERVING = "client-ca", "serving-ca"
LEAF_SECONDS = 365 * 86400  # the longest life of a certificate that one of ours issues
SETTLE_SECONDS = 30 * 86400.0  # how long a new serving authority is handed out before it serves
_ROTATE_SECONDS = {CLIENT: LEAF_SECONDS + 30 * 86400.0, SERVING: LEAF_SECONDS + 2 * SETTLE_SECONDS}
_NAMES = {CLIENT: "onepass client authority", SERVING: "onepass serving authority"}
_CRL = re.compile(rb"-----BEGIN X509 CRL-----.*?-----END X509 CRL-----\s*", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Generation:
    """One authority of ours. `begins` is when it was made (Unix seconds)."""

    number: int
    authority: Authority
    switched: bool = False  # a serving authority that an operator has told to serve now

    @property
    def begins(self) -> int:
        return certificates.not_before(self.authority.certificate)

    @property
    def ends(self) -> int:
        return certificates.not_after(self.authority.certificate)


@dataclass(frozen=True, slots=True)
class Others:
    """The authorities that an operator adds for client certificates, and what they took back."""

    certificates: tuple[x509.Certificate, ...] = ()
    crls: bytes = b""  # PEM
    covered: bool = True  # each authority has a list: only then can handshakes be checked against lists at all
    revoked: Mapping[str, frozenset[str]] = field(default_factory=dict)  # by digest of the authority
    elsewhere: frozenset[str] = frozenset()


def prepare(folder: Path, name: str, now: float) -> None:
    """Make the first if there is none, and a next one when the last ends soon.

    Raises SettingsError for a file that is damaged or missing its partner.
    """
    found = _stored(folder, name)
    if not found:
        _make(folder, name, 1, now)
    elif found[-1].ends - now < _ROTATE_SECONDS[name]:
        log.info("an authority ends soon, making the next", authority=_file(name, found[-1].number))
        _make(folder, name, found[-1].number + 1, now)


def generations(folder: Path, name: str, now: float) -> tuple[Generation, ...]:
    """Those that count at `now`, oldest first. Raises SettingsError, as `prepare`."""
    return trusted(_stored(folder, name), now)


def trusted(found: Sequence[Generation], now: float) -> tuple[Generation, ...]:
    """Those that count at `now`, of all, oldest first."""
    return tuple(each for at, each in enumerate(found) if now < _trusted_until(found, at))


def rotate(folder: Path, name: str, now: float) -> Generation:
    """Make the next generation. Raises SettingsError, also where there is no gateway yet."""
    found = _stored(folder, name)
    if not found:
        raise SettingsError(f"{folder}: there is no gateway's {name} here; start one with `onepass up` first")
    return _make(folder, name, found[-1].number + 1, now)


def switch(folder: Path) -> Generation:
    """Let the newest serving authority serve now. Raises SettingsError."""
    found = _stored(folder, SERVING)
    if not found or found[-1].number == 1:
        raise SettingsError(f"{folder}: there is no newer serving authority to switch to: onepass ca rotate --serving")
    datadir.write_private(_marker(folder, found[-1].number), b"")
    return found[-1]


def stored(folder: Path, name: str) -> Sequence[Generation]:
    """Every generation on the disk, oldest first. Raises SettingsError."""
    return tuple(_stored(folder, name))


def serving(found: Sequence[Generation], now: float) -> Generation:
    """Which of the serving authorities serves at `now`: the newest that kubeconfigs have had time to learn of."""
    settled = [each for each in found if each.switched or now >= each.begins + SETTLE_SECONDS]
    return settled[-1] if settled else found[0]


def _trusted_until(found: Sequence[Generation], at: int) -> float:
    """What an authority issued last may be as young as its successor."""
    if at + 1 == len(found):
        return found[at].ends
    return min(float(found[at].ends), found[at + 1].begins + SETTLE_SECONDS + LEAF_SECONDS)


def _file(name: str, number: int) -> str:
    return name if number == 1 else f"{name}-{number}"


def _marker(folder: Path, number: int) -> Path:
    return folder / f"{_file(SERVING, number)}.serves"


def _stored(folder: Path, name: str) -> list[Generation]:
    pattern = re.compile(re.escape(name) + r"(?:-([2-9]|[1-9]\d{1,3}))?\.crt")
    numbers = sorted(int(match[1] or 1) for path in folder.iterdir() if (match := pattern.fullmatch(path.name)))
    if not numbers and (folder / f"{name}.key").exists():
        raise SettingsError(f"{folder / name}.crt is missing beside its key: restore both {name}.crt and {name}.key")
    return [
        Generation(number, _load(folder, _file(name, number)), _marker(folder, number).exists()) for number in numbers
    ]


def _load(folder: Path, name: str) -> Authority:
    certificate, key = folder / f"{name}.crt", folder / f"{name}.key"
    try:
        return authority.load(datadir.read(certificate), datadir.read(key))
    except ValueError as error:
        if isinstance(error, SettingsError):
            raise
        raise SettingsError(f"{certificate}: {error}; restore both {certificate.name} and {key.name}") from error


def _make(folder: Path, name: str, number: int, now: float) -> Generation:
    """The certificate is written last: an authority is there when it is."""
    common_name = _NAMES[name] if number == 1 else f"{_NAMES[name]} {number}"
    made = authority.create(common_name, now)
    datadir.write_private(folder / f"{_file(name, number)}.key", keys.to_pem(made.key))
    datadir.write_private(folder / f"{_file(name, number)}.crt", certificates.to_pem([made.certificate]))
    return Generation(number, made)


def others(settings: Settings, own: Sequence[Authority], now: float) -> Others:
    """What the files of the operator hold. Raises SettingsError."""
    if settings.client_ca_file is None:
        if settings.client_crl_file is not None:
            raise SettingsError("--client-crl-file needs --client-ca-file: our own authority's list is made here")
        return Others()
    path = settings.client_ca_file
    try:
        found = tuple(dict.fromkeys(certificates.bundle(datadir.read(path, "--client-ca-file "), now)))
    except certificates.CertificateRefused as error:
        raise SettingsError(f"--client-ca-file {path} {error}") from error
    ours = {each.certificate.subject for each in own}
    for certificate in found:
        if not certificates.is_authority(certificate):
            raise SettingsError(f"--client-ca-file {path}: {_told(certificate.subject)} is not an authority")
        if certificate.subject in ours:
            raise SettingsError(
                f"--client-ca-file {path}: {_told(certificate.subject)} has the name of our own authority"
            )
    return _with_lists(found, settings.client_crl_file, now)


def _with_lists(found: tuple[x509.Certificate, ...], path: Path | None, now: float) -> Others:
    pem = datadir.read(path, "--client-crl-file ") if path else b""
    revoked: dict[str, frozenset[str]] = {certificates.digest(each): frozenset() for each in found}
    elsewhere: frozenset[str] = frozenset()
    listed: set[str] = set()
    kept: list[bytes] = []
    blocks = _CRL.findall(pem)
    if path and not blocks:
        raise SettingsError(f"--client-crl-file {path}: has no BEGIN X509 CRL line")
    for block in blocks:
        try:
            crl = x509.load_pem_x509_crl(block)
        except ValueError as error:
            raise SettingsError(f"--client-crl-file {path}: holds something that is not a revocation list") from error
        serials = frozenset(format(each.serial_number, "x") for each in crl)
        issuers = [each for each in found if each.subject == crl.issuer]
        signers = [certificates.digest(each) for each in issuers if _signed(crl, each)]
        if issuers and not signers:
            raise SettingsError(f"--client-crl-file {path}: the list of {_told(crl.issuer)} is not signed by it")
        for digest in signers:
            revoked[digest] |= serials
        listed.update(signers)
        elsewhere |= frozenset() if signers else serials
        if crl.next_update_utc is not None and crl.next_update_utc.timestamp() < now:
            log.warning(
                "a revocation list is outdated: certificates of its authority are refused", issuer=_told(crl.issuer)
            )
        kept.append(crl.public_bytes(Encoding.PEM))
    covered = listed == revoked.keys()
    if not covered:
        log.warning(
            "an authority of --client-ca-file has no revocation list: no handshake is checked, each request still is"
        )
    return Others(found, b"".join(kept), covered, revoked, elsewhere)


def _signed(crl: x509.CertificateRevocationList, by: x509.Certificate) -> bool:
    try:
        return crl.is_signature_valid(by.public_key())  # type: ignore[arg-type]
    except (ValueError, TypeError, InvalidSignature, UnsupportedAlgorithm):
        return False


def _told(name: x509.Name) -> str:
    return name.rfc4514_string() or "an authority without a name"
