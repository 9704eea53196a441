"""What the console does, it does through a real broker, and tells who asked for it."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Callable

import pytest
import tenacity

from deploy.config_change import read_request
from deploy.config_flow import Care, Report
from deploy.config_history import Entry
from deploy.console.kafka_desk import KafkaDesk
from rayline.bus import CompactedLog, KafkaSettings, LogRecord, Publisher, ensure_topics
from rayline.config import Change
from rayline.config.watch import AUTHOR_HEADER
from rayline.errors import NodeError
from rayline.events import decode_event
from rayline.topics import EVENTS, app_topics, dlq_topic, platform_topics, requests_topic, results_topic
from tests.integration.config.live import tuned_lane
from tests.integration.ingest.lanes import until

pytestmark = pytest.mark.integration


@pytest.fixture
async def app(kafka: KafkaSettings) -> str:
    name = f"desk-{uuid.uuid4().hex[:8]}"
    await ensure_topics(kafka, [*platform_topics(), *app_topics(name, partitions=2)])
    return name


async def make(
    desk: KafkaDesk, change: Change, author: str, *, care: Care | None = None, say: Callable[[str], None] = lambda _: None
) -> Report:
    return await desk.change(change, author=author, care=care or Care(), say=say, on_look=lambda _: None)


async def _read(kafka: KafkaSettings, topic: str) -> list[LogRecord]:
    records: list[LogRecord] = []
    async with CompactedLog(settings=kafka, topic=topic) as log:
        while not log.caught_up.is_set():
            records += await log.getmany(timeout_ms=100)
    return records


async def _told(kafka: KafkaSettings, subject: str) -> list[tuple[str, str, bytes]]:
    """Kind, text and author of the console's own events about a subject."""
    found = []
    for record in await _read(kafka, EVENTS):
        if record.key == subject.encode() and record.value is not None:
            event = decode_event(record.value)
            found.append((event.kind, event.text, dict(record.headers)[AUTHOR_HEADER]))
    return found


async def test_a_replay_is_a_new_job_and_says_who_wanted_it(kafka: KafkaSettings, app: str) -> None:
    headers = [("job-id", b"j1"), ("dlq-reason", b"payload-too-large"), ("dlq-source", b"x.requests/0/1"), ("dlq-time", b"now")]
    async with Publisher(settings=kafka, client_id="test") as publisher:
        for number in range(3):
            await publisher.publish(dlq_topic(app), key=b"k", value=b"payload-%d" % number, headers=headers)
    desk = KafkaDesk(kafka)
    found = await desk.dead_letters(app)
    assert ([dead.letter for dead in found.letters], found.left_out) == (["0-2", "0-1", "0-0"], 0)
    done = await desk.replay(app, ["0-1"], author="mara")
    assert [letter for letter, _ in done] == ["0-1"]
    assert [record.value for record in await _read(kafka, requests_topic(app))] == [b"payload-1"]
    await desk.reveal(app, "0-2", author="lin")
    assert await _told(kafka, app) == [
        ("console.replay", f"mara submits 1 dead letters of {app} again", b"mara"),
        ("console.payload-shown", f"lin looks into the dead letter 0-2 of {app}", b"lin"),
    ]


async def test_a_change_is_written_with_its_author_and_noted(kafka: KafkaSettings, app: str) -> None:
    desk = KafkaDesk(kafka)
    change = read_request(f"app/{app}/batching.linger_ms", "25")
    assert await desk.preview(change) == []
    outcome = (await make(desk, change, "mara")).outcome
    look = await desk.config()
    assert look.values[outcome.key] == "25.0"
    entry = next(entry for entry in look.history if entry.version == outcome.version)
    assert (entry.author, entry.why) == ("mara", "console")
    assert await _told(kafka, outcome.key) == [("console.config", f"mara sets {outcome.key} to 25.0", b"mara")]
    await make(desk, read_request(outcome.key, None), "lin")
    assert outcome.key not in (await desk.config()).values


async def test_a_change_that_is_watched_goes_on_when_the_browser_is_closed(kafka: KafkaSettings, app: str) -> None:
    desk = KafkaDesk(kafka)
    async with tuned_lane(kafka, app) as lane:
        said: list[str] = []
        change = read_request(f"app/{app}/batching.linger_ms", "25")
        waiting = asyncio.create_task(make(desk, change, "mara", care=Care(guard_seconds=2), say=said.append))
        await until(lambda: any("watching" in line for line in said), what="the guard watches")
        waiting.cancel()
        await asyncio.wait({waiting})
        async for attempt in tenacity.AsyncRetrying(wait=tenacity.wait_fixed(0.2), stop=tenacity.stop_after_delay(30)):
            with attempt:
                assert [entry for entry in (await desk.config()).history if _stays(entry, app)]
        assert lane.watch.effective("batching.linger_ms") == 25.0


def _stays(entry: Entry, app: str) -> bool:
    return entry.key.startswith(f"app/{app}/") and "stays" in [one["outcome"] for one in entry.outcomes]


async def test_a_job_is_found_by_its_id_or_its_record_among_what_is_no_result(kafka: KafkaSettings, app: str) -> None:
    async with Publisher(settings=kafka, client_id="test") as publisher:
        for number in range(20):
            source = f"{requests_topic(app)}/0/{number}".encode()
            headers = [
                ("job-id", b"job-%d" % number),
                ("outcome", b"ok"),
                ("source", source),
                ("timing", b"queue=1.0,execute=2.0"),
            ]
            await publisher.publish(
                results_topic(app), key=b"k", value=b"v", headers=headers if number else [("job-id", b"job-7")]
            )
    desk = KafkaDesk(kafka)
    by_id = await desk.find_job(app, "job-7", hours=1)
    by_record = await desk.find_job(app, f"{requests_topic(app)}/0/7", hours=1)
    assert [result.job_id for result in by_id.results] == [result.job_id for result in by_record.results] == ["job-7"]
    assert (by_id.looked, by_id.whole) == (20, True)
    assert (await desk.find_job(app, "nobody", hours=1)).results == []


async def test_an_order_to_a_node_that_is_not_there_is_refused_with_what_is_known(kafka: KafkaSettings, app: str) -> None:
    with pytest.raises(NodeError, match="no node"):
        await asyncio.wait_for(KafkaDesk(kafka).cordon("nowhere/at-all", cordoned=True, author="mara"), 30)
