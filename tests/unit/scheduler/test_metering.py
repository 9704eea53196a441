"""Counts that Prometheus compares exist from the start, as 0: one that begins at its first event would not have grown by it."""

from __future__ import annotations

from rayline.metrics import Sample, declared
from scheduler.batch import Cause
from scheduler.metering import DispatchSamples, view_samples
from scheduler.statistics import Counters
from scheduler.view import Standing, View


def by(attribute: str, samples: list[Sample]) -> dict[str, object]:
    return {sample.attributes[attribute]: sample.value for sample in samples if attribute in sample.attributes}


def test_every_cause_of_a_retry_is_told_before_there_was_one() -> None:
    counters, samples = Counters(), DispatchSamples()
    assert by(declared.CAUSE, list(samples.read(counters.snapshot()))) == {"evicted": 0, "killed": 0, "hung": 0, "error": 0}
    counters.repeat(Cause.EVICTED, 5)
    assert by(declared.CAUSE, list(samples.read(counters.snapshot())))["evicted"] == 5


def test_every_standing_is_told_though_no_node_has_it() -> None:
    told = by(declared.STANDING, list(view_samples(View(), 0.0)))
    assert told == dict.fromkeys((standing.value for standing in Standing), 0)
