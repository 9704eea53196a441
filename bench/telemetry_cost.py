"""What metrics and traces cost: ``python -m bench.telemetry_cost --json FILE``.

Starts a platform of its own (two clusters of one pod, two lanes) and works heaps of echo jobs off, in pairs of rounds without
and with telemetry (A B B A …). Each round is an app of its own, whose lanes start under that round's environment; every job
begins a sampled trace. With telemetry: everything is counted, every process's page is read each two seconds, and one job in a
hundred is traced from lane to actor. Without: lanes count, show and trace nothing, and nobody reads a page.

Processes that start with the platform (agents, gateways, resources, keeper) gather their few values each second in both arms;
with ``--whole`` each round has a platform of its own, so that they do not either. Jobs are loaded while no node takes work, and
each round is judged from 30 to 95 % of them. 0 when telemetry costs no more than 5 % of throughput.
"""

import asyncio
import json
import os
import tempfile
import time
import urllib.request
import uuid
from collections import Counter
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Annotated, Any

import tenacity
import typer

from bench.contestants import GroupProgress, Heap, platform_cpu_seconds, write_app
from bench.load import LoadError, create_topics, delete_topics, preload
from bench.processes import spent
from bench.run import machine
from bench.table import tell_bars
from bench.telemetry_verdict import LEAST_SECONDS, Arm, Mark, Round, SteadyPart, judge, order
from deploy.app_registry import publish_app, remove_app
from deploy.checker import check
from deploy.cli.output import note
from deploy.config_board import ConfigBoard
from deploy.local.platform import LocalPlatform, PlatformPlan
from deploy.local.startup_log import StartupLog
from deploy.node_watch import serving_nodes
from rayline.bus import KafkaSettings, Publisher
from rayline.manifest import load_manifest
from rayline.metrics.process import METRICS_VARIABLE
from rayline.telemetry import TRACE_FILE_VARIABLE
from rayline.topics import CONFIG, requests_topic

CLUSTERS = ("c1", "c2")
LANES = 2
SAMPLED_SHARE = 0.01
SCRAPE_SECONDS = 2.0
READY_SECONDS = 180.0
WORK_SECONDS = 300.0
LEAVE_SECONDS = 60.0
_LOOK_SECONDS = 0.02
_PAGE_SECONDS = 5.0
_NO_SLA_SECONDS = 3_600.0


class TelemetryBench:
    """Rounds on one platform. Owns the apps that it deploys and removes; does not own the platform, nor the environment."""

    def __init__(self, *, platform: LocalPlatform, board: ConfigBoard, folder: Path, trace_file: Path, jobs: int) -> None:
        self._platform = platform
        self._board = board
        self._folder = folder
        self._trace_file = trace_file
        self._jobs = jobs

    async def round(self, arm: Arm) -> Round:
        """One heap, from an app of its own to its removal. Raises LoadError where it cannot be judged, LaunchError where the
        platform does not serve it."""
        servers = self._platform.settings.bootstrap_servers
        heap = Heap(servers, f"bench-telemetry-{uuid.uuid4().hex[:8]}", "echo", self._jobs, 0)
        app_dir = self._folder / heap.app
        write_app(app_dir, heap)
        await asyncio.to_thread(create_topics, servers, heap.app)
        spans_before = job_spans(self._trace_file)
        spec = load_manifest(app_dir)
        await publish_app(self._platform.settings, spec)
        await self._platform.wait_app_ready(heap.app, version=spec.version, nodes=len(CLUSTERS), timeout_seconds=READY_SECONDS)
        pages = Counter[str]()
        scraping = asyncio.create_task(self._scrape(pages)) if arm is Arm.ON else None
        try:
            await self._cordon(True)
            await asyncio.to_thread(preload, servers, requests_topic(heap.app), heap.jobs, traced=True)
            await self._cordon(False)
            part, cpu = await asyncio.to_thread(self._watch, heap)
            self._check_arm(arm, f"lane/{heap.app}/", pages)
        finally:
            if scraping is not None:
                scraping.cancel()
                await asyncio.wait({scraping})
        await self._remove(heap.app)
        report = await asyncio.to_thread(
            check, servers, app=heap.app, sla_seconds=_NO_SLA_SECONDS, expected_result=lambda job: job
        )
        await asyncio.to_thread(delete_topics, servers, heap.app)
        traced = job_spans(self._trace_file) - spans_before
        if (traced > 0) != (arm is Arm.ON):
            raise LoadError(f"{traced} jobs were traced in a round with telemetry {arm}: nothing can be said")
        return Round(
            arm=arm,
            jobs_per_s=part.jobs / part.seconds,
            cpu_s_per_1000={role: seconds / part.jobs * 1000 for role, seconds in cpu.items()},
            lost=report.lost,
            duplicated=report.duplicated,
            wrong=report.unknown + report.mismatched_ids + report.wrong_payload,
            traced=traced,
        )

    async def _cordon(self, cordoned: bool) -> None:
        """Whether nodes get no work."""
        async with Publisher(settings=self._platform.settings) as publisher:
            for cluster in CLUSTERS:
                await publisher.publish(CONFIG, key=f"cluster/{cluster}/cordon".encode(), value=b"true" if cordoned else None)

    def _watch(self, heap: Heap) -> tuple[SteadyPart, dict[str, float]]:
        """Watch what is committed; the part that is judged, and the CPU seconds that it took, by role."""
        part, cpu = SteadyPart(heap.jobs), list[dict[str, float]]()
        deadline = time.monotonic() + WORK_SECONDS
        with GroupProgress(heap.bootstrap_servers, heap.app) as progress:
            done = 0
            while done < heap.jobs:
                time.sleep(_LOOK_SECONDS)
                done = progress.done()
                if part.take(Mark(time.monotonic(), done)):
                    cpu.append(platform_cpu_seconds(self._folder))
                if time.monotonic() > deadline:
                    raise LoadError(f"{done} of {heap.jobs} jobs were done after {WORK_SECONDS:g} s; see {self._folder}/logs")
        if part.seconds < LEAST_SECONDS:
            raise LoadError(f"only {part.seconds:.1f} s could be judged, of {LEAST_SECONDS:g} needed: give more --jobs")
        return part, spent(cpu[0], cpu[1])

    def _check_arm(self, arm: Arm, lanes: str, pages: Mapping[str, int]) -> None:
        """Lanes show what this arm says they do; raises LoadError else: the round would measure something else."""
        shown = {name: one.metrics for name, one in self._board.presences().items() if name.startswith(lanes)}
        right = not any(shown.values()) if arm is Arm.OFF else shown.keys() <= pages.keys()
        if len(shown) != LANES or not right:
            raise LoadError(f"with telemetry {arm} the lanes' metrics are at {shown}, and pages were read: {dict(pages)}")

    async def _scrape(self, pages: Counter[str]) -> None:
        """Read every process's page as Prometheus does, until cancelled."""
        while True:
            for process, presence in self._board.presences().items():
                if presence.metrics is not None and await asyncio.to_thread(_read_page, presence.metrics):
                    pages[process] += 1
            await asyncio.sleep(SCRAPE_SECONDS)

    async def _remove(self, app: str) -> None:
        """Until its lanes have ended (and flushed their spans) and its actors have made room."""
        await remove_app(self._platform.settings, app)

        async def there() -> bool:
            lanes = any(record.name.startswith(f"lane-{app}-") for record in self._platform.processes())
            return lanes or bool(serving_nodes(self._platform.nodes, app, None))

        leaving = tenacity.AsyncRetrying(
            retry=tenacity.retry_if_result(bool), wait=tenacity.wait_fixed(0.1), stop=tenacity.stop_after_delay(LEAVE_SECONDS)
        )
        await leaving(there)


def arm_environment(arm: Arm, trace_file: Path) -> dict[str, str]:
    """The variables under which a round's processes start."""
    if arm is Arm.OFF:
        return {METRICS_VARIABLE: "off", TRACE_FILE_VARIABLE: ""}
    return {METRICS_VARIABLE: "on", TRACE_FILE_VARIABLE: str(trace_file)}


def job_spans(trace_file: Path) -> int:
    """How many jobs' spans the file holds."""
    if not trace_file.exists():
        return 0
    with trace_file.open(encoding="utf-8") as lines:
        return sum(line.startswith('{"name": "rayline.job"') for line in lines)


def _read_page(address: str) -> bool:
    try:
        with urllib.request.urlopen(f"http://{address}/metrics", timeout=_PAGE_SECONDS) as page:
            return bool(page.read())
    except OSError:
        # A process of a round before.
        return False


@asynccontextmanager
async def site(folder: Path, trace_file: Path, jobs: int, kafka: KafkaSettings | None) -> AsyncIterator[TelemetryBench]:
    """A platform whose lanes trace one sampled job in a hundred, where they trace."""
    plan = PlatformPlan(state_dir=folder, clusters=len(CLUSTERS), pods_per_cluster=1, lanes_per_app=LANES, kafka=kafka)
    async with LocalPlatform(plan, log=StartupLog()) as platform:
        async with Publisher(settings=platform.settings) as publisher:
            await publisher.publish(CONFIG, key=b"global/trace.sampling", value=json.dumps(SAMPLED_SHARE).encode())
        async with ConfigBoard(platform.settings) as board:
            yield TelemetryBench(platform=platform, board=board, folder=folder, trace_file=trace_file, jobs=jobs)


async def run(
    *, pairs: int, jobs: int, whole: bool, state_dir: Path, kafka: KafkaSettings | None, say: Callable[[str], None]
) -> dict[str, Any]:
    """All rounds, the first one (a warm-up) left out. Raises RaylineError when the platform fails or a round cannot be judged."""
    trace_file, rounds, arms = state_dir / "traces.jsonl", list[Round](), [Arm.ON, *order(pairs)]
    began = time.monotonic()

    def tell(one: Round) -> None:
        what = "warm-up" if not rounds else f"{len(rounds)}/{len(arms) - 1}"
        say(f"{time.monotonic() - began:6.0f} s  {what:<8} telemetry {one.arm:<4} {one.jobs_per_s:>9,.0f} jobs/s")
        rounds.append(one)

    if whole:
        for number, arm in enumerate(arms):
            os.environ |= arm_environment(arm, trace_file)
            async with site(state_dir / str(number), trace_file, jobs, kafka) as bench:
                tell(await bench.round(arm))
    else:
        # Pods pass it on to actors, which trace only what a lane's batch asks them to.
        os.environ |= arm_environment(Arm.ON, trace_file)
        async with site(state_dir / "platform", trace_file, jobs, kafka) as bench:
            for arm in arms:
                os.environ |= arm_environment(arm, trace_file)
                tell(await bench.round(arm))
    return {"machine": machine(), "jobs": jobs, "whole": whole, "sampled": SAMPLED_SHARE, **judge(rounds[1:])}


def main(
    pairs: Annotated[int, typer.Option(min=1, help="Pairs of rounds, one without and one with telemetry.")] = 6,
    jobs: Annotated[int, typer.Option(min=10_000, help="Jobs of each round.")] = 250_000,
    whole: Annotated[
        bool, typer.Option("--whole", help="A platform of its own for each round; takes a minute more each.")
    ] = False,
    json_file: Annotated[Path | None, typer.Option("--json", metavar="FILE", help="Write the outcome to FILE, too.")] = None,
    state_dir: Annotated[Path | None, typer.Option(help="Where the platform lives; default: a folder that goes away.")] = None,
    bootstrap_servers: Annotated[str | None, typer.Option(help="Kafka; default: one of its own.")] = None,
) -> None:
    """Measure what telemetry costs; 1 when it is too much."""
    kafka = None if bootstrap_servers is None else KafkaSettings(bootstrap_servers=bootstrap_servers)

    with tempfile.TemporaryDirectory(prefix="rayline-telemetry-") as folder:
        place = (state_dir or Path(folder)).resolve()
        place.mkdir(parents=True, exist_ok=True)
        outcome = asyncio.run(run(pairs=pairs, jobs=jobs, whole=whole, state_dir=place, kafka=kafka, say=note))
    raise typer.Exit(tell_bars(outcome, json_file))


if __name__ == "__main__":
    typer.run(main)
