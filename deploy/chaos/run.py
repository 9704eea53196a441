"""One chaos run on a platform that is up: load, faults, and the count of a foreign reader."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from deploy.app_registry import publish_app
from deploy.chaos.faults import FaultInjector
from deploy.chaos.load import Clockwork, Load
from deploy.chaos.plan import Fault
from deploy.chaos.verdict import Answer, Stroke
from deploy.checker import Report, check
from deploy.committed_reader import StartOffsets, end_offsets, read_committed
from deploy.local.platform import LocalPlatform
from rayline.jobs import JOB_ID
from rayline.manifest import load_manifest
from rayline.results import SOURCE
from rayline.topics import requests_topic, results_topic

APP_FOLDER: Final = Path(__file__).parent / "app"
HEALED_CHECKS: Final = 60
_CHECK_SECONDS: Final = 1.0


@dataclass(frozen=True, slots=True)
class Found:
    """What one run gave: the checker's report, each job's first answer, what was done to whom."""

    report: Report
    answers: list[Answer]
    strokes: list[Stroke]
    begun_ms: float


async def deploy_echo(platform: LocalPlatform, *, nodes: int) -> str:
    """Deploy the app of chaos and wait until so many nodes serve it; its name."""
    app = load_manifest(APP_FOLDER)
    await publish_app(platform.settings, app)
    await platform.wait_app_ready(app.name, version=app.version, nodes=nodes)
    return app.name


async def strike_under_load(
    platform: LocalPlatform,
    *,
    app: str,
    schedule: list[Fault],
    rate_per_second: float,
    load_seconds: float,
    on_stroke: Callable[[Stroke], None] = lambda _: None,
) -> Found:
    """Load and faults side by side, then up to a minute until every job is answered; what was there before does not count.

    Raises RaylineError when jobs cannot be produced.
    """
    servers = platform.settings.bootstrap_servers
    jobs_from = await asyncio.to_thread(end_offsets, servers, requests_topic(app))
    results_from = await asyncio.to_thread(end_offsets, servers, results_topic(app))
    load = Load(bootstrap_servers=servers, app=app, rate_per_second=rate_per_second, seconds=load_seconds)
    clockwork = load.start()
    injector = FaultInjector(platform=platform, app=app, on_stroke=on_stroke)
    await injector.run(schedule)
    await asyncio.to_thread(load.wait)

    def count() -> Report:
        return check(
            servers, app=app, requests_from=jobs_from, results_from=results_from, expected_result=lambda payload: payload
        )

    report = await asyncio.to_thread(count)
    for _ in range(HEALED_CHECKS):
        if not report.lost:
            break
        await asyncio.sleep(_CHECK_SECONDS)
        report = await asyncio.to_thread(count)
    answers = await asyncio.to_thread(first_answers, servers, app, results_from, clockwork)
    return Found(report=report, answers=answers, strokes=injector.strokes, begun_ms=clockwork.begun_ms)


def first_answers(bootstrap_servers: str, app: str, results_from: StartOffsets, clockwork: Clockwork) -> list[Answer]:
    """Read the results back: for each job its partition, when it was due, and when its first result was appended."""
    first: dict[int, Answer] = {}
    for record in read_committed(bootstrap_servers, results_topic(app), start=results_from):
        headers = dict(record.headers)
        number = int(headers.get(JOB_ID) or b"-1")
        partition = int((headers.get(SOURCE) or b"/-1/").split(b"/")[-2])
        if number not in first:
            first[number] = Answer(partition, clockwork.due_ms(number), float(record.timestamp_ms))
    return list(first.values())
