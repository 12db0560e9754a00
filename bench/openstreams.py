"""`python -m bench.openstreams`: what ten thousand open watches cost, with their companions and without.

Both runs are the same program; the one without is told before it starts to ask for no companions.
"""

import argparse
import asyncio
import json
import ssl
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import h2.config
import h2.connection
import h2.events
from bench import processes
from bench.rig import Person
from rich.console import Console
from rich.table import Table
from tests.e2e.conftest import BIN, Gateway, free_port
from tests.programs import gomembers

STREAMS_A_CONNECTION = 250  # as many as Envoy allows
WITHOUT = """
from onepass.gateway import httpfilters
httpfilters.of_streams = dict
from onepass.cli.main import main
main()
"""
PATH = "/apis/cluster.karpor.io/v1beta1/clusters/member/proxy/api/v1/pods?watch=1"


@dataclass
class Clients:
    """Connections with watches on them."""

    address: tuple[str, int]
    context: ssl.SSLContext
    open: int = 0
    ended: int = 0
    tasks: list[asyncio.Task[None]] = field(default_factory=list)
    moved: asyncio.Condition = field(default_factory=asyncio.Condition)

    async def watch(self, count: int) -> None:
        """Open `count` more, and return when all have been answered."""
        for begin in range(0, count, STREAMS_A_CONNECTION):
            reader, writer = await asyncio.open_connection(*self.address, ssl=self.context, server_hostname="localhost")
            number = min(STREAMS_A_CONNECTION, count - begin)
            wanted = self.open + number
            self.tasks.append(asyncio.create_task(self._connection(reader, writer, number)))
            # One connection after the other: how many can begin at once is another question.
            async with asyncio.timeout(60), self.moved:
                await self.moved.wait_for(lambda: self.open >= wanted)  # noqa: B023  waited for here

    async def _connection(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, count: int) -> None:
        connection = h2.connection.H2Connection(h2.config.H2Configuration(header_encoding="utf-8"))
        connection.initiate_connection()
        head = [(":method", "GET"), (":scheme", "https"), (":authority", "gateway"), (":path", PATH)]
        for _ in range(count):
            connection.send_headers(connection.get_next_available_stream_id(), head, end_stream=True)
        writer.write(connection.data_to_send())
        while data := await reader.read(65536):
            for event in connection.receive_data(data):
                if isinstance(event, h2.events.ResponseReceived):
                    status = dict(event.headers or ())[":status"]
                    if status != "200":
                        raise AssertionError(f"a watch was answered with {status}")
                    self.open += 1
                elif isinstance(event, h2.events.StreamReset | h2.events.StreamEnded):
                    self.ended += 1
                elif isinstance(event, h2.events.DataReceived):
                    connection.acknowledge_received_data(event.flow_controlled_length or 0, event.stream_id or 0)
            writer.write(connection.data_to_send())
            async with self.moved:
                self.moved.notify_all()


@dataclass
class Cost:
    """What one run measured: memory in KiB a stream, CPU in milliseconds a stream and in per cent of a core."""

    envoy_memory: float
    control_memory: float
    envoy_cpu: float
    control_cpu: float
    envoy_idle: float
    control_idle: float
    changed: float = 0.0  # CPU seconds of the control plane for a change of the policy that ends no stream
    ended: float = 0.0  # seconds until every stream was gone


@contextmanager
def gateway(directory: Path, companions: bool) -> Iterator[Gateway]:
    listen = f"127.0.0.1:{free_port()}"
    program = [str(BIN / "onepass")] if companions else [sys.executable, "-c", WITHOUT]
    with (directory / "output").open("w+") as output:
        process = subprocess.Popen(
            [*program, "up", "--data-dir", str(directory / "data"), "--listen", listen], stdout=output, stderr=output
        )
        try:
            while "onepass is ready" not in (directory / "output").read_text():
                if process.poll() is not None:
                    raise AssertionError((directory / "output").read_text())
                time.sleep(0.1)
            yield Gateway(directory / "data", f"https://{listen}", process)
        finally:
            process.terminate()
            process.wait(60)


async def measured(up: Gateway, count: int, companions: bool) -> Cost:
    admin = Person.of(up.kubeconfig, up.url, up.data_dir)
    host, _, port = up.url.removeprefix("https://").partition(":")
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.set_alpn_protocols(["h2"])
    context.load_cert_chain(admin.proof)
    control, envoy = up.process.pid, processes.child(up.process.pid, "envoy")
    clients = Clients((host, int(port)), context)
    await clients.watch(STREAMS_A_CONNECTION)  # what comes once: connections to the member, code, caches
    await asyncio.sleep(3)

    def now() -> tuple[float, float, float, float]:
        return (
            processes.resident_mebibytes(envoy), processes.resident_mebibytes(control),
            processes.cpu_seconds(envoy), processes.cpu_seconds(control),
        )  # fmt: skip

    before = now()
    await clients.watch(count)
    await asyncio.sleep(5)
    after = now()
    await asyncio.sleep(20)
    later = now()
    cost = Cost(
        envoy_memory=(after[0] - before[0]) * 1024 / count,
        control_memory=(after[1] - before[1]) * 1024 / count,
        envoy_cpu=(after[2] - before[2]) * 1000 / count,
        control_cpu=(after[3] - before[3]) * 1000 / count,
        envoy_idle=(later[2] - after[2]) / 20 * 100,
        control_idle=(later[3] - after[3]) / 20 * 100,
    )
    if companions:
        cost.changed = await _changed(up, control)
        began = time.monotonic()
        await asyncio.to_thread(up.kubectl, "delete", "cluster", "member", "--wait=false", context="onepass")
        async with asyncio.timeout(120), clients.moved:
            await clients.moved.wait_for(lambda: clients.ended >= clients.open)
        cost.ended = time.monotonic() - began
    for task in clients.tasks:
        task.cancel()
    await asyncio.gather(*clients.tasks, return_exceptions=True)
    return cost


async def _changed(up: Gateway, control: int) -> float:
    """A pass for somebody else: every claim is judged again."""
    before = processes.cpu_seconds(control)
    given = {
        "apiVersion": "access.karpor.io/v1beta1",
        "kind": "Pass",
        "metadata": {"name": "else"},
        "spec": {
            "subjects": [{"kind": "User", "name": "else", "apiGroup": "rbac.authorization.k8s.io"}],
            "clusters": {"names": ["member"]},
            "rules": [{"apiGroups": [""], "resources": ["pods"], "verbs": ["get"]}],
        },
    }
    await asyncio.to_thread(up.kubectl, "apply", "-f", "-", context="onepass", input=json.dumps(given))
    await asyncio.sleep(3)
    return processes.cpu_seconds(control) - before


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=10_000)
    count = parser.parse_args().count
    costs: list[Cost] = []
    for companions in (False, True):
        with (
            gomembers.running() as member,
            tempfile.TemporaryDirectory(prefix="bench-") as temporary,
            gateway(Path(temporary), companions) as up,
        ):
            up.register("member", endpoint=member.endpoint, ca=member.ca.encode(), **member.proof("token"))
            costs.append(asyncio.run(measured(up, count, companions)))
    without, with_ = costs
    table = Table("", "without", "with", "with/without", title=f"{count} watches")
    for what, unit, name in (
        ("Envoy, memory a watch", "KiB", "envoy_memory"),
        ("control plane, memory a watch", "KiB", "control_memory"),
        ("Envoy, CPU to open one", "ms", "envoy_cpu"),
        ("control plane, CPU to open one", "ms", "control_cpu"),
        ("Envoy, while all are quiet", "% of a core", "envoy_idle"),
        ("control plane, while all are quiet", "% of a core", "control_idle"),
        ("a change that ends none: control plane", "s of CPU", "changed"),
        ("the cluster is deleted: all have ended after", "s", "ended"),
    ):
        a, b = getattr(without, name), getattr(with_, name)
        table.add_row(what, f"{a:.2f} {unit}", f"{b:.2f} {unit}", f"{b / a:.2f}" if a else "")
    Console().print(table)


if __name__ == "__main__":
    main()
