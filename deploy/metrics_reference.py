"""The metrics as Prometheus names them, and docs/metrics.md made from their declarations."""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import cache
from typing import Final

from rayline.metrics import METRICS, Histogram, Instrument, Metric, MetricsBoard, Sample
from rayline.metrics.declared import LOOP_AGE, LOOP_DELAY, PROCESS_ATTRIBUTES
from rayline.metrics.export import PrometheusPage

_TYPE: Final = re.compile(r"^# TYPE (\S+) (\S+)$", re.MULTILINE)


@cache
def prometheus_names() -> Mapping[str, str]:
    """The name at /metrics of each declared metric (of a histogram without `_bucket`, `_count`, `_sum`)."""
    board = MetricsBoard(now=0.0)
    page = PrometheusPage(board)
    shown: dict[str, str] = {}
    asked: list[Metric] = []
    board.source(lambda _: [_example(metric) for metric in asked])
    try:
        # These two are always there, and so are told apart first: the delay from what is there besides it.
        always = set(_shown(board, page))
        for metric in METRICS.values():
            if metric not in (LOOP_AGE, LOOP_DELAY):
                asked[:] = [metric]
                (shown[metric.name],) = set(_shown(board, page)) - always
        for metric in (LOOP_AGE, LOOP_DELAY):
            (shown[metric.name],) = (name for name in always if name.startswith(metric.name.replace(".", "_")))
    finally:
        page.close()
    return {name: shown[name] for name in METRICS}


def series() -> frozenset[str]:
    """Every name that a query may use."""
    found = set()
    for name, shown in prometheus_names().items():
        histogram = METRICS[name].instrument is Instrument.HISTOGRAM
        found |= {f"{shown}_{part}" for part in ("bucket", "count", "sum")} if histogram else {shown}
    return frozenset(found)


def metrics() -> str:
    """The table of docs/metrics.md."""
    names = prometheus_names()
    rows = [
        f"| `{metric.name}` | `{names[metric.name]}` | {metric.instrument.value} | {_unit(metric)} | "
        f"{', '.join(role.value for role in metric.roles)} | {', '.join(f'`{name}`' for name in metric.attributes)} | "
        f"{metric.description} |"
        for metric in METRICS.values()
    ]
    head = ["| metric | at /metrics | kind | unit | processes | attributes | meaning |", "|---|---|---|---|---|---|---|"]
    return "\n".join([*head, *rows, ""])


def attributes() -> str:
    """What every metric carries besides its own attributes."""
    return "\n".join([f"- `{name}`" for name in PROCESS_ATTRIBUTES] + [""])


def label(attribute: str) -> str:
    """An attribute as Prometheus' label."""
    return attribute.replace(".", "_")


def _shown(board: MetricsBoard, page: PrometheusPage) -> list[str]:
    board.gather(0.0)
    return [name for name, _ in _TYPE.findall(page.text().decode())]


def _example(metric: Metric) -> Sample:
    value = Histogram(metric.bounds).snapshot() if metric.instrument is Instrument.HISTOGRAM else 1
    return Sample(metric, value, dict.fromkeys(metric.attributes, "x"))


def _unit(metric: Metric) -> str:
    return metric.unit.strip("{}") if metric.unit != "1" else ""
