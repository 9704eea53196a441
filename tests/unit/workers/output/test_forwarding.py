"""Lines go to Kafka in their order; while it is away they wait, and what is left at the end still goes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import pytest

from rayline.errors import BrokerUnavailable, BusError, RecordTooLarge
from rayline.metrics.declared import LINES_DROPPED, LINES_PRINTED
from rayline.printed import PrintedLine, Printer, Stream, decode_printed
from rayline.topics import LOGS
from workers.output import forwarding
from workers.output.forwarding import UserOutput
from workers.output.limits import OutputLimits

PRINTER = Printer("c1", "p1", "app", "v1", "actor", "i1")


class Kafka:
    """Takes records, or raises what `troubles` holds, one each time."""

    def __init__(self) -> None:
        self.texts: list[str] = []
        self.records: list[tuple[str, bytes | None, tuple[tuple[str, bytes], ...]]] = []
        self.away: list[BusError] = []
        self.troubles: list[BusError] = []
        self.arrived = asyncio.Event()

    @asynccontextmanager
    async def open(self) -> AsyncIterator[Kafka]:
        if self.away:
            raise self.away.pop(0)
        yield self

    async def publish(
        self, topic: str, *, key: bytes | None, value: bytes | None, headers: Sequence[tuple[str, bytes]] = ()
    ) -> int:
        if self.troubles:
            self.arrived.set()
            raise self.troubles.pop(0)
        assert value is not None
        self.records.append((topic, key, tuple(headers)))
        self.texts += [line.text for line in decode_printed(value).lines]
        self.arrived.set()
        return len(self.records)


@pytest.fixture(autouse=True)
def _no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(forwarding, "RETRY_SECONDS", 0.0)
    monkeypatch.setattr(forwarding, "GATHER_SECONDS", 0.0)


def put(output: UserOutput, *texts: str) -> None:
    for text in texts:
        output._outbox.put(PRINTER, PrintedLine(1, Stream.STDOUT, text))


async def until_arrived(kafka: Kafka, count: int) -> None:
    async with asyncio.timeout(20):
        while len(kafka.texts) < count:
            kafka.arrived.clear()
            await kafka.arrived.wait()


async def test_a_record_names_its_node_and_app() -> None:
    kafka = Kafka()
    output = UserOutput(cluster="c1", node="p1", publisher=kafka.open)
    running = asyncio.create_task(output.run())
    put(output, "a", "b")
    await until_arrived(kafka, 2)
    assert kafka.records[0] == (LOGS, b"c1/p1", (("app", b"app"),))
    assert {sample.metric: sample.value for sample in output.samples()} == {LINES_PRINTED: 2, LINES_DROPPED: 0}
    running.cancel()


async def test_while_kafka_is_away_lines_wait_in_their_order() -> None:
    kafka = Kafka()
    kafka.away = [BrokerUnavailable("none"), BrokerUnavailable("none")]
    kafka.troubles = [BusError("no leader"), BusError("no leader")]
    output = UserOutput(cluster="c1", node="p1", publisher=kafka.open)
    running = asyncio.create_task(output.run())
    put(output, "a", "b", "c")
    await until_arrived(kafka, 3)
    put(output, "d")
    await until_arrived(kafka, 4)
    assert kafka.texts == ["a", "b", "c", "d"]
    running.cancel()


async def test_what_no_broker_will_ever_take_does_not_hold_up_the_rest() -> None:
    kafka = Kafka()
    kafka.troubles = [RecordTooLarge("too large")]
    output = UserOutput(cluster="c1", node="p1", publisher=kafka.open)
    running = asyncio.create_task(output.run())
    put(output, "large")
    async with asyncio.timeout(20):
        await kafka.arrived.wait()
    put(output, "small")
    await until_arrived(kafka, 1)
    assert kafka.texts == ["small"]
    running.cancel()


async def test_what_is_left_at_the_end_goes_even_where_the_runner_was_cancelled(tmp_path) -> None:  # type: ignore[no-untyped-def]
    kafka = Kafka()
    output = UserOutput(cluster="c1", node="p1", publisher=kafka.open)
    output.start(tmp_path)
    output.tune(lines_per_second=7, enabled=True)
    assert output._limits == OutputLimits(lines_per_second=7)
    put(output, "last words")
    await output.finish()
    assert kafka.texts == ["last words"]
    assert list(tmp_path.iterdir()) == []


async def test_a_folder_that_holds_no_socket_costs_the_lines_and_not_the_pod(tmp_path) -> None:  # type: ignore[no-untyped-def]
    output = UserOutput(cluster="c1", node="p1", publisher=Kafka().open)
    output.start(tmp_path / "nowhere")
    output.tune(lines_per_second=7)
    await output.finish()
