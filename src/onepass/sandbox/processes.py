"""Local processes in place of containers.

Each runs in a session of its own under `containerinit`, which ends every descendant with it. They are not isolated:
they run as the user of OnePass, see the host's files and find the host's programs; only their environment is clean.
"""

import asyncio
import os
import pty
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import structlog

from onepass.sandbox.descriptors import Descriptor

log = structlog.get_logger(__name__)

_INIT = Path(__file__).with_name("containerinit.py")
_KILL_SECONDS = 10
_PASSED_ON = ("PATH", "LANG", "LC_ALL", "TZ")


class CannotStart(Exception):
    """The command cannot run: `code` is what a shell would exit with (126 not executable, 127 not found)."""

    def __init__(self, message: str, code: int) -> None:
        super().__init__(message)
        self.code = code


@dataclass(frozen=True, slots=True)
class Command:
    """What to run and where. `environment` is complete: nothing else is inherited."""

    arguments: Sequence[str]
    directory: Path
    environment: Mapping[str, str]
    tty: bool = False
    stdin: bool = False

    def with_arguments(self, arguments: Sequence[str], *, tty: bool, stdin: bool) -> "Command":
        """Another command in the same place."""
        return replace(self, arguments=tuple(arguments), tty=tty, stdin=stdin)


def clean_environment(home: Path, hostname: str, extra: Mapping[str, str]) -> dict[str, str]:
    """The environment of a container: the host's PATH and language, a home, and what the pod sets."""
    kept = {name: os.environ[name] for name in _PASSED_ON if name in os.environ}
    return {"PATH": os.defpath} | kept | {"HOME": str(home), "HOSTNAME": hostname, "TERM": "xterm"} | dict(extra)


class Process:
    """A running command. `stdout` and `stderr` end when it has; a terminal has no `stderr`."""

    def __init__(self, command: Command) -> None:
        """Raises CannotStart."""
        _check(command)
        try:
            self._open(command)
        except OSError as error:
            raise CannotStart(f"unable to start container process: {error}", 126) from error

    def _open(self, command: Command) -> None:
        control, self._control = os.pipe()
        inner, outer = _terminal() if command.tty else _pipes(command.stdin)
        try:
            self._popen = subprocess.Popen(  # noqa: S603  running commands is what a kubelet does
                _launch(control, command),
                cwd=command.directory,
                env=dict(command.environment),
                stdin=inner[0],
                stdout=inner[1],
                stderr=inner[2],
                pass_fds=(control,),
                start_new_session=True,
            )
        except OSError:
            for number in {*outer, self._control} - {-1}:
                os.close(number)
            raise
        finally:
            for number in {*inner, control}:
                os.close(number)
        self.pid = self._popen.pid
        self._ended = asyncio.Event()
        self._watched = os.pidfd_open(self.pid)
        asyncio.get_running_loop().add_reader(self._watched, self._collect)
        self.stdout = Descriptor(outer[1])
        self.stderr = Descriptor(outer[2]) if outer[2] >= 0 else None
        self.terminal = self.stdout if command.tty else None
        self.stdin = self.stdout if command.tty else Descriptor(outer[0]) if outer[0] >= 0 else None

    async def wait(self) -> int:
        """The exit status; 128 plus the signal when one ended it."""
        await self._ended.wait()
        code = self._popen.returncode
        return code if code >= 0 else 128 - code

    def terminate(self) -> None:
        """Ask everything in the container to end."""
        if self._control >= 0 and not self._ended.is_set():
            os.write(self._control, b"T")

    def kill(self) -> None:
        """End everything in the container now."""
        if self._control >= 0:
            os.close(self._control)
            self._control = -1

    async def close(self) -> None:
        """Kill what still runs, and let go of every descriptor."""
        self.kill()
        try:
            async with asyncio.timeout(_KILL_SECONDS):
                await self.wait()
        except TimeoutError:
            log.warning("a process does not end although it was killed", pid=self.pid)
        finally:
            for descriptor in (self.stdout, self.stderr, self.stdin):
                if descriptor is not None:
                    descriptor.close()

    def _collect(self) -> None:
        if self._popen.poll() is not None:
            asyncio.get_running_loop().remove_reader(self._watched)
            os.close(self._watched)
            self._ended.set()


def _launch(control: int, command: Command) -> list[str]:
    streams = "tty" if command.tty else "pipes"
    return [sys.executable, "-I", "-S", str(_INIT), str(control), streams, *command.arguments]


def _check(command: Command) -> None:
    program = command.arguments[0] if command.arguments else ""
    path = command.environment.get("PATH", os.defpath)
    where = str(command.directory / program) if "/" in program and not program.startswith("/") else program
    if shutil.which(where, path=path) is None:
        exists = "/" in program and Path(where).exists()
        why = "permission denied" if exists else "no such file or directory"
        if "/" not in program:
            why = "executable file not found in $PATH"
        message = f'unable to start container process: exec: "{program}": {why}'
        raise CannotStart(message, 126 if exists else 127)
    if any("\0" in argument for argument in command.arguments):
        raise CannotStart("unable to start container process: an argument holds a null byte", 126)


def _terminal() -> tuple[tuple[int, int, int], tuple[int, int, int]]:
    outer, inner = pty.openpty()
    return (inner, inner, inner), (outer, outer, -1)


def _pipes(stdin: bool) -> tuple[tuple[int, int, int], tuple[int, int, int]]:
    """The container's ends of the three streams, then ours; -1 for none."""
    out_read, out_write = os.pipe()
    err_read, err_write = os.pipe()
    if stdin:
        in_read, in_write = os.pipe()
    else:
        in_read, in_write = os.open(os.devnull, os.O_RDONLY), -1
    return (in_read, out_write, err_write), (in_write, out_read, err_read)
