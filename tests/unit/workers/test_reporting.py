"""What an agent tells of its node, to a broker that may be away."""

from __future__ import annotations

import asyncio
import time

import pytest

from rayline.bus import Delivery
from rayline.errors import BusError
from rayline.reports import NodeLoad, NodeReport, NodeState, decode_reports
from rayline.topics import BEATS_PARTITION, CHANGES_PARTITION, REPORTS
from workers.reporting import RETRY_SECONDS, Reporter


class Broker:
    """Keeps what was published; refuses the first `refusals`, and is silent while `silent`."""

    def __init__(self, *, refusals: int = 0, ahead_ms: int = 0) -> None:
        self.kept: list[tuple[int | None, NodeReport]] = []
        self.refusals = refusals
        self.silent = False
        self._ahead_ms = ahead_ms

    async def send(
        self, topic: str, *, key: bytes | None, value: bytes | None, partition: int | None = None
    ) -> asyncio.Future[Delivery]:
        assert topic == REPORTS
        assert value is not None
        delivered: asyncio.Future[Delivery] = asyncio.get_running_loop().create_future()
        if self.silent:
            return delivered
        if self.refusals:
            self.refusals -= 1
            raise BusError("away")
        (report,) = decode_reports(value)
        assert key == report.key.encode()
        self.kept.append((partition, report))
        delivered.set_result(Delivery(partition or 0, len(self.kept), int(time.time() * 1000) + self._ahead_ms))
        return delivered


def reporter(broker: Broker) -> Reporter:
    return Reporter(cluster="c1", node="p1", incarnation=7, cpus=2, zone="z", publisher=broker)


async def test_beats_and_changes_have_partitions_of_their_own_and_one_sequence() -> None:
    broker = Broker()
    told = reporter(broker)
    assert await told.tell(NodeState.STARTING, None, until=0)
    await told.beat(NodeLoad(cores=2))
    assert await told.tell(NodeState.DRAINING, "SIGTERM", until=0)
    await told.beat(None)
    assert [(partition, report.state) for partition, report in broker.kept] == [
        (CHANGES_PARTITION, NodeState.STARTING),
        (BEATS_PARTITION, NodeState.STARTING),
        (CHANGES_PARTITION, NodeState.DRAINING),
        (BEATS_PARTITION, NodeState.DRAINING),
    ]
    numbers = [report.seq for _, report in broker.kept]
    assert numbers == sorted(set(numbers))
    assert all(report.beat and report.incarnation == 7 and report.actors is None for _, report in broker.kept)
    assert broker.kept[1][1].load == NodeLoad(cores=2)
    assert broker.kept[3][1].reason == "SIGTERM"


async def test_a_notice_is_told_again_until_the_broker_has_it() -> None:
    broker = Broker(refusals=2)
    assert await reporter(broker).tell(NodeState.DRAINING, "SIGTERM", until=time.monotonic() + 30)
    assert [report.state for _, report in broker.kept] == [NodeState.DRAINING]


async def test_a_broker_that_says_nothing_costs_no_more_than_the_time_given() -> None:
    broker = Broker()
    broker.silent = True
    started = time.monotonic()
    assert not await reporter(broker).tell(NodeState.DRAINING, "SIGTERM", until=started + 0.3)
    assert time.monotonic() - started < 2


async def test_a_broker_that_refuses_is_asked_no_longer_than_the_time_given() -> None:
    broker = Broker(refusals=1_000_000)
    started = time.monotonic()
    assert not await reporter(broker).tell(NodeState.DRAINING, "SIGTERM", until=started + 2.5 * RETRY_SECONDS)
    assert 1_000_000 - 3 <= broker.refusals < 1_000_000
    assert time.monotonic() - started >= RETRY_SECONDS


async def test_a_cordon_is_told_at_once_and_stands_in_every_beat_until_it_is_lifted() -> None:
    broker = Broker()
    told = reporter(broker)
    await told.beat(None)
    told.cordoned = True
    await told.tell_again(until=0)
    await told.beat(None)
    told.cordoned = False
    await told.tell_again(until=0)
    assert [(partition, report.cordoned) for partition, report in broker.kept] == [
        (BEATS_PARTITION, False),
        (CHANGES_PARTITION, True),
        (BEATS_PARTITION, True),
        (CHANGES_PARTITION, False),
    ]


@pytest.mark.parametrize("ahead_ms", [-30_000, 0, 30_000])
async def test_the_clocks_skew_shows_in_the_nodes_own_records(ahead_ms: int) -> None:
    told = reporter(Broker(ahead_ms=ahead_ms))
    assert told.clock_skew_ms() is None
    await told.beat(None)
    skew = told.clock_skew_ms()
    assert skew is not None
    assert abs(skew + ahead_ms) < 100
