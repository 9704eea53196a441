"""The client on a real broker, with a stand-in for the lanes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from itertools import islice
from uuid import uuid4

import pytest

from rayline.blocking import BlockingClient
from rayline.bus import CompactedLog, KafkaSettings, Publisher, ensure_topics
from rayline.client import Client, Submitted
from rayline.errors import ConfigError, FormatError
from rayline.jobs import ContentType
from rayline.topics import app_topics, requests_topic, results_topic

pytestmark = pytest.mark.integration


@pytest.fixture
async def app(kafka: KafkaSettings) -> AsyncIterator[str]:
    """An app whose every job is answered with its own payload."""
    name = f"echo-{uuid4().hex[:8]}"
    await ensure_topics(kafka, app_topics(name, partitions=2))

    async def answer() -> None:
        async with CompactedLog(settings=kafka, topic=requests_topic(name)) as jobs, Publisher(settings=kafka) as publisher:
            async for job in jobs:
                source = f"{requests_topic(name)}/{job.partition}/{job.offset}"
                headers = [*job.headers, ("outcome", b"ok"), ("source", source.encode())]
                await publisher.publish(results_topic(name), key=job.key, value=job.value, headers=headers)

    answering = asyncio.create_task(answer())
    yield name
    answering.cancel()
    await asyncio.wait({answering})


async def test_a_result_finds_its_own_job_whatever_the_order_of_waiting(kafka: KafkaSettings, app: str) -> None:
    async with Client(kafka) as client:
        submitted = [await client.submit(app, number, job_id="same") for number in range(10)]
        results = await asyncio.gather(*(client.result(app, job) for job in reversed(submitted)))
        assert [result.feature() for result in results] == list(reversed(range(10)))
        assert (await client.result(app, submitted[0])).feature() == 0


async def test_a_job_is_found_that_is_older_than_all_that_was_waited_for(kafka: KafkaSettings, app: str) -> None:
    async with Client(kafka) as client:
        old = await client.submit(app, "old")
        await client.result(app, Submitted("x", old.topic, old.partition, old.offset, old.timestamp_ms))
        older = Submitted(old.job_id, old.topic, old.partition, old.offset, old.timestamp_ms - 60_000)
        assert (await client.result(app, older)).feature() == "old"
        assert (await client.result(app, old.job_id)).feature() == "old"


async def test_no_more_than_max_in_flight_are_taken_before_they_are_acknowledged(kafka: KafkaSettings, app: str) -> None:
    taken, acknowledged, most = 0, 0, 0

    async def jobs() -> AsyncIterator[int]:
        nonlocal taken, most
        for number in range(200):
            taken += 1
            most = max(most, taken - acknowledged)
            yield number

    def note(_job: Submitted) -> None:
        nonlocal acknowledged
        acknowledged += 1

    async with Client(kafka) as client:
        assert await client.submit_many(app, jobs(), max_in_flight=7, on_submitted=note) == 200
    assert acknowledged == 200
    # The one that waits for room was taken, too.
    assert most <= 8


async def test_submit_many_ends_at_what_cannot_be_encoded_and_keeps_what_was_before(kafka: KafkaSettings, app: str) -> None:
    acknowledged: list[Submitted] = []
    async with Client(kafka) as client:
        with pytest.raises(FormatError):
            await client.submit_many(app, [1, 2, object(), 4], on_submitted=acknowledged.append)
    assert len(acknowledged) == 2


async def test_headers_say_what_the_arguments_said(kafka: KafkaSettings, app: str) -> None:
    async with Client(kafka) as client:
        job = await client.submit(
            app,
            {"a": 1},
            job_id="j",
            key=b"k",
            deadline_ms=9_999_999_999_999,
            headers=[("x", b"y")],
            content_type=ContentType.JSON,
        )
        result = await client.result(app, job)
    assert (result.key, result.value, result.content_type) == (b"k", b'{"a":1}', ContentType.JSON)
    assert dict(result.headers) | {} == {
        "x": b"y",
        "job-id": b"j",
        "content-type": b"application/json",
        "deadline-ms": b"9999999999999",
        "outcome": b"ok",
        "source": job.source.encode(),
    }


@pytest.mark.parametrize("job_id", ["", "x" * 129, "ä" * 65])
async def test_an_id_that_no_lane_would_accept_is_refused_at_once(kafka: KafkaSettings, app: str, job_id: str) -> None:
    async with Client(kafka) as client:
        with pytest.raises(ConfigError, match="128"):
            await client.submit(app, 1, job_id=job_id)


async def test_results_without_follow_end_where_the_topic_ended(kafka: KafkaSettings, app: str) -> None:
    async with Client(kafka) as client:
        submitted = [await client.submit(app, number) for number in range(5)]
        for job in submitted:
            await client.result(app, job)
        found = [result.job_id async for result in client.results(app, from_beginning=True, follow=False)]
    assert sorted(found) == sorted(job.job_id for job in submitted)


async def test_the_blocking_twin_does_the_same_from_a_thread(kafka: KafkaSettings, app: str) -> None:
    def work() -> list[int]:
        with BlockingClient(kafka) as client:
            client.submit_many(app, range(3))
            jobs = [client.submit(app, number) for number in (3, 4)]
            assert [client.result(app, job).feature() for job in jobs] == [3, 4]
            return sorted(result.feature() for result in islice(client.results(app, from_beginning=True), 5))

    assert await asyncio.to_thread(work) == [0, 1, 2, 3, 4]


async def test_a_client_that_was_not_started_says_so(kafka: KafkaSettings, app: str) -> None:
    with pytest.raises(ConfigError, match="not started"):
        await Client(kafka).submit(app, 1)
