"""An app's latency beside a large download, with the limits on: ``python -m bench.serving_beside_download --json FILE``.

A platform whose pods share by peers, each with a folder of its own. Jobs of about 1 ms of CPU come at a steady rate. In turns
nothing happens, and every pod's own agent prefetches a new bundle of ``--size-mib`` (as by ``rayline deploy --prefetch``) within
the limits that it finds by itself. Judged: p99 of jobs that arrived while all pods fetched against those that arrived in between,
the agents' memory, and the sum of all rates from 5 s after a global limit was set through the config topic.
"""

from __future__ import annotations

import asyncio
import json
import os
import secrets
import sys
import tempfile
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from bench.contestants import Heap, write_app
from bench.latency import WARM_UP_SECONDS, watch_open_loop
from bench.load import calibrate_loops
from bench.platform_command import rayline
from bench.serving_verdict import Beat, Span, Verdict, fetching_spans, latencies_in, sums_of_rates
from deploy.app_registry import publish_app
from deploy.cli.output import note
from deploy.local.platform import LocalPlatform, PlatformPlan
from deploy.local.startup_log import StartupLog
from deploy.node_watch import wait_lanes
from deploy.process_environment import DEVELOPMENT_VARIABLE, NODE_QUOTA_VARIABLE, PEERS_TOKEN_VARIABLE, STORE_VARIABLE
from rayline.app_spec import AppSpec
from rayline.bus import CompactedLog, KafkaSettings
from rayline.errors import RaylineError
from rayline.manifest import load_manifest
from rayline.reports import NodeReport, decode_reports
from rayline.topics import BEATS_PARTITION, REPORTS
from runtime_env.build import BuildCache
from runtime_env.bundle import Bundle, Host, LayerKind
from runtime_env.store import FolderStore, publish
from workers.activation import PREFETCHED

APP = "bench-cpu"
LIMIT_KEY = "global/peers.total_bytes_per_second"
READY_SECONDS = 300.0
FETCH_SECONDS = 600.0
LIMITED_SECONDS = 15.0
# So much more than the others, so that it is still under way then.
LIMITED_FACTOR = 2
# Rates in beats are those of the last two seconds; a download that has run so long shows what it takes.
UNDER_WAY_SECONDS = 6.0
_PACK_LEVEL = 1
# Of a bundle that holds noise: the interpreter that runs this.
_PYTHON = f'#!/bin/sh\nexec {sys.executable} "$@"\n'


class Beats:
    """Owns a reader of the nodes' own beats; every one of them is kept. Life: `async with`."""

    def __init__(self, settings: KafkaSettings) -> None:
        self.seen: list[Beat] = []
        self._newest: dict[str, Beat] = {}
        self._log = CompactedLog(
            settings=settings, topic=REPORTS, from_end=True, partitions=[BEATS_PARTITION], client_id="rayline-bench-beats"
        )
        self._news = asyncio.Condition()
        self._task: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Beats:
        await self._log.start()
        self._task = asyncio.create_task(self._read())
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._task is not None
        self._task.cancel()
        try:
            with suppress(asyncio.CancelledError):
                await self._task
        finally:
            await self._log.stop()

    async def until(self, condition: Callable[[list[Beat]], bool], what: str) -> None:
        """Until it holds for the newest beat of each node; raises RaylineError where it does not come."""
        try:
            async with asyncio.timeout(FETCH_SECONDS), self._news:
                await self._news.wait_for(lambda: condition(list(self._newest.values())))
        except TimeoutError as error:
            raise RaylineError(f"waited {FETCH_SECONDS:g} s for {what}; the nodes say: {self._newest}") from error

    async def _read(self) -> None:
        async for record in self._log:
            found = [
                _beat(one, record.timestamp_ms) for one in decode_reports(record.value or b"") if one.beat and not one.age_ms
            ]
            async with self._news:
                for beat in found:
                    self.seen.append(beat)
                    self._newest[beat.node] = beat
                self._news.notify_all()


def _beat(report: NodeReport, at_ms: int) -> Beat:
    environments = report.load.environments if report.load is not None else ()
    phase = next((one.phase for one in environments if one.version == PREFETCHED), "")
    return Beat(at_ms, report.key, phase, report.peer.receives if report.peer is not None else 0)


class Downloads:
    """Makes bundles of random bytes and has all pods prefetch them, one after the other. Owns the store's contents."""

    def __init__(self, *, folder: Path) -> None:
        self._tree = folder / "tree"
        self._cache = BuildCache(path=folder / "cache")
        self._store = FolderStore(path=folder / "store")
        self._digests: deque[str] = deque()
        for path, text in {"bin/python3": _PYTHON, "app/noise.py": "def feature(job):\n    return job\n"}.items():
            (self._tree / path).parent.mkdir(parents=True)
            (self._tree / path).write_text(text, encoding="utf-8")
            (self._tree / path).chmod(0o755)

    def make(self, size_mib: int) -> None:
        """One more; before the clock runs, since it costs what a build costs."""
        with (self._tree / "app" / "noise.bin").open("wb") as file:
            for _ in range(size_mib):
                file.write(secrets.token_bytes(2**20))
        layer = self._cache.pack(LayerKind.APP, "noise", self._tree, level=_PACK_LEVEL)
        number = str(len(self._digests))
        # Nodes look for what an app prefetches among its own bundles.
        bundle = Bundle(APP, number, "noise:feature", sys.version.split()[0], Host.here(), (layer,))
        blob = self._cache.blob(layer.digest)
        publish(self._store, bundle, {layer.digest: blob}, key=None)
        blob.unlink()
        self._digests.append(bundle.digest)

    async def begin(self, settings: KafkaSettings, spec: AppSpec, beats: Beats) -> None:
        """Returns when a first node fetches."""
        await publish_app(settings, replace(spec, prefetch=self._digests.popleft()))
        await beats.until(lambda nodes: any(one.phase == "fetching" for one in nodes), "a node to fetch")

    async def end(self, settings: KafkaSettings, spec: AppSpec, beats: Beats) -> None:
        """Returns when all nodes had it, and forgot it again."""
        await beats.until(lambda nodes: all(one.phase == "ready" for one in nodes), "all nodes to be done")
        await publish_app(settings, spec)
        await beats.until(lambda nodes: not any(one.phase for one in nodes), "the nodes to forget it")


async def run(
    *,
    place: Path,
    kafka: KafkaSettings | None,
    pods: int,
    rate: float,
    rounds: int,
    window: float,
    size_mib: int,
    load_seconds: float,
) -> Verdict:
    """One run from start to verdict. Raises RaylineError when the platform fails or nothing is downloaded."""
    os.environ |= {STORE_VARIABLE: str(place / "store"), DEVELOPMENT_VARIABLE: "1", PEERS_TOKEN_VARIABLE: secrets.token_hex(16)}
    sizes_mib = [*[size_mib] * rounds, LIMITED_FACTOR * size_mib]
    # Room for one download at a time: the one before goes.
    os.environ[NODE_QUOTA_VARIABLE] = f"{1.5 * max(sizes_mib) / 1024:.3f}"
    downloads = Downloads(folder=place)
    for number, size in enumerate(sizes_mib, start=1):
        note(f"making download {number} of {len(sizes_mib)}, {size} MiB")
        downloads.make(size)
    write_app(place / "app", Heap(bootstrap_servers="", app=APP, workload="cpu", jobs=0, cpu_loops=calibrate_loops()))
    spec = load_manifest(place / "app")
    plan = PlatformPlan(state_dir=place / "state", clusters=1, pods_per_cluster=pods, kafka=kafka)
    async with LocalPlatform(plan, log=StartupLog()) as platform:
        settings = platform.settings
        await publish_app(settings, spec)
        await platform.wait_app_ready(spec.name, version=spec.version, nodes=pods, timeout_seconds=READY_SECONDS)
        await wait_lanes(settings, spec.name, timeout_seconds=READY_SECONDS)
        async with Beats(settings) as beats:
            load = asyncio.create_task(
                asyncio.to_thread(watch_open_loop, settings.bootstrap_servers, spec.name, rate_per_s=rate, seconds=load_seconds)
            )
            await asyncio.sleep(2 * WARM_UP_SECONDS)
            until = time.monotonic() + load_seconds - 2 * WARM_UP_SECONDS
            quiet: list[Span] = []
            while len(quiet) < rounds and time.monotonic() + 2 * window < until:
                begin_ms = time.time() * 1000
                await asyncio.sleep(window)
                quiet.append(Span(begin_ms, time.time() * 1000))
                await downloads.begin(settings, spec, beats)
                await downloads.end(settings, spec, beats)
                note(
                    f"round {len(quiet)}: {(time.time() * 1000 - quiet[-1].end_ms) / 1000:.1f} s from the order until all had it"
                )
            schedule, seen_ms = await load
            intended = [schedule.intended_ms(number) for number in range(schedule.jobs)]
            fetching = [one for one in fetching_spans(beats.seen, pods) if one.end_ms <= intended[-1]]
            rates = [one.receives for one in beats.seen if any(span.has(one.at_ms) for span in fetching)]
            limit, limited = await _limited(platform, place / "state", downloads, spec, beats)
            memory = max((_peak_memory(pod.pid) for pod in platform.pods()), default=0)
        return Verdict(
            without=latencies_in(quiet, intended, seen_ms),
            beside=latencies_in(fetching, intended, seen_ms),
            rounds=len(fetching),
            mean_rate=round(sum(rates) / max(1, len(rates))),
            agent_memory_bytes=memory,
            limit=limit,
            limited_rates=sums_of_rates(beats.seen, limited),
        )


async def _limited(
    platform: LocalPlatform, state_dir: Path, downloads: Downloads, spec: AppSpec, beats: Beats
) -> tuple[int, Span]:
    """Half of what the nodes take together becomes the limit of all; returns it, and from when to when it was."""
    await downloads.begin(platform.settings, spec, beats)
    await asyncio.sleep(UNDER_WAY_SECONDS)
    newest = {one.node: one.receives for one in beats.seen}
    limit = max(2**20, sum(newest.values()) // 2)
    await _set(state_dir, limit)
    changed_ms = time.time() * 1000
    note(f"{sum(newest.values()) / 1e6:.1f} MB/s in all; from now on {limit / 1e6:.1f}")
    await asyncio.sleep(LIMITED_SECONDS)
    limited = Span(changed_ms, time.time() * 1000)
    await _set(state_dir, 0)
    await downloads.end(platform.settings, spec, beats)
    return limit, limited


async def _set(state_dir: Path, value: int) -> None:
    await rayline("config", "set", LIMIT_KEY, str(value), "--state-dir", str(state_dir))


def _peak_memory(pid: int) -> int:
    """The greatest resident size of a process so far, bytes."""
    status = Path(f"/proc/{pid}/status").read_text(encoding="utf-8")
    return next(int(line.split()[1]) * 1024 for line in status.splitlines() if line.startswith("VmHWM"))


def main(
    pods: Annotated[int, typer.Option(min=1, help="Pods of one core each, which share by peers.")] = 2,
    rate: Annotated[float, typer.Option(min=1, help="Jobs a second, each of about 1 ms of CPU.")] = 200,
    rounds: Annotated[int, typer.Option(min=2, help="Downloads beside the load.")] = 4,
    window: Annotated[float, typer.Option(min=2, help="Seconds without a download before each.")] = 20,
    size_mib: Annotated[int, typer.Option(min=16, help="Of one download.")] = 512,
    load_seconds: Annotated[float, typer.Option(min=20, help="How long jobs come; rounds end before.")] = 300,
    folder: Annotated[Path | None, typer.Option("--dir", help="Where to work; default: a folder that goes away.")] = None,
    bootstrap_servers: Annotated[str | None, typer.Option(help="Kafka; default: one of its own.")] = None,
    to: Annotated[Path | None, typer.Option("--json", help="Write the outcome to this file, too.")] = None,
) -> None:
    """Measure an app beside downloads; exit code 1 when a bar is missed."""
    with tempfile.TemporaryDirectory(prefix="rayline-serving-", dir=folder, ignore_cleanup_errors=True) as scratch:
        verdict = asyncio.run(
            run(
                place=Path(scratch),
                kafka=None if bootstrap_servers is None else KafkaSettings(bootstrap_servers=bootstrap_servers),
                pods=pods,
                rate=rate,
                rounds=rounds,
                window=window,
                size_mib=size_mib,
                load_seconds=load_seconds,
            )
        )
    for what, one in (("without a download", verdict.without), ("beside a download", verdict.beside)):
        typer.echo(f"{what:20} {one.jobs:7} jobs  p50 {one.p50_ms:8.1f} ms  p99 {one.p99_ms:8.1f} ms  {one.missing} missing")
    typer.echo(f"a node took {verdict.mean_rate / 1e6:.1f} MB/s, an agent {verdict.agent_memory_bytes / 2**20:.0f} MiB at most")
    typer.echo(f"limit of all {verdict.limit / 1e6:.1f} MB/s, then {max(verdict.limited_rates, default=0) / 1e6:.1f} at most")
    for bar, met in verdict.bars().items():
        typer.echo(f"{'met   ' if met else 'MISSED'} {bar}")
    if to is not None:
        to.write_text(json.dumps(verdict.as_dict(), indent=2), encoding="utf-8")
    raise typer.Exit(0 if all(verdict.bars().values()) else 1)


if __name__ == "__main__":
    typer.run(main)
