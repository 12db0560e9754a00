"""What Prometheus is told, under the names that kube-apiserver uses.

https://kubernetes.io/docs/reference/instrumentation/metrics/
"""

from collections.abc import Iterator
from contextlib import contextmanager

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.process_collector import ProcessCollector
from starlette.requests import Request
from starlette.responses import Response

from onepass.access.attributes import Attributes
from onepass.api.meta import Resource
from onepass.apiserver.endpoints import Endpoints
from onepass.registry import selection

_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)
_LABELS = ("verb", "group", "version", "resource", "subresource", "scope", "component")
_VERBS = {"create": "POST", "update": "PUT"}  # the others go by their own name
_SIZES = tuple(1000 * 10**power for power in range(7))


class Metrics:
    """The counts of one API server. Only kinds that are served become labels, so that no client can make more."""

    def __init__(self, endpoints: Endpoints, registry: CollectorRegistry) -> None:
        self.endpoints = endpoints
        self.registry = registry
        ProcessCollector(registry=registry)
        self.requests = Counter("apiserver_request", "Requests.", (*_LABELS, "code"), registry=registry)
        self.terminations = Counter(
            "apiserver_request_terminations",
            "Requests that were ended to protect the server.",
            (*_LABELS, "code"),
            registry=registry,
        )
        self.duration = Histogram(
            "apiserver_request_duration_seconds",
            "How long requests took, without watches and connections.",
            _LABELS,
            buckets=_BUCKETS,
            registry=registry,
        )
        self.sizes = Histogram(
            "apiserver_response_sizes", "Bytes of answers, without watches.", _LABELS, buckets=_SIZES, registry=registry
        )
        self.running = Gauge(
            "apiserver_current_inflight_requests",
            "Requests that are being answered, without watches and connections.",
            ("request_kind",),
            registry=registry,
        )
        self.watches = Gauge("apiserver_longrunning_requests", "Watches that are open.", _LABELS, registry=registry)
        self.events = Counter(
            "apiserver_watch_events", "Events that watches told.", ("group", "version", "resource"), registry=registry
        )
        self.objects = Gauge(
            "apiserver_resource_objects", "Objects in the storage.", ("group", "resource"), registry=registry
        )

    def observe(self, asked: Attributes | None, code: int, seconds: float, size: int) -> None:
        """Count a request that has ended; `asked` is None for one that could not be read."""
        labels = self._labels(asked)
        self.requests.labels(*labels, str(code)).inc()
        if asked is not None and asked.verb != "watch" and code != 101:
            self.duration.labels(*labels).observe(seconds)
            self.sizes.labels(*labels).observe(size)

    def dropped(self, asked: Attributes, code: int) -> None:
        """Count a request that was turned away."""
        self.terminations.labels(*self._labels(asked), str(code)).inc()

    @contextmanager
    def watching(self, asked: Attributes) -> Iterator[None]:
        """Count a watch as open."""
        with self.watches.labels(*self._labels(asked)).track_inprogress():
            yield

    def told(self, resource: Resource) -> None:
        """Count an event of a watch."""
        self.events.labels(resource.group, resource.version, resource.plural).inc()

    def _labels(self, asked: Attributes | None) -> tuple[str, ...]:
        if asked is None or not asked.is_resource or not self.endpoints.serves(asked):
            return (_verb(asked) if asked is not None and asked.is_resource else "", "", "", "", "", "", "apiserver")
        scope = "resource" if asked.name else "namespace" if asked.namespace else "cluster"
        place = (asked.group, asked.version, asked.resource, asked.subresource)
        return (_verb(asked), *place, scope, "apiserver")

    async def answer(self, _request: Request) -> Response:
        for store in self.endpoints.stores.values():
            resource = store.strategy.resource
            listing = await store.list("", selection.EVERYTHING, limit=1)
            count = len(listing.items) + (listing.remaining or 0)
            self.objects.labels(resource.group, resource.plural).set(count)
        return Response(generate_latest(self.registry), media_type="text/plain; version=0.0.4; charset=utf-8")


def _verb(asked: Attributes) -> str:
    return _VERBS.get(asked.verb, asked.verb.upper())
