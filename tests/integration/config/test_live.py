"""Config records on the real broker: what a lane does with them, what it answers, and what it survives."""

from __future__ import annotations

import asyncio
import random
from statistics import quantiles

import pytest
from confluent_kafka import Producer

from rayline.app_spec import Batching
from rayline.bus import KafkaSettings, ensure_topics
from rayline.config import SETTINGS, ConfigWatch, ProcessIdentity, Role, Verdict
from rayline.topics import CONFIG, TopicSpec
from tests.integration.config.live import answers, batch_sizes, following, tuned_lane, write
from tests.integration.ingest.lanes import assert_exactly_once, new_app, on_this_machine, spec_of, submit, until, verdict

pytestmark = pytest.mark.integration


async def test_a_batch_size_written_by_a_foreign_client_shows_in_results_within_a_second(kafka: KafkaSettings) -> None:
    app = await new_app(kafka)
    # Nothing closes a batch but its size.
    spec = spec_of(app, batching=Batching(max_jobs=64, linger_ms=2_000.0))
    changes: list[tuple[int, int, int]] = []
    async with answers(kafka) as said, batch_sizes(kafka, app) as sizes, tuned_lane(kafka, app, spec=spec) as tuned:
        for size in range(2, 52):
            offset, written_at = write(kafka, f"app/{app}/batching.max_jobs", size)
            answered_at, answer = await said.wait(offset, tuned.process)
            assert (answer.verdict, answer.effective) == (Verdict.APPLIED, size)
            submit(kafka, app, size)
            await until(lambda size=size: any(seen == size for _, seen in sizes), what=f"a batch of {size}")  # type: ignore[misc]
            changes.append((answered_at - written_at, min(at for at, seen in sizes if seen == size) - written_at, size))
    answered_p99 = quantiles([answered for answered, _, _ in changes], n=100)[98]
    in_force_p99 = quantiles([in_force for _, in_force, _ in changes], n=100)[98]
    print(f"answered p99 {answered_p99:.0f} ms, seen in results p99 {in_force_p99:.0f} ms")  # noqa: T201
    bound = on_this_machine(1_000)
    assert answered_p99 < bound
    assert in_force_p99 < bound


async def test_a_deleted_key_returns_to_the_manifest_and_a_restart_replays(kafka: KafkaSettings) -> None:
    app = await new_app(kafka)
    key = f"app/{app}/batching.max_jobs"
    async with answers(kafka) as said:
        async with tuned_lane(kafka, app) as tuned:
            await said.wait(write(kafka, key, 3)[0], tuned.process)
        async with tuned_lane(kafka, app) as tuned, batch_sizes(kafka, app) as sizes:
            assert tuned.watch.effective("batching.max_jobs") == 3
            submit(kafka, app, 300)
            await until(lambda: len(sizes) == 300, what="300 results")
            assert max(size for _, size in sizes) == 3
            _, answer = await said.wait(write(kafka, key)[0], tuned.process)
            assert (answer.verdict, answer.effective, answer.source) == (Verdict.APPLIED, 64, "manifest")
        assert f"|{tuned.process}" in said.gone


async def test_a_flood_of_broken_records_stops_nothing_changes_nothing_and_each_is_answered(kafka: KafkaSettings) -> None:
    app = await new_app(kafka)
    dice = random.Random(5)
    names = [*SETTINGS, "nothing", "batching.max_job", ""]
    producer = Producer({"bootstrap.servers": kafka.bootstrap_servers})
    written: dict[int, int] = {}

    def broken() -> tuple[bytes, bytes]:
        key = dice.choice(
            [
                dice.randbytes(dice.randrange(60)),
                b"\xff\xfe/" + dice.randbytes(4),
                f"global/{dice.choice(names)}".encode(),
                f"app/{app}/{dice.choice(names)}".encode(),
                f"app/{app}/x/{dice.choice(names)}".encode(),
                b"k" * dice.randrange(400, 3_000),
            ]
        )
        value = dice.choice(
            [
                dice.randbytes(dice.randrange(200)) + b"\x00",
                b"",
                b"[" * dice.randrange(1, 60_000),
                b'{"v": 1, "value": ' * dice.randrange(1, 2_000),
                b"NaN",
                b"-1e999",
                b"-" + b"9" * dice.randrange(1, 5_000),
                b"null",
                b'{"v": 2, "value": 1}',
                b'{"v": 1, "valeu": 1}',
                b" " * 70_000 + b"1",
            ]
        )
        return key, value

    registrar = ConfigWatch(settings=kafka, identity=ProcessIdentity(role=Role.GATEWAY, cluster=app, registrar=True))
    await registrar.start()
    async with answers(kafka) as said, tuned_lane(kafka, app) as tuned, following(registrar):
        before = {name: tuned.watch.effective(name) for name in SETTINGS if Role.LANE in SETTINGS[name].roles}
        submit(kafka, app, 1_000)
        for _ in range(1_000):
            key, value = broken()
            producer.produce(
                CONFIG, key=key, value=value, on_delivery=lambda _, m: written.update({m.offset(): m.timestamp()[1]})
            )
        assert producer.flush(20) == 0
        submit(kafka, app, 1_000, first=1_000)
        assert_exactly_once(await verdict(kafka, app, 2_000), 2_000)
        good, written_at = write(kafka, f"app/{app}/batching.max_jobs", 7)
        answered_at, answer = await said.wait(good, tuned.process)
        await until(lambda: registrar.status.seen >= good, what="the registrar to have read all")
        await until(lambda: written.keys() <= {answer.version for _, answer in said.records}, what="an answer to every record")
        assert answer.effective == 7
        alone: list[int] = []
        for _ in range(20):
            key, value = broken()
            offset, at = write(kafka, key, raw=value)
            await until(lambda offset=offset: any(one.version == offset for _, one in said.records), what="an answer")  # type: ignore[misc]
            alone.append(min(told for told, one in said.records if one.version == offset) - at)
        after = {name: tuned.watch.effective(name) for name in before}
    assert after == {**before, "batching.max_jobs": 7}
    refused = [(at, answer) for at, answer in said.records if answer.version in written]
    assert all(answer.verdict is Verdict.REJECTED and answer.reason for _, answer in refused)
    # The first that said so of each: of a thousand at once beside jobs the last wait for those before them.
    first_at: dict[int, int] = {}
    for at, answer in refused:
        first_at[answer.version] = min(at, first_at.get(answer.version, at))
    refused_p99 = quantiles([at - written[version] for version, at in first_at.items()], n=100)[98]
    print(f"refused p99 {refused_p99:.0f} ms of a thousand at once, {max(alone)} ms alone at most")  # noqa: T201
    assert refused_p99 < on_this_machine(10_000)
    assert max(alone) < on_this_machine(1_000)
    assert answered_at - written_at < on_this_machine(1_000)
    assert registrar.status.unsaid == 0


async def test_a_topic_that_cannot_be_read_leaves_the_last_values_in_force_and_says_so(kafka: KafkaSettings) -> None:
    app = await new_app(kafka)
    nowhere = KafkaSettings("127.0.0.1:1")
    taken: list[object] = []
    watch = ConfigWatch(
        settings=nowhere,
        identity=ProcessIdentity(role=Role.LANE, app=app, name="0"),
        base={"batching.max_jobs": 9},
        start_seconds=0.5,
    ).on("batching.max_jobs", taken.append)
    await watch.start()
    assert taken == [9]
    assert watch.status.problem is not None
    async with following(watch):
        await asyncio.sleep(0)
    assert watch.effective("batching.max_jobs") == 9


async def test_a_topic_that_comes_later_is_taken_up_and_until_then_the_trouble_is_told(
    kafka: KafkaSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    app = await new_app(kafka)
    topic = f"{app}.config"
    monkeypatch.setattr("rayline.config.watch.CONFIG", topic)
    taken: list[object] = []
    identity = ProcessIdentity(role=Role.LANE, app=app, name="0")
    watch = ConfigWatch(settings=kafka, identity=identity, start_seconds=1.0).on("batching.max_jobs", taken.append)
    async with answers(kafka) as said, watch:
        await until(lambda: identity.process in said.present, what="the process to tell of itself")
        assert said.present[identity.process].problem is not None
        await ensure_topics(kafka, [TopicSpec(topic, 1, replication_factor=1)])
        producer = Producer({"bootstrap.servers": kafka.bootstrap_servers})
        producer.produce(topic, key=b"global/batching.max_jobs", value=b"7")
        assert producer.flush(10) == 0
        await until(lambda: taken[-1] == 7, what="the record to be taken")
        assert watch.status.problem is None
        await until(lambda: said.present[identity.process].problem is None, what="the trouble to be over")
