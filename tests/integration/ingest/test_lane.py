"""One lane from record to result: what comes out for what went in, and what stays when parts of the world fail it."""

from __future__ import annotations

import asyncio
import json
from collections import Counter, defaultdict

import msgpack
import pytest
from aiokafka import AIOKafkaProducer
from aiokafka.admin import AIOKafkaAdminClient, NewPartitions
from confluent_kafka import Consumer, Producer
from confluent_kafka import TopicPartition as ForeignPartition
from confluent_kafka.admin import AdminClient

from ingest.lane import Lane
from rayline.app_spec import Batching, Limits
from rayline.bus import KafkaSettings, RecordBatchWriter, TransactionalProducer
from rayline.bus.inflation import MAX_INFLATED_BYTES
from rayline.bus.protocol import GroupMember
from rayline.bus.record_batch import varint
from rayline.topics import dlq_topic, group_id, requests_topic, results_topic
from tests.integration.ingest.lanes import (
    PARTITIONS,
    EchoChannel,
    SilentChannel,
    assert_exactly_once,
    new_app,
    running,
    spec_of,
    submit,
    until,
    verdict,
)
from tests.support.foreign import Seen, read_committed

pytestmark = pytest.mark.integration


def lane_of(kafka: KafkaSettings, app: str, instance: str = "0", **fields: object) -> Lane:
    given = {"spec": spec_of(app), "channels": EchoChannel, "result_partitions": PARTITIONS, **fields}
    return Lane(settings=kafka, instance=instance, **given)  # type: ignore[arg-type]


def header(seen: Seen, name: str) -> str:
    return dict(seen.headers)[name].decode()


async def results_of(kafka: KafkaSettings, app: str) -> list[Seen]:
    return await asyncio.to_thread(read_committed, kafka, results_topic(app))


async def test_each_job_has_one_result_that_is_its_own(kafka: KafkaSettings) -> None:
    app = await new_app(kafka)
    submit(kafka, app, 3_000)
    async with running(lane_of(kafka, app), app):
        report = await verdict(kafka, app, 3_000)
    assert_exactly_once(report, 3_000)
    assert report.outcomes == {"ok": 3_000}
    values = Counter(seen.value for seen in await results_of(kafka, app))
    assert values == Counter(msgpack.packb({"n": number}) for number in range(3_000))


async def test_what_cannot_be_accepted_ends_as_said_and_lies_in_the_dead_letters_as_it_was(kafka: KafkaSettings) -> None:
    app = await new_app(kafka, partitions=1)
    good = msgpack.packb("good")
    large = b"\x00" * 70_000
    records: list[tuple[str, bytes | None, list[tuple[str, bytes | None]]]] = [
        ("ok", good, [("mine", b"\xff\x00"), ("nothing", None)]),
        ("tombstone", None, []),
        ("empty", b"", []),
        ("large", large, []),
        ("bad-deadline", good, [("deadline-ms", b"soon")]),
        ("bad-id", good, [("job-id", b"\xff\xfe")]),
        ("xml", good, [("content-type", b"text/xml")]),
        ("many", good, [("h", b"")] * 65),
        ("broken", b"\xc1", [("mine", b"1")]),
        ("expired", good, [("deadline-ms", b"1000")]),
        ("twice", good, [("job-id", b"same")]),
        ("twice", good, [("job-id", b"same")]),
        ("json", json.dumps({"a": 1}).encode(), [("content-type", b"application/json; charset=utf-8")]),
        ("spoof", good, [("outcome", b"error"), ("node", b"moon"), ("source", b"x/1/1")]),
    ]
    producer = Producer({"bootstrap.servers": kafka.bootstrap_servers})
    for key, value, headers in records:
        producer.produce(requests_topic(app), key=key, value=value, headers=headers, partition=0)
    assert producer.flush(10) == 0
    spec = spec_of(app, partitions=1, limits=Limits(max_job_bytes=65_536))
    async with running(lane_of(kafka, app, spec=spec, result_partitions=1), app):
        report = await verdict(kafka, app, len(records))
    assert (report.results, report.lost, report.duplicated, report.unknown) == (len(records), 0, 0, 0), str(report)
    # The id that is not UTF-8 cannot be repeated in a result.
    assert report.mismatched_ids == 1

    results: dict[bytes | None, list[Seen]] = defaultdict(list)
    for seen in await results_of(kafka, app):
        results[seen.key].append(seen)
    outcomes = {(key or b"").decode(): header(seen, "outcome") for key, found in results.items() for seen in found}
    rejected = {"tombstone", "empty", "large", "bad-deadline", "bad-id", "xml", "many", "broken"}
    assert outcomes == {
        **dict.fromkeys(rejected, "invalid"),
        "expired": "deadline_exceeded",
        **dict.fromkeys(("ok", "twice", "json", "spoof"), "ok"),
    }
    assert [header(seen, "job-id") for seen in results[b"twice"]] == ["same", "same"]
    assert len({header(seen, "source") for seen in results[b"twice"]}) == 2
    assert dict(results[b"ok"][0].headers)["mine"] == b"\xff\x00"
    assert ("nothing", None) in results[b"ok"][0].headers
    assert header(results[b"json"][0], "content-type") == "application/json"
    (spoofed,) = results[b"spoof"]
    assert [value for name, value in spoofed.headers if name in ("outcome", "node")] == [b"ok", b"n"]

    letters = {(seen.key or b"").decode(): seen for seen in await asyncio.to_thread(read_committed, kafka, dlq_topic(app))}
    assert set(letters) == rejected
    for key, value, headers in records:
        if key in rejected:
            assert letters[key].value == value
            assert [pair for pair in letters[key].headers if not pair[0].startswith("dlq-")] == headers
    assert {key: header(seen, "dlq-reason").split(":")[0] for key, seen in letters.items()} == {
        "tombstone": "empty",
        "empty": "empty",
        "large": "too_large",
        "bad-deadline": "bad_header",
        "bad-id": "bad_header",
        "xml": "unsupported_content_type",
        "many": "bad_header",
        "broken": "undecodable",
    }


async def test_a_batch_that_inflates_too_far_costs_its_own_jobs_alone_and_what_is_known_of_them_is_told(
    kafka: KafkaSettings,
) -> None:
    app = await new_app(kafka, partitions=1)
    large = 2 * MAX_INFLATED_BYTES
    producer = AIOKafkaProducer(
        bootstrap_servers=kafka.bootstrap_servers, compression_type="zstd", max_batch_size=large, max_request_size=large
    )
    await producer.start()
    for values in ([bytes(MAX_INFLATED_BYTES), b"\xa1a"], [b"\xa1b"]):
        batch = producer.create_batch()
        for value in values:
            ident = b"%d-%d" % (len(value), len(values))
            assert batch.append(key=b"key", value=value, timestamp=None, headers=[("job-id", ident)]) is not None
        batch.close()
        await (await producer.send_batch(batch, requests_topic(app), partition=0))
    await producer.stop()
    async with running(lane_of(kafka, app, spec=spec_of(app, partitions=1), result_partitions=1), app):
        async with asyncio.timeout(40):
            found: list[Seen] = []
            while len(found) < 3:
                found = await results_of(kafka, app)
    bomb = f"{MAX_INFLATED_BYTES}-2"
    assert {header(seen, "job-id"): header(seen, "outcome") for seen in found} == {
        bomb: "invalid",
        "2-2": "invalid",
        "2-1": "ok",
    }
    letters = await asyncio.to_thread(read_committed, kafka, dlq_topic(app))
    assert [(header(seen, "job-id"), seen.key, seen.value) for seen in letters] == [(bomb, b"key", None), ("2-2", b"key", None)]
    assert all(
        header(seen, "dlq-reason").startswith("(too large to be kept here: read it from its source) inflates:")
        for seen in letters
    )


async def test_a_header_whose_name_is_not_text_costs_its_own_job_alone(kafka: KafkaSettings) -> None:
    app = await new_app(kafka)
    submit(kafka, app, 20)
    writer = RecordBatchWriter()
    for name in (b"fine", b"a\xff", b"fine"):
        header_bytes = varint(1) + varint(len(name)) + name + varint(1) + b"v"
        assert writer.append(key=None, value=msgpack.packb({"n": 0}), headers=header_bytes)
    producer = TransactionalProducer(settings=kafka, transactional_id=f"{app}-foreign")
    await producer.start()
    nobody = GroupMember("no-group", 0, "nobody", None)
    await producer.commit(batches=[(requests_topic(app), 0, writer)], offsets={}, group=nobody)
    await producer.close()
    async with running(lane_of(kafka, app), app):
        # Not `verdict`: confluent-kafka's reader of the jobs does not survive such a name.
        async with asyncio.timeout(40):
            found: list[Seen] = []
            while len(found) < 23:
                found = await results_of(kafka, app)
    assert Counter(header(seen, "outcome") for seen in found) == {"ok": 22, "invalid": 1}
    (letter,) = await asyncio.to_thread(read_committed, kafka, dlq_topic(app))
    assert dict(letter.headers)["dlq-reason"].startswith(b"bad_header")


async def test_results_of_a_key_come_in_the_order_of_its_jobs(kafka: KafkaSettings) -> None:
    app = await new_app(kafka)
    # Without idempotence a client that sends again what a new topic's broker refused changes the order of the jobs themselves.
    producer = Producer({"bootstrap.servers": kafka.bootstrap_servers, "enable.idempotence": True})
    for number in range(2_000):
        producer.produce(requests_topic(app), key=b"k%d" % (number % 50), value=msgpack.packb(number))
    assert producer.flush(10) == 0
    spec = spec_of(app, batching=Batching(max_jobs=16))
    async with running(lane_of(kafka, app, spec=spec), app):
        assert_exactly_once(await verdict(kafka, app, 2_000), 2_000)
    by_key: dict[bytes | None, list[int]] = defaultdict(list)
    partition_of: dict[bytes | None, set[int]] = defaultdict(set)
    for seen in await results_of(kafka, app):
        by_key[seen.key].append(msgpack.unpackb(seen.value))
        partition_of[seen.key].add(seen.partition)
    assert len(by_key) == 50
    assert all(numbers == sorted(numbers) for numbers in by_key.values())
    assert all(len(partitions) == 1 for partitions in partition_of.values())


async def test_a_feature_that_the_broker_refuses_becomes_an_error_and_its_neighbours_succeed(kafka: KafkaSettings) -> None:
    app = await new_app(kafka, max_message_bytes=200_000)
    producer = Producer({"bootstrap.servers": kafka.bootstrap_servers})
    for number in range(200):
        size = 300_000 if number in (7, 120) else 20_000
        producer.produce(requests_topic(app), key=b"%d" % number, value=msgpack.packb({"grow": size}), partition=number % 8)
    assert producer.flush(10) == 0
    lane = lane_of(kafka, app)
    async with running(lane, app):
        report = await verdict(kafka, app, 200)
        await until(lambda: lane.statistics().bytes_held == 0, seconds=5, what="bytes held return to 0")
    assert_exactly_once(report, 200)
    assert report.outcomes == {"ok": 198, "error": 2}
    errors = {seen.key: header(seen, "error-type") for seen in await results_of(kafka, app) if header(seen, "outcome") != "ok"}
    assert errors == {b"7": "rayline.ResultTooLarge", b"120": "rayline.ResultTooLarge"}


async def test_a_job_that_is_larger_than_the_dead_letters_take_does_not_stop_the_lane(kafka: KafkaSettings) -> None:
    app = await new_app(kafka, partitions=1, max_message_bytes=200_000)
    producer = Producer(
        {"bootstrap.servers": kafka.bootstrap_servers, "compression.type": "gzip", "message.max.bytes": 5_000_000}
    )
    producer.produce(requests_topic(app), key=b"bomb", value=bytes(4_000_000))
    producer.produce(requests_topic(app), key=b"good", value=msgpack.packb(1))
    assert producer.flush(10) == 0
    async with running(lane_of(kafka, app, spec=spec_of(app, partitions=1), result_partitions=1), app):
        report = await verdict(kafka, app, 2)
    assert report.outcomes == {"invalid": 1, "ok": 1}
    (letter,) = await asyncio.to_thread(read_committed, kafka, dlq_topic(app))
    assert (letter.key, letter.value) == (b"bomb", None)
    assert header(letter, "dlq-source") == f"{requests_topic(app)}/0/0"


async def test_actors_that_never_answer_press_back_to_kafka_and_every_job_still_ends(kafka: KafkaSettings) -> None:
    app = await new_app(kafka)
    jobs, payload, limit = 1_500, msgpack.packb(b"x" * 10_000), 4_000_000
    producer = Producer({"bootstrap.servers": kafka.bootstrap_servers})
    for number in range(jobs):
        producer.produce(requests_topic(app), value=payload, partition=number % 8)
    assert producer.flush(10) == 0
    lane = lane_of(
        kafka,
        app,
        spec=spec_of(app, sla_seconds=3.0, limits=Limits(max_in_flight_bytes=limit)),
        channels=SilentChannel,
    )
    most = 0
    async with running(lane, app):

        def watch() -> bool:
            nonlocal most
            most = max(most, lane.statistics().bytes_held)
            return sum(lane.statistics().results.values()) >= jobs

        await until(watch, seconds=40, what="every job ends")
    # One poll may overshoot: what it brings is bounded by itself.
    assert limit <= most <= limit + 4_000 * 10_100
    report = await verdict(kafka, app, jobs)
    assert_exactly_once(report, jobs)
    assert report.outcomes == {"deadline_exceeded": jobs}


async def test_partitions_added_later_are_read_and_others_go_on(kafka: KafkaSettings) -> None:
    app = await new_app(kafka, partitions=4)
    lane = lane_of(kafka, app, spec=spec_of(app, partitions=4), result_partitions=4)
    submit(kafka, app, 400, partitions=4)
    async with running(lane, app):
        assert_exactly_once(await verdict(kafka, app, 400), 400)
        admin = AIOKafkaAdminClient(bootstrap_servers=kafka.bootstrap_servers)
        await admin.start()
        try:
            await admin.create_partitions({requests_topic(app): NewPartitions(total_count=6)})
        finally:
            await admin.close()
        await asyncio.to_thread(submit, kafka, app, 600, first=400, partitions=6)
        # A member looks for new partitions when its metadata are 30 s old; a restart need not wait for that.
    async with running(lane_of(kafka, app, spec=spec_of(app, partitions=4), result_partitions=4), app):
        assert_exactly_once(await verdict(kafka, app, 1_000), 1_000)


async def test_records_that_kafka_deleted_halt_their_partition_alone_and_say_what_to_do(kafka: KafkaSettings) -> None:
    app = await new_app(kafka)
    submit(kafka, app, 800)
    async with running(lane_of(kafka, app), app):
        assert_exactly_once(await verdict(kafka, app, 800), 800)
    submit(kafka, app, 800, first=800)
    admin = AdminClient({"bootstrap.servers": kafka.bootstrap_servers})
    (deleted,) = admin.delete_records([ForeignPartition(requests_topic(app), 3, 150)]).values()
    assert deleted.result(10).low_watermark == 150
    lane = lane_of(kafka, app)
    async with running(lane, app):
        await until(lambda: lane.statistics().results.get("ok", 0) == 700, what="the other seven go on")
        (halted,) = lane.statistics().halted
    assert halted.partition.partition == 3
    assert "--reset-offsets --to-earliest" in halted.reason
    assert "50 record(s)" in halted.reason


async def test_markers_behind_the_last_job_are_no_loss_when_retention_takes_them(kafka: KafkaSettings) -> None:
    app = await new_app(kafka, partitions=1)
    spec = spec_of(app, partitions=1)
    settings = {"bootstrap.servers": kafka.bootstrap_servers, "transactional.id": app}
    producer = Producer(settings)
    await asyncio.to_thread(producer.init_transactions, 20)

    def produce_in_transaction(number: int) -> None:
        producer.begin_transaction()
        producer.produce(requests_topic(app), value=msgpack.packb(number))
        producer.commit_transaction(20)

    async with running(lane_of(kafka, app, spec=spec, result_partitions=1), app):
        await asyncio.to_thread(produce_in_transaction, 1)
        assert_exactly_once(await verdict(kafka, app, 1), 1)
        await until(lambda: committed(kafka, app) == 2, seconds=5, what="the offset behind the marker is committed")
    admin = AdminClient({"bootstrap.servers": kafka.bootstrap_servers})
    (deleted,) = admin.delete_records([ForeignPartition(requests_topic(app), 0, 2)]).values()
    deleted.result(10)
    lane = lane_of(kafka, app, spec=spec, result_partitions=1)
    async with running(lane, app):
        assert lane.statistics().halted == ()
        await asyncio.to_thread(produce_in_transaction, 2)
        await until(lambda: lane.statistics().results.get("ok") == 1, what="the next job is done")


def committed(kafka: KafkaSettings, app: str) -> int:
    """The group's committed offset of partition 0, as others see it."""
    consumer = Consumer({"bootstrap.servers": kafka.bootstrap_servers, "group.id": group_id(app)})
    try:
        (partition,) = consumer.committed([ForeignPartition(requests_topic(app), 0)], timeout=10)
        return int(partition.offset)
    finally:
        consumer.close()


async def test_offsets_that_were_deleted_halt_partitions_with_results_instead_of_repeating_them(kafka: KafkaSettings) -> None:
    app = await new_app(kafka)
    submit(kafka, app, 400, partitions=4)
    async with running(lane_of(kafka, app), app):
        assert_exactly_once(await verdict(kafka, app, 400), 400)
    admin = AdminClient({"bootstrap.servers": kafka.bootstrap_servers})
    (deleted,) = admin.delete_consumer_groups([group_id(app)]).values()
    deleted.result(10)
    submit(kafka, app, 80, first=400)
    lane = lane_of(kafka, app)
    async with running(lane, app):
        await until(lambda: lane.statistics().results.get("ok", 0) == 40, what="the partitions without results go on")
        halted = lane.statistics().halted
    assert {halt.partition.partition for halt in halted} == {0, 1, 2, 3}
    assert all("--to-offset N" in halt.reason for halt in halted)
    report = await verdict(kafka, app, 480, seconds=1)
    assert (report.lost, report.duplicated) == (40, 0)
