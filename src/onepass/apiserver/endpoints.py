"""The one table of what is served: discovery, OpenAPI and the dispatcher read the same."""

from collections.abc import Iterator, Sequence

from onepass.access.attributes import Attributes
from onepass.api import errors
from onepass.api.meta import Resource
from onepass.apiserver.ports import Connect, Kindless
from onepass.registry.store import Store

Endpoint = Store | Connect | Kindless

_WITHOUT_NAME = frozenset({"list", "watch", "deletecollection"})


class Endpoints:
    """Stores, connects and kindless kinds by the path that leads to them, in the order of discovery."""

    def __init__(self, stores: Sequence[Store], connects: Sequence[Connect], kindless: Sequence[Kindless]) -> None:
        self.stores = {_place(store.strategy.resource): store for store in stores}
        self.connects = {(*_place(connect.parent), connect.name): connect for connect in connects}
        self.kindless = {_place(kind.resource): kind for kind in kindless}

    def resources(self) -> Iterator[Resource]:
        """Every kind that has a path of its own, core group first."""
        every = [store.strategy.resource for store in self.stores.values()]
        every += [kind.resource for kind in self.kindless.values()]
        yield from sorted(every, key=lambda resource: resource.group != "")

    def groups(self) -> dict[str, dict[str, list[Resource]]]:
        """Group -> version -> kinds, in the order of discovery; the first version of a group is the preferred one."""
        found: dict[str, dict[str, list[Resource]]] = {}
        for resource in self.resources():
            found.setdefault(resource.group, {}).setdefault(resource.version, []).append(resource)
        return found

    def connects_of(self, resource: Resource) -> list[Connect]:
        return [connect for connect in self.connects.values() if connect.parent == resource]

    def connect(self, asked: Attributes) -> Connect | None:
        """The handler of its own that a request leads to, if it does."""
        return self.connects.get((asked.group, asked.version, asked.resource, asked.subresource))

    def serves(self, asked: Attributes) -> bool:
        """Whether a request is for anything that is here."""
        place = (asked.group, asked.version, asked.resource)
        if not asked.subresource:
            return place in self.stores or place in self.kindless
        store = self.stores.get(place)
        return self.connect(asked) is not None or (
            store is not None and asked.subresource in store.strategy.subresources
        )

    def find(self, asked: Attributes) -> Endpoint:
        """What serves a resource request. Raises no_such_path, also for a path that is longer than what it names."""
        place = (asked.group, asked.version, asked.resource)
        found: Endpoint | None = self.connect(asked) or self.stores.get(place) or self.kindless.get(place)
        if found is None or not self.serves(asked) or not _leads_to(found, asked):
            raise errors.no_such_path()
        return found


def resource_of(endpoint: Endpoint) -> Resource:
    """The kind that an endpoint belongs to."""
    if isinstance(endpoint, Connect):
        return endpoint.parent
    return endpoint.strategy.resource if isinstance(endpoint, Store) else endpoint.resource


def base(resource: Resource) -> str:
    """The path of a group and version."""
    return f"/apis/{resource.api_version}" if resource.group else f"/api/{resource.version}"


def _place(resource: Resource) -> tuple[str, str, str]:
    return (resource.group, resource.version, resource.plural)


def _leads_to(endpoint: Endpoint, asked: Attributes) -> bool:
    """Whether the path is exactly the one that these attributes stand for, so that nothing of it goes unread."""
    resource = resource_of(endpoint)
    name = "" if asked.verb in _WITHOUT_NAME else asked.name
    if asked.subresource and not name:
        return False
    path = base(resource)
    if resource.namespaced:
        if asked.namespace:
            path += f"/namespaces/{asked.namespace}"
        elif name:
            return False
    path += "".join(f"/{part}" for part in (resource.plural, name, asked.subresource) if part)
    tailed = isinstance(endpoint, Connect) and endpoint.tail
    return asked.path == path or (tailed and asked.path.startswith(f"{path}/"))
