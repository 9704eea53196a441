"""How soon a change of a setting is in force everywhere: ``python -m bench.config_latency --changes 50 --json FILE``.

Starts a platform by `rayline up` (two clusters of one pod, two lanes, the console) and changes three settings by turns, each so
many times: the batch size of an app that works, the nodes' heartbeat, and the log level, which every process has. Each change
waits for the answer of every process that it concerns, and for what these do: a batch of just that size among each lane's
results, a beat of just that interval from each agent. All times are the broker's. 0 when in the 99th percentile of changes the
slowest process took no longer than a second, and none was missing.
"""

import asyncio
import json
import os
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Collection, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Final

import typer
import yaml

from bench.config_latency_verdict import Made, judge
from bench.contestants import Heap, write_app
from bench.load import LoadError
from bench.platform_command import rayline
from bench.run import machine
from bench.table import tell_bars
from deploy.cli.output import note
from deploy.config_board import ConfigBoard
from deploy.local.state import StateFolder
from rayline.bus import CompactedLog, KafkaSettings, LogRecord, Publisher
from rayline.config import Answer, Role, Verdict, decode_applied, parse_key
from rayline.errors import FormatError
from rayline.reports import decode_reports
from rayline.results import BATCH
from rayline.topics import CONFIG, CONFIG_APPLIED, REPORTS, requests_topic, results_topic

APP: Final = "bench-config"
CLUSTERS: Final = 2
LANES: Final = 2
RATE_PER_S: Final = 600.0
# Nothing closes a batch but its size.
LINGER_MS: Final = 2_000
FIRST_SIZE: Final = 4
SIZES: Final = 60
FIRST_INTERVAL_MS: Final = 200
LEVELS: Final = ("INFO", "WARNING")
PATIENCE_SECONDS: Final = 10.0
START_SECONDS: Final = 120.0
LOAD_SECONDS: Final = 36_000.0


@dataclass
class Heard:
    """All that was said and done since it began to listen, each with the broker's time (epoch ms) of the first time."""

    answers: dict[tuple[int, str], tuple[int, Answer]] = field(default_factory=dict)
    sizes: dict[tuple[str, int], list[int]] = field(default_factory=dict)
    intervals: dict[tuple[str, int], list[int]] = field(default_factory=dict)
    news: asyncio.Event = field(default_factory=asyncio.Event)

    def take_applied(self, record: LogRecord) -> None:
        """A record of `rayline.config.applied`."""
        if record.value is None:
            return
        found = decode_applied(record.value)
        if isinstance(found, Answer):
            self.answers.setdefault((found.version, found.process), (record.timestamp_ms, found))
            self.news.set()

    def take_result(self, record: LogRecord) -> None:
        """A result; which lane's it is, is said by the name of its batch."""
        batch = dict(record.headers).get(BATCH, b"").decode()
        name, _, size = batch.rpartition("/")
        if size.isdigit():
            self.sizes.setdefault((name.rpartition("-")[0], int(size)), []).append(record.timestamp_ms)
            self.news.set()

    def take_report(self, record: LogRecord) -> None:
        """Beats of nodes."""
        try:
            reports = decode_reports(record.value or b"")
        except FormatError:
            return
        for report in reports:
            if report.beat:
                self.intervals.setdefault((report.key, report.interval_ms), []).append(record.timestamp_ms)
                self.news.set()

    def answered(self, version: int, processes: Iterable[str], since_ms: int) -> dict[str, float | None]:
        """Milliseconds until each applied it; None for one that has not, or said otherwise."""
        found = {process: self.answers.get((version, process)) for process in processes}
        return {
            process: None if told is None or told[1].verdict is not Verdict.APPLIED else float(told[0] - since_ms)
            for process, told in found.items()
        }

    def batches(self, size: int, lanes: Iterable[str], since_ms: int) -> dict[str, float | None]:
        """Milliseconds until each lane's first result of a batch of this size."""
        return {lane: first(self.sizes.get((lane, size), ()), since_ms) for lane in lanes}

    def beats(self, interval_ms: int, nodes: Iterable[str], since_ms: int) -> dict[str, float | None]:
        """Milliseconds until each node's first beat that tells this interval."""
        return {node: first(self.intervals.get((node, interval_ms), ()), since_ms) for node in nodes}

    async def until(self, condition: Callable[[], bool]) -> bool:
        """Until it holds, asked again after all news; False when patience ends."""
        try:
            async with asyncio.timeout(PATIENCE_SECONDS):
                while not condition():
                    self.news.clear()
                    await self.news.wait()
        except TimeoutError:
            return False
        return True


def first(times_ms: Iterable[int], since_ms: int) -> float | None:
    """Milliseconds from `since_ms` to the first time that is not before; None where there is none."""
    later = [at for at in times_ms if at >= since_ms]
    return float(min(later) - since_ms) if later else None


class ConfigBench:
    """Changes settings of a platform that runs, one after the other. Owns what it wrote; does not own readers nor platform."""

    def __init__(self, *, publisher: Publisher, board: ConfigBoard, heard: Heard) -> None:
        self._publisher = publisher
        self._board = board
        self._heard = heard

    async def batch_size(self, number: int) -> Made:
        """Each lane works with batches of another size."""
        size = FIRST_SIZE + number % SIZES
        key = f"app/{APP}/batching.max_jobs"
        lanes = [identity.name for identity in self._board.concerned(parse_key(key.encode()))]
        return await self._change(key, size, lambda since_ms: self._heard.batches(size, lanes, since_ms))

    async def heartbeat(self, number: int) -> Made:
        """Each agent beats at another interval."""
        interval_ms = FIRST_INTERVAL_MS + 5 * (number % SIZES)
        key = "global/heartbeat.interval_seconds"
        agents = self._board.concerned(parse_key(key.encode()))
        nodes = [f"{identity.cluster}/{identity.node}" for identity in agents]
        return await self._change(key, interval_ms / 1000, lambda since_ms: self._heard.beats(interval_ms, nodes, since_ms))

    async def log_level(self, number: int) -> Made:
        """Every process writes other lines."""
        return await self._change("global/log.level", LEVELS[number % len(LEVELS)], lambda _: {})

    async def undo(self) -> None:
        """Take back what was set."""
        for key in (f"app/{APP}/batching.max_jobs", "global/heartbeat.interval_seconds", "global/log.level"):
            await self._publisher.publish(CONFIG, key=key.encode(), value=None)

    async def _change(self, key: str, value: Any, shown: Callable[[int], dict[str, float | None]]) -> Made:
        concerned = [identity.process for identity in self._board.concerned(parse_key(key.encode()))]
        sent = await self._publisher.send(CONFIG, key=key.encode(), value=json.dumps(value).encode())
        written = await sent
        since_ms = written.timestamp_ms

        def complete() -> bool:
            found = self._heard.answered(written.offset, concerned, since_ms), shown(since_ms)
            return None not in found[0].values() and None not in found[1].values()

        await self._heard.until(complete)
        return Made(key, value, self._heard.answered(written.offset, concerned, since_ms), shown(since_ms))


@asynccontextmanager
async def listening(settings: KafkaSettings) -> AsyncIterator[Heard]:
    """Readers of answers, results and beats, from now on."""
    heard = Heard()
    sources = (
        (CONFIG_APPLIED, heard.take_applied),
        (results_topic(APP), heard.take_result),
        (REPORTS, heard.take_report),
    )

    async def follow(log: CompactedLog, take: Callable[[LogRecord], None]) -> None:
        async for record in log:
            take(record)

    logs = [(CompactedLog(settings=settings, topic=topic, from_end=True), take) for topic, take in sources]
    try:
        for log, _ in logs:
            await log.start()
        tasks = [asyncio.create_task(follow(log, take), name="listen") for log, take in logs]
        try:
            yield heard
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)
    finally:
        for log, _ in logs:
            await log.stop()


@asynccontextmanager
async def platform(state_dir: Path) -> AsyncIterator[KafkaSettings]:
    """`rayline up` as an operator calls it, with an app whose batches only their size closes."""
    where = ["--state-dir", str(state_dir)]
    shape = ["--clusters", str(CLUSTERS), "--pods", "1", "--pod-cpus", "1", "--lanes", str(LANES), "--console", "--detach"]
    try:
        await rayline("up", *shape, *where)
        settings = KafkaSettings.from_env(StateFolder(state_dir).read_kafka())
        app_dir = state_dir / "app"
        write_app(app_dir, Heap(settings.bootstrap_servers, APP, "echo", 0, 0))
        manifest = app_dir / "app.yaml"
        described = yaml.safe_load(manifest.read_text())
        described["batching"]["linger_ms"] = LINGER_MS
        manifest.write_text(yaml.safe_dump(described, sort_keys=False))
        await rayline("deploy", str(manifest), "--wait", *where)
        yield settings
    finally:
        await rayline("down", *where)


@asynccontextmanager
async def load(settings: KafkaSettings) -> AsyncIterator[None]:
    """Jobs at a steady rate, from a process of its own."""
    words = ["--bootstrap-servers", settings.bootstrap_servers, "--topic", requests_topic(APP), "--rate", str(RATE_PER_S)]
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "bench.load", *words, "--seconds", str(LOAD_SECONDS)), stdout=asyncio.subprocess.DEVNULL
    )
    try:
        yield
        if process.returncode is not None:
            raise LoadError(f"the load ended with {process.returncode}")
    finally:
        if process.returncode is None:
            process.terminate()
            await process.wait()


async def wait_for_roles(board: ConfigBoard, roles: Collection[Role]) -> None:
    """Until a process of each kind tells of itself, and each lane does; raises LoadError when that takes too long."""

    def complete() -> bool:
        found = [presence.identity.role for presence in board.presences().values()]
        return set(roles) <= set(found) and found.count(Role.LANE) >= LANES and found.count(Role.AGENT) >= CLUSTERS

    if not await board.wait_until(complete, START_SECONDS):
        raise LoadError(f"only these processes tell of themselves: {', '.join(board.presences())}")


async def run(*, changes: int, state_dir: Path, say: Callable[[str], None]) -> dict[str, Any]:
    """All changes, the first three (a warm-up) left out. Raises LoadError when the platform or its load fails."""
    made: list[Made] = []
    began = time.monotonic()
    async with platform(state_dir) as settings, load(settings), listening(settings) as heard:
        say(f"{time.monotonic() - began:6.0f} s  up")
        async with ConfigBoard(settings) as board, Publisher(settings=settings) as publisher:
            await wait_for_roles(board, tuple(Role))
            bench = ConfigBench(publisher=publisher, board=board, heard=heard)
            if not await heard.until(lambda: len({lane for lane, _ in heard.sizes}) >= LANES):
                raise LoadError(f"results come from these lanes alone: {sorted({lane for lane, _ in heard.sizes})}")
            try:
                for number in range(changes + 1):
                    turn = [await change(number) for change in (bench.batch_size, bench.heartbeat, bench.log_level)]
                    made += turn
                    slowest = [max((ms for ms in one.answered_ms.values() if ms is not None), default=-1) for one in turn]
                    say(f"{time.monotonic() - began:6.0f} s  {number}/{changes}  answered by all after {slowest} ms")
            finally:
                await bench.undo()
    return {"machine": machine(), **judge(made[3:])}


def main(
    changes: Annotated[int, typer.Option(min=1, help="Changes of each of the three settings.")] = 50,
    json_file: Annotated[Path | None, typer.Option("--json", metavar="FILE", help="Write the outcome to FILE, too.")] = None,
    state_dir: Annotated[Path | None, typer.Option(help="Where the platform lives; default: a folder that goes away.")] = None,
) -> None:
    """Measure how soon changes are in force in every process; 1 when that takes too long."""
    # Another Kafka than that of the platform started here must not be meant.
    for name in [name for name in os.environ if name.startswith("RAYLINE_KAFKA_")]:
        del os.environ[name]

    with tempfile.TemporaryDirectory(prefix="rayline-config-") as folder:
        place = (state_dir or Path(folder)).resolve()
        place.mkdir(parents=True, exist_ok=True)
        outcome = asyncio.run(run(changes=changes, state_dir=place, say=note))
    raise typer.Exit(tell_bars(outcome, json_file))


if __name__ == "__main__":
    typer.run(main)
