"""A console over made-up facts: `python -m tests.support.console_main SCENE PORT [TOKEN]`. Its figures move.

In the scene `far` nothing is shown to who did not log in, as where others than this machine may ask.
"""

from __future__ import annotations

import asyncio
import math
import random
import socket
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace

from fastapi import FastAPI
from nicegui import Client, ui
from starlette.routing import BaseRoute

from deploy.config_change import Effect, Outcome
from deploy.config_flow import Care, Report
from deploy.config_guard import Judgement, Quality
from deploy.config_history import Entry
from deploy.console.access import Access
from deploy.console.desk import ConfigLook, Letters
from deploy.console.frame import Console
from deploy.console.server import LOOPBACK, build, server
from deploy.dead_letters import DeadLetter
from deploy.job_search import Found
from deploy.observation.snapshot import (
    AppRow,
    ClusterRow,
    EventRow,
    LaneRow,
    NodePoint,
    NodeRow,
    NodeSeries,
    PartitionRow,
    Point,
    Series,
    Snapshot,
    SourceState,
    Window,
)
from deploy.printed_lines import FoundLine, JobLines
from deploy.progress import NoProgress
from rayline.bus import LogRecord
from rayline.config import Change, Presence, ProcessIdentity, Role
from rayline.jobs import ContentType
from rayline.printed import PrintedLine, Printer, Stream
from rayline.results import Outcome as JobOutcome
from rayline.results import Result
from rayline.stalls import StallKind

HOSTILE = "<img src=x onerror=\"window.pwned=1\"><script>window.pwned=1</script>{{constructor.constructor('window.pwned=1')()}}"
HOSTILE_NAME = "':x\"><svg onload=window.pwned=1>{{7*7}}${window.pwned=1}"
# Whoever takes them is somewhere else; nothing is done by them.
WAYS_OUT = {"Log in", "Cancel", "Close"}
APPS = (("ocr-features", 10.0, 1480.0), ("text-embeddings", 10.0, 620.0), ("video-tags", 30.0, 84.0))


class Scene:
    """A platform that never was. Tells and acts; `changed` holds what was asked of it."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.version = 0
        self.acted: list[tuple[str, ...]] = []
        self._random = random.Random(7)
        self._began_ms = round(time.time() * 1000)
        self._evictions = [self._began_ms - 1000 * ago for ago in (455, 290, 118)]
        self._clusters = {"thousand": 20, "empty": 0}.get(name, 4)
        self._per_cluster = {"thousand": 50, "empty": 0}.get(name, 9)
        self._now = self._make()

    async def run(self) -> None:
        while True:
            await asyncio.sleep(1)
            if self.name != "stale":
                self._now = self._make()
                self.version += 1

    def evict(self) -> None:
        """A node is taken away at this moment."""
        self._evictions.append(round(time.time() * 1000))

    def snapshot(self) -> Snapshot:
        return self._now

    def series(self, app: str | None, seconds: int) -> Series:
        end = self._now.at_ms // 1000
        scale = sum(rate for name, _, rate in APPS if app in (None, name))
        if self.name in ("empty",):
            return Series(app, (), ())
        points = tuple(self._point(second, scale) for second in range(end - seconds, end))
        return Series(app, points, tuple(event for event in self._now.events if event.mark))

    def node_series(self, key: str) -> NodeSeries:
        end = self._now.at_ms // 5000
        seed = sum(key.encode())
        points = []
        for tick in range(end - 120, end):
            share = (
                1
                / max(1, self._clusters)
                * (1 + 0.22 * math.sin(tick / 19 + math.pi * int(key[-1])) if self._clusters % 2 == 0 else 1)
            )
            points.append(
                NodePoint(tick * 5000, 1 + 0.3 * math.sin(tick / 11 + seed), share, 3, 0.5 + 0.3 * math.sin(tick / 7 + seed))
            )
        return NodeSeries(key, tuple(points))

    async def find_job(self, app: str, job_id: str, *, hours: float) -> Found:
        self.acted.append(("find", app, job_id))
        if job_id == "nobody":
            return Found((), 1_204_331, True)
        message = HOSTILE if self.name == "hostile" else "no text in picture"
        outcome = JobOutcome.ERROR if self.name == "hostile" else JobOutcome.OK
        timing = {"queue": 38.4, "dispatch": 3.1, "execute": 212.7, "publish": 21.9}
        pick = "tier=room,nodes=31,weight=1.204,share=0.041,update=77,running=0,avoided=1"
        return Found(
            [
                Result(
                    job_id,
                    outcome,
                    f"{app}.requests/3/88412",
                    HOSTILE.encode() if self.name == "hostile" else b"customer-17",
                    b"",
                    ContentType.MSGPACK,
                    (),
                    self._now.at_ms - 5000,
                    None if outcome is JobOutcome.OK else "ValueError",
                    None if outcome is JobOutcome.OK else message,
                    "4f1c09a2b7",
                    "rapidocr-1.4",
                    "c2-pod-4",
                    "c2",
                    2,
                    "lane-ocr-0-1732/812",
                    timing,
                    pick,
                )
            ],
            1_204_331,
            True,
        )

    async def printed(self, result: Result) -> JobLines:
        printer = Printer("c2", "c2-pod-4", "ocr-features", "4f1c09a2b7", "actor", "1")
        said = HOSTILE if self.name == "hostile" else "reading 812 x 344"
        lines = [
            PrintedLine(self._now.at_ms - 5300, Stream.STDOUT, said, job=result.job_id),
            PrintedLine(self._now.at_ms - 5200, Stream.STDERR, "low contrast: " + "x" * 300, job=result.job_id),
            PrintedLine(self._now.at_ms - 5150, Stream.DROPPED, "more than logs.lines_per_second allow", dropped=4200),
        ]
        if result.outcome is not JobOutcome.OK:
            trace = f'Traceback (most recent call last):\n  File "feature.py", line 12, in feature\nValueError: {said}'
            lines.append(PrintedLine(self._now.at_ms - 5100, Stream.TRACEBACK, trace, job=result.job_id))
        return JobLines([FoundLine(printer, line) for line in lines])

    async def dead_letters(self, app: str) -> Letters:
        if self.name == "empty":
            return Letters((), 0)
        odd = self.name == "hostile"
        letters = [
            DeadLetter(
                LogRecord(
                    0,
                    offset,
                    self._now.at_ms,
                    HOSTILE.encode() if odd else b"customer-%d" % offset,
                    HOSTILE.encode() if odd else b"SECRET-PAYLOAD \xff\x00",
                    (
                        ("job-id", HOSTILE.encode() if odd else b"job-%d" % (4000 + offset)),
                        (
                            "dlq-reason",
                            HOSTILE.encode() if odd else b"payload-too-large" if offset % 3 else b"deadline-malformed",
                        ),
                        ("dlq-source", f"{app}.requests/2/{9000 + offset}".encode()),
                        ("dlq-time", b"2026-11-21T13:40:11Z"),
                        (
                            HOSTILE if odd else "traceparent",
                            HOSTILE.encode() if odd else b"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
                        ),
                    ),
                )
            )
            for offset in range(23, 0, -1)
        ]
        return Letters(letters, 412)

    async def replay(self, app: str, letters: Sequence[str], *, author: str) -> Sequence[tuple[str, str]]:
        self.acted.append(("replay", app, *letters, author))
        return [(letter, f"0-{number}") for number, letter in enumerate(letters)]

    async def reveal(self, app: str, letter: str, *, author: str) -> None:
        self.acted.append(("reveal", app, letter, author))

    async def config(self) -> ConfigLook:
        identities = [
            ProcessIdentity(role=Role.LANE, name="0", app="ocr-features"),
            ProcessIdentity(role=Role.KEEPER, name="keeper-1"),
        ]
        odd = HOSTILE if self.name == "hostile" else "mara"
        history = [
            Entry(
                "global/log.level",
                3,
                self._now.at_ms - 80_000,
                '"INFO"',
                odd,
                "ops-1",
                "anonymous",
                "rayline-config",
                "set",
                None,
                ({"outcome": "in force"},),
            ),
            Entry(
                "app/ocr-features/batch.max_jobs",
                4,
                self._now.at_ms - 30_000,
                "96",
                "lin",
                "ops-1",
                "anonymous",
                "rayline-config",
                "set",
                None,
                ({"outcome": "in force"},),
            ),
            Entry("app/ocr-features/sla", 5, self._now.at_ms - 20_000, "99", None, refusal="no setting is called 'sla'"),
        ]
        return ConfigLook(
            {"app/ocr-features/batch.max_jobs": "96", "global/log.level": '"INFO"'},
            {identity.process: Presence(identity, {}, 5) for identity in identities},
            history,
        )

    async def preview(self, change: Change) -> Sequence[Effect]:
        return [
            Effect("lane/ocr-features/0", 64, change.value, "changes"),
            Effect("lane/text-embeddings/0", 64, 64, "overridden", "app/text-embeddings is more specific"),
        ]

    async def change(
        self,
        change: Change,
        *,
        author: str,
        care: Care,
        say: Callable[[str], None],
        on_look: Callable[[Quality], None],
    ) -> Report:
        """A guarded change to more than 1,000 turns out to be worse."""
        self.acted.append(("change", str(change.key), repr(change.value), author, *_told(care)))
        outcome = Outcome(
            str(change.key),
            6,
            [
                Effect("lane/ocr-features/0", None, change.value, "applied"),
                Effect("lane/text-embeddings/0", None, 64, "overridden"),
            ],
        )
        tried = care.only or "lane/ocr-features/0" if care.canary else None
        if care.guard_seconds is None:
            return Report(outcome, tried=tried)
        say(f"watching ocr-features for {care.guard_seconds:g} s …")
        before = Quality(10.0, 14_800, 0, 7, 44.0, 210.0)
        after = replace(before, results=640, p99_ms=2_140.0 if float(change.value) > 1_000 else 205.0)
        for _ in range(4):
            await asyncio.sleep(0.5)
            on_look(after)
        reasons = ("p99 is 2140 ms, was 210 ms (limit 362 ms)",) if after.p99_ms == 2_140.0 else ()
        return Report(outcome, Judgement(before, after, 4.0, reasons), bool(reasons), tried)

    async def cordon(self, node: str, *, cordoned: bool, author: str) -> str:
        self.acted.append(("cordon", node, str(cordoned), author))
        return f"{node} gets no new work"

    async def drain(self, node: str, *, author: str) -> str:
        self.acted.append(("drain", node, author))
        return f"{node} drains"

    def _point(self, second: int, scale: float) -> Point:
        noise = random.Random(second)
        near = min((abs(second - at // 1000 - 4) for at in self._evictions), default=99)
        bump = max(0.0, 1 - near / 14)
        results = round(scale * (1 + 0.14 * math.sin(second / 47) + noise.uniform(-0.05, 0.05)) * (1 - 0.25 * bump))
        p50 = 41 * (1 + 0.2 * math.sin(second / 60)) * noise.uniform(0.94, 1.06) * (1 + bump)
        p99 = 190 * noise.uniform(0.85, 1.3) * (1 + 12 * bump)
        return Point(
            second,
            results,
            p50,
            p99,
            p99 * noise.uniform(1.1, 1.9),
            1 if bump > 0.9 and noise.random() < 0.3 else 0,
            noise.randrange(0, 4),
        )

    def _make(self) -> Snapshot:
        now_ms = self._began_ms if self.name == "stale" and self.version else round(time.time() * 1000)
        if self.name == "stale":
            now_ms -= 60_000
        if self.name == "broken":
            source = SourceState("results", None, "no broker answers at 127.0.0.1:9092")
            return Snapshot(now_ms, "127.0.0.1:9092", answering=False, caught_up=False, sources=(source,))
        if self.name == "empty":
            return Snapshot(now_ms, "127.0.0.1:9092", answering=True, caught_up=True)
        nodes = self._nodes()
        stalls: tuple[NoProgress, ...] = ()
        if self.name == "stalled":
            stalls = (
                NoProgress(
                    StallKind.PARTITION,
                    "ocr-features/3",
                    now_ms,
                    "Partition 3 of ocr-features has not moved for 41 s while 812 jobs wait.",
                ),
            )
        return Snapshot(
            now_ms,
            "127.0.0.1:9092",
            answering=True,
            caught_up=True,
            apps=self._apps(),
            clusters=self._cluster_rows(nodes),
            nodes=nodes,
            lanes=tuple(
                LaneRow(name, f"lane-{name}-{n}", False, False, 0.4, len(nodes)) for name, _, _ in APPS for n in range(2)
            ),
            events=self._events(now_ms),
            keeper="keeper-1",
            keeper_epoch=3,
            stalls=stalls,
            sources=(SourceState("results", now_ms, None),),
        )

    def _apps(self) -> tuple[AppRow, ...]:
        rows = []
        for position, (name, sla, rate) in enumerate(APPS):
            if self.name == "hostile" and position == 0:
                name = HOSTILE_NAME
            rate_out = rate * self._random.uniform(0.95, 1.05)
            wide = Window(
                300,
                round(rate * 300),
                round(rate * 300),
                {"ok": round(rate * 299), "error": round(rate * 0.8), "deadline_exceeded": round(rate * 0.05)},
                round(rate * 0.05),
                44.0,
                260.0,
                2100.0,
            )
            ten = Window(
                10,
                round(rate * 10),
                round(rate * 10),
                {"ok": round(rate * 10)},
                0,
                self._random.uniform(38, 48) * (1 + position),
                self._random.uniform(170, 240) * (1 + position),
                900.0,
            )
            partitions = tuple(PartitionRow(number, 90_000 + number, 89_990 + number, 10, 0.0) for number in range(8))
            rows.append(
                AppRow(
                    name,
                    "4f1c09a2b7",
                    sla,
                    24,
                    12,
                    2,
                    rate_out * 1.01,
                    rate_out,
                    self._random.randrange(20, 120),
                    partitions,
                    {10: ten, 60: wide, 300: wide},
                    435 if position == 0 else 0,
                    True,
                    None,
                    None,
                )
            )
        return tuple(rows)

    def _nodes(self) -> tuple[NodeRow, ...]:
        rows = []
        for c in range(1, self._clusters + 1):
            for p in range(1, self._per_cluster + 1):
                number = c * 100 + p
                state, reason = "ready", None
                if number == 203:
                    state, reason = "draining", "preemption notice: 25 s left"
                elif number == 307:
                    state, reason = "suspect", "no beat for 3 s"
                elif number == 404:
                    state = "cordoned"
                elif number == 109:
                    state, reason = "starting", "no actor serves yet"
                if self.name == "hostile" and number == 101:
                    reason = HOSTILE
                busy = 0.5 + 0.45 * math.sin(number * 1.7 + self.version / 9)
                ready = state == "ready"
                rows.append(
                    NodeRow(
                        f"c{c}/c{c}-pod-{p}",
                        f"c{c}",
                        f"c{c}-pod-{p}",
                        f"zone-{'abc'[p % 3]}",
                        state,
                        reason,
                        1,
                        3600.0 + number,
                        0.4 if ready else 3.1,
                        1.0,
                        8.0,
                        8.0,
                        busy * 8,
                        min(1.0, busy + 0.1),
                        2 << 30,
                        0.6,
                        0.7,
                        0.0,
                        0.3,
                        3,
                        ("ocr-features", "text-embeddings"),
                        (0.8 + busy * 0.4) if ready else 0.0,
                        (1 / (self._clusters * self._per_cluster)) if ready else 0.0,
                        round(busy * 4),
                        round(busy * 40),
                        None,
                        (),
                    )
                )
        return tuple(rows)

    def _cluster_rows(self, nodes: Sequence[NodeRow]) -> tuple[ClusterRow, ...]:
        rows = []
        for c in range(1, self._clusters + 1):
            own = [node for node in nodes if node.cluster == f"c{c}"]
            states: dict[str, int] = {}
            for node in own:
                states[node.state] = states.get(node.state, 0) + 1
            state, reasons = ("building", ("c2-pod-3: 1 failure(s) in a row: preempted",)) if c == 2 else ("running", ())
            rows.append(
                ClusterRow(
                    f"c{c}",
                    state,
                    1,
                    self._per_cluster,
                    len(own),
                    "running",
                    (),
                    states,
                    sum(node.share or 0 for node in own),
                    sum(node.in_flight or 0 for node in own),
                    reasons,
                )
            )
        return tuple(rows)

    def _events(self, now_ms: int) -> tuple[EventRow, ...]:
        rows = []
        for offset, at in enumerate(sorted(self._evictions)):
            rows.append(
                EventRow(
                    at,
                    offset * 3,
                    "resource",
                    "node.draining",
                    "c2/c2-pod-3",
                    "c2/c2-pod-3 drains",
                    "preemption notice",
                    "evicted",
                )
            )
            rows.append(
                EventRow(
                    at + 9000,
                    offset * 3 + 1,
                    "keeper",
                    "pod.replaced",
                    "c2",
                    "starts c2-pod-10 in the place of c2-pod-3",
                    None,
                    None,
                )
            )
            rows.append(
                EventRow(
                    at + 15000,
                    offset * 3 + 2,
                    "resource",
                    "node.ready",
                    "c2/c2-pod-10",
                    "c2/c2-pod-10 is ready",
                    HOSTILE if self.name == "hostile" else None,
                    None,
                )
            )
        return tuple(sorted((row for row in rows if row.at_ms <= now_ms), key=lambda row: -row.at_ms))


def _told(care: Care) -> tuple[str, ...]:
    canary = ("canary", care.only or "") if care.canary else ()
    return (*canary, f"guard {care.guard_seconds:g} {care.margin.p99_factor:g}") if care.guard_seconds is not None else canary


def routes_of(web: FastAPI) -> list[tuple[str, str]]:
    """Path and kind of everything that answers, also inside of what is mounted."""

    def walk(routes: Iterable[BaseRoute], before: str) -> Iterator[tuple[str, str]]:
        for route in routes:
            path = before + str(getattr(route, "path", ""))
            yield path or "/", type(route).__name__
            yield from walk(getattr(route, "routes", None) or (), path)

    return list(walk(web.routes, ""))


def _sent(element: ui.element, event: str) -> object:
    """What a browser may send with such an event."""
    if isinstance(element, ui.table) and element.rows:
        row = element.rows[0]
        key = row[element.props["row-key"]]
        return {"added": True, "keys": [key], "rows": [row]} if event == "selection" else key
    if not event.startswith("update:"):
        return None
    if isinstance(element, ui.select):
        return {"value": 0, "label": "the first"}
    return 7.0 if isinstance(element, ui.number) else isinstance(element, ui.checkbox) or "x"


async def poke() -> None:
    """Set off whatever any element of an open page listens to, past what the page hides or has switched off, with whatever a
    browser might send; again for what appears by that."""
    for first in (True, False):
        for client in [one for one in Client.instances.values() if one.has_socket_connection]:
            # The newest first: what stands in a question before what asks it anew.
            for element in reversed(list(client.elements.values())):
                if getattr(element, "text", None) in WAYS_OUT or (isinstance(element, ui.table) and not first):
                    continue
                for listener in list(element._event_listeners.values()):
                    with client:
                        element._handle_event({"listener_id": listener.id, "args": _sent(element, listener.type)})
        await asyncio.sleep(0.3)


async def main(scene_name: str, port: int, token: str | None) -> None:
    scene = Scene(scene_name)
    console = Console(source=scene, desk=scene, access=Access(token=token, read_needs_login=scene_name == "far"))
    web = build(console, names=LOOPBACK)
    loop = asyncio.get_running_loop()

    # A test says "something happened" and "what was asked of you" through standard input and output.
    def listen() -> None:
        for line in sys.stdin:
            match line.strip():
                case "evict":
                    scene.evict()
                case "poke":
                    asyncio.run_coroutine_threadsafe(poke(), loop).result()
            print(routes_of(web) if line.strip() == "routes" else scene.acted, flush=True)  # noqa: T201

    async with asyncio.TaskGroup() as tasks:
        moving = tasks.create_task(scene.run())
        listening = loop.run_in_executor(None, listen)
        await server(web).serve(sockets=[socket.create_server(("127.0.0.1", port))])
        moving.cancel()
        listening.cancel()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], int(sys.argv[2]), sys.argv[3] if len(sys.argv) > 3 else None))
