"""What `rayline nodes` and `rayline explain node` tell, from a real broker with agents and resources at work."""

from __future__ import annotations

import asyncio
import json
import time

import pytest
from typer.testing import CliRunner

from deploy.cli import app
from deploy.node_inspection import open_inspector
from rayline.bus import KafkaSettings, Publisher
from rayline.lane_record import LaneRecord, encode_lane_record
from rayline.reports import NodeLoad, NodeState
from rayline.topics import CHANGES_PARTITION, VIEW
from scheduler.view import SUSPECT_AFTER_SECONDS
from tests.integration.deploy.test_resources import platform, until

pytestmark = pytest.mark.integration


async def test_a_nodes_life_is_told_once_however_many_resources_saw_it(kafka: KafkaSettings) -> None:
    async with platform(kafka) as (pods, running, group), Publisher(settings=kafka) as publisher:
        services = [running.start(name) for name in ("r1", "r2")]
        await until(lambda: all(s.resource.statistics().nodes == len(pods.names) for s in services), 20, "all nodes are known")
        key = f"{pods.cluster}/n0"
        pods.frozen.add("n0")
        for service in services:
            view = service.resource.view
            await until(lambda view=view: view.suspect(key, time.monotonic()), SUSPECT_AFTER_SECONDS + 3, "n0 is suspect")  # type: ignore[misc]
        await asyncio.sleep(1.5)
        pods.frozen.clear()
        for service in services:
            view = service.resource.view
            await until(lambda view=view: not view.suspect(key, time.monotonic()), 5, "n0 is heard again")  # type: ignore[misc]
        await asyncio.sleep(1.5)
        pods.names.remove("n0")
        load = NodeLoad(cores=2.0, own_cpu=0.5, host_cpu=0.75)
        leaving = pods.report("n0", NodeState.DRAINING, reason="notice: SIGTERM", load=load)
        await pods.say(leaving, CHANGES_PARTITION)
        weighed = {
            "weight": 1.25,
            "share": 0.25,
            "factors": {"cores": 2.0},
            "note": "held back",
            "policy": "headroom",
            "running": 3,
        }
        way = {
            "state": "draining",
            "said_ms": leaving.seq,
            "heard_after_ms": 12.0,
            "out_after_ms": 14.0,
            "by": "news",
            "update": 7,
        }
        record = LaneRecord("ocr", f"lane-{pods.cluster}", False, 1, {key: weighed}, {key: way})
        await publisher.publish(VIEW, key=record.key, value=encode_lane_record(record))

        async with open_inspector(kafka, group=group) as inspector:
            await until(lambda: str(inspector.find(key)[0].standing) == "draining", 5, "the notice is told")
            for _ in range(50):
                history = await inspector.history(key)
                if history and history[-1].event.kind == "node.notice":
                    break
                await asyncio.sleep(0.1)
            kinds = [entry.event.kind.removeprefix("node.") for entry in history]
            assert kinds == ["joined", "ready", "suspect", "recovered", "notice"]
            assert history[-1].event.reason == "notice: SIGTERM"
            pods.names.remove("n1")
            for state in (NodeState.DRAINING, NodeState.GONE):
                await pods.say(pods.report("n1", state, reason=f"evicted: {state.name}"), CHANGES_PARTITION)
            for _ in range(50):
                history = await inspector.history(f"{pods.cluster}/n1")
                if history and history[-1].event.kind == "node.gone":
                    break
                await asyncio.sleep(0.1)
            assert [entry.event.kind for entry in history] == ["node.joined", "node.ready", "node.notice", "node.gone"]
            (node,) = inspector.find("n0") if len(inspector.find("n0")) == 1 else inspector.find(key)
            assert node.as_dict()["weight"] == 1.25

        shown = await asyncio.to_thread(_cli, kafka, "explain", "node", key, "--group", group)
        for part in (
            "draining (notice: SIGTERM)",
            "1.25, 25.0% of the work",
            "cores 2",
            "held back",
            "node.suspect",
            "own_cpu 0.5",
            "draining, said at",
            "resources told of it",
            "heard of it 12 ms after the broker, sent nothing new there after 14 ms (by the news; update 7",
        ):
            assert part in shown, shown
        rows = json.loads(await asyncio.to_thread(_cli, kafka, "nodes", "--group", group, "-o", "json"))
        states = {row["node"]: row["state"] for row in rows if row["cluster"] == pods.cluster}
        assert states == {"n0": "draining", **dict.fromkeys(pods.names, "ready")}, "n1 is gone"
        assert next(row for row in rows if row["node"] == "n0")["in_flight"] == 3


def _cli(kafka: KafkaSettings, *arguments: str) -> str:
    answer = CliRunner().invoke(app, [*arguments, "--bootstrap-servers", kafka.bootstrap_servers])
    assert answer.exit_code == 0, answer.output
    return answer.output
