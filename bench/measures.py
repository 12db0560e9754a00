"""The measurements, each a function from the rig to rows."""

import functools
import os
import statistics
import time
from collections.abc import Callable, Iterable, Iterator, Sequence

import httpx2
from bench import processes
from bench import rig as rigs
from bench.report import Row, short_of
from bench.rig import BenchError, Person, Rig
from tests.e2e import ways

from onepass.api import meta
from onepass.api.meta import Object

PAUSE = 0.002  # seconds between two looks
PATIENCE = 30  # seconds until a change that does not show is a failure
CPU_BUDGET = {False: 0.75, True: 0.45}  # by protocol: is it HTTP/2


def cpu(rig: Rig, *, subjects: int, rounds: int, requests: int) -> Iterator[Row]:
    """CPU of a request, Envoy against the yardstick, alternating, each alone on one core."""
    for http2, name in ((False, "HTTP/1.1"), (True, "HTTP/2")):
        ours, theirs = [], []
        with (
            rigs.goproxy(rig, http2=http2) as (proxy, address),
            processes.apart((rig.envoy, proxy), (rig.member.process.pid, os.getpid())),
        ):
            for pid, target in ((proxy, address), (rig.envoy, rig.address)):
                _cpu_of(rig, pid, target, http2, requests // 5)  # warm both up
            for _ in range(rounds):
                theirs.append(_cpu_of(rig, proxy, address, http2, requests))
                ours.append(_cpu_of(rig, rig.envoy, rig.address, http2, requests))
        ratio = statistics.median(a / b for a, b in zip(ours, theirs, strict=True))
        budget = CPU_BUDGET[http2]
        yield Row(
            f"CPU a request, {name}, {subjects:,} subjects",
            f"{ratio:.2f} x ({statistics.median(ours):.0f} µs; Go proxy {statistics.median(theirs):.0f} µs)",
            f"{budget} x with 10,000",
            ratio <= budget if subjects >= 10_000 else short_of(ratio <= budget),
        )


def _cpu_of(rig: Rig, pid: int, address: str, http2: bool, requests: int) -> float:
    """Microseconds of CPU a request."""
    before = processes.cpu_seconds(pid)
    rig.load(address, http2=http2, requests=requests)
    return (processes.cpu_seconds(pid) - before) / requests * 1e6


def latency(rig: Rig, *, requests: int) -> Iterator[Row]:
    """What the gateway adds to the latency at a steady 1,000 requests a second."""
    for http2, name in ((False, "HTTP/1.1"), (True, "HTTP/2")):
        direct = rig.load(rig.member.endpoint + rigs.SIZED, http2=http2, requests=requests, rate=1000, direct=True)
        with rigs.goproxy(rig, http2=http2) as (_, address):
            proxied = rig.load(address, http2=http2, requests=requests, rate=1000)
        ours = rig.load(rig.address, http2=http2, requests=requests, rate=1000)
        p50, p99 = ours.p50 - direct.p50, ours.p99 - direct.p99
        yield Row(
            f"added latency at 1,000 requests/s, {name}",
            f"p50 {p50 / 1000:.2f} ms, p99 {p99 / 1000:.2f} ms (Go proxy {(proxied.p50 - direct.p50) / 1000:.2f} ms, "
            f"{(proxied.p99 - direct.p99) / 1000:.2f} ms)",
            "p50 0.5 ms, p99 5 ms",
            p50 <= 500 and p99 <= 5000,
        )


def bulk(rig: Rig, *, rounds: int, mebibytes: int) -> Row:
    """Throughput of exec, which carries cp, against kubectl straight to the member, alternating."""
    straight = ways.direct(rigs.folder(rig, "straight"), rig.member, "x509")
    gateway = rig.gateway
    passed = ways.through(rigs.folder(rig, "passed"), gateway.kubeconfig, gateway.url, rigs.MEMBER, "x509")
    rates: dict[str, list[float]] = {}
    for _ in range(rounds):
        for name, way in (("straight", straight), ("passed", passed)):
            began = time.monotonic()
            done = way.kubectl("exec", "demo", "--", "head", "-c", f"{mebibytes}M", "/dev/zero")
            if len(done.stdout) != mebibytes << 20:
                raise BenchError(f"exec carried {len(done.stdout)} bytes: {done.stderr.decode()}")
            rates.setdefault(name, []).append(mebibytes / (time.monotonic() - began))
    ours, theirs = statistics.median(rates["passed"]), statistics.median(rates["straight"])
    return Row(
        "bulk, exec over WebSocket",
        f"{ours / theirs:.0%} of direct ({ours:.0f} MiB/s; direct {theirs:.0f} MiB/s)",
        "90% of direct",
        ours >= 0.9 * theirs,
    )


def routable(rig: Rig, *, clusters: int, samples: int) -> Row:
    took = carried(rig.admin, [rig.cluster(f"fresh-{clusters}-{number}") for number in range(samples)], rigs.SIZED)
    return Row(
        f"a new Cluster is routable, {clusters:,} registered",
        spread(took),
        "p99 200 ms with 5,000",
        short_of(max(took) <= 0.2),
    )


def carried(admin: Person, clusters: Iterable[Object], path: str) -> Sequence[float]:
    """Seconds from the answer to the create of each Cluster to the first request for that path which reaches it."""
    took = []
    for cluster in clusters:
        admin.post(rigs.CLUSTERS, cluster)
        at = f"{rigs.CLUSTERS}/{meta.name(cluster)}"
        took.append(_until(functools.partial(admin.client.get, f"{at}/proxy{path}"), 200))
        admin.delete(at)
    return took


def enforced(rig: Rig, *, subjects: int, samples: int) -> Row:
    """From the answer to a change of a Pass to the first request that is decided by it, both directions."""
    took = []
    path = f"{rigs.PASSES}/bench"
    for _ in range(samples):
        for suspended, code in ((True, 403), (False, 200)):
            rig.admin.patch(path, {"spec": {"suspended": suspended}})
            took.append(_until(lambda: rig.user.client.get(rig.address), code))
    return Row(
        f"a changed Pass is enforced, {subjects:,} subjects", spread(took), "p99 1 s with 10,000", max(took) <= 1
    )


def _until(ask: Callable[[], httpx2.Response], code: int) -> float:
    began = time.monotonic()
    while (answer := ask()).status_code != code:
        if time.monotonic() - began > PATIENCE:
            raise BenchError(f"still {answer.status_code} after {PATIENCE} s, not {code}: {answer.text[:300]}")
        time.sleep(PAUSE)
    return time.monotonic() - began


def spread(seconds: Sequence[float]) -> str:
    return f"median {statistics.median(seconds) * 1000:.0f} ms, worst {max(seconds) * 1000:.0f} ms of {len(seconds)}"


def memory(rig: Rig) -> tuple[float, float]:
    """MiB in RAM: of Envoy, of the control plane."""
    return processes.resident_mebibytes(rig.envoy), processes.resident_mebibytes(rig.gateway.process.pid)
