"""Traces by OpenTelemetry: one trace from the producer's span through the lane and the worker to the result.

Off unless the environment names a place for spans, read once for each process by `open_tracing`:

    RAYLINE_TRACE_FILE              spans as JSON lines, appended by every process (good for one machine)
    OTEL_EXPORTER_OTLP_ENDPOINT     spans by OTLP/HTTP (extra `otlp`)

Only jobs whose producer sampled them (`traceparent` with flag 01) get spans: sampling is the producer's decision.
"""

from __future__ import annotations

import fcntl
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Protocol

from rayline.errors import ConfigError
from rayline.jobs import TRACEPARENT_FORM

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
    from opentelemetry.trace import Span

TRACE_FILE_VARIABLE: Final = "RAYLINE_TRACE_FILE"
OTLP_VARIABLE: Final = "OTEL_EXPORTER_OTLP_ENDPOINT"
_ALL_IDS: Final = 1 << 64


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
    """Starts spans under W3C contexts. Owns one tracer provider and its exporter.

    Life: `open_tracing` → `start` any number of times → `close`, which flushes.
    """

    def __init__(self, provider: TracerProvider) -> None:
        self._provider = provider
        self._tracer = provider.get_tracer("rayline")
        self._traced_ids = _ALL_IDS

    def set_sampling(self, share: float) -> None:
        """Trace this share (0 to 1) of what producers sampled, from the next span on; the trace id decides, as in OpenTelemetry's
        `TraceIdRatioBased`, so that every process that is told the same share chooses the same traces."""
        self._traced_ids = round(share * _ALL_IDS)

    def start(
        self,
        name: str,
        traceparent: bytes | str,
        *,
        start_ns: int | None = None,
        links: Iterable[Span] = (),
        **attributes: Any,
    ) -> Span | None:
        """A span under a W3C traceparent; None when that is malformed or not sampled. `start_ns` is epoch nanoseconds, `links`
        are spans that it belongs to as well."""
        parent = _parent(traceparent, self._traced_ids)
        if parent is None:
            return None
        from opentelemetry.trace import Link

        return self._tracer.start_span(
            name,
            context=parent,
            start_time=start_ns,
            links=[Link(span.get_span_context()) for span in links],
            attributes={f"rayline.{key}": value for key, value in attributes.items()},
        )

    def close(self) -> None:
        self._provider.shutdown()


def open_tracing(service: str, environment: Mapping[str, str]) -> Tracing | None:
    """Tracing as the environment asks for it, or None. `service` names the process's part (lane, worker).

    Raises:
        ConfigError: OTLP is asked for and its exporter is not installed.
    """
    file, otlp = environment.get(TRACE_FILE_VARIABLE), environment.get(OTLP_VARIABLE)
    if not file and not otlp:
        return None
    # Imported only where tracing is on: a lane's start is measured in fractions of a second.
    from opentelemetry.sdk.resources import SERVICE_NAME, Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    provider = TracerProvider(resource=Resource.create({SERVICE_NAME: f"rayline-{service}"}), shutdown_on_exit=True)
    if file:
        provider.add_span_processor(BatchSpanProcessor(_file_exporter(Path(file)), schedule_delay_millis=500))
    if otlp:
        try:
            from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        except ImportError as error:
            raise ConfigError(
                f"{OTLP_VARIABLE} is set, but the exporter is not installed: pip install 'rayline[otlp]'"
            ) from error
        provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    return Tracing(provider)


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


def _parent(traceparent: bytes | str, traced_ids: int) -> Any:
    from opentelemetry.trace import NonRecordingSpan, SpanContext, TraceFlags, set_span_in_context

    match = TRACEPARENT_FORM.fullmatch(traceparent.encode() if isinstance(traceparent, str) else traceparent)
    if match is None or not int(match[3], 16) & TraceFlags.SAMPLED or int(match[1][16:], 16) >= traced_ids:
        return None
    context = SpanContext(
        trace_id=int(match[1], 16), span_id=int(match[2], 16), is_remote=True, trace_flags=TraceFlags(int(match[3], 16))
    )
    return set_span_in_context(NonRecordingSpan(context)) if context.is_valid else None


def _file_exporter(path: Path) -> Any:
    from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult

    class FileExporter(SpanExporter):
        """Appends spans as JSON lines; several processes may share the file."""

        def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
            text = "".join(span.to_json(indent=None) + "\n" for span in spans)
            with path.open("a", encoding="utf-8") as file:
                fcntl.flock(file, fcntl.LOCK_EX)
                file.write(text)
            return SpanExportResult.SUCCESS

    return FileExporter()
