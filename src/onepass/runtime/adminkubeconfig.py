"""Keeps DIR/admin.kubeconfig: a context for the gateway and one for each member cluster, as they come and go."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from onepass.api import meta
from onepass.registry import changes
from onepass.registry.mirror import Mirror
from onepass.runtime import datadir, kubeconfig

_HOLD = 0.5  # seconds in which an import's clusters gather
_CLUSTERS = "clusters.cluster.karpor.io"


@dataclass(slots=True)
class AdminKubeconfig:
    """The file. A current context that a person chose stays, as long as it is there."""

    path: Path
    entry: kubeconfig.Entry
    mirror: Mirror

    _written: list[str] | None = None

    def renew(self, entry: kubeconfig.Entry) -> None:
        """Write the file with what is needed from now on to reach the gateway."""
        self.entry = entry
        if self._written is not None:
            self.write(self._written)

    async def run(self) -> None:
        """Until cancelled."""
        clusters = self.mirror.follow({_CLUSTERS: changes.exists})
        while True:
            names = [meta.name(cluster) for cluster in self.mirror.list(_CLUSTERS)]
            if names != self._written:
                self.write(names)
                self._written = names
                await asyncio.sleep(_HOLD)  # a file for many clusters is long
            await clusters.next()

    def write(self, names: Sequence[str]) -> None:
        """Write the file if it would differ."""
        before = self.path.read_bytes() if self.path.exists() else b""
        current = kubeconfig.current_context(before)
        after = kubeconfig.dump(kubeconfig.document(self.entry, names, current=current))
        if after != before:
            datadir.write_private(self.path, after)
