"""What a resource publishes: its nodes as records of `rayline.view`, in the form of a report, cut into chunks.

Keys are `nodes/<group>/<resource>/<chunk>`: the topic keeps the last word of each resource. Numbered chunks hold
everything, chunks `beats-…` only what beats bring, chunk `news` what changed since the round before. A tombstone ends a chunk.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Final

import msgpack

from rayline.errors import FormatError
from rayline.reports import MAX_REPORT_BYTES, NodeReport, read_nodes, report_fields

DEFAULT_GROUP: Final = "default"
NEWS_CHUNK: Final = "news"
BEATS_CHUNK: Final = "beats-"
# Under the topic's limit of 1 MiB, with room for the record's frame.
MAX_CHUNK_BYTES: Final = 900_000
_PREFIX: Final = "nodes"


@dataclass(frozen=True, slots=True)
class ViewKey:
    """Whose record it is, and which of its chunks."""

    group: str
    resource: str
    chunk: str

    def encode(self) -> bytes:
        return f"{_PREFIX}/{self.group}/{self.resource}/{self.chunk}".encode()


@dataclass(frozen=True, slots=True)
class ViewRecord:
    """Nodes as one resource heard them. `ears_age_ms` is how long ago it last heard any beat at all when it wrote this."""

    reports: tuple[NodeReport, ...]
    ears_age_ms: int


def decode_view_key(key: bytes | None) -> ViewKey | None:
    """None for a key of another kind of record."""
    parts = (key or b"").decode("utf-8", "replace").split("/")
    return ViewKey(*parts[1:]) if len(parts) == 4 and parts[0] == _PREFIX else None


def encode_chunks(reports: Iterable[NodeReport], *, ears_age_ms: int, max_bytes: int = MAX_CHUNK_BYTES) -> Iterator[bytes]:
    """Record values of at most `max_bytes` each that together hold these nodes; at least one."""
    packer = msgpack.Packer()
    items: list[bytes] = []
    size = 0
    for report in reports:
        item: bytes = packer.pack(report_fields(report))
        if items and size + len(item) > max_bytes:
            yield _record(items, ears_age_ms)
            items, size = [], 0
        items.append(item)
        size += len(item)
    yield _record(items, ears_age_ms)


def decode_view_record(value: bytes) -> ViewRecord:
    """Read a record value; raises FormatError on anything else."""
    if len(value) > MAX_REPORT_BYTES:
        raise FormatError(f"a view record of {len(value)} bytes; the limit is {MAX_REPORT_BYTES}")
    try:
        data = msgpack.unpackb(value, raw=False)
        age_ms = data["ears_age_ms"]
        if not isinstance(age_ms, int) or isinstance(age_ms, bool) or age_ms < 0:
            raise FormatError(f"ears_age_ms is {age_ms!r}, not a whole number of milliseconds")
        return ViewRecord(tuple(read_nodes(data)), age_ms)
    except (ValueError, TypeError, KeyError, AttributeError, msgpack.exceptions.UnpackException) as error:
        raise FormatError(f"not a view record: {error!r}") from error


def _record(items: list[bytes], ears_age_ms: int) -> bytes:
    packer = msgpack.Packer(autoreset=False)
    packer.pack_map_header(3)
    packer.pack("v")
    packer.pack(1)
    packer.pack("ears_age_ms")
    packer.pack(ears_age_ms)
    packer.pack("nodes")
    packer.pack_array_header(len(items))
    head: bytes = packer.bytes()
    return head + b"".join(items)
