"""How much memory Envoy may use: a share of what this machine or container has."""

from pathlib import Path

import psutil

_SHARE = 0.65  # the rest is for the control plane, for what Envoy holds outside of its heap, and for the machine
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
