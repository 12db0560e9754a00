"""Runs the credential programs that the operator listed, and reads that list."""

import asyncio
import contextlib
import os
import signal
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import structlog
import yaml

from onepass.api import meta
from onepass.api.meta import JSON, Object
from onepass.pki import execcredential
from onepass.pki.execcredential import Issued, PluginRefused
from onepass.registry import execplugins
from onepass.registry.execplugins import Plugin
from onepass.runtime.settings import SettingsError

SECONDS = 30.0
LONGEST = 256 * 1024  # bytes of an answer
_ENVIRONMENT = {"PATH": "/usr/local/bin:/usr/bin:/bin", "LANG": "C.UTF-8"}  # and nothing of the gateway's own
_KEYS = frozenset({"command", "args", "endpoints", "env", "allowEnv"})

log = structlog.get_logger(__name__)


def read(path: Path) -> tuple[Plugin, ...]:
    """The operator's list. Raises SettingsError."""
    try:
        said = yaml.safe_load(path.read_bytes())
    except (OSError, yaml.YAMLError, ValueError) as error:
        why = error.strerror if isinstance(error, OSError) else "it is not YAML"
        raise SettingsError(f"--exec-plugins {path}: cannot be read: {why}") from None
    listed = said.get("plugins") if isinstance(said, dict) else None
    if not isinstance(listed, list) or not all(isinstance(each, dict) for each in listed):
        raise SettingsError(f"--exec-plugins {path}: must have a list `plugins` of programs")
    return tuple(_plugin(f"--exec-plugins {path}: plugin {number}", each) for number, each in enumerate(listed, 1))


def _plugin(where: str, said: Object) -> Plugin:
    if unknown := sorted(map(str, said.keys() - _KEYS)):
        raise SettingsError(f"{where}: has no field {unknown[0]}; there are {', '.join(sorted(_KEYS))}")
    command = meta.text(said, "command")
    if not command.startswith("/") or not Path(command).is_file() or not os.access(command, os.X_OK):
        raise SettingsError(f"{where}: command {command!r} must be the absolute path of a program that is there")
    environment = said.get("env", {})
    if not isinstance(environment, dict) or not all(isinstance(each, str) for each in environment.values()):
        raise SettingsError(f"{where}: env must be names and texts")
    endpoints = _texts(where, said, "endpoints")
    if not endpoints:
        raise SettingsError(f"{where}: endpoints must say which hosts may get its credentials: *.eks.amazonaws.com")
    return Plugin(
        command=command,
        args=_texts(where, said, "args"),
        endpoints=endpoints,
        env=tuple((name, str(value)) for name, value in environment.items()),
        open_env=_texts(where, said, "allowEnv"),
    )


def _texts(where: str, said: Object, key: str) -> tuple[str, ...]:
    listed: JSON = said.get(key, [])
    if not isinstance(listed, list) or not all(isinstance(each, str) for each in listed):
        raise SettingsError(f"{where}: {key} must be a list of texts")
    return tuple(str(each) for each in listed)


@dataclass(frozen=True, slots=True)
class Runner:
    """Runs the program of a Cluster: with a deadline, in an environment of its own, in a process group of its own."""

    plugins: Sequence[Plugin]
    seconds: float = SECONDS

    async def run(self, cluster: Object) -> Issued:
        """What it answers. Raises PluginRefused."""
        access = meta.section(meta.section(cluster, "spec"), "access")
        program = meta.section(meta.section(access, "credential"), "execConfig")
        plugin, why = execplugins.find(self.plugins, program, meta.text(access, "endpoint"))
        if plugin is None:  # it may have been registered under another list
            raise PluginRefused(f"is not run: {why}")
        version = meta.text(program, "apiVersion") or execcredential.VERSIONS[0]
        if version not in execcredential.VERSIONS:
            raise PluginRefused(f"is not run: it would be asked in {version}, and may be in v1 and v1beta1")
        told = _told(access) if program.get("provideClusterInfo") is True else None
        environment = _ENVIRONMENT | execplugins.environment(program) | dict(plugin.env)
        environment["KUBERNETES_EXEC_INFO"] = execcredential.question(version, told)
        output = await self._output(meta.name(cluster), plugin.command, execplugins.arguments(program), environment)
        return execcredential.answer(output, version)

    async def _output(self, name: str, command: str, arguments: Sequence[str], environment: dict[str, str]) -> bytes:
        pipe, nothing = asyncio.subprocess.PIPE, asyncio.subprocess.DEVNULL
        try:
            process = await asyncio.create_subprocess_exec(
                *(command, *arguments),
                stdin=nothing,
                stdout=pipe,
                stderr=pipe,
                env=environment,
                cwd="/",
                start_new_session=True,
            )
        except OSError as error:
            raise PluginRefused(f"cannot be run ({error.strerror})") from error
        assert process.stdout is not None
        assert process.stderr is not None
        try:
            async with asyncio.timeout(self.seconds):
                output, complaint = await asyncio.gather(_read(process.stdout), _read(process.stderr))
                code = await process.wait()
        except TimeoutError:
            raise PluginRefused(f"did not end within {self.seconds:.0f} s") from None
        finally:
            # Also what it has started and left behind.
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            await process.wait()
        if code != 0:
            log.warning("a credential program failed", cluster=name, command=command, said=_printable(complaint))
            raise PluginRefused(f"failed with exit status {code}; the gateway's log has what it said")
        return output


async def _read(stream: asyncio.StreamReader) -> bytes:
    """All of it. Raises PluginRefused when that is too much."""
    found = b""
    while piece := await stream.read(65536):
        found += piece
        if len(found) > LONGEST:
            raise PluginRefused("says too much")
    return found


def _printable(text: bytes) -> str:
    return "".join(c if c.isprintable() else " " for c in text.decode(errors="replace"))[-500:]


def _told(access: Object) -> Object:
    """The cluster as client.authentication.k8s.io/v1 has it."""
    names = {
        "endpoint": "server",
        "serverName": "tls-server-name",
        "caBundle": "certificate-authority-data",
        "insecure": "insecure-skip-tls-verify",
    }
    return {new: access[old] for old, new in names.items() if access.get(old)}
