"""The channel's protocol: one batch as Arrow record batches over Arrow Flight `do_exchange`, one stream for each slot.

Descriptor command: msgpack `{"v": 1, "app", "version", "token"}`. Then, any number of times on one stream:

    lane → actor   one record batch of REQUEST_SCHEMA with metadata `BatchHead`
    actor → lane   one or more record batches of ANSWER_SCHEMA with metadata `AnswerHead`; the last one has `final`

Jobs are named by their position in the batch, so that every batch is self-contained. Finished jobs are sent while the batch
still runs: what an eviction interrupts need not run again.
"""

from __future__ import annotations

import math
from array import array
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from enum import IntEnum
from itertools import accumulate
from typing import Any, Final, cast

import msgpack
import pyarrow as pa

from rayline.enums import StrEnum
from rayline.errors import WireError
from rayline.jobs import TRACEPARENT_FORM, ContentType, Job

VERSION: Final = 1
REQUEST_SCHEMA: Final = pa.schema([pa.field("payload", pa.binary(), nullable=False)])
ANSWER_SCHEMA: Final = pa.schema(
    [
        pa.field("index", pa.int32(), nullable=False),
        pa.field("status", pa.int8(), nullable=False),
        pa.field("value", pa.binary()),
        pa.field("error_type", pa.string()),
        pa.field("error_message", pa.string()),
    ]
)
MAX_HEAD_BYTES: Final = 256 * 1024
# A batch of so many jobs that their ids take more goes without: what is printed there is tied to the batch alone.
MAX_JOB_IDS_BYTES: Final = 128 * 1024
WHOLE_BATCH: Final = -1


class JobStatus(IntEnum):
    """Of one job in an answer. ERROR: the user's exception or a broken contract. INVALID: the payload cannot be decoded."""

    OK = 0
    ERROR = 1
    INVALID = 2


class Verdict(StrEnum):
    """Of a batch as a whole. Only `DONE` means that every job is answered.

    The lane's side concludes by itself: `LOST` (the connection broke while the batch was there), `UNREACHED` (it never got
    there), and `TIMEOUT` where the actor says nothing.
    """

    DONE = "done"
    DRAINING = "draining"
    BUSY = "busy"
    TIMEOUT = "timeout"
    LOST = "lost"
    UNREACHED = "unreached"


@dataclass(frozen=True, slots=True)
class Hello:
    """First message of a stream: whom it is for, and the token that allows it."""

    app: str
    version: str
    token: str = field(repr=False)

    def pack(self) -> bytes:
        return _pack(asdict(self))

    @classmethod
    def unpack(cls, data: bytes) -> Hello:
        return cls(**_unpack(data, cls.__dataclass_fields__))


@dataclass(frozen=True, slots=True)
class BatchHead:
    """With a request: `budget_ms` is how long the function may run before the actor gives up on it (never past the deadline);
    `trace` maps a position in the batch to the W3C traceparent that the execution's span is a child of; `jobs` is `pack_job_ids`
    of the batch, or empty.

    `alone`: a batch under which a worker died. It runs while no other one does in that process, is answered BUSY where another
    such is, and its begin is announced by an answer that `begins`: what dies before was not its doing. Where its jobs run one by
    one, so is the begin of each."""

    batch: str
    content_type: ContentType
    budget_ms: float
    trace: Mapping[int, str] = field(default_factory=dict)
    alone: bool = False
    jobs: bytes = b""

    @property
    def trace_id(self) -> str | None:
        """The trace that the batch stands in, 32 hexadecimal digits; None where none of its jobs is traced."""
        for parent in self.trace.values():
            form = TRACEPARENT_FORM.fullmatch(parent.encode())
            if form is not None:
                return form[1].decode()
        return None

    def pack(self) -> bytes:
        return _pack(
            {
                "batch": self.batch,
                "content_type": self.content_type.value,
                "budget_ms": self.budget_ms,
                "trace": dict(self.trace),
                "alone": self.alone,
                "jobs": self.jobs,
            }
        )

    @classmethod
    def unpack(cls, data: bytes) -> BatchHead:
        values = _unpack(data, cls.__dataclass_fields__)
        with _of_the_protocol():
            values["content_type"] = ContentType(values["content_type"])
            _check_number(values["budget_ms"])
            if not isinstance(values["alone"], bool):
                raise TypeError(f"alone is {values['alone']!r}")
            if not isinstance(values["trace"], dict) or not all(isinstance(parent, str) for parent in values["trace"].values()):
                raise TypeError("a trace is a map from positions to traceparents")
            if not isinstance(values["jobs"], bytes):
                raise TypeError("jobs are not bytes")
        return cls(**values)


@dataclass(frozen=True, slots=True)
class AnswerHead:
    """With each answer: `execute_ms` is the time in the user's function so far; `model_version` what the app declares.

    `begins` announces, in a batch that must be `alone`, that the job at this position begins now and all before it are over;
    WHOLE_BATCH stands for all of them at once. None: nothing is announced."""

    batch: str
    final: bool
    verdict: Verdict
    execute_ms: float = 0.0
    model_version: str | None = None
    reason: str | None = None
    begins: int | None = None

    def pack(self) -> bytes:
        return _pack(asdict(self))

    @classmethod
    def unpack(cls, data: bytes) -> AnswerHead:
        values = _unpack(data, cls.__dataclass_fields__)
        with _of_the_protocol():
            values["verdict"] = Verdict(values["verdict"])
            _check_number(values["execute_ms"])
            for name in ("model_version", "reason"):
                if not isinstance(values[name], str | None):
                    raise TypeError(f"{name} is {values[name]!r}")
            begins = values["begins"]
            if begins is not None and (isinstance(begins, bool) or not isinstance(begins, int)):
                raise TypeError(f"begins is {begins!r}")
        return cls(**values)


def pack_job_ids(jobs: Sequence[Job]) -> bytes:
    """The ids of a batch's jobs in their order, cheap to make: most are never read. Empty where they take too much room."""
    packed: bytes = msgpack.packb(([job.partition for job in jobs], [job.offset for job in jobs], [job.given_id for job in jobs]))
    return packed if len(packed) <= MAX_JOB_IDS_BYTES else b""


def unpack_job_ids(data: bytes) -> list[str]:
    """What `pack_job_ids` packed; raises WireError on anything else."""
    if not data:
        return []
    try:
        partitions, offsets, given = msgpack.unpackb(data, raw=False)
        return [
            f"{partition:d}-{offset:d}" if name is None else str(name)
            for partition, offset, name in zip(partitions, offsets, given, strict=True)
        ]
    except (ValueError, TypeError, msgpack.exceptions.UnpackException) as error:
        raise WireError(f"not the ids of a batch's jobs: {error!r}") from error


def encode_request(payloads: Sequence[bytes]) -> pa.RecordBatch:
    """One request of REQUEST_SCHEMA."""
    return pa.RecordBatch.from_arrays([binary_column(payloads, pa.binary())], schema=REQUEST_SCHEMA)


def binary_column(values: Sequence[bytes | None], arrow_type: pa.DataType) -> pa.Array:
    """A binary (or, of UTF-8 bytes, string) array. Unlike `pa.array` it never imports pandas, which takes a second and 50 MB."""
    offsets = array("i", accumulate((0 if value is None else len(value) for value in values), initial=0))
    if None not in values:
        whole = b"".join(cast("Sequence[bytes]", values))
        return pa.Array.from_buffers(arrow_type, len(values), [None, pa.py_buffer(offsets), pa.py_buffer(whole)])
    valid = bytearray((len(values) + 7) // 8)
    for position, value in enumerate(values):
        if value is not None:
            valid[position >> 3] |= 1 << (position & 7)
    data = b"".join(value for value in values if value is not None)
    return pa.Array.from_buffers(arrow_type, len(values), [pa.py_buffer(bytes(valid)), pa.py_buffer(offsets), pa.py_buffer(data)])


def number_column(values: Sequence[int], arrow_type: pa.DataType) -> pa.Array:
    """An int32 or int8 array without nulls."""
    numbers = array("i" if arrow_type.bit_width == 32 else "b", values)
    return pa.Array.from_buffers(arrow_type, len(values), [None, pa.py_buffer(numbers)])


@contextmanager
def _of_the_protocol() -> Iterator[None]:
    """Whatever is wrong with a peer's values is a WireError."""
    try:
        yield
    except (ValueError, TypeError) as error:
        raise WireError(f"not a message of the channel's protocol: {error!r}") from error


def _check_number(value: object) -> None:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise TypeError(f"{value!r} is not a number of milliseconds")


def _pack(values: dict[str, Any]) -> bytes:
    packed: bytes = msgpack.packb({"v": VERSION, **values})
    return packed


def _unpack(data: bytes, fields: Mapping[str, Any]) -> dict[str, Any]:
    if len(data) > MAX_HEAD_BYTES:
        raise WireError(f"a head of {len(data)} bytes; the limit is {MAX_HEAD_BYTES}")
    try:
        values = msgpack.unpackb(data, raw=False, strict_map_key=False)
        if values.pop("v") != VERSION:
            raise WireError(f"channel protocol of another version; this side speaks {VERSION}")
        return {name: values[name] for name in fields}
    except (ValueError, TypeError, KeyError, AttributeError, msgpack.exceptions.UnpackException) as error:
        raise WireError(f"not a message of the channel's protocol: {error!r}") from error
