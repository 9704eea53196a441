"""When bytes last went to a node, by the kernel's own counters of each connection: no word of the system is taken for it.

Nodes of a local platform have a loopback address each (127.77.x.y). The kernel is asked over netlink (`sock_diag`) for every TCP
connection to such an address, ten times a second: how many bytes were sent on it, and how long ago the last ones. What grows by
less than `BATCH_BYTES` between two looks is a protocol's small talk (window updates, pings, cancellations), and no batch. Only
connections that a lane holds count: a pod's own agent speaks to its actors, too.
"""

from __future__ import annotations

import asyncio
import socket
import struct
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, NamedTuple

BATCH_BYTES: Final = 300
LOOK_SECONDS: Final = 0.1
_NETWORK: Final = b"\x7f\x4d"  # 127.77
_MAPPED: Final = bytes(10) + b"\xff\xff"
_REQUEST_DUMP: Final = 0x301
_SOCK_DIAG_BY_FAMILY: Final = 20
_NETLINK_SOCK_DIAG: Final = 4
_INET_DIAG_INFO: Final = 2
_NLMSG_DONE, _NLMSG_ERROR = 3, 2
_ESTABLISHED: Final = 1
_LAST_DATA_SENT_AT: Final = 44
_BYTES_SENT_AT: Final = 200
_BYTES_RETRANSMITTED_AT: Final = 208


class Connection(NamedTuple):
    """One established connection; `inode` tells it from a later one with the same ports."""

    inode: int
    local_port: int
    host: str
    port: int
    bytes_sent: int
    last_sent_ms_ago: int


@dataclass(frozen=True, slots=True)
class Sent:
    """A batch (or more) went to `host:port` (epoch milliseconds; up to one look late)."""

    host: str
    port: int
    at_ms: float
    size: int


@dataclass(slots=True)
class Wire:
    """Owns what was seen. `lanes` gives the lanes' process ids. Life: `run` until cancelled -> `sent`."""

    lanes: Callable[[], list[int]]
    sent: list[Sent] = field(default_factory=list)
    _known: dict[tuple[int, int], int] = field(default_factory=dict)

    async def run(self) -> None:
        with socket.socket(socket.AF_NETLINK, socket.SOCK_DGRAM, _NETLINK_SOCK_DIAG) as link:
            while True:
                held = set().union(*(socket_inodes(pid) for pid in self.lanes()))
                seen = [connection for connection in connections(link) if connection.inode in held]
                self.look(seen, time.time() * 1000)
                await asyncio.sleep(LOOK_SECONDS)

    def look(self, seen: list[Connection], now_ms: float) -> None:
        """Compare with the look before. A connection that is new counts from its first byte."""
        known: dict[tuple[int, int], int] = {}
        for connection in seen:
            key = (connection.inode, connection.local_port)
            known[key] = connection.bytes_sent
            size = connection.bytes_sent - self._known.get(key, 0)
            if size >= BATCH_BYTES:
                self.sent.append(Sent(connection.host, connection.port, now_ms - connection.last_sent_ms_ago, size))
        self._known = known


def socket_inodes(pid: int) -> set[int]:
    """The sockets that a process holds; empty when it is gone."""
    found = set()
    with suppress(FileNotFoundError, ProcessLookupError):
        for entry in Path(f"/proc/{pid}/fd").iterdir():
            with suppress(FileNotFoundError, ProcessLookupError):
                kind, _, inode = str(entry.readlink()).partition("socket:[")
                if not kind and inode:
                    found.add(int(inode[:-1]))
    return found


def connections(link: socket.socket) -> Iterator[Connection]:
    """Established TCP connections of this machine to addresses of nodes; gRPC's are of IPv6, with the address mapped into it."""
    for family in (socket.AF_INET, socket.AF_INET6):
        request = struct.pack("=BBBBI", family, socket.IPPROTO_TCP, 1 << (_INET_DIAG_INFO - 1), 0, 1 << _ESTABLISHED) + bytes(48)
        link.send(struct.pack("=IHHII", 16 + len(request), _SOCK_DIAG_BY_FAMILY, _REQUEST_DUMP, 1, 0) + request)
        for message in _answers(link):
            yield from _connection(message)


def _answers(link: socket.socket) -> Iterator[bytes]:
    while True:
        data = link.recv(1 << 20)
        at = 0
        while at < len(data):
            length, kind = struct.unpack_from("=IH", data, at)
            if kind == _NLMSG_DONE:
                return
            if kind == _NLMSG_ERROR:
                raise OSError(-struct.unpack_from("=i", data, at + 16)[0], "sock_diag")
            yield data[at + 16 : at + length]
            at += (length + 3) & ~3


def _connection(message: bytes) -> Iterator[Connection]:
    local_port, port = struct.unpack_from(">HH", message, 4)
    remote = message[24:40]
    remote = remote[12:] if remote.startswith(_MAPPED) else remote[:4]
    if not remote.startswith(_NETWORK):
        return
    inode = struct.unpack_from("=I", message, 68)[0]
    at = 72
    while at + 4 <= len(message):
        length, kind = struct.unpack_from("=HH", message, at)
        if kind == _INET_DIAG_INFO and length >= 4 + _BYTES_RETRANSMITTED_AT + 8:
            last_sent = struct.unpack_from("=I", message, at + 4 + _LAST_DATA_SENT_AT)[0]
            bytes_sent = struct.unpack_from("=Q", message, at + 4 + _BYTES_SENT_AT)[0]
            repeated = struct.unpack_from("=Q", message, at + 4 + _BYTES_RETRANSMITTED_AT)[0]
            yield Connection(inode, local_port, socket.inet_ntoa(remote), port, bytes_sent - repeated, last_sent)
        at += max(4, (length + 3) & ~3)
