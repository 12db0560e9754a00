"""Keeps DIR/admin.kubeconfig: a context for the gateway and one for each member cluster, as they come and go."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from onepass.api import meta
from onepass.registry import changes
from onepass.registry.mirror import Mirror
from onepass.runtime import datadir, kubeconfig

_FIRST = 0.1  # seconds after a change: what makes a cluster reachable is done before what names it
_HOLD = 0.5  # seconds in which an import's clusters gather
_CLUSTERS = "clusters.cluster.karpor.io"


@dataclass(slots=True)
class AdminKubeconfig:
    """The file. A current context that a person chose stays, as long as it is there."""

    path: Path
    entry: kubeconfig.Entry
    mirror: Mirror

    _writer: kubeconfig.Writer = field(default_factory=kubeconfig.Writer)
    _written: list[str] | None = None
    _left: tuple[int, int, str] | None = None  # how the file was left: what tells it from others, its current context

    def renew(self, entry: kubeconfig.Entry) -> None:
        """Write the file with what is needed from now on to reach the gateway."""
        self.entry = entry
        if self._written is not None:
            self.write(self._written, self._chosen())

    async def run(self) -> None:
        """Until cancelled."""
        clusters = self.mirror.follow({_CLUSTERS: changes.exists})
        while True:
            chosen = await asyncio.to_thread(self._chosen)  # reading a long one would hold up everybody
            names = [meta.name(cluster) for cluster in self.mirror.list(_CLUSTERS)]
            if names != self._written:
                self.write(names, chosen)
                self._written = names
                await asyncio.sleep(_HOLD)
            await clusters.next()
            await asyncio.sleep(_FIRST)

    def write(self, names: Sequence[str], current: str) -> None:
        """Write the file if it would differ."""
        config = kubeconfig.document(self.entry, names, current=current)
        before = self.path.read_bytes() if self.path.exists() else b""
        after = self._writer.dump(config)
        if after != before:
            datadir.write_private(self.path, after)
        self._left = (*_identity(self.path), str(config["current-context"]))

    def _chosen(self) -> str:
        """The current context: the one written, unless somebody has changed the file since."""
        try:
            if self._left and self._left[:2] == _identity(self.path):
                return self._left[2]
            return kubeconfig.current_context(self.path.read_bytes())
        except FileNotFoundError:
            return ""


def _identity(path: Path) -> tuple[int, int]:
    """Another one for a file that was written since: in place, or by putting another one there."""
    told = path.stat()
    return told.st_ino, told.st_mtime_ns
