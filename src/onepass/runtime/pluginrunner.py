"""Runs the credential programs that the operator listed, and reads that list."""

import asyncio
import contextlib
import os
import re
import signal
import time
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

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
SHARED_SECONDS = 30.0  # how long an answer is given to whoever would ask the same
AT_ONCE, OF_ONE = 16, 4  # programs that run; of one command, so that one that hangs holds up no other
_ENVIRONMENT = {"PATH": "/usr/local/bin:/usr/bin:/bin", "LANG": "C.UTF-8"}  # and nothing of the gateway's own
_KEYS = frozenset({"command", "args", "endpoints", "env", "allowEnv"})

# What may be a credential in what a program complains: what is called one, and long words that mix letters and digits.
_NAMED = re.compile(
    r"(?i)(\b\w*(?:password|passwd|secret|token|credential|authorization|api.?key|access.?key)\w*[\"']?\s*[:=]\s*"
    r"(?:(?:bearer|basic)\s+)?|\bbearer\s+)\S+"
)
_LONG = re.compile(r"(?=[^\s\"':]*[0-9])(?=[^\s\"':]*[A-Za-z])[^\s\"':]{20,}")
_PATH = re.compile(r"(/[\w.@+-]{1,39})+/?")
_CUT = "[cut]"

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


@dataclass(slots=True)
class _Turn:
    """One invocation: its last outcome, and who waits for the next one."""

    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    waiting: int = 0
    at: float = 0.0  # Unix seconds
    outcome: Issued | PluginRefused | None = None


@dataclass(slots=True)
class Runner:
    """Runs the program of a Cluster: with a deadline, in an environment of its own, in a process group of its own.

    Clusters for which it would be run in exactly the same way share what it answers, for as long as a fleet takes to
    ask; so does client-go by its cache of authenticators.
    """

    plugins: Sequence[Plugin]
    seconds: float = SECONDS
    clock: Callable[[], float] = time.time
    _turns: dict[object, _Turn] = field(default_factory=dict)
    _at_once: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(AT_ONCE))
    _of_one: dict[str, asyncio.Semaphore] = field(default_factory=dict)

    async def run(self, cluster: Object, since: float = 0.0) -> Issued:
        """What it answers, or has answered to another cluster after `since` (Unix seconds). Raises PluginRefused."""
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
        arguments = execplugins.arguments(program)
        async with self._turn((plugin.command, arguments, frozenset(environment.items()))) as turn:
            if turn.outcome is None or turn.at <= since or self.clock() - turn.at > SHARED_SECONDS:
                try:
                    output = await self._output(meta.name(cluster), plugin.command, arguments, environment)
                    turn.outcome = execcredential.answer(output, version)
                except PluginRefused as refused:
                    turn.outcome = refused
                turn.at = self.clock()
            outcome = turn.outcome
        if isinstance(outcome, PluginRefused):
            raise PluginRefused(str(outcome)) from outcome
        return outcome

    @contextlib.asynccontextmanager
    async def _turn(self, key: object) -> AsyncIterator[_Turn]:
        """One at a time for each invocation; those that nobody can use any more are forgotten."""
        turn = self._turns.setdefault(key, _Turn())
        turn.waiting += 1
        try:
            async with turn.lock:
                yield turn
        finally:
            turn.waiting -= 1
            old = self.clock() - SHARED_SECONDS
            for gone in [each for each, it in self._turns.items() if not it.waiting and it.at < old]:
                del self._turns[gone]

    async def _output(self, name: str, command: str, arguments: Sequence[str], environment: dict[str, str]) -> bytes:
        """What it writes, when it is its turn among all that are to run. Raises PluginRefused."""
        async with self._of_one.setdefault(command, asyncio.Semaphore(OF_ONE)), self._at_once:
            return await self._ran(name, command, arguments, environment)

    async def _ran(self, name: str, command: str, arguments: Sequence[str], environment: dict[str, str]) -> bytes:
        async with _heard() as (output, out), _heard() as (complaint, err):
            try:
                process = await asyncio.create_subprocess_exec(
                    *(command, *arguments),
                    stdin=asyncio.subprocess.DEVNULL,
                    stdout=out,
                    stderr=err,
                    env=environment,
                    cwd="/",
                    start_new_session=True,
                )
            except OSError as error:
                raise PluginRefused(f"cannot be run ({error.strerror})") from error
            finally:
                out.close()
                err.close()
            readers = [asyncio.ensure_future(_read(each)) for each in (output, complaint)]
            try:
                async with asyncio.timeout(self.seconds):
                    answered, complained = await asyncio.gather(*readers)
                    code = await process.wait()
            except TimeoutError:
                raise PluginRefused(f"did not end within {self.seconds:.0f} s") from None
            finally:
                for each in readers:
                    each.cancel()
                # Also what it has started and left behind.
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
                await asyncio.gather(*readers, return_exceptions=True)
                await process.wait()
        if code != 0:
            log.warning("a credential program failed", cluster=name, command=command, said=said(complained))
            raise PluginRefused(f"failed with exit status {code}; the gateway's log has what it said")
        return answered


@contextlib.asynccontextmanager
async def _heard() -> AsyncIterator[tuple[asyncio.StreamReader, BinaryIO]]:
    """A pipe: what is read from it, and the end to write to, which the caller closes.

    Not one of asyncio's own for processes: the end of such a process is not told before everybody has let go of its
    pipes, and somebody who has left the process group may never do that.
    """
    ours, theirs = os.pipe()
    reader = asyncio.StreamReader()
    with os.fdopen(theirs, "wb", 0) as end:
        transport, _ = await asyncio.get_running_loop().connect_read_pipe(
            lambda: asyncio.StreamReaderProtocol(reader), os.fdopen(ours, "rb", 0)
        )
        try:
            yield reader, end
        finally:
            transport.close()


async def _read(stream: asyncio.StreamReader) -> bytes:
    """All of it. Raises PluginRefused when that is too much."""
    found = b""
    while piece := await stream.read(65536):
        found += piece
        if len(found) > LONGEST:
            raise PluginRefused("says too much")
    return found


def said(complaint: bytes) -> str:
    """The end of what a program wrote to standard error, without what may be a credential."""
    text = "".join(c if c.isprintable() else " " for c in complaint.decode(errors="replace"))

    def cut(word: re.Match[str]) -> str:
        return word[0] if _PATH.fullmatch(word[0]) else _CUT

    return _LONG.sub(cut, _NAMED.sub(rf"\1{_CUT}", text))[-500:]


def _told(access: Object) -> Object:
    """The cluster as client.authentication.k8s.io/v1 has it."""
    names = {
        "endpoint": "server",
        "serverName": "tls-server-name",
        "caBundle": "certificate-authority-data",
        "insecure": "insecure-skip-tls-verify",
    }
    return {new: access[old] for old, new in names.items() if access.get(old)}
