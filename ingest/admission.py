"""What becomes of a record of `<app>.requests`: a job, or a rejection with a reason. Pure; never decodes the payload."""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from rayline.app_spec import AppSpec
from rayline.bus.consumer import Record
from rayline.bus.cut_records import CutRecord
from rayline.bus.inflation import MAX_INFLATED_BYTES
from rayline.clock import BrokerClock
from rayline.jobs import (
    CE_ID,
    CONTENT_TYPE,
    DEADLINE_MS,
    JOB_ID,
    MAX_DEADLINE_DIGITS,
    MAX_JOB_ID_BYTES,
    ContentType,
    Job,
)
from rayline.topics import DEFAULT_MAX_MESSAGE_BYTES

MAX_HEADERS: Final = 64
MAX_HEADER_BYTES: Final = 16 * 1024
# A dead-letter topic takes so much beside the largest job or feature.
LETTER_ROOM_BYTES: Final = 128 * 1024
_INFLATES: Final = (
    f"its record batch is damaged, or inflates to more than {MAX_INFLATED_BYTES} bytes, the most that is taken into memory: "
    "send fewer records in one batch, or smaller ones"
)
_SURROGATE: Final = re.compile("[\ud800-\udfff]")
_CE_CONTENT_TYPE: Final = "ce_datacontenttype"
_CONTENT_TYPES: Final = {kind.value.encode(): kind for kind in ContentType} | {b"application/x-msgpack": ContentType.MSGPACK}


class Reason(StrEnum):
    """Why a record was not accepted; these words stand in `dlq-reason`."""

    EMPTY = "empty"
    TOO_LARGE = "too_large"
    BAD_HEADER = "bad_header"
    UNSUPPORTED_CONTENT_TYPE = "unsupported_content_type"
    UNDECODABLE = "undecodable"
    INFLATES = "inflates"


@dataclass(frozen=True, slots=True)
class Rejection:
    """A record that is the producer's fault: an `invalid` result and a dead letter.

    `tombstone`: it had no value at all; `whole`: the job's payload is that of the record.
    """

    job: Job
    reason: Reason
    message: str
    tombstone: bool = False
    whole: bool = True


class Admission:
    """Owns the rules of one app. Does not own what happens to a rejection."""

    def __init__(self, *, spec: AppSpec, clock: BrokerClock) -> None:
        self._clock = clock
        self._letter_bytes = DEFAULT_MAX_MESSAGE_BYTES
        self.update(spec)

    def update(self, spec: AppSpec) -> None:
        """Rules of a new version of the app, for records read from now on."""
        self._sla_ms = spec.sla_seconds * 1000
        self._max_bytes = spec.limits.max_job_bytes
        self._letter_bytes = max(self._letter_bytes, spec.limits.max_job_bytes, spec.limits.max_result_bytes)

    def admit(self, topic: str, partition: int, record: Record, arrived: float) -> Job | Rejection:
        """`arrived` is the monotonic time (seconds) at which the record was read."""
        value = record.value
        headers = record.headers
        timestamp_ms = record.timestamp
        if timestamp_ms < 0 or (record.timestamp_type == 0 and timestamp_ms > (now_ms := self._clock.at(arrived))):
            # A producer's clock may run ahead; nobody's deadline becomes longer by that.
            timestamp_ms = int(self._clock.at(arrived)) if timestamp_ms < 0 else int(now_ms)
        job = Job(
            topic,
            partition,
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
            if rejection is not None and not isinstance(record, CutRecord):
                return rejection
        if value is None and isinstance(record, CutRecord):
            return Rejection(job, Reason.INFLATES, _INFLATES, whole=False)
        if value is None or not value:
            return Rejection(job, Reason.EMPTY, "the record has no value; a job's value is its payload", tombstone=value is None)
        if len(value) > self._max_bytes:
            message = f"the payload has {len(value)} bytes, the app takes {self._max_bytes} (limits.max_job_bytes)"
            # What no dead-letter topic takes is not held either: being refused would cost a transaction.
            whole = len(value) <= self._letter_bytes + LETTER_ROOM_BYTES
            if not whole:
                job.payload = b""
            return Rejection(job, Reason.TOO_LARGE, message, whole=whole)
        return job

    def _read_headers(self, job: Job) -> Rejection | None:
        """Fill in what headers say; the last header of a name counts, and our own names before those of CloudEvents."""
        if len(job.headers) > MAX_HEADERS:
            return Rejection(job, Reason.BAD_HEADER, f"{len(job.headers)} headers; the limit is {MAX_HEADERS}")
        size = sum(len(name) + (len(raw) if raw is not None else 0) for name, raw in job.headers)
        if size > MAX_HEADER_BYTES:
            return Rejection(job, Reason.BAD_HEADER, f"{size} bytes of headers; the limit is {MAX_HEADER_BYTES}")
        found = dict(job.headers)
        if any(_SURROGATE.search(name) for name in found):
            return Rejection(job, Reason.BAD_HEADER, "the name of a header is not UTF-8")
        for name in (JOB_ID, CE_ID):
            if name in found:
                given = _text(found[name])
                if given is None:
                    return Rejection(job, Reason.BAD_HEADER, f"{name} must be 1 to {MAX_JOB_ID_BYTES} bytes of UTF-8")
                job.given_id = given
                break
        for name in (CONTENT_TYPE, _CE_CONTENT_TYPE):
            if name in found:
                kind = _content_type(found[name])
                if kind is None:
                    return Rejection(
                        job,
                        Reason.UNSUPPORTED_CONTENT_TYPE,
                        f"{name} {_shown(found[name])} is not supported; "
                        f"use {ContentType.MSGPACK.value} or {ContentType.JSON.value}",
                    )
                job.content_type = kind
                break
        if DEADLINE_MS in found:
            raw = found[DEADLINE_MS]
            if not raw or len(raw) > MAX_DEADLINE_DIGITS or not raw.isdigit():
                return Rejection(
                    job, Reason.BAD_HEADER, f"{DEADLINE_MS} must be epoch milliseconds in ASCII digits, not {_shown(raw)}"
                )
            job.expires = self._clock.monotonic_at(int(raw))
        return None


def _content_type(raw: bytes | None) -> ContentType | None:
    """What a content type names, whatever its parameters; None for one that is not ours."""
    return _CONTENT_TYPES.get(raw.split(b";", 1)[0].strip().lower()) if raw else None


def _text(raw: bytes | None) -> str | None:
    """UTF-8 text, or None when it is empty, too long, or not UTF-8."""
    try:
        return raw.decode() if raw and len(raw) <= MAX_JOB_ID_BYTES else None
    except UnicodeDecodeError:
        return None


def _shown(raw: bytes | None) -> str:
    return repr(raw[:40]) if raw is not None else "null"
