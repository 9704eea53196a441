"""What users' code prints, from a worker process through a pod's agent and Kafka to a reader."""

from __future__ import annotations

import asyncio
import json
import sys
import textwrap
from collections.abc import AsyncIterator
from contextlib import aclosing
from pathlib import Path
from typing import Any

import pytest

from deploy.printed_lines import FoundLine, Wanted, lines_of, read_lines
from rayline.bus import KafkaSettings, Publisher, ensure_topics
from rayline.jobs import ContentType
from rayline.printed import APP_HEADER, Stream
from rayline.results import Outcome, Result
from rayline.topics import LOGS, platform_topics
from tests.support.names import fresh
from workers.output.forwarding import UserOutput

pytestmark = pytest.mark.integration

ROOT = Path(__file__).resolve().parents[3]
SOURCE = textwrap.dedent(
    """
    def feature(payload):
        print("working on", payload)
        return 1 / payload
    """
)


class Pod:
    """A pod's output without Ray: agent's side, and one worker process."""

    def __init__(self, settings: KafkaSettings, name: str) -> None:
        self.output = UserOutput(cluster="c1", node=name, publisher=lambda: Publisher(settings=settings, compression_type="zstd"))
        self._worker: asyncio.subprocess.Process | None = None
        self._running: asyncio.Task[None] | None = None

    async def start(self, folder: Path) -> None:
        self.output.start(folder, skew_ms=lambda: 0.0)
        self._running = asyncio.create_task(self.output.run())
        self._worker = await asyncio.create_subprocess_exec(
            sys.executable,
            *("-m", "tests.support.printing_main", str(folder)),
            cwd=ROOT,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
        )

    async def run(self, payloads: list[Any], **fields: Any) -> None:
        assert self._worker is not None
        assert self._worker.stdin is not None
        assert self._worker.stdout is not None
        self._worker.stdin.write(json.dumps({"source": SOURCE, "payloads": payloads, **fields}).encode() + b"\n")
        assert await self._worker.stdout.readline()

    async def stop(self) -> None:
        """Once or again."""
        assert self._worker is not None
        assert self._running is not None
        if self._worker.returncode is not None:
            return
        self._worker.kill()
        await self._worker.wait()
        self._running.cancel()
        await asyncio.wait({self._running})
        await self.output.finish()


@pytest.fixture
async def pod(kafka: KafkaSettings, tmp_path: Path) -> AsyncIterator[Pod]:
    await ensure_topics(kafka, platform_topics())
    pod = Pod(kafka, fresh("pod"))
    await pod.start(tmp_path)
    yield pod
    await pod.stop()


async def found(kafka: KafkaSettings, wanted: Wanted) -> list[FoundLine]:
    return [line async for lines in read_lines(kafka, wanted, since_ms=0) for line in lines]


def result_of(job: str, batch: str, found: list[FoundLine]) -> Result:
    at_ms = max(one.line.at_ms for one in found)
    return Result(
        job,
        Outcome.ERROR,
        "app.requests/3/1",
        None,
        None,
        ContentType.JSON,
        (),
        at_ms + 5,
        batch=f"{batch}/2",
        timing_ms={"execute": 5.0},
    )


async def test_a_jobs_lines_and_traceback_are_there_after_its_pod_is_gone(pod: Pod, kafka: KafkaSettings) -> None:
    node = pod.output._node
    await pod.run([1, 0], batch=node, ids=["good", "bad"])
    await pod.run([2], batch=f"{node}-later", ids=["good"])
    await pod.stop()
    everything = await found(kafka, Wanted("app", node))
    assert [(one.line.text.partition("\n")[0], one.line.job, one.line.batch) for one in everything] == [
        ("working on 1", "good", node),
        ("working on 0", "bad", node),
        ("Traceback (most recent call last):", "bad", node),
        ("working on 2", "good", f"{node}-later"),
    ]
    assert {one.printer.place for one in everything} == {f"c1/{node}"}
    printed = await lines_of(kafka, result_of("bad", node, everything))
    assert printed.whole
    bad = [one for one in printed.lines if one.printer.node == node]
    assert [one.line.stream for one in bad] == [Stream.STDOUT, Stream.TRACEBACK]
    assert bad[1].line.text.endswith("ZeroDivisionError: division by zero")
    assert not await found(kafka, Wanted("other", node))
    assert not await found(kafka, Wanted("app", "c2/" + node))


async def test_whoever_follows_sees_lines_as_they_come(pod: Pod, kafka: KafkaSettings) -> None:
    wanted = Wanted("app", f"c1/{pod.output._node}")
    async with aclosing(read_lines(kafka, wanted, since_ms=0, follow=True)) as stream:
        assert await anext(stream) == []
        await pod.run([5])
        assert [one.line.text for one in await anext(stream)] == ["working on 5"]
    await pod.stop()


async def test_what_is_no_record_of_lines_is_left_out(pod: Pod, kafka: KafkaSettings) -> None:
    async with Publisher(settings=kafka) as publisher:
        for value in (b"\xc1", b"", None, b"{}"):
            await publisher.publish(LOGS, key=f"c1/{pod.output._node}".encode(), value=value, headers=[(APP_HEADER, b"app")])
    await pod.run([3])
    await pod.stop()
    assert [one.line.text for one in await found(kafka, Wanted("app", pod.output._node))] == ["working on 3"]
