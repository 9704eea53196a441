"""A worker may send what it likes: the agent goes on, with what the others print."""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from rayline.printed import Stream
from workers.output.cell import BatchCell
from workers.output.frames import MAX_PACKET_BYTES, SOCKET_NAME, Frame, Hello
from workers.output.intake import OutputIntake
from workers.output.outbox import Outbox

HELLO = Hello("app", "v1", "actor", "i1", 1).pack()
FRAME = Frame(1, Stream.STDOUT, [b"hello"]).pack()


class Listening:
    """An intake, and what came."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._news = threading.Event()
        self.outbox = Outbox(on_news=self._news.set)
        self.intake = OutputIntake(folder=folder, cluster="c1", node="p1", outbox=self.outbox)
        self.intake.start()

    def connect(self) -> socket.socket:
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        connection.settimeout(20)
        connection.connect(str(self.folder / SOCKET_NAME))
        return connection

    def texts(self, count: int) -> list[str]:
        found: list[str] = []
        while len(found) < count:
            self._news.clear()
            found += [line.text for parcel in self.outbox.take() for line in parcel.lines]
            if len(found) < count:
                assert self._news.wait(20)
        return found


@pytest.fixture
def listening(tmp_path: Path) -> Iterator[Listening]:
    agent = Listening(tmp_path)
    yield agent
    agent.intake.finish(5.0)


def speaks(listening: Listening) -> bool:
    """Whether a worker that keeps to the protocol is heard."""
    cell, (reader, writer) = BatchCell(), os.pipe()
    with listening.connect() as connection:
        socket.send_fds(connection, [HELLO], [reader, reader, cell.fd])
        connection.send(FRAME)
        for fd in (reader, writer, cell.fd):
            os.close(fd)
        return listening.texts(1) == ["hello"]


def is_left(connection: socket.socket) -> bool:
    """Waits until the other side has closed it; it may have been told its limits before."""
    try:
        while connection.recv(4_096):
            continue
    except ConnectionResetError:
        pass
    return True


def no_descriptors(connection: socket.socket) -> None:
    connection.send(HELLO)


def other_words(connection: socket.socket) -> None:
    cell, (reader, writer) = BatchCell(), os.pipe()
    socket.send_fds(connection, [b"\xc1"], [reader, reader, cell.fd])
    for fd in (reader, writer, cell.fd):
        os.close(fd)


def files_in_place_of_pipes(connection: socket.socket) -> None:
    with Path(__file__).open("rb") as file:
        socket.send_fds(connection, [HELLO], [file.fileno()] * 3)


def a_folder_in_place_of_the_cell(connection: socket.socket) -> None:
    reader, writer = os.pipe()
    folder = os.open("/", os.O_RDONLY)
    socket.send_fds(connection, [HELLO], [reader, reader, folder])
    for fd in (reader, writer, folder):
        os.close(fd)


def no_frames(connection: socket.socket) -> None:
    cell, (reader, writer) = BatchCell(), os.pipe()
    socket.send_fds(connection, [HELLO], [reader, os.dup(reader), cell.fd])
    connection.send(b"\x93" + os.urandom(100))
    for fd in (reader, writer, cell.fd):
        os.close(fd)


def a_packet_that_is_too_large(connection: socket.socket) -> None:
    cell, (reader, writer) = BatchCell(), os.pipe()
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4 * MAX_PACKET_BYTES)
    socket.send_fds(connection, [HELLO], [reader, os.dup(reader), cell.fd])
    connection.send(Frame(1, Stream.STDOUT, [b"x" * (MAX_PACKET_BYTES + 1)]).pack())
    for fd in (reader, writer, cell.fd):
        os.close(fd)


@pytest.mark.parametrize(
    "break_rules",
    [
        no_descriptors,
        other_words,
        files_in_place_of_pipes,
        a_folder_in_place_of_the_cell,
        no_frames,
        a_packet_that_is_too_large,
    ],
)
def test_whoever_breaks_the_protocol_is_left_and_others_are_heard(
    listening: Listening, break_rules: Callable[[socket.socket], None]
) -> None:
    with listening.connect() as connection:
        break_rules(connection)
        assert speaks(listening)
        assert is_left(connection)


def test_descriptors_of_workers_that_are_gone_are_given_back(listening: Listening) -> None:
    assert speaks(listening)
    before = len(list(Path("/proc/self/fd").iterdir()))
    for _ in range(20):
        with listening.connect() as connection:
            no_descriptors(connection)
            assert is_left(connection)
    assert len(list(Path("/proc/self/fd").iterdir())) <= before
