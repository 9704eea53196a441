"""One chaos run on a platform that is up: load, faults, and what is left to judge it by."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Final

from deploy.app_registry import publish_app
from deploy.chaos.calibration import sustained_per_second
from deploy.chaos.effects.network import PodNetwork
from deploy.chaos.evidence.answers import first_answers
from deploy.chaos.evidence.executions import read_executions
from deploy.chaos.evidence.wire import Sent, Wire
from deploy.chaos.faults import FaultInjector, Stroke
from deploy.chaos.jobs import expected_result, rounds_for
from deploy.chaos.load import Load, LoadOptions
from deploy.chaos.measures import Evidence
from deploy.chaos.plan import Plan, Target
from deploy.chaos.schedule import Fault
from deploy.chaos.site import Census, Site
from deploy.chaos.stage import Stage
from deploy.chaos.verdict import Found
from deploy.checker import Report, check
from deploy.cluster_report import scale_cluster
from deploy.committed_reader import StartOffsets, end_offsets, read_committed
from rayline.app_spec import AppSpec
from rayline.bus import KafkaSettings
from rayline.errors import FormatError
from rayline.events import decode_event
from rayline.manifest import load_manifest
from rayline.topics import EVENTS, VIEW, requests_topic, results_topic
from rayline.view_record import decode_view_key, decode_view_record

APP_FOLDER: Final = Path(__file__).parent / "app"
HEALED_CHECKS: Final = 60
WHOLE_SECONDS: Final = 120.0
_CHECK_SECONDS: Final = 1.0
_LOOK_SECONDS: Final = 0.1


@dataclass(slots=True)
class Theatre:
    """A platform with the app of chaos on it, watched from its first pod on. `record` is where the app writes what it runs,
    `pods` how many there are when all is well."""

    platform: Stage
    app: str
    pods: int
    record: Path
    site: Site
    census: Census
    network: PodNetwork | None = None
    endpoints: dict[tuple[str, int], str] = field(default_factory=dict)

    def note_endpoints(self) -> None:
        """Remember which pod listens where: its reports name it only while it serves."""
        for node in self.platform.nodes.nodes():
            for actor in node.report.actors or ():
                self.endpoints[actor.host, actor.port] = node.report.key

    def lanes(self) -> list[int]:
        return [who.pid for who in self.site.candidates(Target.LANE)]


@asynccontextmanager
async def watched(platform: Stage, network: PodNetwork | None) -> AsyncIterator[Census]:
    """Counts pods while a platform starts and runs; puts each into its own network group where the plan needs it."""
    census = Census(platform.folder)
    if network is not None:
        census.newcomer = lambda pod: network.enter(pod.session, [pod.session])
    task = asyncio.create_task(census.run(), name="census")
    try:
        yield census
    finally:
        task.cancel()
        await asyncio.wait({task})
        if not task.cancelled():
            task.result()


def app_name() -> str:
    """The app of chaos."""
    return load_manifest(APP_FOLDER).name


async def open_theatre(
    platform: Stage,
    census: Census,
    *,
    record: Path,
    pods: int,
    work_ms: float,
    network: PodNetwork | None = None,
    tune: Callable[[AppSpec], AppSpec] = lambda app: app,
) -> Theatre:
    """Deploy the app of chaos and wait until so many pods serve it; `record` is an existing folder, by its absolute path."""
    manifest = tune(load_manifest(APP_FOLDER))
    rounds = await asyncio.to_thread(rounds_for, work_ms)
    app = replace(manifest, env={**manifest.env, "CHAOS_RECORD": str(record), "CHAOS_ROUNDS": str(rounds)})
    await publish_app(platform.settings, app)
    await platform.wait_app_ready(app.name, version=app.version, nodes=pods)
    site = Site(folder=platform.folder, nodes=platform.nodes, app=app.name, record=record)
    return Theatre(platform=platform, app=app.name, pods=pods, record=record, site=site, census=census, network=network)


async def strike_under_load(
    theatre: Theatre,
    *,
    plan: Plan,
    schedule: list[Fault],
    rate_per_second: float | None = None,
    on_stroke: Callable[[Stroke], None] = lambda _: None,
) -> Found:
    """Load and faults side by side, then up to a minute until every job is answered; what was there before does not count.

    `rate_per_second` None: the plan's, by calibration where it says so. Raises RaylineError when jobs cannot be produced.
    """
    servers = theatre.platform.settings.bootstrap_servers
    sustained = None
    rate = rate_per_second or plan.load.rate
    if rate is None:
        sustained = await sustained_per_second(servers, theatre.app)
        rate = sustained * plan.load.share
    jobs_from = await asyncio.to_thread(end_offsets, servers, requests_topic(theatre.app))
    results_from = await asyncio.to_thread(end_offsets, servers, results_topic(theatre.app))
    view_from = await asyncio.to_thread(end_offsets, servers, VIEW)
    events_from = await asyncio.to_thread(end_offsets, servers, EVENTS)
    begun_ms = time.time() * 1000
    phases = [(phase.seconds, phase.times * rate) for phase in plan.load.phases]
    load = Load(LoadOptions(servers, theatre.app, rate, phases=phases))
    wire = Wire(theatre.lanes)
    injector = FaultInjector(
        site=theatre.site,
        load=load,
        network=theatre.network,
        on_stroke=on_stroke,
        scale=partial(_scale, theatre.platform.settings),
    )
    watching = [asyncio.create_task(wire.run(), name="wire"), asyncio.create_task(_note_endpoints(theatre), name="endpoints")]
    try:
        clockwork = await load.start()
        await _strike(theatre, plan, injector, schedule)
        clockwork = await load.stop()
    finally:
        load.end()
        for task in watching:
            task.cancel()
        await asyncio.wait(watching)
    ended_ms = time.time() * 1000
    alive = sum(process.is_running() for stroke in injector.strokes for process in stroke.family)
    report = await _count_until_answered(servers, theatre.app, jobs_from, results_from)
    answers = await asyncio.to_thread(first_answers, servers, theatre.app, results_from, clockwork)
    executions = [e for e in await asyncio.to_thread(read_executions, theatre.record) if e.began_ms >= begun_ms]
    return Found(
        report=report,
        evidence=Evidence(answers, executions, _by_node(theatre, wire.sent), tuple(theatre.census.pods.values())),
        strokes=injector.strokes,
        begun_ms=clockwork.begun_ms,
        ended_ms=ended_ms,
        rate_per_second=rate,
        sustained_per_second=sustained,
        view=await asyncio.to_thread(_view, servers, view_from),
        suspected=await asyncio.to_thread(_suspected, servers, events_from),
        old_processes_alive=alive,
    )


async def _scale(settings: KafkaSettings, cluster: str, pods: int) -> None:
    await scale_cluster(settings, cluster, pods=pods, cpus_per_pod=None)


async def _strike(theatre: Theatre, plan: Plan, injector: FaultInjector, schedule: list[Fault]) -> None:
    """All faults, then the tail of the load; where the plan wants it, until every pod serves again."""
    ends = time.monotonic() + plan.load_seconds
    await injector.run(schedule)
    ends = max(ends, time.monotonic() + plan.tail_seconds)
    if plan.whole_again:
        await theatre.platform.wait_app_ready(theatre.app, nodes=theatre.pods, timeout_seconds=WHOLE_SECONDS)
        ends = max(ends, time.monotonic() + plan.tail_seconds)
    await asyncio.sleep(ends - time.monotonic())


async def _note_endpoints(theatre: Theatre) -> None:
    while True:
        theatre.note_endpoints()
        await asyncio.sleep(_LOOK_SECONDS)


def _by_node(theatre: Theatre, sent: list[Sent]) -> list[tuple[str, Sent]]:
    """Batches by the pod that listened there; other traffic of lanes (there is none to pods) is left out."""
    endpoints = theatre.endpoints
    return [(endpoints[batch.host, batch.port], batch) for batch in sent if (batch.host, batch.port) in endpoints]


async def _count_until_answered(servers: str, app: str, jobs_from: StartOffsets, results_from: StartOffsets) -> Report:
    def count() -> Report:
        return check(servers, app=app, requests_from=jobs_from, results_from=results_from, expected_result=expected_result)

    report = await asyncio.to_thread(count)
    for _ in range(HEALED_CHECKS):
        if not report.lost:
            break
        await asyncio.sleep(_CHECK_SECONDS)
        report = await asyncio.to_thread(count)
    return report


def _view(servers: str, start: StartOffsets) -> list[tuple[float, frozenset[str]]]:
    """What resources told while the load ran: append time, nodes."""
    told = []
    for record in read_committed(servers, VIEW, start=start):
        if record.value is not None and decode_view_key(record.key) is not None:
            nodes = frozenset(report.key for report in decode_view_record(record.value).reports)
            told.append((float(record.timestamp_ms), nodes))
    return sorted(told, key=lambda item: item[0])


def _suspected(servers: str, start: StartOffsets) -> list[tuple[float, str]]:
    """Which nodes counted as silent, and when (epoch milliseconds); several resources tell of one silence."""
    told = set()
    for record in read_committed(servers, EVENTS, start=start):
        try:
            event = decode_event(record.value) if record.value is not None else None
        except FormatError:
            continue  # another version's: no witness for us
        if event is not None and event.kind == "node.suspect":
            told.add((float(record.timestamp_ms), event.subject))
    return sorted(told)
