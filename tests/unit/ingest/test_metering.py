"""What a lane counts is told with the attributes that are declared, by the operation that the conventions for messaging name."""

from __future__ import annotations

from ingest.metering import JobMeters, publisher_samples
from ingest.publisher import PublisherStatistics
from rayline.metrics import Sample, declared


def told() -> list[Sample]:
    return [*JobMeters().samples("ocr"), *publisher_samples(PublisherStatistics(), "ocr")]


def test_each_sample_has_the_attributes_that_its_metric_declares() -> None:
    for sample in told():
        assert set(sample.attributes) == set(sample.metric.attributes), sample.metric.name


def test_records_are_polled_processed_and_sent() -> None:
    operations = {
        (sample.metric, sample.attributes[declared.DESTINATION]): sample.attributes[declared.OPERATION]
        for sample in told()
        if declared.SYSTEM in sample.attributes
    }
    assert operations == {
        (declared.CONSUMED, "ocr.requests"): "poll",
        (declared.PROCESS_DURATION, "ocr.requests"): "process",
        (declared.SENT, "ocr.results"): "send",
        (declared.SENT, "ocr.dlq"): "send",
    }
