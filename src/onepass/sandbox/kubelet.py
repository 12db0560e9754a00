"""The kubelet of a member: makes the pods of its store into local processes, and tells what becomes of them."""

import asyncio
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Literal

import structlog

from onepass.api import errors, meta
from onepass.api.errors import ApiError
from onepass.api.meta import Object
from onepass.registry.mirror import Mirror
from onepass.registry.store import Store, Write
from onepass.sandbox import recorder
from onepass.sandbox.containerlogs import Log
from onepass.sandbox.containers import Attached, Container
from onepass.sandbox.pods import RESOURCE
from onepass.sandbox.podstatus import Waiting
from onepass.sandbox.podworker import PodWorker, Surroundings
from onepass.sandbox.recorder import Recorder
from onepass.sandbox.streams.targets import Place

log = structlog.get_logger(__name__)

_RETRY_SECONDS = 1.0


class Kubelet:
    """Runs the pods of one member below the folder `home`, which is its own."""

    def __init__(
        self,
        *,
        node: str,
        pods: Store,
        config_maps: Store,
        secrets: Store,
        events: Recorder,
        home: Path,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._node = node
        self._pods = pods
        self._sources = {"configmaps": config_maps, "secrets": secrets}
        self._events = events
        self._home = home
        self._clock = clock
        self._mirror = Mirror({RESOURCE.key: pods})
        self._workers: dict[str, PodWorker] = {}  # by uid of the pod
        self._buried: set[str] = set()  # deleted, but perhaps not yet out of the mirror

    async def run(self) -> None:
        """Until cancelled, which kills every process."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._mirror.run())
            group.create_task(self._events.run())
            await self._mirror.synced()
            self._sweep()
            while True:
                generation = self._mirror.generation
                self._reconcile(group)
                await self._mirror.changed(generation)

    # What the streams ask for (streams.targets.Containers).

    async def place(self, namespace: str, pod: str, container: str) -> Place:
        """Where to run a command beside a running container. Raises ApiError."""
        found = await self._container(namespace, pod, container)
        if found.process is None or found.command is None:
            raise errors.bad_request(f'container "{found.name}" of pod "{pod}" is not running')
        return Place(found.command, found.ended)

    async def attach(self, namespace: str, pod: str, container: str) -> Attached:
        """A client at the streams of a running container. Raises ApiError."""
        found = await self._container(namespace, pod, container)
        client = found.attach()
        if client is None:
            raise errors.bad_request(f'container "{found.name}" of pod "{pod}" is not running')
        return client

    async def log(self, namespace: str, pod: str, container: str, *, previous: bool) -> Log:
        """The log of a container's present or previous run. Raises ApiError."""
        found = await self._container(namespace, pod, container)
        written = found.log(previous=previous)
        if written is not None:
            return written
        if previous:
            raise errors.bad_request(f'previous terminated container "{found.name}" in pod "{pod}" not found')
        reason = found.state.state.reason if isinstance(found.state.state, Waiting) else "ContainerCreating"
        raise errors.bad_request(f'container "{found.name}" in pod "{pod}" is waiting to start: {reason}')

    async def reachable(self, namespace: str, pod: str) -> None:
        """Returns when the pod runs. Raises ApiError."""
        worker = await self._worker(namespace, pod)
        if not any(container.process is not None for container in worker.main):
            phase = meta.text(worker.status(), "phase")
            raise errors.bad_request(f"unable to forward port because pod is not running. Current status={phase}")

    async def _worker(self, namespace: str, pod: str) -> PodWorker:
        obj = await self._pods.get(namespace, pod)
        worker = self._workers.get(meta.uid(obj))
        if worker is None:
            raise errors.bad_request(f'pod "{pod}" is not running yet')
        return worker

    async def _container(self, namespace: str, pod: str, name: str) -> Container:
        worker = await self._worker(namespace, pod)
        every = [*worker.main, *worker.init]
        if not name:
            if len(worker.main) == 1:
                return worker.main[0]
            choices = " ".join(container.name for container in every)
            raise errors.bad_request(f"a container name must be specified for pod {pod}, choose one of: [{choices}]")
        for container in every:
            if container.name == name:
                return container
        raise errors.bad_request(f"container {name} is not valid for pod {pod}")

    def _reconcile(self, group: asyncio.TaskGroup) -> None:
        present: set[str] = set()
        for pod in self._mirror.list(RESOURCE.key):
            uid, metadata = meta.uid(pod), meta.section(pod, "metadata")
            present.add(uid)
            if uid in self._buried:
                continue
            if uid not in self._workers:
                changed = asyncio.Event()
                self._workers[uid] = PodWorker(pod, self._surroundings(pod, changed))
                group.create_task(self._work(self._workers[uid], changed), name=f"pod {meta.name(pod)}")
            if "deletionTimestamp" in metadata:
                grace = metadata.get("deletionGracePeriodSeconds")
                self._workers[uid].stop(grace if isinstance(grace, int) else 0)
        self._buried &= present
        for uid in self._workers.keys() - present:
            self._workers[uid].stop(0)  # deleted by force

    async def _work(self, worker: PodWorker, changed: asyncio.Event) -> None:
        """A pod from its creation to its end, and to its deletion."""
        pod = worker.pod
        if not meta.text(meta.section(pod, "status"), "startTime"):
            placed = f"Successfully assigned {meta.namespace(pod)}/{meta.name(pod)} to {self._node}"
            await self._events.tell(pod, "Normal", "Scheduled", placed)
        async with asyncio.TaskGroup() as group:
            reporting = group.create_task(self._report(worker, changed))
            changed.set()
            group.create_task(self._tell_stop(worker))
            await worker.run()
            await worker.stopped()
            reporting.cancel()
        await self._bury(worker)
        self._buried.add(meta.uid(pod))
        del self._workers[meta.uid(pod)]

    async def _tell_stop(self, worker: PodWorker) -> None:
        for name in await worker.stopped():
            await self._events.tell(worker.pod, "Normal", "Killing", f"Stopping container {name}")

    def _surroundings(self, pod: Object, changed: asyncio.Event) -> Surroundings:
        namespace, uid = meta.namespace(pod), meta.uid(pod)

        async def fetch(kind: str, name: str) -> Object:
            return await self._sources[kind].get(namespace, name)

        async def tell(kind: Literal["Normal", "Warning"], reason: str, message: str) -> None:
            await self._events.tell(pod, kind, reason, message)

        home, logs = self._home / "pods" / uid, self._home / "logs" / uid
        return Surroundings(home, logs, fetch, tell, changed.set, self._clock)

    async def _report(self, worker: PodWorker, changed: asyncio.Event) -> None:
        """Write the status whenever it has changed, until cancelled."""
        while True:
            await changed.wait()
            changed.clear()
            if not await self._write_status(worker):
                await asyncio.sleep(_RETRY_SECONDS)
                changed.set()

    async def _write_status(self, worker: PodWorker) -> bool:
        """False when it has to be tried again."""
        pod = worker.pod

        def with_status(stored: Object) -> Object:
            return {**stored, "status": worker.status()} if meta.uid(stored) == meta.uid(pod) else stored

        try:
            written = await self._pods.update(
                meta.namespace(pod), meta.name(pod), with_status, self._write(subresource="status")
            )
        except ApiError as error:
            if error.code != 404:
                log.warning("the status of a pod is not written", pod=meta.name(pod), error=error.message)
            return error.code == 404
        if meta.uid(written.obj) == meta.uid(pod):
            worker.pod = written.obj
        return True

    async def _bury(self, worker: PodWorker) -> None:
        """The end of a deleted pod: its last status, its object, its folders."""
        pod = worker.pod
        while True:
            try:
                if await self._write_status(worker):
                    await self._pods.delete(
                        meta.namespace(pod), meta.name(pod), self._write(), uid=meta.uid(pod), grace_period=0
                    )
                    break
            except ApiError as error:
                if error.code in (404, 409):  # gone already, or another pod of the same name
                    break
                log.warning("a pod is not deleted yet", pod=meta.name(pod), error=error.message)
            await asyncio.sleep(_RETRY_SECONDS)
        self._remove(meta.uid(pod))

    def _sweep(self) -> None:
        """Remove what pods have left that were deleted while no kubelet ran."""
        living = {meta.uid(pod) for pod in self._mirror.list(RESOURCE.key)}
        for kind in ("pods", "logs"):
            folder = self._home / kind
            for left in folder.iterdir() if folder.is_dir() else ():
                if left.name not in living:
                    shutil.rmtree(left, ignore_errors=True)

    def _remove(self, uid: str) -> None:
        for kind in ("pods", "logs"):
            shutil.rmtree(self._home / kind / uid, ignore_errors=True)

    def _write(self, subresource: str = "") -> Write:
        actor = recorder.kubelet(self._node, self._clock())
        return Write(actor, field_validation="Ignore", subresource=subresource)
