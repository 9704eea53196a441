"""Snapshots shown through OpenTelemetry's SDK: a Prometheus page, and OTLP where the environment asks for it.

The SDK is imported by the first question or at the start of OTLP, never at a lane's start: it takes half a second. Its own
histograms record value by value, which costs several times what a job may; ours are added to what the SDK collects.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from functools import partial
from time import monotonic, time_ns
from typing import Any, Final

from opentelemetry.metrics import CallbackOptions, Observation
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics import export as sdk
from opentelemetry.sdk.resources import SERVICE_INSTANCE_ID, SERVICE_NAME, Resource

from rayline.errors import ConfigError
from rayline.metrics.board import MetricsBoard, Snapshot
from rayline.metrics.declared import LOOP_AGE, LOOP_DELAY, METRICS, Instrument, Metric, Sample
from rayline.metrics.histogram import HistogramSnapshot

_SCOPE: Final = "rayline"


class PrometheusPage:
    """Owns a meter provider that is read when somebody asks. May be used by any one thread. Life: `text` … → `close`."""

    def __init__(self, board: MetricsBoard) -> None:
        from opentelemetry.exporter.prometheus import PrometheusMetricReader
        from prometheus_client import CollectorRegistry

        self._registry = CollectorRegistry(auto_describe=False)
        started_ns = time_ns()

        class Reader(PrometheusMetricReader):
            def _receive_metrics(self, metrics_data: sdk.MetricsData, timeout_millis: float = 10_000, **kwargs: Any) -> None:
                super()._receive_metrics(_with_histograms(metrics_data, board, started_ns), timeout_millis, **kwargs)

        self._provider = _provider(board, [Reader(disable_target_info=True, scope_info_enabled=False, registry=self._registry)])

    def text(self) -> bytes:
        """All metrics in Prometheus' text format."""
        from prometheus_client import generate_latest

        return generate_latest(self._registry)

    def close(self) -> None:
        self._provider.shutdown()


def start_otlp(board: MetricsBoard) -> Callable[[], None]:
    """Export as the variables OTEL_… say, in a thread of the SDK; returns what ends and flushes it.

    Raises:
        ConfigError: the exporter is not installed.
    """
    try:
        from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
    except ImportError as error:
        raise ConfigError(
            "OTEL_EXPORTER_OTLP_ENDPOINT is set, but the exporter is not installed: pip install 'rayline[otlp]'"
        ) from error
    started_ns = time_ns()

    class Exporter(OTLPMetricExporter):
        def export(
            self, metrics_data: sdk.MetricsData, timeout_millis: float | None = 10_000, **kwargs: Any
        ) -> sdk.MetricExportResult:
            return super().export(_with_histograms(metrics_data, board, started_ns), timeout_millis, **kwargs)

    return _provider(board, [sdk.PeriodicExportingMetricReader(Exporter())]).shutdown


def _provider(board: MetricsBoard, readers: list[sdk.MetricReader]) -> MeterProvider:
    common = board.common()
    name = f"rayline-{common.get('rayline.role', 'process')}"
    resource = Resource.create({SERVICE_NAME: name, SERVICE_INSTANCE_ID: common.get("rayline.process", name)})
    provider = MeterProvider(metric_readers=readers, resource=resource, shutdown_on_exit=False)
    meter = provider.get_meter(_SCOPE)
    makers: Mapping[Instrument, Callable[..., object]] = {
        Instrument.COUNTER: meter.create_observable_counter,
        Instrument.UP_DOWN: meter.create_observable_up_down_counter,
        Instrument.GAUGE: meter.create_observable_gauge,
    }
    for metric in METRICS.values():
        if metric.instrument is not Instrument.HISTOGRAM:
            makers[metric.instrument](
                metric.name, callbacks=[partial(_observe, board, metric)], unit=metric.unit, description=metric.description
            )
    return provider


def _observe(board: MetricsBoard, metric: Metric, _: CallbackOptions) -> Iterable[Observation]:
    snapshot = board.snapshot
    if metric is LOOP_AGE:
        return [Observation(monotonic() - snapshot.at, dict(board.common()))]
    if metric is LOOP_DELAY:
        return [Observation(snapshot.delay_seconds, dict(board.common()))]
    return [
        Observation(sample.value, dict(sample.attributes))
        for sample in snapshot.samples.get(metric, ())
        if not isinstance(sample.value, HistogramSnapshot)
    ]


def _with_histograms(data: sdk.MetricsData, board: MetricsBoard, started_ns: int) -> sdk.MetricsData:
    """What the SDK collected, and our histograms under the same resource and scope."""
    ours = _histograms(board.snapshot, started_ns)
    if not ours or data is None or not data.resource_metrics:
        return data
    first, *others = data.resource_metrics
    scope, *scopes = first.scope_metrics
    first = replace(first, scope_metrics=[replace(scope, metrics=[*scope.metrics, *ours]), *scopes])
    return replace(data, resource_metrics=[first, *others])


def _histograms(snapshot: Snapshot, started_ns: int) -> list[sdk.Metric]:
    return [
        sdk.Metric(
            metric.name,
            metric.description,
            metric.unit,
            sdk.Histogram([_point(sample, started_ns) for sample in samples], sdk.AggregationTemporality.CUMULATIVE),
        )
        for metric, samples in snapshot.samples.items()
        if metric.instrument is Instrument.HISTOGRAM
    ]


def _point(sample: Sample, started_ns: int) -> sdk.HistogramDataPoint:
    value = sample.value
    assert isinstance(value, HistogramSnapshot)
    return sdk.HistogramDataPoint(
        attributes=dict(sample.attributes),
        start_time_unix_nano=started_ns,
        time_unix_nano=time_ns(),
        count=value.count,
        sum=value.total,
        bucket_counts=value.counts,
        explicit_bounds=value.bounds,
        # Not known; the exporters in use do not pass them on.
        min=0.0,
        max=0.0,
    )
