"""The witnesses: the function's own record, and the kernel's counters."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from deploy.chaos.evidence.executions import Execution, read_executions, runs_now
from deploy.chaos.evidence.wire import Connection, Wire, connections, socket_inodes


def test_a_call_without_an_end_was_cut_off(tmp_path: Path) -> None:
    (tmp_path / "101-7").write_text("b 1 1000000\ne 1 3000000\nb 2 4000000\n")
    (tmp_path / "102-8").write_text("b 2 6000000\ne 2 7000000\n")
    assert read_executions(tmp_path) == [
        Execution(job=1, session=101, pid=7, began_ms=1.0, ended_ms=3.0),
        Execution(job=2, session=101, pid=7, began_ms=4.0, ended_ms=None),
        Execution(job=2, session=102, pid=8, began_ms=6.0, ended_ms=7.0),
    ]


def test_a_process_whose_last_line_is_a_beginning_is_busy(tmp_path: Path) -> None:
    for text, busy in (
        ("", False),
        ("b 1 1000\n", True),
        ("b 1 1000\ne 1 2000\n", False),
        ("b 1 1000\ne 1 2000\nb 22 3000\n", True),
    ):
        (tmp_path / "7-7").write_text(text)
        assert runs_now(tmp_path / "7-7") is busy


@pytest.mark.parametrize(("family", "prefix"), [(socket.AF_INET, ""), (socket.AF_INET6, "::ffff:")])
def test_the_kernel_tells_what_was_sent_to_a_node(family: int, prefix: str) -> None:
    with (
        socket.socket() as listener,
        socket.socket(family) as client,
        socket.socket(socket.AF_NETLINK, socket.SOCK_DGRAM, 4) as link,
    ):
        listener.bind(("127.77.250.1", 0))
        listener.listen()
        client.connect((prefix + "127.77.250.1", listener.getsockname()[1]))
        client.sendall(bytes(1000))
        (seen,) = [c for c in connections(link) if c.port == listener.getsockname()[1]]
        assert (seen.host, seen.bytes_sent) == ("127.77.250.1", 1000)
        assert seen.inode in socket_inodes(os.getpid())
    assert socket_inodes(2**22 - 1) == set()


def test_small_talk_is_no_batch_and_a_new_connection_counts_from_its_first_byte() -> None:
    wire = Wire(lanes=list)

    def look(inode: int, size: int, now_ms: float) -> None:
        wire.look([Connection(inode, 4000, "127.77.0.1", 5000, size, 20)], now_ms)

    look(1, 900, 1_000)
    look(1, 940, 1_100)
    look(1, 2_000, 1_200)
    look(2, 500, 1_300)
    assert [(batch.at_ms, batch.size) for batch in wire.sent] == [(980, 900), (1_180, 1_060), (1_280, 500)]
