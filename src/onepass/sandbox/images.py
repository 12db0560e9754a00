"""What an image runs when a pod gives no command.

The sandbox pulls no image. A command is run with the host's programs whatever the image is called; without one,
the last part of the image's name chooses from this table: `kubectl run web --image nginx` does something sensible.
"""

import sys
from collections.abc import Callable, Mapping, Sequence

_SHELLS = ("alpine", "bash", "busybox", "debian", "fedora", "ubuntu")
_SITES = ("httpd", "nginx")


def _shell(stdin: bool, _port: int) -> Sequence[str]:
    # A shell without input would end at once; these images are mostly there to be entered.
    return ("sh",) if stdin else ("sleep", "2147483647")


def _site(_stdin: bool, port: int) -> Sequence[str]:
    return (sys.executable, "-u", "-m", "http.server", "--bind", "127.0.0.1", str(port))


_COMMANDS: Mapping[str, Callable[[bool, int], Sequence[str]]] = {
    **dict.fromkeys(_SHELLS, _shell),
    **dict.fromkeys(_SITES, _site),
    "pause": lambda _stdin, _port: ("sleep", "2147483647"),
}

KNOWN = tuple(sorted(_COMMANDS))


def default_command(image: str, *, stdin: bool, port: int) -> Sequence[str] | None:
    """The command of an image, or None when the sandbox does not know it. `port` is where a web server shall listen."""
    repository = image.partition("@")[0].rsplit("/", 1)[-1].partition(":")[0]
    make = _COMMANDS.get(repository)
    return make(stdin, port) if make is not None else None
