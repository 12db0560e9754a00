"""What one client wants and holds of one resource type: the bookkeeping of the delta protocol, without any I/O.

Rules: https://www.envoyproxy.io/docs/envoy/latest/api-docs/xds_protocol, "How the client specifies what resources to
return", "Deleting resources" and "Unsubscribing from resources".
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

from onepass.xds.snapshot import Resource

WILDCARD = "*"
_ABSENT = ""  # the version of a resource that the client was told is not there


@dataclass(slots=True)
class Subscription:
    """One resource type on one stream."""

    wildcard: bool = False
    names: set[str] = field(default_factory=set)
    owed: bool = False  # an answer is awaited even if it is empty
    _held: dict[str, str] = field(default_factory=dict)  # name -> version, as far as was sent
    _begun: bool = False
    _touched: set[str] = field(default_factory=set)  # names to look at before the snapshot changes again
    _all: bool = True

    def request(
        self, subscribe: Collection[str], unsubscribe: Collection[str], initial_versions: Mapping[str, str]
    ) -> None:
        """Take in one request. `initial_versions` counts only in the first one: what a client that reconnects holds."""
        if not self._begun:
            self._begun = True
            self._held = dict(initial_versions)
            self.wildcard = not subscribe  # a first request without names is the older way to ask for everything
            self.owed = not initial_versions and (self.wildcard or WILDCARD in subscribe)
            again: Collection[str] = ()
        else:
            again = subscribe  # asked for anew means wanted anew, held or not
        if WILDCARD in subscribe:
            self.wildcard = self._all = True
        if WILDCARD in unsubscribe:
            self.wildcard = False
            self._held = {name: version for name, version in self._held.items() if name in self.names}
        for name in again:
            self._held.pop(name, None)
        self.names.update(name for name in subscribe if name != WILDCARD)
        self.names.difference_update(unsubscribe)
        for name in unsubscribe:
            self._held.pop(name, None)
        # Who leaves a name but keeps the wildcard is told how that resource stands.
        self._touched.update(name for name in (*subscribe, *unsubscribe) if name != WILDCARD)

    @property
    def due(self) -> bool:
        """Whether the client may have to be sent something that `pending` has not told yet."""
        return self.owed or self._all or bool(self._touched)

    def invalidate(self) -> None:
        """The snapshot has changed: look at every name the next time."""
        self._all = True

    def pending(self, resources: Mapping[str, Resource]) -> tuple[list[str], list[str]]:
        """What must be sent now, sorted: names whose resource is new to the client, and names that are gone.

        Looking at it counts as having sent it.
        """
        if self._all:
            look: Collection[str] = self._held.keys() | self.names | self._touched
            if self.wildcard:
                look = look | resources.keys()
        else:
            look = self._touched
        changed: list[str] = []
        removed: list[str] = []
        for name in look:
            resource = resources.get(name)
            if resource is None:
                if self._gone(name):
                    removed.append(name)
            elif (self.wildcard or name in self.names) and self._held.get(name) != resource.version:
                self._held[name] = resource.version
                changed.append(name)
        self._all = self.owed = False
        self._touched = set()
        return sorted(changed), sorted(removed)

    def _gone(self, name: str) -> bool:
        """Whether the client must still be told that `name` is not there."""
        if name in self.names:
            told = self._held.get(name) == _ABSENT
            self._held[name] = _ABSENT
            return not told
        return self._held.pop(name, None) is not None or (self.wildcard and name in self._touched)
