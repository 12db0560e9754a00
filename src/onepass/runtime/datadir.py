"""The data directory: which file is where, and how files with secrets are written."""

import os
import tempfile
from dataclasses import dataclass
from pathlib import Path

from onepass.runtime.settings import SettingsError

# Linux allows 107 bytes for the path of a unix socket (sockaddr_un, unix(7)).
_SOCKET_LIMIT = 107


@dataclass(frozen=True, slots=True)
class DataDir:
    """Paths below one directory. Everything in it is readable by its owner only."""

    root: Path

    @classmethod
    def open(cls, root: Path) -> "DataDir":
        """Make what is missing. Raises SettingsError with a sentence when it cannot be."""
        here = cls(root.absolute())
        try:
            for folder in (here.root, here.pki, here.run, here.envoy, here.issuers):
                folder.mkdir(parents=True, exist_ok=True)
                folder.chmod(0o700)
        except (OSError, NotADirectoryError) as error:
            raise SettingsError(
                f"--data-dir {root}: {error.strerror} ({error.filename}); name a directory that you may write to"
            ) from error
        if len(os.fsencode(here.socket("apiserver"))) > _SOCKET_LIMIT:
            raise SettingsError(f"--data-dir {root}: the path is too long for a unix socket; choose a shorter one")
        return here

    @property
    def pki(self) -> Path:
        return self.root / "pki"

    @property
    def run(self) -> Path:
        return self.root / "run"

    @property
    def envoy(self) -> Path:
        return self.root / "envoy"

    @property
    def issuers(self) -> Path:
        return self.root / "issuers"

    @property
    def sandbox(self) -> Path:
        return self.root / "sandbox"

    @property
    def kubeconfig(self) -> Path:
        return self.root / "admin.kubeconfig"

    def socket(self, name: str) -> str:
        """`name` is one of apiserver, ads, probe, admin."""
        return str(self.run / f"{name}.sock")


def read(path: Path, option: str = "") -> bytes:
    """A file's content. Raises SettingsError, with the `option` by which somebody named it."""
    try:
        return path.read_bytes()
    except OSError as error:
        raise SettingsError(f"{option}{path}: {error.strerror}") from error


def write_private(path: Path, content: bytes) -> None:
    """Write a whole file or none of it, readable by its owner only (mode 0600), and flushed to the disk."""
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        Path(temporary).replace(path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
