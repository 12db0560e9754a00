"""What Linux tells of a process: proc(5)."""

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

TICK = 1 / os.sysconf("SC_CLK_TCK")


def cpu_seconds(pid: int) -> float:
    """CPU time of all threads since the process started, user and system; Linux counts it in ticks of 10 ms."""
    after_name = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(after_name[11]) + int(after_name[12])) * TICK


def resident_mebibytes(pid: int) -> float:
    """Memory that the process holds in RAM."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) / 1024
    raise ProcessLookupError(pid)


def child(parent: int, name: str) -> int:
    """The child process of that name, as the kernel shortens it. Raises ProcessLookupError."""
    for status in Path("/proc").glob("[0-9]*/stat"):
        try:
            text = status.read_text()
        except OSError:  # it has just ended
            continue
        before, _, after = text.rpartition(")")
        if before.partition("(")[2] == name and int(after.split()[1]) == parent:
            return int(status.parent.name)
    raise ProcessLookupError(f"process {parent} has no child {name!r}")


@contextmanager
def apart(measured: Sequence[int], rest: Sequence[int]) -> Iterator[None]:
    """Keep the measured processes to one core and the rest, with what they start, off it; nothing on a single core."""
    cores = os.sched_getaffinity(0)
    one = {min(cores)}
    before = {pid: os.sched_getaffinity(pid) for pid in (*measured, *rest)}
    for pid in before if len(cores) > 1 else ():
        _keep(pid, one if pid in measured else cores - one)
    try:
        yield
    finally:
        for pid, kept in before.items():
            _keep(pid, kept)


def _keep(pid: int, cores: set[int]) -> None:
    for thread in Path(f"/proc/{pid}/task").iterdir():
        os.sched_setaffinity(int(thread.name), cores)


def processor() -> str:
    """The machine, and how busy it is with other things, as far as that bears on the numbers."""
    models = [
        line.partition(":")[2].strip()
        for line in Path("/proc/cpuinfo").read_text().splitlines()
        if line.startswith("model name")
    ]
    load = os.getloadavg()[0]
    return f"{os.cpu_count()} x {models[0] if models else os.uname().machine}, load average {load:.1f} before the run"
