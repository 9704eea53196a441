"""A pod's agent shows what its actors do: totals that only grow, and what is there now, by app and version."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgpack
from prometheus_client.parser import text_string_to_metric_families

from rayline.app_spec import AppSpec
from rayline.jobs import ContentType
from rayline.metrics import MetricsBoard
from rayline.metrics.declared import ACTOR_JOBS, APP, CLUSTER, PROCESS, VERSION, Metric
from rayline.metrics.export import PrometheusPage
from rayline.wire import BatchHead, encode_request
from tests.unit.workers.test_channel import channel_to
from workers.actor_tally import FORGET_SECONDS, ActorLook, ActorTally, look_at_actors
from workers.feature_server import FeatureServer
from workers.job_gauge import Gauged, JobGauge
from workers.watchdog import Watchdog


def looked(pid: int, jobs: int, *, here: int = 0, cpu: float = 1.0, version: str = "1") -> ActorLook:
    return ActorLook(pid, "ocr", version, Gauged(here, jobs, jobs // 10), cpu, 100)


def values(tally: ActorTally, version: str = "1") -> dict[str, float]:
    found: dict[Metric, Any] = {
        one.metric: one.value for one in tally.samples() if one.attributes == {APP: "ocr", VERSION: version}
    }
    return {metric.name.removeprefix("rayline.actor."): value for metric, value in found.items()}


def test_totals_grow_over_the_lives_of_actors_and_what_is_there_now_does_not() -> None:
    tally = ActorTally()
    tally.observe([looked(1, 100, here=3), looked(2, 50, here=4, cpu=2.0)], 0.0)
    tally.observe([looked(1, 150, here=1, cpu=1.5)], 1.0)
    tally.observe([looked(1, 150, cpu=1.5), looked(3, 20, here=2, cpu=0.5)], 2.0)
    assert values(tally) == {
        "jobs": 220,
        "batches": 22,
        "cpu.time": 4.0,
        "processes": 2,
        "in_flight": 2,
        "memory.usage": 200,
    }


def test_another_process_of_the_same_number_is_counted_anew() -> None:
    tally = ActorTally()
    tally.observe([looked(1, 100, cpu=9.0)], 0.0)
    tally.observe([looked(1, 120, cpu=0.5)], 1.0)
    tally.observe([looked(1, 7, cpu=0.75, version="2")], 2.0)
    assert (values(tally)["jobs"], values(tally, "2")["jobs"]) == (220, 7)


def test_versions_that_have_no_actor_any_more_are_forgotten() -> None:
    tally = ActorTally()
    tally.observe([looked(1, 100)], 0.0)
    tally.observe([], 1.0)
    assert (values(tally)["jobs"], values(tally)["processes"]) == (100, 0)
    tally.observe([], FORGET_SECONDS + 1.0)
    assert values(tally) == {}


async def test_a_batch_that_an_actor_ran_stands_on_the_page_of_its_pods_agent(
    serve: Callable[..., FeatureServer], tmp_path: Path
) -> None:
    server = serve(lambda payload: payload)
    entry = {"pid": os.getpid(), "app": "ocr", "version": "7"}
    (tmp_path / f"actor-{os.getpid()}.json").write_text(json.dumps(entry))
    watchdog = Watchdog(server=server, spec=AppSpec("ocr", "7", "/", "m:f"), gauge=JobGauge(tmp_path / f"actor-{os.getpid()}"))
    tally, board = ActorTally(), MetricsBoard(now=0.0, common={PROCESS: "agent/c1/p1", CLUSTER: "c1"})

    def read(now: float) -> list[Any]:
        tally.observe(look_at_actors(tmp_path), now)
        return list(tally.samples())

    board.source(read)
    watchdog.start()
    try:
        channel = channel_to(server.port)
        head = BatchHead("b-1", ContentType.MSGPACK, 20_000)
        request = encode_request([msgpack.packb(number) for number in range(3)])
        await channel.exchange(request, head, timeout_seconds=20, on_chunk=lambda *_: None)
        channel.close()
        now = 1.0
        while not any(sample.value for sample in board.gather(now).samples.get(ACTOR_JOBS, ())):
            now += 1.0
    finally:
        watchdog.close()
    shown = {
        sample.name: (sample.value, sample.labels)
        for family in text_string_to_metric_families(PrometheusPage(board).text().decode())
        for sample in family.samples
        if sample.name.startswith("rayline_actor_")
    }
    labels = {"rayline_app": "ocr", "rayline_version": "7", "rayline_cluster": "c1", "rayline_process": "agent/c1/p1"}
    assert shown["rayline_actor_jobs_total"] == (3, labels)
    assert shown["rayline_actor_batches_total"] == (1, labels)
    assert shown["rayline_actor_memory_usage_bytes"][0] > 1_000_000
    assert shown["rayline_actor_cpu_time_seconds_total"][0] > 0
