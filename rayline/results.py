"""A result: one record of `<app>.results`. Header names, outcomes, and reading one back."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Final

from rayline.codec import decode_payload
from rayline.enums import StrEnum
from rayline.errors import FormatError
from rayline.jobs import CONTENT_TYPE, JOB_ID, TRACEPARENT, TRACEPARENT_FORM, ContentType, Header

OUTCOME: Final = "outcome"
ERROR_TYPE: Final = "error-type"
ERROR_MESSAGE: Final = "error-message"
SOURCE: Final = "source"
APP_VERSION: Final = "app-version"
MODEL_VERSION: Final = "model-version"
NODE: Final = "node"
CLUSTER: Final = "cluster"
ATTEMPTS: Final = "attempts"
BATCH: Final = "batch"
TIMING: Final = "timing"
PICK: Final = "pick"
TRIED: Final = "tried"

DLQ_REASON: Final = "dlq-reason"
DLQ_SOURCE: Final = "dlq-source"
DLQ_TIME: Final = "dlq-time"

RESULT_HEADERS: Final = frozenset(
    {
        JOB_ID,
        OUTCOME,
        ERROR_TYPE,
        ERROR_MESSAGE,
        SOURCE,
        APP_VERSION,
        MODEL_VERSION,
        NODE,
        CLUSTER,
        ATTEMPTS,
        BATCH,
        TIMING,
        PICK,
        TRIED,
    }
)
DLQ_HEADERS: Final = frozenset({DLQ_REASON, DLQ_SOURCE, DLQ_TIME})

MAX_ERROR_TYPE_CHARS: Final = 200
MAX_ERROR_MESSAGE_CHARS: Final = 4000


class Outcome(StrEnum):
    """How a job ended; each accepted job ends exactly once."""

    OK = "ok"
    ERROR = "error"
    INVALID = "invalid"
    DEADLINE_EXCEEDED = "deadline_exceeded"
    QUARANTINED = "quarantined"


@dataclass(frozen=True, slots=True)
class Tried:
    """An attempt that did not answer a job: where, in which batch, and why not (see docs/protocol.md)."""

    cluster: str
    node: str
    cause: str
    batch: str


@dataclass(frozen=True, slots=True)
class Result:
    """A result as a reader gets it. `timing_ms` has the keys queue, dispatch, execute, publish (milliseconds).

    `cluster` to `batch` tell where the job was sent last; `tried` are the last attempts that did not answer it, oldest first.
    """

    job_id: str
    outcome: Outcome
    source: str
    key: bytes | None
    value: bytes | None
    content_type: ContentType
    headers: tuple[Header, ...]
    timestamp_ms: int
    error_type: str | None = None
    error_message: str | None = None
    app_version: str | None = None
    model_version: str | None = None
    node: str | None = None
    cluster: str | None = None
    attempts: int = 0
    batch: str | None = None
    timing_ms: Mapping[str, float] = field(default_factory=dict)
    pick: str | None = None
    tried: tuple[Tried, ...] = ()

    @property
    def batch_id(self) -> str | None:
        """`batch` without the size."""
        return None if self.batch is None else self.batch.rpartition("/")[0]

    @property
    def answered(self) -> bool:
        """It is a node's answer: the attempt that was the last is not among those that brought none."""
        return self.node is not None and all(one.batch != self.batch_id for one in self.tried)

    @property
    def trace_id(self) -> str | None:
        """The trace that its processing stands in, 32 hexadecimal digits; None where its job had none, or none of the form."""
        traceparent = dict(self.headers).get(TRACEPARENT)
        form = None if traceparent is None else TRACEPARENT_FORM.fullmatch(traceparent)
        return None if form is None else form[1].decode()

    def feature(self) -> Any:
        """The decoded feature (None unless the outcome is ok)."""
        return decode_payload(self.value, self.content_type) if self.value is not None and self.outcome is Outcome.OK else None

    def as_dict(self) -> dict[str, Any]:
        """A JSON-friendly form for `-o json`; bytes inside the feature are shown as text where they are UTF-8."""
        return {
            "job_id": self.job_id,
            "outcome": self.outcome.value,
            "feature": self.feature(),
            "error_type": self.error_type,
            "error_message": self.error_message,
            "key": self.key.decode("utf-8", "replace") if self.key is not None else None,
            "source": self.source,
            "app_version": self.app_version,
            "model_version": self.model_version,
            "cluster": self.cluster,
            "node": self.node,
            "attempts": self.attempts,
            "batch": self.batch,
            "timing_ms": dict(self.timing_ms),
            "pick": self.pick,
            "answered": self.answered,
            "tried": [asdict(one) for one in self.tried],
            "trace_id": self.trace_id,
            "timestamp_ms": self.timestamp_ms,
        }


def format_timing_after_queue(*, dispatch_ms: float, execute_ms: float, publish_ms: float) -> bytes:
    """What follows the queue in the `timing` header `queue=1.2,dispatch=0.3,execute=5.0,publish=0.9` (milliseconds)."""
    return b",dispatch=%.1f,execute=%.1f,publish=%.1f" % (dispatch_ms, execute_ms, publish_ms)


def parse_timing(value: str) -> dict[str, float]:
    """Read a `timing` header back; raises FormatError when it is not of that form."""
    try:
        return {name: float(number) for name, _, number in (part.partition("=") for part in value.split(",") if part)}
    except ValueError as error:
        raise FormatError(f"header timing={value!r} is not of the form name=milliseconds,…") from error


def format_tried(tried: Iterable[Tried]) -> bytes:
    """The `tried` header `c1/pod-1=evicted:lane-7,c1/pod-2=killed:lane-9`."""
    return ",".join([f"{one.cluster}/{one.node}={one.cause}:{one.batch}" for one in tried]).encode()


def parse_tried(value: str) -> tuple[Tried, ...]:
    """Read a `tried` header back; what is missing of an attempt is empty."""
    found = []
    for part in filter(None, value.split(",")):
        place, _, what = part.partition("=")
        found.append(Tried(*place.partition("/")[::2], *what.partition(":")[::2]))
    return tuple(found)


def parse_result(*, key: bytes | None, value: bytes | None, headers: Sequence[Header], timestamp_ms: int) -> Result:
    """Read a result record; raises FormatError when a header that every result has is missing or wrong."""
    found: dict[str, str] = {name: raw.decode("utf-8", "replace") for name, raw in headers if raw is not None}
    try:
        return Result(
            job_id=found[JOB_ID],
            outcome=Outcome(found[OUTCOME]),
            source=found[SOURCE],
            key=key,
            value=value,
            content_type=ContentType(found.get(CONTENT_TYPE, ContentType.MSGPACK)),
            headers=tuple(headers),
            timestamp_ms=timestamp_ms,
            error_type=found.get(ERROR_TYPE),
            error_message=found.get(ERROR_MESSAGE),
            app_version=found.get(APP_VERSION),
            model_version=found.get(MODEL_VERSION),
            node=found.get(NODE),
            cluster=found.get(CLUSTER),
            attempts=int(found.get(ATTEMPTS, "0")),
            batch=found.get(BATCH),
            timing_ms=parse_timing(found.get(TIMING, "")),
            pick=found.get(PICK),
            tried=parse_tried(found.get(TRIED, "")),
        )
    except (KeyError, ValueError) as error:
        raise FormatError(f"not a Rayline result record: {error!r}; see docs/protocol.md") from error


def to_json(result: Result) -> str:
    """One line of JSON; what JSON cannot hold is shown by `repr`."""
    return json.dumps(result.as_dict(), default=repr, ensure_ascii=False)
