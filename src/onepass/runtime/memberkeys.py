"""What of a sandbox member stays the same from start to start, so that whoever has joined it still finds and knows it:
its authority, the key of its service-account tokens, and its port."""

import time
from dataclasses import dataclass, field
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding

from onepass.pki import authority, certificates, keys
from onepass.pki.authority import Authority
from onepass.runtime import datadir

_ENDS_SOON = 400 * 86400.0  # seconds: what is issued by it at a start lasts a year


@dataclass(frozen=True, slots=True)
class MemberKeys:
    """`port` is 0 before the first start."""

    folder: Path
    own: Authority
    accounts: ec.EllipticCurvePrivateKey = field(repr=False)
    port: int = 0

    @classmethod
    def load(cls, folder: Path, name: str) -> "MemberKeys":
        """Read them from `folder`; what is not there, or of no use, is made anew."""
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        return cls(folder, _authority(folder, name), _accounts(folder / "accounts.key"), _port(folder / "port"))

    def keep_port(self, port: int) -> None:
        if port != self.port:
            datadir.write_private(self.folder / "port", str(port).encode())


def _authority(folder: Path, name: str) -> Authority:
    certificate, key, now = folder / "ca.crt", folder / "ca.key", time.time()
    try:
        found = authority.load(certificate.read_bytes(), key.read_bytes())
        if certificates.not_after(found.certificate) - now > _ENDS_SOON:
            return found
    except (OSError, authority.AuthorityRefused):
        pass  # the first start, or one that broke off
    made = authority.create(f"sandbox {name}", now)
    datadir.write_private(key, keys.to_pem(made.key))
    datadir.write_private(certificate, made.certificate.public_bytes(Encoding.PEM))
    return made


def _accounts(path: Path) -> ec.EllipticCurvePrivateKey:
    try:
        return keys.from_pem(path.read_bytes())
    except (OSError, keys.KeyRefused):
        made = keys.generate()
        datadir.write_private(path, keys.to_pem(made))
        return made


def _port(path: Path) -> int:
    try:
        found = int(path.read_text())
    except (OSError, ValueError):
        return 0
    return found if 0 < found < 65536 else 0
