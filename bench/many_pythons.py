"""Apps in four Pythons at once, and in two versions of numpy, on one pod: ``python -m bench.many_pythons --json FILE``.

Builds a bundle for each Python from 3.10 to 3.13 that uv or pyenv has here, starts a platform of its own, deploys the apps, and
sends each its jobs by its topic; then moves the one of the oldest Python to the newest while jobs come. Judged by every result,
each of which carries its ``sys.version``. ``--without-ray``: the same bundles and the agent's own steps, hosts and Flight ports,
without Ray and Kafka. Needs a package index (or uv's cache) with pyarrow, msgpack, opentelemetry-sdk and numpy.
"""

from __future__ import annotations

import asyncio
import json
import os
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated

import typer

from bench.many_pythons_apps import Plan, Workshop, plan_apps
from bench.many_pythons_node import Node
from bench.many_pythons_verdict import Expected, Reply, Verdict, judge
from deploy.app_registry import publish_app
from deploy.cli.output import note, table
from deploy.local.platform import LocalPlatform, PlatformPlan
from deploy.local.startup_log import StartupLog
from deploy.node_watch import wait_lanes
from deploy.process_environment import DEVELOPMENT_VARIABLE, STORE_VARIABLE
from rayline.app_spec import AppSpec
from rayline.bus import KafkaSettings
from rayline.client import Client, Submitted
from rayline.errors import NoResult
from rayline.results import Outcome
from runtime_env.build import BuildCache
from runtime_env.build.cache import default_cache_folder
from runtime_env.build.interpreters import SUPPORTED
from runtime_env.store import FolderStore

READY_SECONDS = 600.0
ANSWER_SECONDS = 120.0
# After the moved app answered from its new Python: whatever its old actors still had is back by then.
SETTLE_SECONDS = 5.0
JOBS_WITHOUT_RAY = 20


class Load:
    """Steady jobs for every app, and all that came of them. Owns its tasks between enter and exit, which ends the load and waits
    for the results of what was sent; does not own the client."""

    def __init__(self, *, client: Client, apps: Sequence[Expected], rate_per_s: float) -> None:
        self.replies: list[Reply] = []
        self.sent: Counter[str] = Counter()
        self._client = client
        self._apps = apps
        self._interval_seconds = 1 / rate_per_s
        self._stop = asyncio.Event()
        self._news = asyncio.Condition()
        self._group = asyncio.TaskGroup()

    async def __aenter__(self) -> Load:
        await self._group.__aenter__()
        for app in self._apps:
            self._group.create_task(self._send(app.app))
        return self

    async def __aexit__(self, *error: object) -> None:
        self._stop.set()
        await self._group.__aexit__(*error)  # type: ignore[arg-type]

    async def until(self, condition: Callable[[Sequence[Reply]], bool]) -> None:
        """Raises TimeoutError where that does not come."""
        async with asyncio.timeout(READY_SECONDS), self._news:
            await self._news.wait_for(lambda: condition(self.replies))

    async def _send(self, app: str) -> None:
        while not self._stop.is_set():
            submitted = await self._client.submit(app, {"number": self.sent[app]})
            self.sent[app] += 1
            self._group.create_task(self._take(app, submitted))
            try:
                await asyncio.wait_for(self._stop.wait(), self._interval_seconds)
            except TimeoutError:
                continue

    async def _take(self, app: str, submitted: Submitted) -> None:
        try:
            result = await self._client.result(app, submitted, timeout_seconds=ANSWER_SECONDS)
        except NoResult:
            # It was counted as sent, and is missed by the judge.
            return
        feature = result.feature() if result.outcome is Outcome.OK else None
        if feature is None:
            note(f"{app} job {submitted.source}: {result.outcome} {result.error_type} {result.error_message}")
        async with self._news:
            self.replies.append(Reply(app, result.app_version or "", f"{result.cluster}/{result.node}", feature))
            self._news.notify_all()


async def on_platform(
    plan: Plan, workshop: Workshop, *, state_dir: Path, kafka: KafkaSettings | None, rate: float, seconds: float
) -> Verdict:
    """One cluster of one pod. Raises RaylineError when the platform fails or an app does not get ready."""
    began = time.monotonic()
    specs = [workshop.make(app) for app in plan.apps]
    note(f"{time.monotonic() - began:.0f} s: {len(specs)} bundles are built")
    platform_plan = PlatformPlan(state_dir=state_dir, clusters=1, pods_per_cluster=1, kafka=kafka)
    async with LocalPlatform(platform_plan, log=StartupLog()) as platform, Client(platform.settings) as client:
        for spec in specs:
            await publish_app(platform.settings, spec)
        for spec in specs:
            await _ready(platform, spec)
            note(f"{time.monotonic() - began:.0f} s: {spec.name} {spec.version} is ready")
        load = Load(client=client, apps=plan.apps, rate_per_s=rate)
        async with load:
            await load.until(lambda replies: {reply.app for reply in replies} >= {app.app for app in plan.apps})
            if plan.moving is not None:
                await _move(plan.moving, workshop, platform, load, began)
            await asyncio.sleep(seconds)
    return judge(plan.apps, load.replies, load.sent, missing=plan.missing)


async def _move(app: Expected, workshop: Workshop, platform: LocalPlatform, load: Load, began: float) -> None:
    moved = await asyncio.to_thread(workshop.make, app, moved=True)
    await publish_app(platform.settings, moved)
    await load.until(lambda replies: any((reply.app, reply.version) == (moved.name, moved.version) for reply in replies))
    note(f"{time.monotonic() - began:.0f} s: {app.app} answers from Python {app.moved_to}")
    await asyncio.sleep(SETTLE_SECONDS)


async def _ready(platform: LocalPlatform, spec: AppSpec) -> None:
    await platform.wait_app_ready(spec.name, version=spec.version, timeout_seconds=READY_SECONDS)
    await wait_lanes(platform.settings, spec.name, timeout_seconds=READY_SECONDS)


async def without_ray(plan: Plan, workshop: Workshop, *, folder: Path, store: FolderStore) -> Verdict:
    """The node's own steps in this process. Raises RaylineError where an app cannot serve."""
    specs = {app.app: workshop.make(app) for app in plan.apps}
    replies: list[Reply] = []
    sent: Counter[str] = Counter()

    async def ask(node: Node, spec: AppSpec) -> None:
        for _ in range(JOBS_WITHOUT_RAY):
            replies.append(await node.answer(spec, sent[spec.name]))
            sent[spec.name] += 1

    async with Node(folder=folder, store=store) as node:
        await node.serve(list(specs.values()))
        await asyncio.gather(*(ask(node, spec) for spec in specs.values()))
        if plan.moving is not None:
            specs[plan.moving.app] = workshop.make(plan.moving, moved=True)
            await node.serve(list(specs.values()))
            await asyncio.gather(*(ask(node, spec) for spec in specs.values()))
    return judge(plan.apps, replies, sent, missing=plan.missing)


def main(
    pythons: Annotated[list[str] | None, typer.Option("--python", help="Only these (repeat it); default: 3.10 to 3.13.")] = None,
    ray: Annotated[bool, typer.Option("--ray/--without-ray", help="A platform of one pod, or the node's part alone.")] = True,
    rate: Annotated[float, typer.Option(min=0.1, help="Jobs a second for each app.")] = 5,
    seconds: Annotated[float, typer.Option(min=0, help="How long jobs go on after all of it.")] = 10,
    folder: Annotated[Path | None, typer.Option("--dir", help="Where to work; default: a folder that goes away.")] = None,
    cache: Annotated[Path | None, typer.Option(help="The build cache; default: that of `rayline env build`.")] = None,
    bootstrap_servers: Annotated[str | None, typer.Option(help="Kafka; default: one of its own.")] = None,
    to: Annotated[Path | None, typer.Option("--json", help="Write the outcome to this file, too.")] = None,
) -> None:
    """Run apps in several Pythons beside each other and judge every result; exit code 1 when one is not as it should be."""
    plan = plan_apps(pythons or SUPPORTED)
    if plan.missing:
        note(f"not on this machine: Python {', '.join(plan.missing)}; `uv python install {plan.missing[0]}` gets one")
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="rayline-many-pythons-", dir=folder, ignore_cleanup_errors=True) as scratch:
        place = Path(scratch)
        store = FolderStore(path=place / "store")
        workshop = Workshop(folder=place / "apps", cache=BuildCache(path=cache or default_cache_folder()), store=store, say=note)
        if ray:
            os.environ |= {STORE_VARIABLE: str(place / "store"), DEVELOPMENT_VARIABLE: "1"}
            kafka = None if bootstrap_servers is None else KafkaSettings(bootstrap_servers=bootstrap_servers)
            state_dir = place / "state"
            verdict = asyncio.run(on_platform(plan, workshop, state_dir=state_dir, kafka=kafka, rate=rate, seconds=seconds))
        else:
            verdict = asyncio.run(without_ray(plan, workshop, folder=place / "node", store=store))
    _tell(verdict)
    outcome = {**verdict.as_dict(), "ray": ray, "seconds": round(time.monotonic() - began, 1)}
    if to is not None:
        to.write_text(json.dumps(outcome, indent=2), encoding="utf-8")
    raise typer.Exit(0 if verdict.good else 1)


def _tell(verdict: Verdict) -> None:
    rows = [
        (one.app, str(one.sent), str(one.ok), " ".join(one.numpy) or "-", " ".join(one.nodes), version)
        for one in verdict.apps
        for version in one.sys_versions or ("nobody answered",)
    ]
    typer.echo(table(("APP", "JOBS", "OK", "NUMPY", "NODE", "SYS.VERSION"), rows))
    for problem in verdict.problems:
        typer.echo(f"MISSED {problem}")
    if verdict.good:
        typer.echo("met    each app answers from its own Python and packages, side by side on one pod")


if __name__ == "__main__":
    typer.run(main)
