"""Does the console's memory grow? `python -m bench.console_memory --seconds 3600 [--json FILE]`.

A broker, the real `rayline console` as a process of its own, a platform that is only told (node reports, lanes' words, results,
events), and a viewer in headless Chromium who looks at one page after the other. Printed each minute: what the console holds
alone (USS) and its CPU; at the end the slope of a straight line through the second half, when every window of time is full.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import json
import math
import shutil
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from random import Random
from typing import Final

import psutil

from deploy.app_registry import publish_app
from deploy.broker import LocalKafka
from deploy.broker.java import free_port
from rayline.app_spec import AppSpec
from rayline.bus import KafkaSettings, Publisher, ensure_topics
from rayline.config import Presence, ProcessIdentity, Role
from rayline.errors import BusError
from rayline.events import Event, encode_event
from rayline.lane_record import LaneRecord, encode_lane_record
from rayline.reports import ActorEndpoint, NodeLoad, NodeReport, NodeState, encode_reports
from rayline.topics import BEATS_PARTITION, CONFIG_APPLIED, EVENTS, REPORTS, VIEW, platform_topics, requests_topic, results_topic

APP: Final = "ocr"
PAGES: Final = ("/", "/nodes", "/apps", f"/apps/{APP}", "/jobs", "/dead-letters", "/config", "/events")
LOOK_SECONDS: Final = 30.0
SAMPLE_SECONDS: Final = 10.0
START_SECONDS: Final = 300.0
NODES_PER_CLUSTER: Final = 9


@dataclass(frozen=True, slots=True)
class Sample:
    """One look at the console's process: seconds since the start, megabytes of its own, CPU seconds until then."""

    at: float
    uss_mb: float
    cpu_seconds: float


@dataclass(frozen=True, slots=True)
class Verdict:
    """What the samples say. `slope_mb_per_hour` is of the second half; `pages` were looked at."""

    seconds: float
    pages: int
    first_mb: float
    half_mb: float
    last_mb: float
    largest_mb: float
    slope_mb_per_hour: float
    cpu_share: float


def judge(samples: Sequence[Sample], pages: int) -> Verdict:
    """Least squares over the second half."""
    late = samples[len(samples) // 2 :]
    mean_at = math.fsum(one.at for one in late) / len(late)
    mean_mb = math.fsum(one.uss_mb for one in late) / len(late)
    spread = math.fsum((one.at - mean_at) ** 2 for one in late)
    slope = math.fsum((one.at - mean_at) * (one.uss_mb - mean_mb) for one in late) / spread if spread else 0.0
    seconds = late[-1].at - late[0].at
    return Verdict(
        seconds=round(samples[-1].at, 1),
        pages=pages,
        first_mb=samples[0].uss_mb,
        half_mb=late[0].uss_mb,
        last_mb=late[-1].uss_mb,
        largest_mb=max(one.uss_mb for one in samples),
        slope_mb_per_hour=round(slope * 3600, 2),
        cpu_share=round((late[-1].cpu_seconds - late[0].cpu_seconds) / seconds, 4) if seconds else 0.0,
    )


async def feed(settings: KafkaSettings, *, nodes: int, results_per_second: int) -> None:
    """Tell of a platform at work, until cancelled; a broker that is held up for a while ends nothing."""
    ticks = itertools.count(1)
    while True:
        try:
            await _feed(settings, ticks, nodes=nodes, results_per_second=results_per_second)
        except BusError as error:
            _say(f"the broker is held up, on with it: {error}")


async def _feed(settings: KafkaSettings, ticks: Iterator[int], *, nodes: int, results_per_second: int) -> None:
    lane = ProcessIdentity(role=Role.LANE, app=APP, name="0")
    keys = [
        (f"c{n // NODES_PER_CLUSTER + 1}", f"c{n // NODES_PER_CLUSTER + 1}-pod-{n % NODES_PER_CLUSTER + 1}") for n in range(nodes)
    ]
    started_ms = round(time.time() * 1000)
    async with Publisher(settings=settings, linger_ms=20) as publisher:
        for tick in ticks:
            began = time.monotonic()
            for number, (cluster, pod) in enumerate(keys):
                actor = ActorEndpoint(APP, "1", f"a-{pod}", "127.0.0.1", 1, 2, "i")
                busy = 0.5 + 0.4 * math.sin(tick / 9 + number)
                load = NodeLoad(cores=8.0, own_cpu=8 * busy, host_cpu=busy, host_memory=0.5, jobs_in_flight=tick % 40)
                draining = (tick // 20) % nodes == number
                report = NodeReport(
                    *(cluster, pod, started_ms, tick),
                    NodeState.DRAINING if draining else NodeState.READY,
                    cpus=8.0,
                    actors=(actor,),
                    reason=f"notice {tick // 20}" if draining else None,
                    beat=True,
                    load=load,
                )
                await publisher.enqueue(
                    REPORTS, key=report.key.encode(), value=encode_reports([report]), partition=BEATS_PARTITION
                )
            for number in range(results_per_second):
                timing = f"queue={number % 40}.0,dispatch=2.0,execute={50 + tick % 90}.0,publish=9.0".encode()
                headers = [
                    ("outcome", b"ok" if number % 50 else b"error"),
                    ("timing", timing),
                    ("job-id", f"{tick}-{number}".encode()),
                ]
                await publisher.enqueue(results_topic(APP), key=None, value=b"y", headers=headers)
                await publisher.enqueue(requests_topic(APP), key=None, value=b"x")
            if tick % 5 == 1:
                event = Event("resource", "node.notice", "/".join(keys[tick % nodes]), f"notice number {tick}")
                await publisher.enqueue(EVENTS, key=event.key, value=encode_event(event))
                said = {f"{c}/{p}": {"weight": 1 + (tick % 7) / 10, "share": 1 / nodes, "running": tick % 4} for c, p in keys}
                told = LaneRecord(APP, "0", False, nodes, said)
                await publisher.enqueue(VIEW, key=told.key, value=encode_lane_record(told))
                presence = Presence(lane, {"batching.max_jobs": (64, "default")})
                await publisher.enqueue(CONFIG_APPLIED, key=presence.record_key, value=presence.encode())
            await asyncio.sleep(max(0.0, 1.0 - (time.monotonic() - began)))


@asynccontextmanager
async def console(settings: KafkaSettings, port: int) -> AsyncIterator[int]:
    """`rayline console` in a process of its own; yields its pid once it listens."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "deploy.cli", "console", "--port", str(port)),
        *("--bootstrap-servers", settings.bootstrap_servers),
        stdout=asyncio.subprocess.DEVNULL,
    )
    try:
        async with asyncio.timeout(START_SECONDS):
            while True:
                try:
                    _, writer = await asyncio.open_connection("127.0.0.1", port)
                    writer.close()
                    break
                except OSError:
                    await asyncio.sleep(0.2)
        yield process.pid
    finally:
        if process.returncode is None:
            process.terminate()
        await process.wait()


async def look(url: str, seen: list[str]) -> None:
    """One viewer, one page after the other, until cancelled. Needs Chromium."""
    from playwright.async_api import async_playwright

    async with async_playwright() as driver:
        path = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
        browser = await driver.chromium.launch(executable_path=path, args=["--no-sandbox", "--disable-dev-shm-usage"])
        page = await (await browser.new_context(viewport={"width": 1440, "height": 900})).new_page()
        page.set_default_timeout(START_SECONDS * 1000)
        for target in itertools.cycle(PAGES):
            await page.goto(url + target)
            await page.locator("main.rl-main").wait_for()
            seen.append(target)
            await asyncio.sleep(LOOK_SECONDS)


async def measure(seconds: float, *, nodes: int, results_per_second: int) -> tuple[Verdict, list[Sample]]:
    """Run everything for so long."""
    async with AsyncExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="rayline-bench-console-", ignore_cleanup_errors=True))
        broker = LocalKafka(data_dir=Path(folder), start_timeout_seconds=START_SECONDS)
        await broker.start()
        stack.push_async_callback(broker.kill)
        await ensure_topics(broker.settings, platform_topics())
        await publish_app(broker.settings, AppSpec(APP, "1", "/app", "m:f", partitions=4))
        port = free_port(Random())
        feeding = asyncio.create_task(feed(broker.settings, nodes=nodes, results_per_second=results_per_second))
        pid = await stack.enter_async_context(console(broker.settings, port))
        seen: list[str] = []
        looking = asyncio.create_task(look(f"http://127.0.0.1:{port}", seen))
        process, began, samples = psutil.Process(pid), time.monotonic(), list[Sample]()
        try:
            while (at := time.monotonic() - began) < seconds or len(samples) < 2:
                times = process.cpu_times()
                samples.append(Sample(round(at, 1), round(process.memory_full_info().uss / 2**20, 2), times.user + times.system))
                if len(samples) % 6 == 1:
                    _say(f"{at:6.0f} s  {samples[-1].uss_mb:7.1f} MB  {len(seen)} pages")
                await asyncio.wait({feeding, looking}, timeout=SAMPLE_SECONDS, return_when=asyncio.FIRST_COMPLETED)
                for task in (feeding, looking):
                    if task.done():
                        task.result()
        finally:
            for task in (looking, feeding):
                task.cancel()
            await asyncio.wait({looking, feeding})
        return judge(samples, len(seen)), samples


def _say(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def main() -> int:
    parser = argparse.ArgumentParser(description="Does the console's memory grow while somebody looks?")
    parser.add_argument("--seconds", type=float, default=3600.0)
    parser.add_argument("--nodes", type=int, default=36)
    parser.add_argument("--results", type=int, default=100, help="results a second")
    parser.add_argument("--limit", type=float, default=5.0, help="more megabytes an hour than this: exit code 1")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    verdict, samples = asyncio.run(measure(options.seconds, nodes=options.nodes, results_per_second=options.results))
    _say(json.dumps(asdict(verdict), indent=2))
    if options.json is not None:
        data = {"verdict": asdict(verdict), "samples": [asdict(sample) for sample in samples]}
        options.json.write_text(json.dumps(data) + "\n", encoding="utf-8")
    return int(verdict.slope_mb_per_hour > options.limit)


if __name__ == "__main__":
    sys.exit(main())
