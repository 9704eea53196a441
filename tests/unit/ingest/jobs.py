"""Jobs and records for tests, with what matters given and the rest made up."""

from __future__ import annotations

from dataclasses import dataclass, field

from rayline.jobs import ContentType, Header, Job


def job(
    offset: int = 0,
    *,
    partition: int = 0,
    payload: bytes = b"x",
    expires: float = 1e9,
    arrived: float = 0.0,
    content_type: ContentType = ContentType.MSGPACK,
    key: bytes | None = None,
    headers: tuple[Header, ...] = (),
    given_id: str | None = None,
) -> Job:
    return Job("app.requests", partition, offset, 1_000, key, payload, headers, given_id, content_type, arrived, expires)


@dataclass
class Record:
    """A consumed record as admission sees it; `timestamp_type` 1 is LogAppendTime."""

    value: bytes | None = b"payload"
    headers: list[tuple[str, bytes | None]] = field(default_factory=list)
    key: bytes | None = None
    timestamp: int = 1_000_000
    timestamp_type: int = 1
    offset: int = 42
