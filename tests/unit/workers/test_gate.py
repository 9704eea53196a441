"""The gate: never more inside than permitted, first come first served, everyone outside leaves at a notice."""

from __future__ import annotations

import math
import threading
import time

from rayline.wire import Verdict
from workers.gate import CallGate


def enter_in_thread(gate: CallGate, entered: list[object], name: object) -> threading.Thread:
    def enter() -> None:
        verdict = gate.enter(30)
        entered.append(name if verdict is None else verdict)

    before = gate.waiting
    thread = threading.Thread(target=enter)
    thread.start()
    while gate.waiting == before:
        thread.join(0.001)
    return thread


def test_waiting_batches_enter_in_their_order() -> None:
    gate, entered = CallGate(permits=1, max_waiting=3, patience_seconds=30), []  # type: tuple[CallGate, list[object]]
    assert gate.enter(0) is None
    threads = [enter_in_thread(gate, entered, number) for number in range(3)]
    for number in range(3):
        assert entered == list(range(number))
        gate.leave()
        threads[number].join(30)
    assert entered == [0, 1, 2]


def test_more_than_the_declared_number_of_waiting_batches_are_busy() -> None:
    gate = CallGate(permits=1, max_waiting=1, patience_seconds=30)
    assert gate.enter(0) is None
    entered: list[object] = []
    thread = enter_in_thread(gate, entered, "second")
    assert gate.enter(30) is Verdict.BUSY
    gate.leave()
    thread.join(30)
    assert entered == ["second"]


def test_a_batch_whose_turn_does_not_come_is_busy_and_takes_no_permit() -> None:
    gate = CallGate(permits=1, max_waiting=1)
    assert gate.enter(0) is None
    assert gate.enter(0.01) is Verdict.BUSY
    assert gate.waiting == 0
    gate.leave()
    assert gate.enter(0) is None


def test_behind_quick_calls_a_batch_waits_longer_than_behind_long_ones() -> None:
    for call_seconds, comes_in in ((0.09, True), (5.0, False)):
        gate = CallGate(permits=1, max_waiting=1, patience_seconds=0.1)
        for _ in range(50):
            assert gate.enter(0) is None
            gate.leave(seconds=call_seconds)
        assert gate.enter(0) is None
        began = time.monotonic()
        assert gate.enter(math.inf) is Verdict.BUSY
        assert (time.monotonic() - began >= 0.4) is comes_in


def test_a_batch_is_busy_when_the_gates_patience_ends_before_its_own_time() -> None:
    gate = CallGate(permits=1, max_waiting=1, patience_seconds=0.01)
    assert gate.enter(0) is None
    assert gate.enter(math.inf) is Verdict.BUSY
    assert gate.waiting == 0


def test_a_notice_turns_away_who_waits_and_who_comes() -> None:
    gate = CallGate(permits=1, max_waiting=1, patience_seconds=30)
    assert gate.enter(0) is None
    entered: list[object] = []
    thread = enter_in_thread(gate, entered, "second")
    gate.drain()
    thread.join(30)
    assert entered == [Verdict.DRAINING]
    gate.leave()
    assert gate.enter(0) is Verdict.DRAINING


def test_who_must_be_alone_turns_the_waiting_away_waits_for_those_inside_and_keeps_others_out() -> None:
    gate = CallGate(permits=2, max_waiting=3, patience_seconds=30)
    assert gate.enter(0) is None
    assert gate.enter(0) is None
    entered: list[object] = []
    waiting = enter_in_thread(gate, entered, "waiting")
    verdicts: list[object] = []
    alone = threading.Thread(target=lambda: verdicts.append(gate.enter(30, alone=True)))
    alone.start()
    waiting.join(30)
    assert entered == [Verdict.BUSY]
    gate.leave()
    assert gate.enter(30) is Verdict.BUSY
    assert gate.enter(30, alone=True) is Verdict.BUSY
    assert verdicts == []
    gate.leave()
    alone.join(30)
    assert verdicts == [None]
    assert gate.enter(30) is Verdict.BUSY
    gate.leave(alone=True)
    assert gate.enter(0) is None
    assert gate.enter(0) is None


def test_who_must_be_alone_and_gets_no_turn_leaves_the_gate_as_it_was() -> None:
    gate = CallGate(permits=1, max_waiting=0)
    assert gate.enter(0) is None
    assert gate.enter(0.01, alone=True) is Verdict.BUSY
    gate.leave()
    assert gate.enter(0) is None
