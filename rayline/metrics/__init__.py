"""Metrics: declared once (`declared`), counted where things happen, gathered each second (`board`), shown by `export`."""

from rayline.metrics import declared
from rayline.metrics.board import MetricsBoard
from rayline.metrics.declared import METRICS, Instrument, Metric, Sample
from rayline.metrics.histogram import Histogram, HistogramSnapshot
from rayline.metrics.process import ProcessMetrics

__all__ = [
    "METRICS",
    "Histogram",
    "HistogramSnapshot",
    "Instrument",
    "Metric",
    "MetricsBoard",
    "ProcessMetrics",
    "Sample",
    "declared",
]
