"""Runs one pod: its init containers in turn, then the others side by side, until they end or it is deleted."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from onepass.api import meta
from onepass.api.meta import Object
from onepass.sandbox import environments, pods, podstatus
from onepass.sandbox.containers import Container, UnknownImage
from onepass.sandbox.podstatus import Running, Terminated, Waiting

_BACKOFF = (0, 10, 20, 40, 80, 160, 300)  # seconds before the next run, as kubelet's crash loop
_HEALTHY_SECONDS = 600  # a run this long makes the next failure the first one again

Tell = Callable[[Literal["Normal", "Warning"], str, str], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What a pod needs of its kubelet. `changed` is told of every new state; `tell` writes an event about the pod."""

    home: Path
    logs: Path
    fetch: environments.Fetch
    tell: Tell
    changed: Callable[[], None]
    clock: Callable[[], float] = time.time


class PodWorker:
    """One pod. `run` is called once; `stop` may come at any time, again with less time left."""

    def __init__(self, pod: Object, around: Surroundings) -> None:
        self.pod = pod
        self._around = around
        self._policy = meta.text(meta.section(pod, "spec"), "restartPolicy")
        self.init = [self._container(spec) for spec in pods.init_containers(pod)]
        self.main = [self._container(spec) for spec in pods.containers(pod)]
        self._stopping = asyncio.Event()
        self._kill: asyncio.TimerHandle | None = None
        self._killed = False
        self._interrupted: list[str] = []  # containers that ran when `stop` was called
        self._restore()

    def status(self) -> Object:
        """The status of the pod as it is now."""
        init, main = [c.state for c in self.init], [c.state for c in self.main]
        return podstatus.compute(self.pod, init, main, self._around.clock())

    def stop(self, grace: float) -> None:
        """Ask every container to end, and kill what is left after `grace` seconds."""
        if not self._stopping.is_set():
            self._stopping.set()
            for container in (*self.init, *self.main):
                if container.process is not None:
                    self._interrupted.append(container.name)
                    container.process.terminate()
        loop = asyncio.get_running_loop()
        if self._kill is None or self._kill.when() > loop.time() + grace:
            if self._kill is not None:
                self._kill.cancel()
            self._kill = loop.call_later(grace, self._kill_all)

    async def stopped(self) -> Sequence[str]:
        """Waits for `stop`: a pod that has ended by itself stays until it is deleted. The containers that still ran."""
        await self._stopping.wait()
        return self._interrupted

    async def run(self) -> None:
        """Until every container has ended for good. Cancelling it kills them."""
        try:
            for container in self.init:
                if not await self._keep(container, "OnFailure" if self._policy == "Always" else self._policy):
                    return
            async with asyncio.TaskGroup() as group:
                for container in self.main:
                    group.create_task(self._keep(container, self._policy))
        finally:
            if self._kill is not None:
                self._kill.cancel()

    def _container(self, spec: Object) -> Container:
        name = meta.text(spec, "name")
        around = self._around
        return Container(spec, around.home / name, around.logs / name, around.changed, around.clock)

    def _restore(self) -> None:
        """Take up from the stored status: what ran when this server ended has been killed with it."""
        status = meta.section(self.pod, "status")
        told = {
            meta.text(entry, "name"): entry
            for key in ("initContainerStatuses", "containerStatuses")
            for entry in pods.maps(status.get(key))
        }
        for container in (*self.init, *self.main):
            if container.name not in told:
                continue
            state = podstatus.restored(told[container.name])
            if isinstance(state.state, Waiting) and state.last is not None:
                state = replace(state, state=state.last)
            elif isinstance(state.state, Running):
                now = self._around.clock()
                lost = Terminated(137, "Error", state.state.started, now, "the sandbox ended while it ran")
                state = replace(state, state=lost)
            container.state = state

    async def _keep(self, container: Container, policy: str) -> bool:
        """Run a container as often as the policy says; whether its last run succeeded."""
        failures = 0
        while not self._stopping.is_set():
            state = container.state
            if isinstance(state.state, Terminated):
                if policy == "Never" or (policy == "OnFailure" and state.state.exit_code == 0):
                    return state.succeeded
                if state.state.finished - state.state.started > _HEALTHY_SECONDS:
                    failures = 0
                await self._back_off(container, state.state, failures)
                failures += 1
                if self._stopping.is_set():
                    break
            outcome = await self._once(container)
            if outcome is not None:
                container.become(replace(container.state, state=outcome))
        return container.state.succeeded

    async def _back_off(self, container: Container, ended: Terminated, failures: int) -> None:
        seconds = _BACKOFF[min(failures, len(_BACKOFF) - 1)]
        restarts = container.state.restarts + 1
        told = f"back-off {seconds}s restarting failed container={container.name} pod={meta.name(self.pod)}"
        waiting = Waiting("CrashLoopBackOff", told) if seconds else Waiting()
        if seconds:
            # Until it runs anew, the count and the logs are those of the run that has ended.
            container.become(replace(container.state, state=waiting, last=ended))
            await self._around.tell("Warning", "BackOff", told)
            await self._pause(seconds)
        if not self._stopping.is_set():
            container.become(replace(container.state, state=waiting, last=ended, restarts=restarts))

    async def _once(self, container: Container) -> Terminated | None:
        """One run, or None when it could not be prepared, after a pause."""
        try:
            command = await container.prepare(self.pod, self._around.fetch)
        except (UnknownImage, environments.Unset, OSError) as error:
            await self._refuse(container, _reason(error), str(error))
            return None
        if self._stopping.is_set():
            return None
        tell = self._around.tell
        image = meta.text(container.spec, "image")
        await tell("Normal", "Pulled", f'Container image "{image}" already present on machine')
        await tell("Normal", "Created", f"Created container: {container.name}")

        async def started() -> None:
            await tell("Normal", "Started", f"Started container {container.name}")
            if self._stopping.is_set() and container.process is not None:
                container.process.terminate()
                if self._killed:
                    container.process.kill()

        try:
            ended = await container.run(command, started)
        except OSError as error:
            await self._refuse(container, _reason(error), str(error))
            return None
        if ended.reason == "StartError":
            await tell("Warning", "Failed", f"Error: {ended.message}")
        return ended

    async def _refuse(self, container: Container, reason: str, message: str) -> None:
        container.become(replace(container.state, state=Waiting(reason, message)))
        await self._around.tell("Warning", "Failed", f"Error: {message}")
        await self._pause(_BACKOFF[1])

    async def _pause(self, seconds: float) -> None:
        try:
            async with asyncio.timeout(seconds):
                await self._stopping.wait()
        except TimeoutError:
            return

    def _kill_all(self) -> None:
        self._killed = True
        for container in (*self.init, *self.main):
            if container.process is not None:
                container.process.kill()


def _reason(error: Exception) -> str:
    """Why a container waits, in the word that kubectl shows."""
    if isinstance(error, UnknownImage):
        return "ErrImagePull"
    return "CreateContainerConfigError" if isinstance(error, environments.Unset) else "CreateContainerError"
