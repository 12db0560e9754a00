"""What is served, as clients discover it: the old documents, one a group, and the aggregated one.

https://kubernetes.io/docs/concepts/overview/kubernetes-api/#discovery-api
"""

import hashlib
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from onepass.api.meta import JSON, Object, Resource
from onepass.apiserver import encoding
from onepass.apiserver.endpoints import Endpoints

Handler = Callable[[Request], Awaitable[Response]]

_AGGREGATED = {"APIGroupDiscoveryList": "apidiscovery.k8s.io"}
_SHARED = ("get", "patch", "update")  # the verbs of a subresource that shares the object


@dataclass(frozen=True, slots=True)
class _Entry:
    """One resource or subresource; `kind` with its group and version."""

    name: str
    kind: str
    group: str
    version: str
    verbs: tuple[str, ...]


class Discovery:
    """The documents, made once: what is served does not change while a server runs."""

    def __init__(self, endpoints: Endpoints) -> None:
        self.endpoints = endpoints
        self.groups = endpoints.groups()

    def routes(self) -> list[Route]:
        found: list[Route] = []
        core: Object = {
            "kind": "APIVersions",
            "versions": [*self.groups.get("", {})],
            "serverAddressByClientCIDRs": [],
        }
        for path, old, groups in (
            ("/api", core, [""]),
            ("/apis", self._group_list(), [group for group in self.groups if group]),
        ):
            answer = _either(old, self._aggregated(groups))
            found += [Route(path, answer), Route(f"{path}/", answer)]
        for group, versions in self.groups.items():
            if group:
                document = {"kind": "APIGroup", "apiVersion": "v1", **self._group(group)}
                found += [Route(f"/apis/{group}{slash}", _fixed(document)) for slash in ("", "/")]
            for version, resources in versions.items():
                path = f"/apis/{group}/{version}" if group else f"/api/{version}"
                found += [Route(f"{path}{slash}", _fixed(self._resources(resources))) for slash in ("", "/")]
        return found

    def _group(self, group: str) -> Object:
        versions: list[JSON] = [
            {"groupVersion": f"{group}/{version}", "version": version} for version in self.groups[group]
        ]
        return {"name": group, "versions": versions, "preferredVersion": versions[0]}

    def _group_list(self) -> Object:
        groups: list[JSON] = [self._group(group) for group in self.groups if group]
        return {"kind": "APIGroupList", "apiVersion": "v1", "groups": groups}

    def _resources(self, resources: list[Resource]) -> Object:
        entries: list[JSON] = []
        for resource in resources:
            for entry in self._entries(resource):
                whole = entry.name == resource.plural
                told: Object = {
                    "name": entry.name,
                    "singularName": resource.singular if whole else "",
                    "namespaced": resource.namespaced,
                    "kind": entry.kind,
                    "verbs": [*entry.verbs],
                }
                if (entry.group, entry.version) != (resource.group, resource.version):
                    told |= {"group": entry.group, "version": entry.version}
                if whole and resource.short_names:
                    told["shortNames"] = [*resource.short_names]
                if whole and resource.categories:
                    told["categories"] = [*resource.categories]
                entries.append(told)
        return {
            "kind": "APIResourceList",
            "apiVersion": "v1",
            "groupVersion": resources[0].api_version,
            "resources": entries,
        }

    def _entries(self, resource: Resource) -> Iterator[_Entry]:
        """The resource, then its subresources."""
        place = (resource.group, resource.version, resource.plural)
        store = self.endpoints.stores.get(place)
        verbs = store.strategy.verbs if store is not None else ("create",)
        yield _Entry(resource.plural, resource.kind, resource.group, resource.version, verbs)
        for name in sorted(store.strategy.subresources if store is not None else ()):
            yield _Entry(f"{resource.plural}/{name}", resource.kind, resource.group, resource.version, _SHARED)
        for connect in self.endpoints.connects_of(resource):
            group, _, version = (connect.api_version or resource.api_version).rpartition("/")
            yield _Entry(f"{resource.plural}/{connect.name}", connect.kind, group, version, connect.verbs)

    def _aggregated(self, groups: list[str]) -> Object:
        items: list[JSON] = []
        for group in groups:
            versions: list[JSON] = [
                {
                    "version": version,
                    "resources": [self._aggregated_resource(resource) for resource in resources],
                    "freshness": "Current",
                }
                for version, resources in self.groups.get(group, {}).items()
            ]
            metadata: Object = {"name": group} if group else {}
            items.append({"metadata": {**metadata, "creationTimestamp": None}, "versions": versions})
        return {"kind": "APIGroupDiscoveryList", "apiVersion": "apidiscovery.k8s.io/v2", "metadata": {}, "items": items}

    def _aggregated_resource(self, resource: Resource) -> Object:
        whole, *parts = self._entries(resource)
        told: Object = {
            "resource": resource.plural,
            "responseKind": _kind(whole),
            "scope": "Namespaced" if resource.namespaced else "Cluster",
            "singularResource": resource.singular,
            "verbs": [*whole.verbs],
        }
        if resource.short_names:
            told["shortNames"] = [*resource.short_names]
        if resource.categories:
            told["categories"] = [*resource.categories]
        if parts:
            told["subresources"] = [
                {"subresource": part.name.partition("/")[2], "responseKind": _kind(part), "verbs": [*part.verbs]}
                for part in parts
            ]
        return told


def _kind(entry: _Entry) -> Object:
    return {"group": entry.group, "version": entry.version, "kind": entry.kind}


def _fixed(document: Object) -> Handler:
    async def answer(request: Request) -> Response:
        return _document(request, document, encoding.negotiate(request.headers.get("accept", "")))

    return answer


def _either(old: Object, aggregated: Object) -> Handler:
    """The aggregated document for clients that name it in Accept, the old one for the others."""

    async def answer(request: Request) -> Response:
        media = encoding.negotiate(request.headers.get("accept", ""), _AGGREGATED)
        return _document(request, aggregated if media.kind else old, media)

    return answer


def _document(request: Request, document: Object, media: encoding.Media) -> Response:
    etag = '"' + hashlib.sha256(encoding.dump(document)).hexdigest().upper() + '"'
    headers = {"ETag": etag, "Vary": "Accept", "Cache-Control": "public"}
    if request.headers.get("if-none-match") == etag:
        return Response(status_code=304, headers=headers)
    return encoding.respond(request, document, media=media, headers=headers)
