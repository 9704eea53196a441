"""What stands still is told with its reason; what merely has nothing to do, or waits a moment, is not."""

from __future__ import annotations

from dataclasses import replace

import pytest

from ingest.stalls import (
    BROKER_SILENT_SECONDS,
    MAX_UNREAD_SECONDS,
    OPEN_TRANSACTION_SECONDS,
    STUCK_MARGIN_SECONDS,
    PartitionFacts,
    StallWatch,
)
from rayline.stalls import StallKind

SLA_SECONDS = 10.0
KEY = ("ocr.requests", 3)
IDLE = PartitionFacts(KEY, True, False, 100, 100, 0, 0, end=100, stable=100, answer=0)


class Lane:
    """Time passes second by second; each second the broker answers unless it is silent."""

    def __init__(self) -> None:
        self.watch = StallWatch()
        self.now = 1000.0
        self.answers = 0
        self.facts = IDLE

    def after(self, seconds: float, facts: PartitionFacts | None = None, *, silent: bool = False) -> list[StallKind]:
        self.facts = facts or self.facts
        for _ in range(round(seconds)):
            self.now += 1.0
            self.answers += not silent
            self.watch.observe([replace(self.facts, answer=self.answers)], now=self.now, sla_seconds=SLA_SECONDS)
        return [stall.kind for stall in self.watch.stalls()]


@pytest.fixture
def lane() -> Lane:
    lane = Lane()
    assert lane.after(2) == []
    return lane


def test_a_partition_without_work_never_stands_still(lane: Lane) -> None:
    assert lane.after(1000) == []
    assert lane.watch.ages()[KEY] == 0.0


def test_jobs_of_which_none_ends_are_told_once_the_sla_is_over(lane: Lane) -> None:
    stuck = replace(IDLE, position=150, outstanding=50, end=150, stable=150)
    assert lane.after(SLA_SECONDS + STUCK_MARGIN_SECONDS, stuck) == []
    assert lane.after(2) == [StallKind.PARTITION]
    (stall,) = lane.watch.stalls()
    assert stall.subject == "ocr.requests/3"
    assert "50 jobs" in stall.why


def test_anything_that_ends_is_progress(lane: Lane) -> None:
    for left in range(50, 0, -1):
        assert lane.after(10, replace(IDLE, position=150, outstanding=left, end=150, stable=150)) == []


def test_records_that_lie_unread_are_told_sooner_than_a_long_sla(lane: Lane) -> None:
    assert lane.after(MAX_UNREAD_SECONDS + 2, replace(IDLE, end=200, stable=200)) == [StallKind.PARTITION]


def test_a_partition_that_waits_for_a_takeover_is_told(lane: Lane) -> None:
    assert lane.after(20, replace(IDLE, owned=False, outstanding=5, position=105)) == [StallKind.PARTITION]
    assert "takeover" in lane.watch.stalls()[0].why


def test_an_open_transaction_is_told_with_its_offset_and_its_producer(lane: Lane) -> None:
    held_up = replace(IDLE, end=180, stable=120, position=120, frontier=120)
    assert lane.after(OPEN_TRANSACTION_SECONDS, held_up) == []
    assert lane.after(2) == [StallKind.OPEN_TRANSACTION]
    (blocked,) = lane.watch.blocked()
    assert (blocked.key, blocked.stable) == (KEY, 120)
    lane.watch.name_producer(blocked, "producer 4711")
    (stall,) = lane.watch.stalls()
    assert "producer 4711" in stall.why
    assert "--partition 3 --start-offset 120" in stall.why
    assert lane.after(60) == [StallKind.OPEN_TRANSACTION], "the same fault is not told as a stuck partition, too"


def test_transactions_that_come_and_go_are_none_that_hangs(lane: Lane) -> None:
    for start in range(100, 160):
        assert lane.after(1, replace(IDLE, position=start, frontier=start, end=start + 5, stable=start)) == []


def test_another_transaction_after_the_first_gets_its_own_name(lane: Lane) -> None:
    lane.after(10, replace(IDLE, end=180, stable=120, position=120, frontier=120))
    lane.watch.name_producer(lane.watch.blocked()[0], "producer 1")
    lane.after(10, replace(IDLE, end=180, stable=130, position=130, frontier=130))
    assert lane.watch.producer(lane.watch.blocked()[0]) is None


def test_a_silent_broker_is_told_as_such_and_not_as_stuck_partitions(lane: Lane) -> None:
    busy = replace(IDLE, position=150, outstanding=50, end=150, stable=150)
    assert lane.after(BROKER_SILENT_SECONDS, busy, silent=True) == []
    assert lane.after(20, silent=True) == [StallKind.BROKER]
    assert StallKind.BROKER not in lane.after(1)


def test_a_paused_partition_is_not_fetched_and_says_nothing_of_the_broker(lane: Lane) -> None:
    assert lane.after(60, replace(IDLE, paused=True), silent=True) == []


def test_a_halted_partition_is_told_at_once_with_its_reason(lane: Lane) -> None:
    assert lane.after(1, replace(IDLE, halted="retention overtook it")) == [StallKind.HALTED]
    assert lane.watch.stalls()[0].why == "retention overtook it"


def test_a_lane_that_was_frozen_itself_blames_nobody_when_it_goes_on(lane: Lane) -> None:
    busy = replace(IDLE, position=150, outstanding=50, end=150, stable=150)
    lane.after(2, busy)
    lane.now += 120
    assert lane.after(1, busy) == []


def test_a_partition_that_left_is_forgotten(lane: Lane) -> None:
    lane.after(60, replace(IDLE, position=150, outstanding=50, end=150, stable=150))
    lane.watch.observe([], now=lane.now + 1, sla_seconds=SLA_SECONDS)
    assert lane.watch.stalls() == []
    assert lane.watch.ages() == {}
