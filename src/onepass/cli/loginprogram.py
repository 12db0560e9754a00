"""Logs in to a member as kubectl does, by the credential plugin that the person's kubeconfig names (`exec`).

It runs here, as the person who typed the command, with their environment and terminal.
"""

import os
import subprocess
from pathlib import Path

from onepass.api import meta
from onepass.api.meta import Object
from onepass.cli.failure import Failure
from onepass.pki import execcredential
from onepass.pki.execcredential import Issued

SECONDS = 120.0  # a person may have to confirm something in a browser


def run(where: str, program: Object, folder: Path, cluster: Object) -> Issued:
    """What the plugin answers. `folder` is where the kubeconfig is, `cluster` the entry of it. Raises Failure."""
    command = meta.text(program, "command")
    version = meta.text(program, "apiVersion") or execcredential.VERSIONS[0]
    if version not in execcredential.VERSIONS:
        raise Failure(
            f"{where}: {command} speaks {version}, which Kubernetes itself has removed",
            "update that program, and its entry in the kubeconfig",
        )
    listed, given = program.get("args"), program.get("env")
    arguments = [str(each) for each in listed] if isinstance(listed, list) else []
    extra = {meta.text(each, "name"): meta.text(each, "value") for each in _objects(given)}
    told = _told(cluster) if program.get("provideClusterInfo") is True else None
    environment = os.environ | extra
    environment["KUBERNETES_EXEC_INFO"] = execcredential.question(version, told, interactive=True)
    # client-go: a command with a slash that is not absolute begins where the kubeconfig is.
    executable = str(folder / command) if "/" in command else command
    try:
        done = subprocess.run(  # noqa: S603  what the person's own kubeconfig says, as kubectl runs it
            [executable, *arguments], env=environment, stdout=subprocess.PIPE, timeout=SECONDS, check=False
        )
    except subprocess.TimeoutExpired as error:
        raise Failure(f"{where}: {command} did not end within {SECONDS:.0f} s") from error
    except OSError as error:
        hint = meta.text(program, "installHint") or "install it, or use a context that does not need it"
        raise Failure(f"{where}: {command or 'its program'} cannot be run ({error.strerror})", hint) from error
    if done.returncode != 0:
        raise Failure(f"{where}: {command} failed with exit status {done.returncode}", "see what it says above")
    try:
        return execcredential.answer(done.stdout, version)
    except execcredential.PluginRefused as error:
        raise Failure(f"{where}: {command} {error}") from error


def _objects(listed: object) -> list[Object]:
    return [each for each in listed if isinstance(each, dict)] if isinstance(listed, list) else []


def _told(cluster: Object) -> Object:
    """The cluster as client-go tells of it, as far as kubeconfigs have it."""
    names = ("server", "tls-server-name", "insecure-skip-tls-verify", "certificate-authority-data", "proxy-url")
    told = {name: cluster[name] for name in names if cluster.get(name)}
    for extension in _objects(cluster.get("extensions")):
        if extension.get("name") == "client.authentication.k8s.io/exec":
            told["config"] = extension.get("extension")
    return told
