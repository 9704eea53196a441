"""Names and settings of every topic that Rayline makes."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

REPORTS: Final = "rayline.reports"
VIEW: Final = "rayline.view"
CONFIG: Final = "rayline.config"
CONFIG_APPLIED: Final = "rayline.config.applied"
CONFIG_HISTORY: Final = "rayline.config.history"
APPS: Final = "rayline.apps"
CLUSTERS: Final = "rayline.clusters"
EVENTS: Final = "rayline.events"
SUSPECTS: Final = "rayline.suspects"
LOGS: Final = "rayline.logs"
# The partitions of REPORTS: each second's beats, and what must be known at once (notices, joins, losses).
BEATS_PARTITION: Final = 0
CHANGES_PARTITION: Final = 1
# What users' code prints is kept for a day, or until it is more than this.
LOGS_PARTITIONS: Final = 4
LOGS_BYTES: Final = 4 * 1024**3

DEFAULT_PARTITIONS: Final = 8
DEFAULT_MAX_MESSAGE_BYTES: Final = 1024 * 1024
_DAY_MS: Final = 24 * 3600 * 1000
_HOUR_MS: Final = 3600 * 1000
_SEGMENT_MS: Final = 10 * 60 * 1000


@dataclass(frozen=True, slots=True)
class TopicSpec:
    """A topic as it should be; `config` holds Kafka's topic settings by their names. Replication -1: the broker's."""

    name: str
    partitions: int
    config: dict[str, str] = field(default_factory=dict)
    replication_factor: int = -1


def requests_topic(app: str) -> str:
    """Where the jobs of `app` go in."""
    return f"{app}.requests"


def results_topic(app: str) -> str:
    """Where the results of `app` come out."""
    return f"{app}.results"


def dlq_topic(app: str) -> str:
    """Where jobs of `app` lie that could not be accepted."""
    return f"{app}.dlq"


def group_id(app: str) -> str:
    """The consumer group of the lanes of `app`."""
    return f"rayline.{app}"


def transactional_id(app: str, lane: str) -> str:
    """By which a lane publishes, and claims partitions in what it commits."""
    return f"rayline.{app}.{lane}"


def app_topics(
    app: str,
    *,
    partitions: int = DEFAULT_PARTITIONS,
    retention_ms: int = 7 * _DAY_MS,
    max_message_bytes: int = DEFAULT_MAX_MESSAGE_BYTES,
) -> tuple[TopicSpec, ...]:
    """Requests, results and dead letters of one app; a dead letter holds the job and why, so it may be a bit larger."""
    room = 64 * 1024
    return (
        TopicSpec(requests_topic(app), partitions, _appended(retention_ms, max_message_bytes)),
        TopicSpec(results_topic(app), partitions, _appended(retention_ms, max_message_bytes + room)),
        TopicSpec(dlq_topic(app), 1, _appended(4 * retention_ms, max_message_bytes + room)),
    )


def platform_topics() -> tuple[TopicSpec, ...]:
    """The topics of Rayline itself: compacted where the last word counts, short-lived where only the present does."""
    return (
        TopicSpec(REPORTS, 2, _appended(_HOUR_MS)),
        # What resources and lanes that are long gone said leaves with time.
        TopicSpec(VIEW, 1, _compacted() | {"cleanup.policy": "compact,delete", "retention.ms": str(_DAY_MS)}),
        TopicSpec(CONFIG, 1, _compacted()),
        # Answers of processes that are long gone leave with time.
        TopicSpec(CONFIG_APPLIED, 1, _compacted() | {"cleanup.policy": "compact,delete", "retention.ms": str(30 * _DAY_MS)}),
        TopicSpec(CONFIG_HISTORY, 1, _appended(365 * _DAY_MS)),
        TopicSpec(APPS, 1, _compacted()),
        TopicSpec(CLUSTERS, 1, _compacted()),
        TopicSpec(SUSPECTS, 1, _compacted()),
        TopicSpec(EVENTS, 1, _appended(7 * _DAY_MS)),
        TopicSpec(LOGS, LOGS_PARTITIONS, _appended(_DAY_MS) | _bounded(LOGS_BYTES // LOGS_PARTITIONS)),
    )


def _appended(retention_ms: int, max_message_bytes: int = DEFAULT_MAX_MESSAGE_BYTES) -> dict[str, str]:
    return {
        "cleanup.policy": "delete",
        "retention.ms": str(retention_ms),
        "max.message.bytes": str(max_message_bytes),
        "message.timestamp.type": "LogAppendTime",
    }


def _bounded(partition_bytes: int) -> dict[str, str]:
    """Only whole segments are deleted: small ones keep to the bound."""
    return {"retention.bytes": str(partition_bytes), "segment.bytes": str(partition_bytes // 16)}


def _compacted() -> dict[str, str]:
    return {
        "cleanup.policy": "compact",
        "max.message.bytes": str(DEFAULT_MAX_MESSAGE_BYTES),
        "message.timestamp.type": "LogAppendTime",
        "min.cleanable.dirty.ratio": "0.1",
        "segment.ms": str(_SEGMENT_MS),
        "delete.retention.ms": str(_DAY_MS),
    }
