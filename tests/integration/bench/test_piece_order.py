"""The bench of piece orders gives the whole file to each node, by real sessions, and tells who sent how much."""

from __future__ import annotations

from pathlib import Path

import pytest

from bench.piece_order import Order, run

pytestmark = pytest.mark.integration


@pytest.mark.parametrize("order", [Order.SEQUENTIAL, Order.RAREST])
def test_each_node_gets_the_file_and_all_that_nodes_do_not_send_comes_from_the_origin(tmp_path: Path, order: Order) -> None:
    row = run(tmp_path, order=order, nodes=3, size_bytes=2 * 2**20, rate=4 * 10**6)
    files = {path.read_bytes() for path in tmp_path.glob("*/*") if len(path.name) == 64}
    assert len(files) == 1
    assert len(list(tmp_path.glob("*/*"))) == 4, "the origin's and three copies"
    assert 1.0 <= row.copies <= 3.1
    assert row.seconds >= 0.3, "the origin's rate holds"
