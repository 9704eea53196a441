"""Names and settings of the topics."""

from __future__ import annotations

from rayline.topics import app_topics, dlq_topic, platform_topics, requests_topic, results_topic


def test_an_apps_topics_bear_its_name() -> None:
    specs = app_topics("ocr", partitions=3)
    assert [spec.name for spec in specs] == ["ocr.requests", "ocr.results", "ocr.dlq"]
    assert [requests_topic("ocr"), results_topic("ocr"), dlq_topic("ocr")] == [spec.name for spec in specs]
    assert [spec.partitions for spec in specs] == [3, 3, 1]


def test_every_topic_has_the_brokers_time_and_its_own_name() -> None:
    specs = [*app_topics("a"), *platform_topics()]
    assert all(spec.config["message.timestamp.type"] == "LogAppendTime" for spec in specs)
    assert len({spec.name for spec in specs}) == len(specs)


def test_a_job_of_the_largest_size_fits_as_result_and_as_dead_letter() -> None:
    requests, results, dlq = app_topics("a", max_message_bytes=5_000_000)
    size = int(requests.config["max.message.bytes"])
    assert size == 5_000_000
    assert int(results.config["max.message.bytes"]) > size
    assert int(dlq.config["max.message.bytes"]) > size
