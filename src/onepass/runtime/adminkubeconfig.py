"""Keeps DIR/admin.kubeconfig: a context for the gateway and one for each member cluster, as they come and go."""

from dataclasses import dataclass
from pathlib import Path

from onepass.api import meta
from onepass.registry.mirror import Mirror
from onepass.runtime import datadir, kubeconfig

_CLUSTERS = "clusters.cluster.karpor.io"


@dataclass(frozen=True, slots=True)
class AdminKubeconfig:
    """The file. A current context that a person chose stays, as long as it is there."""

    path: Path
    entry: kubeconfig.Entry
    mirror: Mirror

    async def run(self) -> None:
        """Until cancelled."""
        generation = -1
        while True:
            generation = await self.mirror.changed(generation)
            self.write()

    def write(self) -> None:
        """Write the file if it would differ."""
        names = [meta.name(cluster) for cluster in self.mirror.list(_CLUSTERS)]
        before = self.path.read_bytes() if self.path.exists() else b""
        current = kubeconfig.current_context(before)
        after = kubeconfig.dump(kubeconfig.document(self.entry, names, current=current))
        if after != before:
            datadir.write_private(self.path, after)
