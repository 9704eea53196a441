"""What becomes of a record of `<app>.requests`: a job, or a rejection with a reason. Pure; never decodes the payload."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final, Protocol

from rayline.app_spec import AppSpec
from rayline.clock import BrokerClock
from rayline.jobs import (
    CE_ID,
    CONTENT_TYPE,
    DEADLINE_MS,
    JOB_ID,
    MAX_DEADLINE_DIGITS,
    MAX_JOB_ID_BYTES,
    ContentType,
    Header,
    Job,
)

MAX_HEADERS: Final = 64
MAX_HEADER_BYTES: Final = 16 * 1024
_CE_CONTENT_TYPE: Final = "ce_datacontenttype"
_CONTENT_TYPES: Final = {kind.value.encode(): kind for kind in ContentType} | {b"application/x-msgpack": ContentType.MSGPACK}


class Record(Protocol):
    """The fields of a consumed Kafka record that admission reads."""

    topic: str
    partition: int
    offset: int
    timestamp: int
    timestamp_type: int
    key: bytes | None
    value: bytes | None
    headers: Sequence[Header]


class Reason(StrEnum):
    """Why a record was not accepted; these words stand in `dlq-reason`."""

    EMPTY = "empty"
    TOO_LARGE = "too_large"
    BAD_HEADER = "bad_header"
    UNSUPPORTED_CONTENT_TYPE = "unsupported_content_type"
    UNDECODABLE = "undecodable"


@dataclass(frozen=True, slots=True)
class Rejection:
    """A record that is the producer's fault: an `invalid` result and a dead letter."""

    job: Job
    reason: Reason
    message: str


class Admission:
    """Owns the rules of one app. Does not own what happens to a rejection."""

    def __init__(self, *, spec: AppSpec, clock: BrokerClock) -> None:
        self._clock = clock
        self.update(spec)

    def update(self, spec: AppSpec) -> None:
        """Rules of a new version of the app, for records read from now on."""
        self._sla_ms = spec.sla_seconds * 1000
        self._max_bytes = spec.limits.max_job_bytes

    def admit(self, record: Record, arrived: float) -> Job | Rejection:
        """`arrived` is the monotonic time (seconds) at which the record was read."""
        value = record.value
        headers = record.headers
        timestamp_ms = record.timestamp
        if timestamp_ms < 0 or (record.timestamp_type == 0 and timestamp_ms > (now_ms := self._clock.at(arrived))):
            # A producer's clock may run ahead; nobody's deadline becomes longer by that.
            timestamp_ms = int(self._clock.at(arrived)) if timestamp_ms < 0 else int(now_ms)
        job = Job(
            record.topic,
            record.partition,
            record.offset,
            timestamp_ms,
            record.key,
            value if value is not None else b"",
            tuple(headers) if headers else (),
            None,
            ContentType.MSGPACK,
            arrived,
            self._clock.monotonic_at(timestamp_ms + self._sla_ms),
        )
        if headers:
            rejection = self._read_headers(job)
            if rejection is not None:
                return rejection
        if value is None or not value:
            return Rejection(job, Reason.EMPTY, "the record has no value; a job's value is its payload")
        if len(value) > self._max_bytes:
            return Rejection(
                job,
                Reason.TOO_LARGE,
                f"the payload has {len(value)} bytes, the app takes {self._max_bytes} (limits.max_job_bytes)",
            )
        return job

    def _read_headers(self, job: Job) -> Rejection | None:
        """Fill in what headers say; the last header of a name counts."""
        if len(job.headers) > MAX_HEADERS:
            return Rejection(job, Reason.BAD_HEADER, f"{len(job.headers)} headers; the limit is {MAX_HEADERS}")
        size = 0
        explicit_id = False
        for name, raw in job.headers:
            size += len(name) + (len(raw) if raw is not None else 0)
            if name == JOB_ID or (name == CE_ID and not explicit_id):
                given = _text(raw)
                if given is None or len(raw) > MAX_JOB_ID_BYTES:
                    return Rejection(job, Reason.BAD_HEADER, f"{name} must be 1 to {MAX_JOB_ID_BYTES} bytes of UTF-8")
                job.given_id = given
                explicit_id = explicit_id or name == JOB_ID
            elif name == DEADLINE_MS:
                if not raw or len(raw) > MAX_DEADLINE_DIGITS or not raw.isdigit():
                    return Rejection(
                        job, Reason.BAD_HEADER, f"{DEADLINE_MS} must be epoch milliseconds in ASCII digits, not {_shown(raw)}"
                    )
                job.expires = self._clock.monotonic_at(int(raw))
            elif name in (CONTENT_TYPE, _CE_CONTENT_TYPE):
                kind = _CONTENT_TYPES.get(raw.split(b";", 1)[0].strip().lower() if raw else b"")
                if kind is None:
                    return Rejection(
                        job,
                        Reason.UNSUPPORTED_CONTENT_TYPE,
                        f"{name} {_shown(raw)} is not supported; use {ContentType.MSGPACK.value} or {ContentType.JSON.value}",
                    )
                job.content_type = kind
        if size > MAX_HEADER_BYTES:
            return Rejection(job, Reason.BAD_HEADER, f"{size} bytes of headers; the limit is {MAX_HEADER_BYTES}")
        return None


def _text(raw: bytes | None) -> str | None:
    """UTF-8 text, or None when it is empty or not UTF-8."""
    try:
        return raw.decode() if raw else None
    except UnicodeDecodeError:
        return None


def _shown(raw: bytes | None) -> str:
    return repr(raw[:40]) if raw is not None else "null"
