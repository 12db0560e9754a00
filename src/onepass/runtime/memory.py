"""How much Envoy may use of what this machine or container has: memory and open files."""

import resource
from pathlib import Path

import psutil

_SHARE = 0.65  # the rest is for the control plane, for what Envoy holds outside of its heap, and for the machine
_CONNECTIONS = 50_000
_LIMITS = ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes")  # cgroup v2, v1


def for_envoy(limits: tuple[Path, ...] = tuple(map(Path, _LIMITS)), machine: int | None = None) -> int:
    """Bytes that Envoy's heap may reach. `limits` are files of the kernel; `machine` is the machine's memory."""
    known = [machine if machine is not None else int(psutil.virtual_memory().total)]
    for path in limits:
        try:
            text = path.read_text().strip()
        except OSError:
            continue
        if text.isdigit():  # "max" is no limit
            known.append(int(text))
    return int(min(known) * _SHARE)


def connections_for_envoy(limit: int | None = None) -> int:
    """Clients' connections at a time: at most half of the open files, as each may need one to a member as well.

    `limit` is the hard limit of open files, which Envoy is started with.
    """
    files = limit if limit is not None else resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    return _CONNECTIONS if files == resource.RLIM_INFINITY else min(_CONNECTIONS, max(1, files // 2))
