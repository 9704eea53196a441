"""The board: what is gathered, what stands still, and what a fault in a source costs."""

from __future__ import annotations

import logging

import pytest

from rayline.metrics import MetricsBoard, Sample, declared
from rayline.stalls import Stall, StallKind


def test_samples_carry_what_is_common_to_the_process_and_their_own() -> None:
    board = MetricsBoard(now=0.0, common={declared.PROCESS: "lane/ocr/0"})
    board.source(lambda _: [Sample(declared.RESULTS, 3, {declared.OUTCOME: "ok"})])
    (sample,) = board.gather(1.0).samples[declared.RESULTS]
    assert sample.value == 3
    assert sample.attributes == {declared.PROCESS: "lane/ocr/0", declared.OUTCOME: "ok"}


def test_a_source_that_fails_costs_its_own_values_and_one_log_line(caplog: pytest.LogCaptureFixture) -> None:
    board = MetricsBoard(now=0.0)

    def broken(_: float) -> list[Sample]:
        raise ZeroDivisionError

    board.source(broken)
    board.source(lambda _: [Sample(declared.LATE, 1)])
    with caplog.at_level(logging.ERROR):
        for second in range(3):
            assert declared.LATE in board.gather(float(second)).samples
    assert len(caplog.records) == 1


def test_an_activity_that_gets_nothing_done_in_time_is_told_until_it_does() -> None:
    board = MetricsBoard(now=0.0)
    board.expect("beats", limit_seconds=10.0, now=0.0)
    assert not board.gather(10.0).stalls
    (stall,) = board.gather(11.0).stalls
    assert (stall.kind, stall.subject, stall.seconds) == (StallKind.ACTIVITY, "beats", 11.0)
    (sample,) = board.snapshot.samples[declared.STALLED]
    assert sample.attributes == {declared.STALL: "activity", declared.SUBJECT: "beats"}
    board.done("beats", 11.5)
    assert not board.gather(12.0).stalls
    assert declared.STALLED not in board.snapshot.samples


def test_news_of_an_activity_that_is_older_than_what_is_known_changes_nothing() -> None:
    board = MetricsBoard(now=0.0)
    board.expect("beats", limit_seconds=10.0, now=5.0)
    board.done("beats", 0.0)
    assert not board.gather(14.0).stalls


def test_a_loop_that_was_held_up_blames_no_activity_for_it() -> None:
    board = MetricsBoard(now=0.0)
    board.expect("beats", limit_seconds=10.0, now=0.0)
    assert not board.gather(31.0, delay_seconds=30.0).stalls


def test_an_activity_at_rest_is_not_missed() -> None:
    board = MetricsBoard(now=0.0)
    board.expect("looks", limit_seconds=10.0, now=0.0)
    board.rest("looks")
    assert not board.gather(100.0).stalls


def test_stalls_of_a_source_are_told_and_measured() -> None:
    board = MetricsBoard(now=0.0)
    board.stalls_from(lambda now: [Stall(StallKind.PARTITION, "t/0", now, "nothing moves")])
    assert board.gather(7.0).stalls[0].text() == "t/0: nothing moves (for 7 s)"
    assert board.snapshot.samples[declared.STALLED][0].value == 7.0
