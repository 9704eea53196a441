"""Records of `rayline.suspects`: jobs under which workers died, so that each new owner of their partition goes on where the last
one stood. The key is `topic/partition`, the last word counts, nothing suspected is a tombstone.

A record is written before a suspect batch is sent to a worker, by the owner of the partition. An owner that was stopped and
wakes up may overwrite a newer word once: what is lost then is memory of deaths, never a job.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final

import msgpack

from rayline.errors import FormatError

VERSION: Final = 1
MAX_RECORD_BYTES: Final = 1024 * 1024


@dataclass(frozen=True, slots=True)
class WorkerDeath:
    """A worker that died under these jobs, on that incarnation of a node (`cluster/name`); `alone`: under a single one."""

    node: str
    incarnation: int
    alone: bool


@dataclass(frozen=True, slots=True)
class Trial:
    """Where a suspect batch of so many jobs was last sent; what came of it is not known. `instance` is the actor's."""

    node: str
    incarnation: int
    instance: str
    jobs: int


@dataclass(frozen=True, slots=True)
class Sending:
    """Where a suspect batch of so many jobs was sent before, and why that brought no answer (None: that is not known)."""

    cluster: str
    node: str
    app_version: str
    batch: str
    size: int
    cause: str | None


@dataclass(frozen=True, slots=True)
class SuspectCase:
    """Jobs of one partition, by their offsets, that are suspected together; `suspects` is how many there were at first, `trial`
    is None while they wait for a worker. `attempts` counts how often an actor took them, `sendings` are the last of these."""

    offsets: tuple[int, ...]
    suspects: int
    deaths: tuple[WorkerDeath, ...]
    trial: Trial | None = None
    attempts: int = 0
    sendings: tuple[Sending, ...] = ()


def suspects_key(topic: str, partition: int) -> bytes:
    return f"{topic}/{partition}".encode()


def encode_suspects(cases: Sequence[SuspectCase]) -> bytes | None:
    """All that is suspected in one partition; None (a tombstone) where nothing is."""
    if not cases:
        return None
    packed: bytes = msgpack.packb({"v": VERSION, "cases": [asdict(case) for case in cases]})
    return packed


def decode_suspects(value: bytes | None) -> tuple[SuspectCase, ...]:
    """Read a record's value back; raises FormatError on anything else."""
    if value is None:
        return ()
    if len(value) > MAX_RECORD_BYTES:
        raise FormatError(f"a record of suspects of {len(value)} bytes; the limit is {MAX_RECORD_BYTES}")
    try:
        data = msgpack.unpackb(value, raw=False)
        if data["v"] != VERSION:
            raise FormatError(f"suspects of version {data['v']!r}; this Rayline reads version {VERSION}")
        return tuple(_case(item) for item in data["cases"])
    except (ValueError, TypeError, KeyError, AttributeError, msgpack.exceptions.UnpackException) as error:
        raise FormatError(f"not a record of suspects: {error!r}") from error


def _case(item: dict[str, Any]) -> SuspectCase:
    trial = item["trial"]
    return SuspectCase(
        offsets=tuple(_number(offset) for offset in item["offsets"]),
        suspects=_number(item["suspects"]),
        deaths=tuple(
            WorkerDeath(_text(death["node"]), _number(death["incarnation"]), death["alone"] is True) for death in item["deaths"]
        ),
        trial=None
        if trial is None
        else Trial(_text(trial["node"]), _number(trial["incarnation"]), _text(trial["instance"]), _number(trial["jobs"])),
        # A lane of an earlier version writes neither.
        attempts=_number(item.get("attempts", 0)),
        sendings=tuple(_sending(sending) for sending in item.get("sendings", ())),
    )


def _sending(item: dict[str, Any]) -> Sending:
    cause = item["cause"]
    return Sending(
        cluster=_text(item["cluster"]),
        node=_text(item["node"]),
        app_version=_text(item["app_version"]),
        batch=_text(item["batch"]),
        size=_number(item["size"]),
        cause=None if cause is None else _text(cause),
    )


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{value!r} is not text")
    return value


def _number(value: object) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise TypeError(f"{value!r} is not a count")
    return value
