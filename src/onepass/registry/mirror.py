"""A copy of some kinds in memory, kept by watch. Hot paths read it and never the database."""

from collections.abc import Mapping, Sequence

from onepass.api.meta import Object
from onepass.registry.store import Store


class Mirror:
    """Objects of several kinds at one moment. Objects handed out are shared: never alter them."""

    def __init__(self, stores: Mapping[str, Store]) -> None:
        """`stores` by Resource.key, for example {"clusters.cluster.karpor.io": store}."""
        raise NotImplementedError(stores)

    async def run(self) -> None:
        """Follow every store until cancelled; begins again from a list when a watch expires."""
        raise NotImplementedError

    async def synced(self) -> None:
        """Returns once every store has been listed."""
        raise NotImplementedError

    @property
    def generation(self) -> int:
        """Grows with every change of any object."""
        raise NotImplementedError

    async def changed(self, after: int) -> int:
        """Waits until the generation is greater than `after`, and returns it."""
        raise NotImplementedError

    def get(self, key: str, name: str, namespace: str = "") -> Object | None:
        raise NotImplementedError(key, name, namespace)

    def list(self, key: str) -> Sequence[Object]:
        """Every object of a kind, in key order."""
        raise NotImplementedError(key)
