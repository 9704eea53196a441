"""One demo from start to verdict: platform, app, pictures as jobs at a steady rate, one eviction, the count."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from contextlib import aclosing
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from rich.console import Console

from deploy.app_registry import publish_app
from deploy.checker import check
from deploy.demo.outcome import Outcome
from deploy.demo.tally import Tally
from deploy.demo.view import NodeStatus, View
from deploy.interruption import Interruption
from deploy.local.platform import LocalPlatform, PlatformPlan
from deploy.local.startup_log import StartupLog
from examples.ocr.pictures import Picture, draw_pictures
from rayline.client import Client
from rayline.errors import LaunchError
from rayline.manifest import load_manifest
from rayline.reports import NodeState

APP_FOLDER: Final = Path(__file__).resolve().parents[2] / "examples" / "ocr"
CLUSTERS: Final = 2
PODS: Final = 2
FIRST_JOBS: Final = 12
RATE_OF_CAPACITY: Final = 0.55  # an eviction takes a quarter of the pods away, and its replacement's start takes a core
MIN_JOBS, MAX_JOBS = 48, 120
LOAD_SECONDS: Final = 30.0
SILENCE_SECONDS: Final = 30.0
_TICK_SECONDS: Final = 0.25


@dataclass(frozen=True, slots=True)
class DemoPlan:
    """`jobs` and `rate_per_second` None: chosen by what the first pictures show that this machine can do."""

    jobs: int | None = None
    rate_per_second: float | None = None
    seed: int = 1
    grace_seconds: float = 5.0


class Demo:
    """One run of the demo.

    Owns the platform while it runs, the tally and the view. Does not own the verdict on what was lost: that is the checker's.
    Life: `run`, once; `tally`, `pictures` and `evicted` can be read afterwards.
    """

    def __init__(self, *, plan: DemoPlan, state_dir: Path, console: Console) -> None:
        self._plan = plan
        self._state_dir = state_dir
        self._console = console
        self._begun = time.monotonic()
        self._states: dict[str, NodeState] = {}
        self.pictures: list[Picture] = []
        self.tally = Tally(planned=plan.jobs or MAX_JOBS)
        self.evicted: list[str] = []
        self._room = asyncio.Semaphore(CLUSTERS * PODS)

    async def run(self, interruption: Interruption) -> Outcome:
        """Start everything, read the pictures, stop everything; raises RaylineError when the platform fails."""
        drawing = asyncio.create_task(asyncio.to_thread(self._draw))
        app = load_manifest(APP_FOLDER)
        plan = PlatformPlan(state_dir=self._state_dir, clusters=CLUSTERS, pods_per_cluster=PODS)
        log = _Narrator()
        platform = LocalPlatform(plan, log=log)
        interruption.on_second = platform.hurry
        async with platform:
            await publish_app(platform.settings, app)
            with log.step(f"loading the models of app {app.name} on {CLUSTERS * PODS} pods"):
                await platform.wait_app_ready(app.name, version=app.version, nodes=CLUSTERS * PODS)
            await drawing
            log.listener = self._happened
            await self._read_pictures(platform, app.name)
            log.listener = None
            report = await asyncio.to_thread(check, platform.settings.bootstrap_servers, app=app.name)
            truths = {picture.name: picture.text for picture in self.pictures[: self.tally.planned]}
            log.say("stopping")
        seconds = self._now()
        return Outcome.of(self.tally, report, truths=truths, evictions=len(self.evicted), seconds=seconds)

    def _happened(self, text: str) -> None:
        self.tally.happened(text, self._now())

    def _draw(self) -> None:
        self.pictures = list(draw_pictures(count=self._plan.jobs or MAX_JOBS, seed=self._plan.seed))

    def _now(self) -> float:
        return time.monotonic() - self._begun

    async def _read_pictures(self, platform: LocalPlatform, app: str) -> None:
        async with Client(platform.settings) as client, asyncio.TaskGroup() as group:
            reading = group.create_task(self._read_results(client, app))
            sending = group.create_task(self._send_all(client, app, platform))
            with View(self._console, self.tally) as view:
                while not (sending.done() and self.tally.complete):
                    self._note_nodes(platform)
                    view.update(self._now(), self._nodes(platform))
                    self._check_silence()
                    if platform.failure.done():
                        await platform.failure
                    await asyncio.wait({reading, sending}, timeout=_TICK_SECONDS, return_when=asyncio.FIRST_EXCEPTION)
                view.update(self._now(), self._nodes(platform))
            reading.cancel()

    async def _read_results(self, client: Client, app: str) -> None:
        async with aclosing(client.results(app, from_beginning=True)) as results:
            async for result in results:
                self.tally.answered(result, self._now())
                self._room.release()

    async def _send_all(self, client: Client, app: str, platform: LocalPlatform) -> None:
        """First pictures one for each pod at a time, to see what the machine can do; then an open loop: each at its time."""
        async with asyncio.TaskGroup() as group:
            measured = await self._send_first(client, app, group)
            rate = self._plan.rate_per_second or RATE_OF_CAPACITY * measured
            planned = self._plan.jobs or round(min(MAX_JOBS, max(MIN_JOBS, rate * LOAD_SECONDS)))
            self.tally.planned = planned
            self._happened(
                f"this machine reads {measured:.1f} pictures a second; now {rate:.1f} a second come in, {planned} in all"
            )
            begin = self._now()
            rest = self.pictures[FIRST_JOBS:planned]
            for number, picture in enumerate(rest):
                due = begin + number / rate
                await asyncio.sleep(max(0.0, due - self._now()))
                self.tally.sent(picture.name, due)
                group.create_task(client.submit(app, {"image": picture.png}, job_id=picture.name))
                if number == len(rest) // 2:
                    group.create_task(self._evict(platform))

    async def _send_first(self, client: Client, app: str, group: asyncio.TaskGroup) -> float:
        """A closed loop over the first pictures; how many a second came out."""
        begin = self._now()
        first = self.pictures[:FIRST_JOBS]
        for picture in first:
            await self._room.acquire()
            self.tally.sent(picture.name, self._now())
            group.create_task(client.submit(app, {"image": picture.png}, job_id=picture.name))
        for _ in range(CLUSTERS * PODS):
            await self._room.acquire()
        return len(first) / (self._now() - begin)

    async def _evict(self, platform: LocalPlatform) -> None:
        """Take the pod away that is at work: its last result is the newest."""
        running = {pod.name for pod in platform.pods() if pod.ready}
        pod = max(running, key=lambda name: self.tally.nodes[name].last_at if name in self.tally.nodes else 0.0)
        grace = self._plan.grace_seconds
        self.evicted.append(pod)
        self._happened(f"eviction notice to {pod}: it must be gone in {grace:g} s")
        noticed = self._now()
        await platform.evict(pod, grace_seconds=grace)
        self._happened(f"{pod} ended {self._now() - noticed:.1f} s after its notice")

    def _nodes(self, platform: LocalPlatform) -> list[NodeStatus]:
        reports = [node.report for node in platform.nodes.nodes()]
        return [NodeStatus(name=report.node, cluster=report.cluster, state=report.state) for report in reports]

    def _note_nodes(self, platform: LocalPlatform) -> None:
        """Turn what changed in the node reports into events; the pods of the beginning are not news."""
        first = not self._states
        for node in self._nodes(platform):
            if self._states.get(node.name) is not node.state and not first and node.state is not NodeState.STARTING:
                self._happened(f"{node.name} is {node.state.name.lower()}")
            self._states[node.name] = node.state

    def _check_silence(self) -> None:
        waiting = self.tally.oldest_waiting_seconds(self._now())
        last = max((answer.at for answer in self.tally.answers.values()), default=self._begun)
        if waiting > SILENCE_SECONDS and self._now() - last > SILENCE_SECONDS:
            raise LaunchError(
                f"no result for {SILENCE_SECONDS:g} s while {len(self.tally.sent_at) - len(self.tally.answers)} jobs wait; "
                f"the logs of all parts are in {self._state_dir / 'logs'}"
            )


class _Narrator(StartupLog):
    """What the platform tells: lines on stderr while it starts, events of the demo (the gist) while the view is open."""

    listener: Callable[[str], None] | None = None

    def say(self, text: str) -> None:
        if self.listener is None:
            super().say(text)
        else:
            self.listener(text.partition(";")[0])
