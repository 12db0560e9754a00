"""`python -m bench.fleets`: how a gateway starts with thousands of clusters, and what it costs to look after them.

The clusters are written into the database before the first start, so that nothing is known of any of them. They are
members of tests.programs.fleet: most are well, of a hundred one hangs and one answers 503 every second time.
"""

import argparse
import asyncio
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import httpx2
from bench import measures, processes, report
from bench import rig as rigs
from bench.report import Row
from bench.rig import BenchError, Person
from rich.console import Console
from tests.e2e.conftest import Gateway, running
from tests.programs import fleet

from onepass.api.meta import Object
from onepass.registry import clusters
from onepass.registry.store import Store, Write
from onepass.runtime import sealsources, statuses
from onepass.runtime.datadir import DataDir
from onepass.runtime.settings import Settings
from onepass.runtime.whereabouts import Whereabouts
from onepass.storage import sqlite

COUNT = 5000
PATIENCE = 600.0  # seconds until what does not come is a failure
SAMPLES = 20
QUIET = 30.0  # seconds of which the cost of looking after them is taken
BUDGET = 15.0  # seconds of a cold start
MEMORY = 400.0  # MiB of the control plane


async def fill(directory: Path, members: fleet.Running, count: int) -> None:
    """Write the clusters into the database of a gateway that does not run."""
    settings, data = Settings(data_dir=directory), DataDir.open(directory)
    storage = await sqlite.open_sqlite(data.root / "onepass.db")
    running = asyncio.create_task(storage.run())
    try:
        sealer = sealsources.build(settings, data, True)
        store = Store(storage, clusters.strategy(bounds=Whereabouts(settings).bounds), sealer=sealer)
        for number in range(count):
            await store.create("", described(members, number, name(number)), Write(statuses.actor()))
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        await storage.close()


def described(members: fleet.Running, number: int, called: str) -> Object:
    at = members.endpoint(number)
    return rigs.described(called, at, members.ca, f"token-{number}", serverName=fleet.SERVER_NAME)


def name(number: int) -> str:
    return f"member-{number:05}"


@dataclass
class Watched:
    """A gateway that has just been started."""

    gateway: Gateway
    began: float
    ready: float
    admin: httpx2.Client
    person: Person

    @property
    def pids(self) -> tuple[int, int]:
        return self.gateway.process.pid, processes.child(self.gateway.process.pid, "envoy")

    def since(self) -> float:
        return time.monotonic() - self.began

    def told(self) -> int:
        """How many clusters Envoy has been told of, its own among them."""
        answer = self.admin.get("http://envoy/stats", params={"filter": "^cluster_manager.active_clusters$"})
        return int(answer.text.rpartition(":")[2])

    def reasons(self) -> Counter[str]:
        """What is told of the clusters, and of how many; "" where nothing is yet."""
        answer = self.person.client.get(rigs.CLUSTERS)
        answer.raise_for_status()
        found = Counter[str]()
        for each in answer.json()["items"]:
            conditions = each.get("status", {}).get("conditions", ())
            found[next((one["reason"] for one in conditions if one["type"] == "Ready"), "")] += 1
        return found

    def cost(self) -> str:
        (control, envoy), seconds = self.pids, [processes.cpu_seconds(pid) for pid in self.pids]
        memory = [processes.resident_mebibytes(pid) for pid in (control, envoy)]
        return (
            f"control plane {seconds[0]:.0f} s of CPU, {memory[0]:.0f} MiB; "
            f"Envoy {seconds[1]:.0f} s of CPU, {memory[1]:.0f} MiB"
        )


def until(what: str, holds: Callable[[], bool], pause: float = 0.25) -> None:
    """Raises BenchError when it never comes true."""
    end = time.monotonic() + PATIENCE
    while not holds():
        if time.monotonic() > end:
            raise BenchError(f"after {PATIENCE:.0f} s: {what}")
        time.sleep(pause)


def start(which: str, directory: Path, members: fleet.Running, count: int, *, first: bool) -> Iterator[Row]:
    began = time.monotonic()
    with running(directory) as gateway:
        ready = time.monotonic() - began
        transport = httpx2.HTTPTransport(uds=DataDir.open(directory).socket("admin"))
        with httpx2.Client(transport=transport) as admin:
            it = Watched(gateway, began, ready, admin, Person.of(gateway.kubeconfig, gateway.url, directory))
            yield Row(f"{which}: ready", f"{ready:.1f} s", f"{BUDGET:.0f} s with 5,000", ready <= BUDGET)
            until("Envoy has not been told of every cluster", lambda: it.told() >= count)
            yield Row(f"{which}: Envoy knows every cluster", f"{it.since():.1f} s")
            if first:
                until("not every member was looked at", lambda: members.counts().looked_at >= count, 1)
                yield Row(f"{which}: every member was looked at", f"{it.since():.0f} s")
                until("not every cluster has a status", lambda: not it.reasons()[""], 3)
                yield Row(f"{which}: every cluster has a status", f"{it.since():.0f} s")
                yield Row(f"{which}: what is told", ", ".join(f"{n} {why}" for why, n in it.reasons().most_common()))
            yield Row(f"{which}: by then", it.cost(), "control plane 400 MiB")
            yield from quiet(which, it, members)
            yield routable(which, it, members, count)
            yield Row(f"{which}: most members looked at, at once", f"{members.counts().most}", "64", None)


def quiet(which: str, it: Watched, members: fleet.Running) -> Iterator[Row]:
    """What the fleet costs from then on."""
    before, seen, began = [processes.cpu_seconds(pid) for pid in it.pids], members.counts().versions, time.monotonic()
    time.sleep(QUIET)
    passed = time.monotonic() - began
    control, envoy = (
        (processes.cpu_seconds(pid) - cpu) / passed * 100 for pid, cpu in zip(it.pids, before, strict=True)
    )
    asked = (members.counts().versions - seen) / passed
    memory = processes.resident_mebibytes(it.pids[0])
    yield Row(
        f"{which}: the next {QUIET:.0f} s",
        f"control plane {control:.0f}% of a core, Envoy {envoy:.0f}%, {asked:.0f} members asked a second",
    )
    yield Row(f"{which}: control plane, memory", f"{memory:.0f} MiB", "400 MiB", memory <= MEMORY)


def routable(which: str, it: Watched, members: fleet.Running, count: int) -> Row:
    well = range(count - SAMPLES, count)  # the first ones hang or flap
    new = [described(members, number, f"fresh-{number}") for number in well]
    took = measures.carried(it.person, new, "/version")
    return Row(f"{which}: a new Cluster is routable", measures.spread(took), "p99 200 ms", max(took) <= 0.2)


def measured(directory: Path, count: int) -> Iterator[Row]:
    with running(directory):
        pass  # makes its authorities and keys
    hundredth = count // 100
    with fleet.running((hundredth, "mute"), (hundredth, "flapping")) as members:
        asyncio.run(fill(directory, members, count))
        yield from start("first start", directory, members, count, first=True)
        yield from start("next start", directory, members, count, first=False)


def main() -> None:
    parser = argparse.ArgumentParser(prog="bench.fleets", description=__doc__)
    parser.add_argument("--count", type=int, default=COUNT)
    count = parser.parse_args().count
    rows, console = list[Row](), Console(stderr=True)
    with suppress(KeyboardInterrupt), tempfile.TemporaryDirectory(prefix="bench-") as temporary:
        for row in measured(Path(temporary), count):
            console.print(f"{row.what}: {row.measured}")
            rows.append(row)
    Console().print(report.table(rows))


if __name__ == "__main__":
    main()
