"""What `/metrics` tells of the keys that credentials are sealed with; `onepass seal status` reads it there."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from prometheus_client import Metric
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from onepass.registry.sealed import Census
from onepass.runtime.sealer import Source

CREDENTIALS = "onepass_seal_credentials"
KEYS = "onepass_seal_keys"
SOURCES = "onepass_seal_source_healthy"
WAITING = "onepass_seal_waiting"


@dataclass(frozen=True, slots=True, eq=False)
class SealMetrics(Collector):
    """Gauges, made when they are asked for. Keys are told by their names, which are no secrets."""

    sources: Sequence[Source]
    census: Callable[[], Census]

    def collect(self) -> Iterator[Metric]:
        census = self.census()
        counts = GaugeMetricFamily(CREDENTIALS, "Stored credentials, by the key that sealed them.", labels=("key",))
        for key, count in census.keys.items():
            if count:
                counts.add_metric((key,), count)
        yield counts
        keys = GaugeMetricFamily(KEYS, "Keys at hand; 1 for the one that seals now.", labels=("key", "source"))
        for number, source in enumerate(self.sources):
            for at, key in enumerate(source.keys):
                keys.add_metric((key, source.name), int(number == at == 0))
        yield keys
        healthy = GaugeMetricFamily(SOURCES, "Whether a source of keys is of use now.", labels=("source",))
        for source in self.sources:
            healthy.add_metric((source.name,), int(not source.why))
        yield healthy
        yield GaugeMetricFamily(WAITING, "Credentials that the key of now has not sealed yet.", value=census.waiting)
