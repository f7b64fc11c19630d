"""The metrics of several processes as one exposition: every series with the number of its process as a label.

Not here: how their texts are fetched (`recsae.rpc.process_group`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.registry import Collector

LABEL = "process"


class JoinedMetrics(Collector):
    """Collects the texts anew for each scrape."""

    def __init__(
        self, texts: Callable[[], Sequence[str]], restarts: Callable[[], Sequence[int]], strangers: Callable[[], int]
    ) -> None:
        """`texts` are expositions in Prometheus' text format, one a process, empty of one that does not answer."""
        self._texts, self._restarts, self._strangers = texts, restarts, strangers

    def describe(self) -> Iterable[Metric]:
        """Nothing: what there is only the processes know."""
        return ()

    def collect(self) -> Iterable[Metric]:
        """Every series of every process, and which processes answer."""
        joined: dict[str, Metric] = {}
        up = GaugeMetricFamily("recsae_process_up", "1 when the process answers.", labels=(LABEL,))
        for number, text in enumerate(self._texts()):
            up.add_metric((str(number),), float(bool(text)))
            for family in text_string_to_metric_families(text):
                own = joined.setdefault(family.name, Metric(family.name, family.documentation, family.type))
                for sample in family.samples:
                    own.add_sample(sample.name, {LABEL: str(number), **sample.labels}, sample.value)
        restarts = CounterMetricFamily(
            "recsae_process_restarts", "Starts of the process after it died.", labels=(LABEL,)
        )
        for number, count in enumerate(self._restarts()):
            restarts.add_metric((str(number),), count)
        strangers = GaugeMetricFamily(
            "recsae_port_strangers", "Sockets of other programs that take connections on the shared port."
        )
        strangers.add_metric((), self._strangers())
        return [*joined.values(), up, restarts, strangers]
