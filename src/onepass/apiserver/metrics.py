"""What Prometheus is told, under the names that kube-apiserver uses."""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from starlette.requests import Request
from starlette.responses import Response

from onepass.access.attributes import Attributes
from onepass.apiserver.endpoints import Endpoints

_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)
_LABELS = ("verb", "group", "version", "resource", "subresource")


class Metrics:
    """The counts of one API server. Only kinds that are served become labels, so that no client can make more."""

    def __init__(self, endpoints: Endpoints, registry: CollectorRegistry) -> None:
        self.endpoints = endpoints
        self.registry = registry
        self.requests = Counter("apiserver_request", "Requests.", (*_LABELS, "code"), registry=registry)
        self.duration = Histogram(
            "apiserver_request_duration_seconds",
            "How long requests took, without watches and connections.",
            _LABELS,
            buckets=_BUCKETS,
            registry=registry,
        )
        self.watches = Gauge(
            "apiserver_longrunning_requests", "Watches that are open.", ("resource",), registry=registry
        )

    def observe(self, asked: Attributes | None, code: int, seconds: float) -> None:
        """Count a request that has ended; `asked` is None for one that could not be read."""
        labels = self._labels(asked)
        self.requests.labels(*labels, str(code)).inc()
        if asked is not None and asked.verb != "watch" and code != 101:
            self.duration.labels(*labels).observe(seconds)

    def _labels(self, asked: Attributes | None) -> tuple[str, str, str, str, str]:
        if asked is None or not asked.is_resource or not self.endpoints.serves(asked):
            return (asked.verb if asked is not None and asked.is_resource else "", "", "", "", "")
        return (asked.verb, asked.group, asked.version, asked.resource, asked.subresource)

    async def answer(self, _request: Request) -> Response:
        return Response(generate_latest(self.registry), media_type="text/plain; version=0.0.4; charset=utf-8")
