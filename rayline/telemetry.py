"""Traces by OpenTelemetry: one trace from the producer's span through the lane and the worker to the result.

Off unless the environment names a place for spans, read once for each process by `open_tracing`:

    RAYLINE_TRACE_FILE              spans as JSON lines, appended by every process (good for one machine)
    OTEL_EXPORTER_OTLP_ENDPOINT     spans by OTLP/HTTP (extra `otlp`)

Only jobs whose producer sampled them (`traceparent` with flag 01) get spans: sampling is the producer's decision.
"""

from __future__ import annotations

import atexit
import fcntl
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Protocol

from rayline.errors import ConfigError
from rayline.jobs import TRACEPARENT_FORM

if TYPE_CHECKING:
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import ReadableSpan, SpanProcessor
    from opentelemetry.trace import Span

TRACE_FILE_VARIABLE: Final = "RAYLINE_TRACE_FILE"
OTLP_VARIABLE: Final = "OTEL_EXPORTER_OTLP_ENDPOINT"
_ALL_IDS: Final = 1 << 64
# Where the 16 digits of a traceparent lie that decide about sampling, and what none of them reaches.
_DECIDING: Final = slice(19, 35)
_ANY: Final = b"g"
_SAMPLED_FLAG: Final = 1
_NOTHING: Final[Mapping[str, Any]] = {}


class EndsWithJobs(Protocol):
    """What ends once the results of the jobs that it served are committed."""

    def job_ended(self) -> None: ...


class JobSpan:
    """A job's span, and that of the batch that it went out in (None: in none yet). `span` is ended by whoever started it."""

    __slots__ = ("batch", "span")

    def __init__(self, span: Span) -> None:
        self.span = span
        self.batch: EndsWithJobs | None = None


class Tracing:
    """Starts spans under W3C contexts. Owns the processors that spans go to when they end, and their exporters.

    Life: `open_tracing` → `start` any number of times → `close`, which flushes.
    """

    def __init__(self, *processors: SpanProcessor, resource: Resource | None = None) -> None:
        # Imported only where tracing is on: a lane's start is measured in fractions of a second.
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import SynchronousMultiSpanProcessor

        from rayline.spans import JourneySpan

        self._resource = Resource.create() if resource is None else resource
        self._new_span = JourneySpan
        self._processor = SynchronousMultiSpanProcessor()  # type: ignore[no-untyped-call]
        for one in processors:
            self._processor.add_span_processor(one)
        self._not_from = _ANY

    def set_sampling(self, share: float) -> None:
        """Trace this share (0 to 1) of what producers sampled, from the next span on; the trace id decides, as in OpenTelemetry's
        `TraceIdRatioBased`, so that every process that is told the same share chooses the same traces."""
        traced_ids = round(share * _ALL_IDS)
        self._not_from = _ANY if traced_ids >= _ALL_IDS else b"%016x" % traced_ids

    def may_take(self, traceparent: bytes) -> bool:
        """False where `start` gives None for being out of the share: a look at 16 bytes, where a lane asks for every job."""
        return traceparent[_DECIDING] < self._not_from

    def start(
        self,
        name: str,
        traceparent: bytes | str,
        *,
        start_ns: int | None = None,
        links: Iterable[Span] = (),
        named: Mapping[str, Any] = _NOTHING,
        **attributes: Any,
    ) -> Span | None:
        """A span under a W3C traceparent; None when that is malformed or not sampled. `start_ns` is epoch nanoseconds, `links`
        are spans that it belongs to as well; `attributes` get the prefix `rayline.`, `named` have their names."""
        form = traceparent.encode() if isinstance(traceparent, str) else traceparent
        parent = _sampled_parent(form) if self.may_take(form) else None
        if parent is None:
            return None
        return self._new_span(
            name,
            trace_id=parent[0],
            parent_id=parent[1],
            processor=self._processor,
            resource=self._resource,
            start_ns=start_ns,
            links=links,
            attributes={**{f"rayline.{key}": value for key, value in attributes.items()}, **named},
        )

    def close(self) -> None:
        self._processor.shutdown()


def open_tracing(service: str, environment: Mapping[str, str]) -> Tracing | None:
    """Tracing as the environment asks for it, or None. `service` names the process's part (lane, worker).

    Raises:
        ConfigError: OTLP is asked for and its exporter is not installed.
    """
    file, otlp = environment.get(TRACE_FILE_VARIABLE), environment.get(OTLP_VARIABLE)
    if not file and not otlp:
        return None
    from opentelemetry.sdk.resources import SERVICE_NAME, Resource
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    resource = Resource.create({SERVICE_NAME: f"rayline-{service}"})
    processors = []
    if file:
        exporter = _file_exporter(Path(file), resource.to_json(indent=None))
        processors.append(BatchSpanProcessor(exporter, schedule_delay_millis=500))
    if otlp:
        try:
            from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        except ImportError as error:
            raise ConfigError(
                f"{OTLP_VARIABLE} is set, but the exporter is not installed: pip install 'rayline[otlp]'"
            ) from error
        processors.append(BatchSpanProcessor(OTLPSpanExporter()))
    tracing = Tracing(*processors, resource=resource)
    atexit.register(tracing.close)
    return tracing


@contextmanager
def current(span: Span) -> Iterator[None]:
    """Spans that this thread or task starts meanwhile are children of this one, and log lines name it. Does not end it."""
    from opentelemetry.trace import use_span

    with use_span(span, end_on_exit=False, record_exception=False, set_status_on_exception=False):
        yield


def traceparent_of(span: Span) -> str:
    """The W3C traceparent that makes children of this span."""
    context = span.get_span_context()
    return f"00-{context.trace_id:032x}-{context.span_id:016x}-{int(context.trace_flags):02x}"


def _sampled_parent(traceparent: bytes) -> tuple[int, int] | None:
    """Trace and span of a traceparent that the producer sampled."""
    match = TRACEPARENT_FORM.fullmatch(traceparent)
    if match is None or not int(match[3], 16) & _SAMPLED_FLAG:
        return None
    trace_id, span_id = int(match[1], 16), int(match[2], 16)
    return (trace_id, span_id) if trace_id and span_id else None


def span_line(span: ReadableSpan, resource: str) -> str:
    """What `span.to_json` writes, in less time: that dumps and loads the resource for every span, told here as JSON."""
    from opentelemetry.sdk.util import ns_to_iso_str

    def attributes_of(attributes: Any) -> dict[str, Any] | None:
        return None if attributes is None else dict(attributes)

    def context_of(context: Any) -> dict[str, str]:
        return {
            "trace_id": f"0x{context.trace_id:032x}",
            "span_id": f"0x{context.span_id:016x}",
            "trace_state": repr(context.trace_state),
        }

    status = {"status_code": span.status.status_code.name}
    if span.status.description:
        status["description"] = span.status.description
    told = {
        "name": span.name,
        "context": context_of(span.context),
        "kind": str(span.kind),
        "parent_id": None if span.parent is None else f"0x{span.parent.span_id:016x}",
        "start_time": ns_to_iso_str(span.start_time or 0),
        "end_time": ns_to_iso_str(span.end_time or 0),
        "status": status,
        "attributes": attributes_of(span.attributes),
        "events": [
            {"name": event.name, "timestamp": ns_to_iso_str(event.timestamp), "attributes": attributes_of(event.attributes)}
            for event in span.events
        ],
        "links": [{"context": context_of(link.context), "attributes": attributes_of(link.attributes)} for link in span.links],
    }
    return f'{json.dumps(told)[:-1]}, "resource": {resource}}}'


def _file_exporter(path: Path, resource: str) -> Any:
    from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult

    class FileExporter(SpanExporter):
        """Appends spans as JSON lines; several processes may share the file."""

        def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
            text = "".join(span_line(span, resource) + "\n" for span in spans)
            with path.open("a", encoding="utf-8") as file:
                fcntl.flock(file, fcntl.LOCK_EX)
                file.write(text)
            return SpanExportResult.SUCCESS

    return FileExporter()
