"""The references do what the table says of them: every job answered, byte for byte."""

import uuid

import pytest

from bench.contestants import Heap, references
from bench.load import create_topics, preload
from deploy.checker import check
from rayline.bus import KafkaSettings
from rayline.topics import requests_topic

pytestmark = pytest.mark.integration

JOBS = 1_000


@pytest.mark.parametrize(("workload", "name"), [("echo", "echo_aiokafka_transactions"), ("io", "io_ray_micro_batches")])
def test_a_reference_answers_each_job_and_says_what_it_cost(kafka: KafkaSettings, workload: str, name: str) -> None:
    app = f"{workload}-{uuid.uuid4().hex[:8]}"
    create_topics(kafka.bootstrap_servers, app)
    preload(kafka.bootstrap_servers, requests_topic(app), JOBS)
    (reference,) = [found for found in references(workload) if found.name == name]
    heap = Heap(bootstrap_servers=kafka.bootstrap_servers, app=app, workload=workload, jobs=JOBS, cpu_loops=10)
    cpu = reference.work_off(heap)
    report = check(kafka.bootstrap_servers, app=app, correlation=reference.correlation, expected_result=lambda job: job)
    assert (report.jobs, report.results, report.wrong_payload) == (JOBS, JOBS, 0)
    assert report.exactly_once
    assert cpu["lane"] > 0
