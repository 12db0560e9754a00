"""Becomes Envoy. A program, run by its path and never imported: `envoylauncher.py PARENT_PID COMMAND...`.

Between fork and exec of a program with threads nothing may be done safely, so this is done after an exec: Envoy ends
when its supervisor does (prctl(2), PR_SET_PDEATHSIG), never leaves its memory behind in a core file, and may open as
many connections as the system lets it.
"""

import ctypes
import os
import resource
import signal
import sys

_PR_SET_PDEATHSIG = 1


def main(parent: int, command: list[str]) -> None:
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)
    if os.getppid() != parent:  # it ended before the request above could take effect
        sys.exit(1)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    os.execv(command[0], command)  # noqa: S606  running it is what this is for


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2:])
