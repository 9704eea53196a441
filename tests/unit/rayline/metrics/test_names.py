"""Names that OpenTelemetry's conventions have are theirs, whatever else is `rayline.…`."""

from __future__ import annotations

import pytest
from opentelemetry.semconv._incubating.attributes import messaging_attributes
from opentelemetry.semconv._incubating.metrics import messaging_metrics, process_metrics

from rayline.metrics import METRICS, Instrument, Metric

KNOWN_METRICS = {
    value for module in (messaging_metrics, process_metrics) for name, value in vars(module).items() if name.isupper()
}
KNOWN_ATTRIBUTES = {value for name, value in vars(messaging_attributes).items() if name.isupper()}
# As the conventions give them, for those of theirs that we have.
CONVENTIONS = {
    "messaging.client.consumed.messages": (Instrument.COUNTER, "{message}"),
    "messaging.client.sent.messages": (Instrument.COUNTER, "{message}"),
    "messaging.process.duration": (Instrument.HISTOGRAM, "s"),
    "process.cpu.time": (Instrument.COUNTER, "s"),
    "process.memory.usage": (Instrument.UP_DOWN, "By"),
    "process.unix.file_descriptor.count": (Instrument.UP_DOWN, "{file_descriptor}"),
}


@pytest.mark.parametrize("metric", METRICS.values(), ids=lambda metric: metric.name)
def test_a_name_is_the_conventions_or_ours(metric: Metric) -> None:
    if metric.name.startswith("rayline."):
        assert "messaging" not in metric.name
    else:
        assert metric.name in KNOWN_METRICS
        assert (metric.instrument, metric.unit) == CONVENTIONS[metric.name]
    assert {name for name in metric.attributes if not name.startswith("rayline.")} <= KNOWN_ATTRIBUTES


def test_what_is_told_of_messages_names_its_system_operation_and_destination() -> None:
    for metric in METRICS.values():
        if metric.name.startswith("messaging."):
            assert {"messaging.system", "messaging.operation.name", "messaging.destination.name"} <= set(metric.attributes)
