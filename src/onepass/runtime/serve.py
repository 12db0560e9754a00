"""`onepass up`: every part built once, every task started once, and ended in order."""

import asyncio
import os
import signal
import time
from collections.abc import AsyncGenerator, Coroutine, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

import uvloop
from prometheus_client import CollectorRegistry

from onepass.access import rules
from onepass.access.attributes import Attributes
from onepass.access.identity import Identity
from onepass.api.errors import ApiError
from onepass.apiserver import serving
from onepass.controllers import aggregate, clean
from onepass.controllers.approve import Approve
from onepass.controllers.attend import Attend
from onepass.controllers.expire import Expire
from onepass.controllers.probe import Probe
from onepass.controllers.programs import Programs
from onepass.controllers.sign import Sign
from onepass.controllers.sweep import Sweep
from onepass.controllers.used import Used
from onepass.gateway import auditlog, bootstrap, ir, resources, tables
from onepass.gateway.proto import MEBIBYTE
from onepass.registry import catalog, certificatesigningrequests, clusters, defaults, passes, sealed
from onepass.registry.currentpolicy import CurrentPolicy
from onepass.registry.mirror import Mirror
from onepass.registry.ownkeys import OwnKeys
from onepass.registry.store import Store
from onepass.registry.streams import Streams
from onepass.runtime import (
    attending,
    database,
    envoy,
    frame,
    gatewayapi,
    hostcluster,
    logs,
    memory,
    registration,
    sealsources,
    sharedkeys,
    statuses,
)
from onepass.runtime.adminkubeconfig import AdminKubeconfig
from onepass.runtime.auditfile import AuditFile
from onepass.runtime.audituses import AuditUses
from onepass.runtime.database import Database
from onepass.runtime.datadir import DataDir
from onepass.runtime.discovery import Discovery
from onepass.runtime.health import Health
from onepass.runtime.keeper import Keeper
from onepass.runtime.leader import Election, Sole, Work
from onepass.runtime.opening import Opening
from onepass.runtime.plane import Asker, Plane
from onepass.runtime.pluginrunner import Runner
from onepass.runtime.readiness import NotReadyError, Readiness
from onepass.runtime.reporter import Reporter
from onepass.runtime.sandboxes import Sandbox
from onepass.runtime.sealer import Sealer
from onepass.runtime.sealmetrics import SealMetrics
from onepass.runtime.settings import Extension, Settings, SettingsError
from onepass.runtime.sharedkeys import SharedKeys
from onepass.runtime.statuses import Statuses
from onepass.runtime.trust import Trust
from onepass.runtime.whereabouts import Whereabouts
from onepass.storage.interface import StorageError
from onepass.xds import ads as discovery
from onepass.xds.ads import Ads
from onepass.xds.companions import Companions

_Got = TypeVar("_Got")

_Told = (SettingsError, StorageError, envoy.EnvoyError, NotReadyError, ApiError, OSError)


def up(settings: Settings) -> None:
    """Run a gateway until SIGINT or SIGTERM. Raises SettingsError with a sentence when it cannot run."""
    data = DataDir.open(settings.data_dir)
    logs.configure(data.root / "onepass.log")
    try:
        uvloop.run(_up(settings, data, Reporter(stderr=settings.audit_path == auditlog.STDOUT)))
    except _Told as error:
        raise SettingsError(str(error)) from error
    except BaseExceptionGroup as several:
        known = several.subgroup(_Told)
        if known is None:
            raise
        first: BaseException = known
        while isinstance(first, BaseExceptionGroup):
            first = first.exceptions[0]
        raise SettingsError(str(first)) from several


async def _up(settings: Settings, data: DataDir, reporter: Reporter) -> None:
    began = time.monotonic()
    stop = asyncio.Event()
    for interrupt in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(interrupt, stop.set)
    envoy.check_port(settings.listen.host, settings.listen.port)
    if settings.extension:
        envoy.check_port(settings.extension.listen.host, settings.extension.listen.port)
        await _check_extension(settings.extension)
    place = database.place(settings)
    async with AsyncExitStack() as stack:
        reporter.starting(f"using {place.where}")
        storage = await _unless(stop, place.open(reporter.waiting))
        if storage is None:
            return
        stack.push_async_callback(storage.close)
        sealer = sealsources.build(settings, data, await sealed.is_any(storage))
        shared = SharedKeys(OwnKeys(storage, sealer, sharedkeys.known), data.pki) if place.shared else None
        keeper = await _unless(stop, Keeper.open(data, settings, sealer, shared, reporter.waiting))
        if keeper is None:
            return
        sandboxes = []
        for number in range(1, settings.sandbox + 1):
            sandboxes.append(await Sandbox.open(f"sandbox-{number}", data.sandbox))
            stack.push_async_callback(sandboxes[-1].close)
        leader = Election(storage) if place.shared else Sole()
        server = await Server.build(settings, data, keeper, sealer, storage, leader)
        async with server.running(sandboxes, reporter) as ready:
            stopped = asyncio.create_task(stop.wait())
            await asyncio.wait((ready, stopped), return_when=asyncio.FIRST_COMPLETED)
            if ready.done():
                members = sorted(server.current.get().targets)
                reporter.ready(settings.listen.url, data, members, time.monotonic() - began)
                await stopped
            reporter.stopping()
    reporter.stopped()


async def _unless(stop: asyncio.Event, work: Coroutine[object, object, _Got]) -> _Got | None:
    """What `work` returns; None when it is to stop before."""
    doing, stopped = asyncio.ensure_future(work), asyncio.ensure_future(stop.wait())
    try:
        await asyncio.wait((doing, stopped), return_when=asyncio.FIRST_COMPLETED)
        return doing.result() if doing.done() else None
    finally:
        for task in (doing, stopped):
            task.cancel()
            await asyncio.wait((task,))


async def _check_extension(extension: Extension) -> None:
    """What of it can be wrong for good is told at once; a host that is away is waited for. Raises SettingsError."""
    if not extension.asks_host:
        hostcluster.of_files(extension, time.time())
    if extension.asks_host or extension.kubeconfig:
        try:
            await hostcluster.client(extension).aclose()
        except hostcluster.HostError as error:
            raise SettingsError(f"--extension: {error}") from error


@dataclass(frozen=True, slots=True)
class Server:
    """The parts of one gateway, built and not yet running."""

    settings: Settings
    data: DataDir
    keeper: Keeper
    sealer: Sealer
    storage: Database
    leader: Sole | Election
    stores: Mapping[str, Store]
    mirror: Mirror
    current: CurrentPolicy
    ads: Ads
    health: Health
    plane: Plane
    attend: Attend
    admin: AdminKubeconfig
    carries: asyncio.Event = field(default_factory=asyncio.Event)  # requests through the gateway have succeeded

    @classmethod
    async def build(
        cls,
        settings: Settings,
        data: DataDir,
        keeper: Keeper,
        sealer: Sealer,
        storage: Database,
        leader: Sole | Election,
    ) -> "Server":
        secrets = keeper.trust
        whereabouts = Whereabouts(settings)
        kinds = catalog.gateway(
            bounds=whereabouts.bounds,
            plugins=settings.exec_plugins,
            is_cluster=lambda name: name in current.get().targets,
        )
        stores = {kind.resource.key: Store(storage, kind, sealer=sealer) for kind in kinds}
        await defaults.ensure(stores, statuses.actor())
        mirror = Mirror(stores)
        current = CurrentPolicy(mirror)
        health = Health(storage, mirror)
        ads = Ads(health)
        plane = Plane(
            current,
            frame.gateway(settings, data, secrets),
            keeper.revocations,
            resources.Builder(tables.source),
            ads,
            whereabouts,
            stores[clusters.RESOURCE.key],
        )
        attend = attending.build(mirror, current, lambda: plane.frame.listener.known)
        admin = AdminKubeconfig(data.kubeconfig, frame.entry(settings, secrets), mirror)

        def changed(found: Trust) -> None:
            plane.reframe(frame.gateway(settings, data, found))
            attend.again()
            admin.renew(frame.entry(settings, found))

        keeper.changed = changed
        return cls(
            settings=settings,
            data=data,
            keeper=keeper,
            sealer=sealer,
            storage=storage,
            leader=leader,
            stores=stores,
            mirror=mirror,
            current=current,
            ads=ads,
            health=health,
            plane=plane,
            attend=attend,
            admin=admin,
        )

    @asynccontextmanager
    async def running(self, sandboxes: Sequence[Sandbox], reporter: Reporter) -> AsyncGenerator[asyncio.Task[None]]:
        """Everything that runs; what clients reach ends first. Yields the task that ends when requests succeed."""
        asker = Asker.on(self.data.socket("probe"), self.current)
        store = self.stores[clusters.RESOURCE.key]
        leader = self.leader
        opening = Opening.build(self.storage, store, self.mirror, self.plane, self.sealer, asker, leader)
        metrics = CollectorRegistry()
        metrics.register(SealMetrics(self.sealer.sources, lambda: opening.reseal.census))
        app = gatewayapi.build(
            self.stores,
            self.current.get,
            self.keeper.trust.accounts,
            self.health.checks(),
            gatewayapi.Issuing(self.settings.accounts.issuers, self.settings.accounts.keys(self.settings.listen.url)),
            virtual=(Streams(self.attend.shown, self.attend.end),),
            registry=metrics,
        )
        audit = self._audit_file()
        status = {key: Statuses(store) for key, store in self.stores.items()}
        parts: dict[str, Coroutine[object, object, None]] = {
            "storage": self.storage.run(),
            **({"leader": leader.run()} if isinstance(leader, Election) else {}),
            "seal": self.sealer.run(),
            "mirror": self.mirror.run(),
            **{each.access.name: each.run() for each in sandboxes},
            "api": serving.serve(app, serving.unix_socket(self.data.run / "apiserver.sock")),
            "attend": self.attend.run(),
            "ads": discovery.serve(self.ads, self.data.socket("ads"), beside=(Companions(self.attend).handler(),)),
            **{name: leader.during(work) for name, work in self._controllers(asker, status).items()},
            **({"audit": audit.run(), "used": self._used(audit, status[passes.RESOURCE.key])} if audit else {}),
            "trust": self.keeper.run(),
            "issuers": self._discovery().run(),
            **({"host": self._host(self.settings.extension).run()} if self.settings.extension else {}),
            "envoy": self._envoy().run(),
        }
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(part, name=name) for name, part in parts.items()]
            ready = group.create_task(self._ready(group, tasks, sandboxes, opening, reporter), name="ready")
            try:
                yield ready
            finally:
                for task in (ready, *reversed(tasks)):
                    task.cancel()
                    await asyncio.wait((task,))
                await asker.client.aclose()

    def _controllers(self, asker: Asker, status: Mapping[str, Statuses]) -> Mapping[str, Work]:
        """What one replica does for all, each made anew where this one begins to."""
        requests, members = status[certificatesigningrequests.RESOURCE.key], status[clusters.RESOURCE.key]
        names, ends = certificatesigningrequests.names, certificatesigningrequests.ends
        run, secrets = Runner(self.settings.exec_plugins).run, self.stores[clusters.RESOURCE.key]
        return {
            "sign": lambda: Sign(self.mirror, requests, self.keeper.sign_client).run(),
            "approve": lambda: Approve(self.mirror, requests, names, self._allows).run(),
            "clean": lambda: clean.Clean(self.mirror, requests, ends).run(),
            "aggregate": lambda: aggregate.Aggregate(self.mirror, status[aggregate.ROLES]).run(),
            "expire": lambda: Expire(self.mirror, self.current.get, status[passes.RESOURCE.key]).run(),
            "probe": lambda: self._probe(asker, members),
            "programs": lambda: Programs(self.mirror, secrets, members, run).run(),
            "sweep": lambda: Sweep(self.stores).run(),
        }

    async def _ready(
        self,
        group: asyncio.TaskGroup,
        tasks: list[asyncio.Task[None]],
        sandboxes: Sequence[Sandbox],
        opening: Opening,
        reporter: Reporter,
    ) -> None:
        """Bring up what needs a filled mirror, and return when a request through the gateway succeeds."""
        for each in sandboxes:
            reporter.starting(f"starting {each.access.name}")
            await each.ready.wait()
        await opening.known()
        if sandboxes or isinstance(self.leader, Sole):  # else they are another replica's
            await registration.register(self.stores[clusters.RESOURCE.key], [each.access for each in sandboxes])
        await self.mirror.synced()
        tasks.append(group.create_task(opening.follow(), name="publish"))
        tasks.append(group.create_task(self.admin.run(), name="kubeconfig"))
        reporter.starting("waiting for the first answer through the gateway")
        await Readiness(self.admin.entry).reached([each.access.name for each in sandboxes])
        self.carries.set()

    async def _probe(self, asker: Asker, status: Statuses) -> None:
        """Look at members as soon as Envoy knows them: before, it would be asked for each of them again and again."""
        await self.carries.wait()
        await Probe(self.mirror, status, self.plane.peer, asker.ask).run()

    def _allows(self, identity: Identity, attributes: Attributes) -> bool:
        return rules.allows(self.current.get(), identity, attributes).allowed

    def _discovery(self) -> Discovery:
        def found(issuers: Sequence[ir.Issuer]) -> None:
            self.plane.reframe(issuers=issuers)

        return Discovery(self.settings.issuers, self.settings.keys_refresh, self.data.issuers, found)

    def _host(self, extension: Extension) -> hostcluster.HostCluster:
        def found(front: ir.Front) -> None:
            self.plane.reframe(front=front)

        return hostcluster.HostCluster(extension, found, lambda: self.keeper.trust.serving_ca_pem)

    def _envoy(self) -> envoy.Envoy:
        start = bootstrap.Start(
            node=f"onepass-{os.uname().nodename}",
            ads=self.data.socket("ads"),
            admin=self.data.socket("admin"),
            max_heap=self.settings.max_memory or memory.for_envoy(),
            max_connections=memory.connections_for_envoy(),
        )
        return envoy.Envoy(
            self.data.envoy,
            bootstrap.document(start),
            concurrency=os.cpu_count() or 2,
            stdout=self.settings.audit_path == auditlog.STDOUT,
        )

    async def _used(self, audit: AuditFile, status: Statuses) -> None:
        """Keep `lastUsed` of passes by the audit log, when that is a file."""
        with closing(AuditUses(audit.path)) as uses:
            uses.begin()
            await self.mirror.synced()
            await Used(self.mirror, uses, status).run()

    def _audit_file(self) -> AuditFile | None:
        """What looks after the audit log, when that is a file."""
        chosen, path = self.settings.audit, self.settings.audit_path
        if path == auditlog.STDOUT:
            return None
        file = AuditFile(Path(path), chosen.maxsize * MEBIBYTE, chosen.maxbackup, self.data.socket("admin"))
        file.prepare()
        return file
