"""Runs kubemember, the member cluster made of Kubernetes' own kube-apiserver, controllers and streaming library."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.machine import free_port
from tests.programs import golang, gomembers
from tests.programs.gomembers import GoMember

SOURCE = Path(__file__).parent / "kubemember"
VERSION = "v1.37.2"  # of k8s.io/kubernetes in its go.mod
STAMP = "k8s.io/component-base/version."


@contextmanager
def running(data_dir: Path, *flags: str, port: int = 0, http2: bool = True) -> Iterator[GoMember]:
    """A ready cluster until the end of the block; on the same directory and port, the same cluster again.

    `flags` are further ones of kube-apiserver.

    The directory must exist, and the port is a free one when 0. The first build takes minutes. Raises golang.GoMissing.
    """
    major, minor, _ = VERSION.removeprefix("v").split(".")
    executable = golang.build(
        SOURCE, ".", f"{STAMP}gitVersion={VERSION}", f"{STAMP}gitMajor={major}", f"{STAMP}gitMinor={minor}"
    )
    options = [f"-data-dir={data_dir}", f"-port={port or free_port()}", f"-http2={str(http2).lower()}"]
    with gomembers.started(executable, *options, "--", *flags, deadline=120) as member:
        yield member
