"""One container of a pod: its runs one after another, their logs, and the clients attached to it."""

import asyncio
import contextlib
import time
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import replace
from pathlib import Path

from onepass.api import meta
from onepass.api.meta import Object
from onepass.sandbox import environments, images, processes
from onepass.sandbox.containerlogs import Log
from onepass.sandbox.descriptors import Descriptor
from onepass.sandbox.pods import maps
from onepass.sandbox.podstatus import ContainerState, Running, Terminated
from onepass.sandbox.processes import CannotStart, Command, Process

_UNREAD = 64  # chunks that wait for an attached client
_STALL_SECONDS = 10  # how long an attached client that does not read holds the container up before it is dropped


class UnknownImage(Exception):
    """No command, and no image that the sandbox has one for."""


class Attached:
    """A client at the streams of a running container."""

    def __init__(self, process: Process, *, closes_stdin: bool) -> None:
        self.terminal: Descriptor | None = process.terminal
        self.stdin: Descriptor | None = process.stdin
        self.closes_stdin = closes_stdin
        self.closed = False
        self._unread: asyncio.Queue[tuple[str, bytes] | None] = asyncio.Queue(_UNREAD)

    async def put(self, item: tuple[str, bytes] | None) -> None:
        """Hand on output; None is its end. A client that does not read is dropped after a while."""
        try:
            async with asyncio.timeout(_STALL_SECONDS):
                await self._unread.put(item)
        except TimeoutError:
            self.close()

    async def output(self) -> AsyncIterator[tuple[str, bytes]]:
        """("stdout" or "stderr", bytes) from now on, until the container ends."""
        while not self.closed and (item := await self._unread.get()) is not None:
            yield item

    def close(self) -> None:
        """No more output is wanted. Whoever waits to put some is let go."""
        self.closed = True
        while not self._unread.empty():
            self._unread.get_nowait()
        self._unread.put_nowait(None)


class Container:
    """A container. `home` is its folder, `logs` the folder of its logs; `changed` is told of every new state."""

    def __init__(
        self,
        spec: Object,
        home: Path,
        logs: Path,
        changed: Callable[[], None],
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.spec = spec
        self.name = meta.text(spec, "name")
        self.state = ContainerState(self.name, meta.text(spec, "image"))
        self.process: Process | None = None
        self.command: Command | None = None
        self.ended = asyncio.Event()  # of the present run
        self._home = home
        self._logs = logs
        self._changed = changed
        self._clock = clock
        self._runs: dict[int, Log] = {}
        self._attached: set[Attached] = set()

    def become(self, state: ContainerState) -> None:
        """Take on a state, and tell."""
        self.state = state
        self._changed()

    def log(self, *, previous: bool) -> Log | None:
        """What the present run has written, or the one before; None when there was none."""
        run = self.state.restarts - previous
        path = self._log_path(run)
        if run not in self._runs and run >= 0 and path.exists():
            self._runs[run] = Log(path)  # of a run before this server started
        return self._runs.get(run)

    def attach(self) -> Attached | None:
        """None when it does not run."""
        if self.process is None:
            return None
        client = Attached(self.process, closes_stdin=self.spec.get("stdinOnce") is True and not self.process.terminal)
        self._attached.add(client)
        return client

    async def prepare(self, pod: Object, fetch: environments.Fetch) -> Command:
        """What the container runs. Raises UnknownImage, environments.Unset and OSError."""
        variables = await environments.variables(self.spec, pod, fetch)
        self._home.mkdir(parents=True, exist_ok=True)
        directory = self._home
        if place := meta.text(self.spec, "workingDir"):
            directory = self._home / place.lstrip("/")
            if ".." in Path(place).parts:
                raise OSError(f"workingDir {place} leads out of the container's folder")
            directory.mkdir(parents=True, exist_ok=True)
        environment = processes.clean_environment(self._home, meta.name(pod), variables)
        return Command(
            arguments=self._arguments(environment),
            directory=directory,
            environment=environment,
            tty=self.spec.get("tty") is True,
            stdin=self.spec.get("stdin") is True,
        )

    def _arguments(self, environment: Mapping[str, str]) -> list[str]:
        given = [environments.expand(text, environment) for text in _strings(self.spec, "command")]
        arguments = [environments.expand(text, environment) for text in _strings(self.spec, "args")]
        if given or arguments:
            return given + arguments  # images have no entrypoint here: arguments alone are the command
        image = meta.text(self.spec, "image")
        ports = maps(self.spec.get("ports"))
        port = ports[0].get("containerPort") if ports else 80
        chosen = images.default_command(
            image, stdin=self.spec.get("stdin") is True, port=port if isinstance(port, int) else 80
        )
        if chosen is None:
            raise UnknownImage(
                f'the sandbox pulls no images and has no program for "{image}": give the container a command, '
                f"or use one of {', '.join(images.KNOWN)}"
            )
        return list(chosen)

    async def run(self, command: Command, started: Callable[[], Awaitable[None]]) -> Terminated:
        """One run, from its start to its end; cancelling it kills the process."""
        number, begin = self.state.restarts, self._clock()
        log = self._runs[number] = Log(self._log_path(number))
        self._forget_before(number - 1)
        log.open()
        id = f"sandbox://{uuid.uuid4().hex}"
        try:
            process = Process(command)
        except CannotStart as error:
            log.close(self._clock())
            self.become(replace(self.state, id=id))
            return Terminated(128, "StartError", begin, self._clock(), str(error))
        self.process, self.command, self.ended = process, command, asyncio.Event()
        self.become(replace(self.state, state=Running(begin), id=id))
        try:
            await started()
            async with asyncio.TaskGroup() as pumps:
                pumps.create_task(self._pump(process.stdout, "stdout", log))
                if process.stderr is not None:
                    pumps.create_task(self._pump(process.stderr, "stderr", log))
            code = await process.wait()
        finally:
            self.process = None
            await self._end(process, log)
        return Terminated(code, "Completed" if code == 0 else "Error", begin, self._clock())

    async def _end(self, process: Process, log: Log) -> None:
        await process.close()
        log.close(self._clock())
        self.ended.set()
        attached, self._attached = self._attached, set()
        for client in attached:
            if not client.closed:
                await client.put(None)

    async def _pump(self, source: Descriptor, stream: str, log: Log) -> None:
        while data := await source.read():
            log.append(stream, data, self._clock())
            for client in [client for client in self._attached if not client.closed]:
                await client.put((stream, data))
            self._attached = {client for client in self._attached if not client.closed}
            await asyncio.sleep(0)  # a container that writes without pause does not hold up everything else

    def _log_path(self, run: int) -> Path:
        return self._logs / f"{run}.log"

    def _forget_before(self, run: int) -> None:
        for old in [number for number in self._runs if number < run]:
            del self._runs[old]
        if run > 0:
            for path in (self._log_path(run - 1), self._log_path(run - 1).with_suffix(".older")):
                with contextlib.suppress(FileNotFoundError):
                    path.unlink()


def _strings(spec: Object, key: str) -> list[str]:
    values = spec.get(key)
    return [value for value in values if isinstance(value, str)] if isinstance(values, list) else []
