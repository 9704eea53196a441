"""A job: one record of `<app>.requests`, as the lane sees it. The payload stays bytes; only a worker decodes it."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from rayline.enums import StrEnum

if TYPE_CHECKING:
    from rayline.telemetry import JobSpan

Header = tuple[str, bytes]

JOB_ID: Final = "job-id"
DEADLINE_MS: Final = "deadline-ms"
CONTENT_TYPE: Final = "content-type"
TRACEPARENT: Final = "traceparent"
# Trace, span, flags.
TRACEPARENT_FORM: Final = re.compile(rb"00-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})")
TRACESTATE: Final = "tracestate"
CE_ID: Final = "ce_id"

MAX_JOB_ID_BYTES: Final = 128
MAX_DEADLINE_DIGITS: Final = 15


class ContentType(StrEnum):
    """How payload and feature are encoded; a result has the content type of its job."""

    MSGPACK = "application/msgpack"
    JSON = "application/json"


@dataclass(slots=True, eq=False)
class Job:
    """One accepted job record.

    `timestamp_ms` is the record's own time (broker epoch milliseconds); `arrived` and `expires` (its deadline) are this
    process's monotonic clock in seconds. `headers` are all headers of the record in their order. `given_id` is None where
    the producer gave none: the id is then `<partition>-<offset>`. `span` is its trace span where its producer sampled it.
    `held_bytes` is what it holds in the lane's memory, once it is under way.
    """

    topic: str
    partition: int
    offset: int
    timestamp_ms: int
    key: bytes | None
    payload: bytes
    headers: tuple[Header, ...]
    given_id: str | None
    content_type: ContentType
    arrived: float
    expires: float
    span: JobSpan | None = None
    held_bytes: int = 0

    @property
    def job_id(self) -> str:
        return self.given_id if self.given_id is not None else f"{self.partition}-{self.offset}"

    @property
    def source(self) -> str:
        return f"{self.topic}/{self.partition}/{self.offset}"

    def header(self, name: str) -> bytes | None:
        """The last value of a header, or None (Kafka allows a name more than once; the last one counts)."""
        for key, value in reversed(self.headers):
            if key == name:
                return value
        return None
