"""What tests share on one machine: ports, and one at a time building into the build folder."""

import fcntl
import itertools
import os
import random
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).parents[1]
BUILD = ROOT / "build"

# Below the ports that the kernel gives to outgoing connections, which would take one of a server that restarts.
_FIRST, _BEHIND_LAST = 10_000, 32_000


def _lane() -> Iterator[int]:
    """Ports that no other worker of the same run gives out, begun somewhere else in each run."""
    worker = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
    workers = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
    ports = range(_FIRST + worker, _BEHIND_LAST, workers)
    begin = random.randrange(len(ports))
    return itertools.cycle([*ports[begin:], *ports[:begin]])


_ports = _lane()


def free_port(host: str = "127.0.0.1") -> int:
    """A TCP port on which nothing listens, and that is not given out again soon."""
    for port in _ports:
        with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as listener:
            try:
                listener.bind((host, port))
            except OSError:
                continue
            return port
    raise AssertionError("the ports never end")


@contextmanager
def building() -> Iterator[None]:
    """One process at a time: others wait, and then find what was built."""
    BUILD.mkdir(exist_ok=True)
    with (BUILD / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
