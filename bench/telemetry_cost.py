"""What metrics and traces cost: ``python -m bench.telemetry_cost --json FILE``.

Starts a platform of its own (two clusters of one pod) and two echo apps on it at a time, one without telemetry and one with it,
each with a lane and half of each pod. Both get jobs at the same rate over the same seconds, because a machine's speed changes
more from one minute to the next than telemetry costs, and an app that gets further than the other works in larger batches. What
is compared is the CPU time that lane and actors took: by as much as that is more, throughput is less where a machine is busy.

Each app's lane starts under its own environment; every job begins a sampled trace. With telemetry: everything is counted, every
process's page is read each five seconds (Prometheus usually reads each 15 or more), and one job in a hundred is traced from lane
to actor. Without: the lane counts, shows and traces nothing. Processes that start with the platform (agents, gateways, resources,
keeper) gather their few values each second, for both. 0 when telemetry costs no more than 5 %.
"""

import asyncio
import json
import os
import sys
import tempfile
import time
import urllib.request
import uuid
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import tenacity
import typer

from bench.contestants import GroupProgress, Heap, write_app
from bench.load import LoadError, create_topics, delete_topics
from bench.processes import cpu_seconds, is_ray_worker, tree
from bench.run import machine
from bench.table import tell_bars
from bench.telemetry_verdict import Arm, Round, Side, judge
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
SCRAPE_SECONDS = 5.0
WARM_UP_SECONDS = 4.0
READY_SECONDS = 180.0
WORK_SECONDS = 300.0
LEAVE_SECONDS = 60.0
_PAGE_SECONDS = 5.0
_NO_SLA_SECONDS = 3_600.0
# An actor of each app on each pod.
_HALF_OF_A_POD = {"resources": {"num_cpus": 0.5}, "actors_per_node": 1}


class TelemetryBench:
    """Rounds on one platform. Owns the apps that it deploys and removes; does not own the platform, nor the environment."""

    def __init__(
        self, *, platform: LocalPlatform, board: ConfigBoard, folder: Path, trace_file: Path, rate: float, seconds: float
    ) -> None:
        self._platform = platform
        self._board = board
        self._folder = folder
        self._trace_file = trace_file
        self._rate = rate
        self._seconds = seconds

    async def round(self, arms: Sequence[Arm]) -> Round:
        """An app for each arm, made in this order, from their beginning to their removal. Raises LoadError where it cannot be
        judged, LaunchError where the platform does not serve them."""
        heaps = {arm: await self._deploy(arm) for arm in arms}
        pages = Counter[str]()
        scraping = asyncio.create_task(self._scrape(pages))
        try:
            loads = [asyncio.create_task(self._load(heap)) for heap in heaps.values()]
            await asyncio.sleep(WARM_UP_SECONDS)
            before = {arm: self._cpu_seconds(heap) for arm, heap in heaps.items()}
            done_before = {arm: await asyncio.to_thread(self._done, heap) for arm, heap in heaps.items()}
            await asyncio.gather(*loads)
            for heap in heaps.values():
                await asyncio.to_thread(self._wait_done, heap)
            used = {arm: self._cpu_seconds(heap) - before[arm] for arm, heap in heaps.items()}
            for arm, heap in heaps.items():
                self._check_arm(arm, f"lane/{heap.app}/", pages)
        finally:
            scraping.cancel()
            await asyncio.wait({scraping})
        sides = {arm: await self._end(arm, heap, heap.jobs - done_before[arm], used[arm]) for arm, heap in heaps.items()}
        return Round(sides[Arm.OFF], sides[Arm.ON])

    async def _deploy(self, arm: Arm) -> Heap:
        """An app whose lane runs under this arm's environment; it serves on every pod when this returns."""
        os.environ |= arm_environment(arm, self._trace_file)
        servers = self._platform.settings.bootstrap_servers
        heap = Heap(servers, f"bench-telemetry-{arm}-{uuid.uuid4().hex[:8]}", "echo", int(self._rate * self._seconds), 0)
        app_dir = self._folder / heap.app
        write_app(app_dir, heap, **_HALF_OF_A_POD)
        await asyncio.to_thread(create_topics, servers, heap.app)
        spec = load_manifest(app_dir)
        await publish_app(self._platform.settings, spec)
        await self._platform.wait_app_ready(heap.app, version=spec.version, nodes=len(CLUSTERS), timeout_seconds=READY_SECONDS)
        await wait_lanes(self._platform.settings, heap.app, timeout_seconds=READY_SECONDS)
        return heap

    async def _end(self, arm: Arm, heap: Heap, jobs: int, used_seconds: float) -> Side:
        """Remove the app and count its results; `jobs` were done in `used_seconds` of CPU time."""
        await self._remove(heap.app)
        report = await asyncio.to_thread(
            check, heap.bootstrap_servers, app=heap.app, sla_seconds=_NO_SLA_SECONDS, expected_result=lambda job: job
        )
        await asyncio.to_thread(delete_topics, heap.bootstrap_servers, heap.app)
        traced = job_spans(self._trace_file, heap.app)
        if (traced > 0) != (arm is Arm.ON):
            raise LoadError(f"{traced} jobs were traced with telemetry {arm}: nothing can be said")
        return Side(
            cpu_s_per_1000=used_seconds / jobs * 1000,
            lost=report.lost,
            duplicated=report.duplicated,
            wrong=report.unknown + report.mismatched_ids + report.wrong_payload,
            traced=traced,
        )

    async def _load(self, heap: Heap) -> None:
        """Jobs by schedule, from a process of their own."""
        words = ["--bootstrap-servers", heap.bootstrap_servers, "--topic", requests_topic(heap.app), "--rate", str(self._rate)]
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "bench.load", *words, "--seconds", str(self._seconds), "--traced"),
            stdout=asyncio.subprocess.DEVNULL,
        )
        if await process.wait():
            raise LoadError(f"the producer of {heap.app} ended with {process.returncode}")

    def _done(self, heap: Heap) -> int:
        with GroupProgress(heap.bootstrap_servers, heap.app) as progress:
            return progress.done()

    def _wait_done(self, heap: Heap) -> None:
        with GroupProgress(heap.bootstrap_servers, heap.app) as progress:
            progress.wait_for(heap.jobs, seconds=WORK_SECONDS)

    def _cpu_seconds(self, heap: Heap) -> float:
        """Of the app's lane, and of its actors, which work in its folder."""
        lane, folder = f"lane-{heap.app}-", str(self._folder / heap.app)
        running = [one for record in self._platform.processes() for one in tree(record.pid)]
        lanes = {record.pid for record in self._platform.processes() if record.name.startswith(lane)}
        counted = [one for one in running if one.pid in lanes or (is_ray_worker(one) and one.cwd() == folder)]
        if len(counted) != 1 + len(CLUSTERS):
            raise LoadError(f"{heap.app} has not a lane and {len(CLUSTERS)} actors, but {[one.cmdline() for one in counted]}")
        return sum(cpu_seconds(counted, lambda _: "app").values())

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
    *, rounds: int, rate: float, seconds: float, state_dir: Path, kafka: KafkaSettings | None, say: Callable[[str], None]
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
            bench = TelemetryBench(
                platform=platform, board=board, folder=plan.state_dir, trace_file=trace_file, rate=rate, seconds=seconds
            )
            for number in range(rounds + 1):
                one = await bench.round(list(Arm) if number % 2 else list(reversed(Arm)))
                what = f"{number}/{rounds}" if number else "warm-up"
                say(
                    f"{time.monotonic() - began:6.0f} s  {what:<8} 1,000 jobs take {1000 * one.off.cpu_s_per_1000:.1f} ms of CPU "
                    f"without, {1000 * one.on.cpu_s_per_1000:.1f} with: {100 * one.cost:.1f} % of throughput"
                )
                done.append(one)
    return {"machine": machine(), "rate_per_s": rate, "seconds": seconds, "sampled": SAMPLED_SHARE, **judge(done[1:])}


def main(
    rounds: Annotated[int, typer.Option(min=1, help="Rounds, each with and without telemetry at the same time.")] = 8,
    rate: Annotated[float, typer.Option(min=100, help="Jobs a second for each app.")] = 5_000,
    seconds: Annotated[float, typer.Option(min=10, help="How long they come in each round.")] = 20,
    json_file: Annotated[Path | None, typer.Option("--json", metavar="FILE", help="Write the outcome to FILE, too.")] = None,
    state_dir: Annotated[Path | None, typer.Option(help="Where the platform lives; default: a folder that goes away.")] = None,
    bootstrap_servers: Annotated[str | None, typer.Option(help="Kafka; default: one of its own.")] = None,
) -> None:
    """Measure what telemetry costs; 1 when it is too much."""
    kafka = None if bootstrap_servers is None else KafkaSettings(bootstrap_servers=bootstrap_servers)

    with tempfile.TemporaryDirectory(prefix="rayline-telemetry-") as folder:
        place = (state_dir or Path(folder)).resolve()
        place.mkdir(parents=True, exist_ok=True)
        outcome = asyncio.run(run(rounds=rounds, rate=rate, seconds=seconds, state_dir=place, kafka=kafka, say=note))
    raise typer.Exit(tell_bars(outcome, json_file))


if __name__ == "__main__":
    typer.run(main)
