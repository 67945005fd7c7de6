"""The figures as Prometheus reads them. Needs the extra `metrics`; nothing else in this package does.

The exposition format is prometheus-client's work, and so is what the process itself is at. What we count is copied on
the event loop, which takes microseconds a function; making text of it takes milliseconds, and is done in a thread.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from prometheus_client import CollectorRegistry, ProcessCollector
from prometheus_client.exposition import choose_encoder
from prometheus_client.metrics_core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
)
from prometheus_client.metrics_core import Metric as Family
from prometheus_client.registry import Collector

from nexlet_functions.observing.catalog import CATALOG, EDGES, Kind, Metric
from nexlet_functions.observing.figures import Figures
from nexlet_sandboxes.histogram import Histogram

__all__ = ["exposition"]

_BOUNDS = [str((1 << edge) / 1e6) for edge in EDGES]


def exposition(figures: Figures, accept: str) -> tuple[str, bytes]:
    """The text of a scrape. Blocks for as long as it takes.

    Args:
        accept: the header of that name, by which plain text or OpenMetrics is chosen.

    Returns:
        Its content type and its bytes.
    """
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Figures(figures))
    ProcessCollector(registry=registry)
    encode, content_type = choose_encoder(accept)
    return content_type, encode(registry)


class _Figures(Collector):
    def __init__(self, figures: Figures) -> None:
        self._figures = figures

    def collect(self) -> Iterable[Family]:
        families = {metric.name: _family(metric) for metric in CATALOG.values()}
        for sample in self._figures:
            family = families[sample.name]
            labels = [label.encode("utf-8", "replace").decode() for label in sample.labels]
            if isinstance(family, HistogramMetricFamily):
                assert isinstance(sample.value, Histogram)
                family.add_metric(labels, list(_buckets(sample.value)), sum_value=sample.value.sum_ns / 1e9)
            else:
                assert isinstance(sample.value, int | float)
                family.add_metric(labels, sample.value)
        yield from families.values()


def _family(metric: Metric) -> CounterMetricFamily | GaugeMetricFamily | HistogramMetricFamily:
    if metric.kind is Kind.COUNTER:
        return CounterMetricFamily(metric.name, metric.help, labels=metric.labels)
    if metric.kind is Kind.GAUGE:
        return GaugeMetricFamily(metric.name, metric.help, labels=metric.labels)
    return HistogramMetricFamily(metric.name, metric.help, labels=metric.labels)


def _buckets(histogram: Histogram) -> Iterator[tuple[str, float]]:
    below = sum(histogram.buckets[: EDGES.start])
    for edge, bound in zip(EDGES, _BOUNDS, strict=True):
        # Less than 2^n microseconds: what is at the bound to the nanosecond is in the next one, which nobody can see.
        below += histogram.buckets[edge]
        yield bound, below
    yield "+Inf", histogram.count
