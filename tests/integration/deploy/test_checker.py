"""The judge sees a real topic as a read_committed consumer does: aborted results are not there."""

import uuid

import pytest
from confluent_kafka import Producer

from bench.load import PARTITIONS, JobProducer, create_topics, key
from deploy.checker import Correlation, check
from deploy.committed_reader import end_offsets, read_committed
from rayline.bus import KafkaSettings
from rayline.errors import BrokerUnavailable
from rayline.topics import requests_topic, results_topic

pytestmark = pytest.mark.integration


@pytest.fixture
def app(kafka: KafkaSettings) -> str:
    name = f"checked-{uuid.uuid4().hex[:8]}"
    create_topics(kafka.bootstrap_servers, name)
    return name


def _give_jobs(servers: str, app: str, numbers: range) -> None:
    jobs = JobProducer(servers, requests_topic(app), linger_ms=1)
    for number in numbers:
        jobs.send(number)
    jobs.flush()


def _answer(servers: str, app: str, numbers: range, *, commit: bool) -> None:
    producer = Producer({"bootstrap.servers": servers, "transactional.id": uuid.uuid4().hex})
    producer.init_transactions(30)
    producer.begin_transaction()
    for number in numbers:
        partition, offset = number % PARTITIONS, number // PARTITIONS
        source = f"{requests_topic(app)}/{partition}/{offset}"
        headers = [("source", source.encode()), ("job-id", f"{partition}-{offset}".encode()), ("outcome", b"ok")]
        producer.produce(results_topic(app), b"v", key(number), partition=partition, headers=headers)
    producer.flush(30)
    if commit:
        producer.commit_transaction(30)
    else:
        producer.abort_transaction(30)


def test_counts_only_what_was_committed(kafka: KafkaSettings, app: str) -> None:
    servers = kafka.bootstrap_servers
    _give_jobs(servers, app, range(100))
    _answer(servers, app, range(60), commit=True)
    _answer(servers, app, range(50, 100), commit=False)
    report = check(servers, app=app)
    assert (report.jobs, report.results, report.lost, report.duplicated, report.unknown) == (100, 60, 40, 0, 0)
    _answer(servers, app, range(50, 100), commit=True)
    report = check(servers, app=app)
    assert (report.jobs, report.results, report.lost, report.duplicated) == (100, 110, 0, 10)
    assert check(servers, app=app, correlation=Correlation.KEY).duplicated == 10


def test_starts_where_it_is_told(kafka: KafkaSettings, app: str) -> None:
    servers = kafka.bootstrap_servers
    _give_jobs(servers, app, range(16))
    _answer(servers, app, range(16), commit=True)
    requests_from, results_from = end_offsets(servers, requests_topic(app)), end_offsets(servers, results_topic(app))
    _give_jobs(servers, app, range(16, 40))
    _answer(servers, app, range(16, 40), commit=True)
    report = check(servers, app=app, requests_from=requests_from, results_from=results_from)
    assert (report.jobs, report.results) == (24, 24)
    assert report.exactly_once


def test_an_empty_topic_is_read_at_once(kafka: KafkaSettings, app: str) -> None:
    assert list(read_committed(kafka.bootstrap_servers, results_topic(app))) == []


def test_a_topic_that_is_not_there_is_an_error_with_a_remedy(kafka: KafkaSettings) -> None:
    with pytest.raises(BrokerUnavailable, match="was the app deployed"):
        check(kafka.bootstrap_servers, app="nobody")
