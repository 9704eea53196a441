"""The observation follows a real broker: traffic, nodes, settings, and topics that are not there."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable

import pytest
from typer.testing import CliRunner

from deploy.app_registry import publish_app, remove_app
from deploy.cli import app as cli
from deploy.observation import Observation, Snapshot
from rayline.app_spec import AppSpec
from rayline.bus import KafkaSettings, Publisher, delete_topics, ensure_topics
from rayline.config import Presence, ProcessIdentity, Role
from rayline.events import Event, encode_event
from rayline.lane_record import LaneRecord, encode_lane_record
from rayline.reports import NodeReport, NodeState, encode_reports
from rayline.stalls import StallKind
from rayline.topics import (
    BEATS_PARTITION,
    CONFIG,
    CONFIG_APPLIED,
    EVENTS,
    REPORTS,
    VIEW,
    dlq_topic,
    platform_topics,
    requests_topic,
    results_topic,
)
from tests.support.names import fresh

pytestmark = pytest.mark.integration


async def shows(seen: Observation, condition: Callable[[Snapshot], bool], what: str, seconds: float = 15.0) -> Snapshot:
    try:
        async with asyncio.timeout(seconds):
            async for snapshot in seen.subscribe():
                if condition(snapshot):
                    return snapshot
    except TimeoutError:
        pytest.fail(f"not shown within {seconds:g} s: {what}; {json.dumps(seen.snapshot().as_dict())[:4000]}")
    raise AssertionError("unreachable")


async def test_everything_that_the_topics_tell_is_shown(kafka: KafkaSettings) -> None:
    app, cluster = fresh("seen"), fresh("c")
    await publish_app(kafka, AppSpec(app, "3", "/app", "m:f", partitions=2))
    timing = [("outcome", b"ok"), ("timing", b"queue=4.0,dispatch=1.0,execute=5.0,publish=2.0"), ("cluster", cluster.encode())]
    async with Publisher(settings=kafka) as publisher:
        for _ in range(30):
            await publisher.enqueue(requests_topic(app), key=None, value=b"x", partition=0)
            await publisher.enqueue(results_topic(app), key=None, value=b"y", headers=timing, partition=0)
        await publisher.publish(dlq_topic(app), key=None, value=b"dead")
        lane = Presence(ProcessIdentity(role=Role.LANE, app=app, name="0"))
        await publisher.publish(CONFIG_APPLIED, key=lane.record_key, value=lane.encode())

        async def beat(seq: int) -> None:
            report = NodeReport(cluster, "n1", 1_000, seq, NodeState.READY, cpus=4.0, beat=True, actors=())
            await publisher.publish(REPORTS, key=report.key.encode(), value=encode_reports([report]), partition=BEATS_PARTITION)

        key = f"{cluster}/n1"
        told = LaneRecord(app, "0", False, 1, {key: {"weight": 2.0, "share": 1.0, "running": 1}})
        await publisher.publish(VIEW, key=told.key, value=encode_lane_record(told))
        await beat(1)
        async with Observation(kafka, changes_per_second=20) as seen:
            assert await seen.caught_up(20)
            await beat(2)
            await publisher.publish(
                EVENTS, key=cluster.encode(), value=encode_event(Event("keeper", "pod.replaced", cluster, "x"))
            )
            await publisher.publish(CONFIG, key=f"app/{app}/batching.max_jobs".encode(), value=b"7")

            def whole(snapshot: Snapshot) -> bool:
                apps = [row for row in snapshot.apps if row.app == app and row.lag is not None and row.dead_letters]
                return bool(
                    apps
                    and apps[0].windows[60].results >= 30
                    and any(node.key == key and node.weight == 2.0 for node in snapshot.nodes)
                    and any(event.subject == cluster for event in snapshot.events)
                    and any(row.key.startswith(f"app/{app}/") for row in snapshot.config)
                )

            snapshot = await shows(seen, whole, "all of it")
            (row,) = [row for row in snapshot.apps if row.app == app]
            assert (row.version, row.lag, row.dead_letters, row.dead_letters_exact) == ("3", 30, 1, True)
            assert [partition.lag for partition in row.partitions] == [30, 0]
            assert (row.windows[60].outcomes, row.windows[60].max_ms) == ({"ok": 30}, 12.0)
            assert [(lane.lane, lane.silent) for lane in snapshot.lanes if lane.app == app] == [("0", False)]
            assert snapshot.answering
            assert any(mark.subject == cluster for mark in seen.series(app).marks)

            once = ["top", "--once", "-o", "json", "--bootstrap-servers", kafka.bootstrap_servers]
            printed = await asyncio.to_thread(CliRunner().invoke, cli, once)
            assert printed.exit_code == 0, printed.output
            (told_once,) = [row for row in json.loads(printed.stdout)["apps"] if row["app"] == app]
            assert (told_once["lag"], told_once["dead_letters"], told_once["rate_in"]) == (30, 1, 0.0)

            before = time.monotonic()
            await publisher.publish(EVENTS, key=b"q", value=encode_event(Event("resource", "node.notice", f"{cluster}/n1", "y")))
            await shows(seen, lambda now: any(e.kind == "node.notice" and e.subject == key for e in now.events), "the notice")
            assert time.monotonic() - before < 2.0
            await remove_app(kafka, app)
            await shows(seen, lambda now: all(row.app != app for row in now.apps), "the app is removed")


async def test_more_results_than_are_read_are_sampled_and_the_sum_is_told(kafka: KafkaSettings) -> None:
    app = fresh("many")
    await publish_app(kafka, AppSpec(app, "1", "/app", "m:f", partitions=1))
    headers = [("outcome", b"ok"), ("timing", b"queue=1.0,dispatch=1.0,execute=1.0,publish=1.0")]
    async with (
        Publisher(settings=kafka, linger_ms=20) as publisher,
        Observation(kafka, changes_per_second=20, results_per_second=200) as seen,
    ):
        await shows(seen, lambda now: any(row.app == app and row.windows for row in now.apps), "the app")
        for _ in range(6_000):
            last = await publisher.enqueue(results_topic(app), key=None, value=b"y", headers=headers)
        await last

        def counted(snapshot: Snapshot) -> bool:
            return any(row.app == app and row.windows[60].results > 5_000 for row in snapshot.apps)

        snapshot = await shows(seen, counted, "that many came")
        (row,) = [row for row in snapshot.apps if row.app == app]
        assert not row.windows[60].exact
        assert row.windows[60].sampled < 3_000
        assert row.windows[60].results <= 6_000
    await remove_app(kafka, app)


async def test_a_topic_that_is_gone_is_told_and_the_rest_goes_on(kafka: KafkaSettings) -> None:
    app = fresh("gone")
    await ensure_topics(kafka, platform_topics())
    await publish_app(kafka, AppSpec(app, "1", "/app", "m:f", partitions=1))
    await delete_topics(kafka, [requests_topic(app)])
    async with Observation(kafka, changes_per_second=20) as seen:
        snapshot = await shows(seen, lambda now: any(row.app == app and row.problem for row in now.apps), "the problem")
        (row,) = [row for row in snapshot.apps if row.app == app]
        assert row.lag is None
        assert "does not exist" in (row.problem or "")
        assert snapshot.answering
    await remove_app(kafka, app)


async def test_without_a_broker_it_says_so_and_does_not_end() -> None:
    async with Observation(KafkaSettings("127.0.0.1:9"), changes_per_second=20) as seen:
        snapshot = await shows(seen, lambda now: any(stall.kind is StallKind.BROKER for stall in now.stalls), "the stall", 10)
        assert not snapshot.answering
        assert not snapshot.caught_up
        assert not await seen.caught_up(0.1)
