"""The first process of a container: starts the command, and ends everything under it when the command or OnePass goes.

A program, run by its path and never imported: `containerinit.py CONTROL_FD tty|pipes COMMAND...`. It leads the
container's session, and adopts orphans (PR_SET_CHILD_SUBREAPER), so that no descendant can hide from it. The server
holds the other end of the control pipe: a byte on it asks everything to terminate, and its end (also when the server
is killed) kills everything. Exit status: that of the command, or 128 plus the signal that ended it.
"""

import contextlib
import ctypes
import errno
import fcntl
import os
import selectors
import signal
import socket
import sys
import termios
from pathlib import Path

_PR_SET_CHILD_SUBREAPER = 36
_OURS = (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT, signal.SIGTSTP, signal.SIGHUP, signal.SIGTTOU, signal.SIGTTIN)


def _children() -> list[int]:
    """Direct children; proc(5), /proc/pid/task/tid/children."""
    me = os.getpid()
    with contextlib.suppress(OSError):
        return [int(pid) for pid in Path(f"/proc/{me}/task/{me}/children").read_text().split()]
    return []


def _signal_all(number: signal.Signals) -> None:
    for pid in _children():
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)


def _start(command: list[str]) -> int:
    pid = os.fork()
    if pid:
        return pid
    for number in (*_OURS, signal.SIGCHLD):
        signal.signal(number, signal.SIG_DFL)
    try:
        os.execvp(command[0], command)  # noqa: S606  running commands is what it is for
    except OSError as error:
        os.write(2, f"{command[0]}: {os.strerror(error.errno or 0)}\n".encode())
        os._exit(127 if error.errno == errno.ENOENT else 126)


def _reap(main: int) -> int | None:
    """Collects every child that has ended; the exit status of `main` when it was among them."""
    ended = None
    while True:
        try:
            pid, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return ended
        if pid == 0:
            return ended
        if pid == main:
            code = os.waitstatus_to_exitcode(status)
            ended = code if code >= 0 else 128 - code


def _kill_everything() -> None:
    """Kills children until none is left: those of a killed child become ours, and go in the next round."""
    with contextlib.suppress(ChildProcessError):
        while True:
            _signal_all(signal.SIGKILL)
            os.waitpid(-1, 0)


def main(control: int, tty: bool, command: list[str]) -> int:
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    if tty:
        fcntl.ioctl(0, termios.TIOCSCTTY, 0)
    for number in _OURS:
        signal.signal(number, lambda *_: None)
    wake, waker = socket.socketpair()
    waker.setblocking(False)
    signal.set_wakeup_fd(waker.fileno(), warn_on_full_buffer=False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    os.set_inheritable(control, False)
    child = _start(command)
    null = os.open(os.devnull, os.O_RDWR)
    for descriptor in (0, 1, 2):
        os.dup2(null, descriptor)  # so that the command's own closing of a pipe is seen at the other end
    selector = selectors.DefaultSelector()
    selector.register(control, selectors.EVENT_READ)
    selector.register(wake, selectors.EVENT_READ)
    while True:
        for key, _ in selector.select():
            if key.fd != control:
                wake.recv(64)
            elif os.read(control, 64):
                _signal_all(signal.SIGTERM)
            else:
                _kill_everything()
                return 137
        code = _reap(child)
        if code is not None:
            _kill_everything()
            return code


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]), sys.argv[2] == "tty", sys.argv[3:]))
