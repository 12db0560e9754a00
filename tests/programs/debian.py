"""Programs of Debian's packages, unpacked into the build folder: nothing is installed, and nobody has to be root."""

import functools
import shutil
import subprocess
from pathlib import Path

from tests.machine import BUILD, building


class DebianMissing(Exception):
    """Why a program of Debian cannot be had on this machine, as a sentence."""


@functools.cache
@building()
def executable(package: str, name: str) -> Path:
    """The program `name` in /usr/bin of `package`, fetched once. Raises DebianMissing."""
    folder = BUILD / f"debian-{name}"
    found = folder / "usr" / "bin" / name
    if found.exists():
        return found
    for tool in ("apt-get", "dpkg-deb"):
        if shutil.which(tool) is None:
            raise DebianMissing(f"there is no `{tool}` on PATH: Debian's {name} is to be had on Debian only")
    print(f"fetching Debian's package {package} (once)", flush=True)
    fetched = folder / "fetched"
    for part in ("state/lists/partial", "cache/archives/partial"):
        (fetched / part).mkdir(parents=True, exist_ok=True)
    settings = (f"Dir::State={fetched}/state", f"Dir::Cache={fetched}/cache", "Dir::State::status=/var/lib/dpkg/status")
    apt = ["apt-get", "-qq", *(f"-o{setting}" for setting in (*settings, "APT::Sandbox::User="))]
    for arguments in (("update",), ("download", package)):
        done = subprocess.run([*apt, *arguments], cwd=fetched, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise DebianMissing(f"apt-get {arguments[0]} failed: {done.stderr.strip() or done.stdout.strip()}")
    [archive] = fetched.glob(f"{package}_*.deb")
    subprocess.run(["dpkg-deb", "-x", str(archive), str(folder)], check=True)
    shutil.rmtree(fetched)
    return found
