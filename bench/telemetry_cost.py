"""What metrics and traces cost: ``python -m bench.telemetry_cost --json FILE``.

Starts a platform of its own (two clusters of one pod) and works heaps of echo jobs off, two at the same time: one app without
telemetry and one with it, each with a lane and half of each pod. Side by side, because a machine's speed changes more from one
minute to the next than telemetry costs; what is compared is how far each gets in the same seconds. Each app's lane starts under
its own environment; every job begins a sampled trace. With telemetry: everything is counted, every process's page is read each
two seconds, and one job in a hundred is traced from lane to actor. Without: the lane counts, shows and traces nothing.

Processes that start with the platform (agents, gateways, resources, keeper) gather their few values each second, for both. Jobs
are loaded while no node takes work. A round counts from when both apps have done 30 % of theirs until one has done 95 %. 0 when
telemetry costs no more than 5 % of throughput.
"""

import asyncio
import json
import os
import tempfile
import time
import urllib.request
import uuid
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Annotated, Any

import tenacity
import typer

from bench.contestants import GroupProgress, Heap, write_app
from bench.load import LoadError, create_topics, delete_topics, preload
from bench.processes import cpu_seconds, tree
from bench.run import machine
from bench.table import tell_bars
from bench.telemetry_verdict import LEAST_SECONDS, Arm, Mark, Round, Side, SteadyPart, judge
from deploy.app_registry import publish_app, remove_app
from deploy.checker import check
from deploy.cli.output import note
from deploy.config_board import ConfigBoard
from deploy.local.platform import LocalPlatform, PlatformPlan
from deploy.local.startup_log import StartupLog
from deploy.node_watch import serving_nodes, wait_lanes
from rayline.bus import KafkaSettings, Publisher
from rayline.manifest import load_manifest
from rayline.metrics.process import METRICS_VARIABLE
from rayline.telemetry import TRACE_FILE_VARIABLE
from rayline.topics import CONFIG, requests_topic

CLUSTERS = ("c1", "c2")
SAMPLED_SHARE = 0.01
SCRAPE_SECONDS = 2.0
READY_SECONDS = 180.0
WORK_SECONDS = 300.0
LEAVE_SECONDS = 60.0
_LOOK_SECONDS = 0.02
_PAGE_SECONDS = 5.0
_NO_SLA_SECONDS = 3_600.0
# An actor of each app on each pod.
_HALF_OF_A_POD = {"resources": {"num_cpus": 0.5}, "actors_per_node": 1}


class TelemetryBench:
    """Rounds on one platform. Owns the apps that it deploys and removes; does not own the platform, nor the environment."""

    def __init__(self, *, platform: LocalPlatform, board: ConfigBoard, folder: Path, trace_file: Path, jobs: int) -> None:
        self._platform = platform
        self._board = board
        self._folder = folder
        self._trace_file = trace_file
        self._jobs = jobs

    async def round(self, arms: Sequence[Arm]) -> Round:
        """A heap for each arm, from apps of their own (in this order) to their removal. Raises LoadError where it cannot be
        judged, LaunchError where the platform does not serve them."""
        heaps = {arm: await self._deploy(arm) for arm in arms}
        pages = Counter[str]()
        scraping = asyncio.create_task(self._scrape(pages))
        try:
            await self._cordon(True)
            for heap in heaps.values():
                await asyncio.to_thread(preload, heap.bootstrap_servers, requests_topic(heap.app), heap.jobs, traced=True)
            await self._cordon(False)
            part, cpu = await asyncio.to_thread(self._watch, heaps)
            for arm, heap in heaps.items():
                self._check_arm(arm, f"lane/{heap.app}/", pages)
        finally:
            scraping.cancel()
            await asyncio.wait({scraping})
        sides = {arm: await self._end(arm, heap, part, cpu[arm]) for arm, heap in heaps.items()}
        return Round(sides[Arm.OFF], sides[Arm.ON])

    async def _deploy(self, arm: Arm) -> Heap:
        """An app whose lane runs under this arm's environment; it serves on every pod when this returns."""
        os.environ |= arm_environment(arm, self._trace_file)
        servers = self._platform.settings.bootstrap_servers
        heap = Heap(servers, f"bench-telemetry-{arm}-{uuid.uuid4().hex[:8]}", "echo", self._jobs, 0)
        app_dir = self._folder / heap.app
        write_app(app_dir, heap, **_HALF_OF_A_POD)
        await asyncio.to_thread(create_topics, servers, heap.app)
        spec = load_manifest(app_dir)
        await publish_app(self._platform.settings, spec)
        await self._platform.wait_app_ready(heap.app, version=spec.version, nodes=len(CLUSTERS), timeout_seconds=READY_SECONDS)
        await wait_lanes(self._platform.settings, heap.app, timeout_seconds=READY_SECONDS)
        return heap

    async def _end(self, arm: Arm, heap: Heap, part: SteadyPart, cpu_seconds: float) -> Side:
        """Remove the app and count its results."""
        await self._remove(heap.app)
        report = await asyncio.to_thread(
            check, heap.bootstrap_servers, app=heap.app, sla_seconds=_NO_SLA_SECONDS, expected_result=lambda job: job
        )
        await asyncio.to_thread(delete_topics, heap.bootstrap_servers, heap.app)
        traced = job_spans(self._trace_file, heap.app)
        if (traced > 0) != (arm is Arm.ON):
            raise LoadError(f"{traced} jobs were traced with telemetry {arm}: nothing can be said")
        jobs = part.jobs(arm)
        return Side(
            jobs_per_s=jobs / part.seconds,
            lane_cpu_s_per_1000=cpu_seconds / jobs * 1000,
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

    def _watch(self, heaps: Mapping[Arm, Heap]) -> tuple[SteadyPart, dict[Arm, float]]:
        """Watch what is committed; the part that is judged, and the CPU seconds that it took of each arm's lane."""
        part, cpu = SteadyPart(self._jobs), list[dict[Arm, float]]()
        deadline = time.monotonic() + WORK_SECONDS
        with ExitStack() as stack:
            watched = {arm: stack.enter_context(GroupProgress(heap.bootstrap_servers, heap.app)) for arm, heap in heaps.items()}
            done = dict.fromkeys(heaps, 0)
            while min(done.values()) < self._jobs:
                time.sleep(_LOOK_SECONDS)
                done = {arm: progress.done() for arm, progress in watched.items()}
                if part.take(Mark(time.monotonic(), done)):
                    cpu.append({arm: self._lane_cpu_seconds(heap.app) for arm, heap in heaps.items()})
                if time.monotonic() > deadline:
                    raise LoadError(f"{done} of {self._jobs} jobs were done after {WORK_SECONDS:g} s; see {self._folder}/logs")
        if part.seconds < LEAST_SECONDS:
            raise LoadError(f"only {part.seconds:.1f} s could be judged, of {LEAST_SECONDS:g} needed: give more --jobs")
        return part, {arm: cpu[1][arm] - cpu[0][arm] for arm in heaps}

    def _lane_cpu_seconds(self, app: str) -> float:
        pids = [record.pid for record in self._platform.processes() if record.name.startswith(f"lane-{app}-")]
        return sum(cpu_seconds((one for pid in pids for one in tree(pid)), lambda _: "lane").values())

    def _check_arm(self, arm: Arm, lanes: str, pages: Mapping[str, int]) -> None:
        """Lanes show what this arm says they do; raises LoadError else: the round would measure something else."""
        shown = {name: one.metrics for name, one in self._board.presences().items() if name.startswith(lanes)}
        right = not any(shown.values()) if arm is Arm.OFF else shown.keys() <= pages.keys()
        if len(shown) != 1 or not right:
            raise LoadError(f"with telemetry {arm} the lane's metrics are at {shown}, and pages were read: {dict(pages)}")

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


def job_spans(trace_file: Path, app: str) -> int:
    """How many spans of an app's jobs the file holds."""
    if not trace_file.exists():
        return 0
    with trace_file.open(encoding="utf-8") as lines:
        return sum(line.startswith('{"name": "rayline.job"') and f'"{app}"' in line for line in lines)


def _read_page(address: str) -> bool:
    try:
        with urllib.request.urlopen(f"http://{address}/metrics", timeout=_PAGE_SECONDS) as page:
            return bool(page.read())
    except OSError:
        # A process of a round before.
        return False


async def run(
    *, rounds: int, jobs: int, state_dir: Path, kafka: KafkaSettings | None, say: Callable[[str], None]
) -> dict[str, Any]:
    """All rounds, the first one (a warm-up) left out. Raises RaylineError when the platform fails or a round cannot be judged."""
    trace_file, done = state_dir / "traces.jsonl", list[Round]()
    began = time.monotonic()
    # Pods pass it on to actors, which trace only what a lane's batch asks them to.
    os.environ |= arm_environment(Arm.ON, trace_file)
    plan = PlatformPlan(state_dir=state_dir / "platform", clusters=len(CLUSTERS), pods_per_cluster=1, kafka=kafka)
    async with LocalPlatform(plan, log=StartupLog()) as platform:
        async with Publisher(settings=platform.settings) as publisher:
            await publisher.publish(CONFIG, key=b"global/trace.sampling", value=json.dumps(SAMPLED_SHARE).encode())
        async with ConfigBoard(platform.settings) as board:
            bench = TelemetryBench(platform=platform, board=board, folder=plan.state_dir, trace_file=trace_file, jobs=jobs)
            for number in range(rounds + 1):
                one = await bench.round(list(Arm) if number % 2 else list(reversed(Arm)))
                what = f"{number}/{rounds}" if number else "warm-up"
                say(
                    f"{time.monotonic() - began:6.0f} s  {what:<8} without {one.off.jobs_per_s:>8,.0f} jobs/s  "
                    f"with {one.on.jobs_per_s:>8,.0f}  ratio {one.ratio:.3f}"
                )
                done.append(one)
    return {"machine": machine(), "jobs": jobs, "sampled": SAMPLED_SHARE, **judge(done[1:])}


def main(
    rounds: Annotated[int, typer.Option(min=1, help="Rounds, each with and without telemetry at the same time.")] = 8,
    jobs: Annotated[int, typer.Option(min=10_000, help="Jobs of each app in a round.")] = 150_000,
    json_file: Annotated[Path | None, typer.Option("--json", metavar="FILE", help="Write the outcome to FILE, too.")] = None,
    state_dir: Annotated[Path | None, typer.Option(help="Where the platform lives; default: a folder that goes away.")] = None,
    bootstrap_servers: Annotated[str | None, typer.Option(help="Kafka; default: one of its own.")] = None,
) -> None:
    """Measure what telemetry costs; 1 when it is too much."""
    kafka = None if bootstrap_servers is None else KafkaSettings(bootstrap_servers=bootstrap_servers)

    with tempfile.TemporaryDirectory(prefix="rayline-telemetry-") as folder:
        place = (state_dir or Path(folder)).resolve()
        place.mkdir(parents=True, exist_ok=True)
        outcome = asyncio.run(run(rounds=rounds, jobs=jobs, state_dir=place, kafka=kafka, say=note))
    raise typer.Exit(tell_bars(outcome, json_file))


if __name__ == "__main__":
    typer.run(main)
