"""What is written past Python belongs to a batch only where no other one can have written it."""

from __future__ import annotations

import pytest

from workers.output.cell import READ_WITHIN_SECONDS, BatchCell, CellReader

TRACE = "1a" * 16
LATER = 2 * READ_WITHIN_SECONDS


@pytest.fixture
def cell() -> BatchCell:
    return BatchCell()


def test_nobody_ran(cell: BatchCell) -> None:
    assert CellReader(cell.fd).writer(5.0) == (None, None)


def test_the_batch_that_runs(cell: BatchCell) -> None:
    cell.begin("b1", TRACE, 10.0)
    assert CellReader(cell.fd).writer(10.0) == ("b1", TRACE)
    assert CellReader(cell.fd).writer(99.0) == ("b1", TRACE)


def test_the_batch_that_ended_a_moment_ago_and_no_longer(cell: BatchCell) -> None:
    cell.begin("b1", TRACE, 10.0)
    cell.end(11.0)
    assert CellReader(cell.fd).writer(11.01) == ("b1", TRACE)
    assert CellReader(cell.fd).writer(11.0 + LATER) == (None, None)


def test_one_of_two_that_follow_at_once_is_not_told(cell: BatchCell) -> None:
    cell.begin("b1", TRACE, 10.0)
    cell.end(11.0)
    cell.begin("b2", None, 11.0)
    assert CellReader(cell.fd).writer(11.01) == (None, None)
    assert CellReader(cell.fd).writer(11.0 + LATER) == ("b2", None)


def test_two_beside_each_other_are_not_told(cell: BatchCell) -> None:
    cell.begin("b1", TRACE, 10.0)
    cell.end(10.5)
    assert CellReader(cell.fd).writer(10.5 + LATER) == (None, None)
