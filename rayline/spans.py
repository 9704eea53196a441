"""Spans as OpenTelemetry's exporters take them, made with less work than by its SDK: a lane makes hundreds a second."""

from __future__ import annotations

import random
import time
import traceback
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import Event, ReadableSpan, SpanProcessor
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import Link, Span, SpanContext, Status, StatusCode, TraceFlags

# OpenTelemetry's own limit of attributes, events and links.
MAX_PARTS: Final = 128
_SCOPE: Final = InstrumentationScope("rayline")
_SAMPLED: Final = TraceFlags(TraceFlags.SAMPLED)
_UNSET: Final = Status(StatusCode.UNSET)
_PLAIN: Final = (str, bool, int, float)


class JourneySpan(Span):
    """One span under a remote parent. Owns its contents; does not own the processor, which gets it once, when it ends.

    An app's function may have it in hand (`opentelemetry.trace.get_current_span`): what is no attribute is left out then, and
    so is what comes after the end.
    """

    def __init__(
        self,
        name: str,
        *,
        trace_id: int,
        parent_id: int,
        processor: SpanProcessor,
        resource: Resource,
        start_ns: int | None,
        links: Iterable[Span],
        attributes: dict[str, Any],
    ) -> None:
        self._name = name
        self._context = SpanContext(trace_id, random.getrandbits(64) or 1, is_remote=False, trace_flags=_SAMPLED)
        self._parent_id = parent_id
        self._processor = processor
        self._resource = resource
        self._start_ns = time.time_ns() if start_ns is None else start_ns
        self._links = [Link(span.get_span_context()) for span in links]
        self._attributes = attributes
        self._events: list[Event] = []
        self._status = _UNSET
        self._ended = False

    def get_span_context(self) -> SpanContext:
        return self._context

    def is_recording(self) -> bool:
        return not self._ended

    def set_attribute(self, key: str, value: Any) -> None:
        if _is_attribute(value) and not self._ended and (key in self._attributes or len(self._attributes) < MAX_PARTS):
            self._attributes[key] = value

    def set_attributes(self, attributes: Mapping[str, Any]) -> None:
        for key, value in attributes.items():
            self.set_attribute(key, value)

    def add_event(self, name: str, attributes: Mapping[str, Any] | None = None, timestamp: int | None = None) -> None:
        if len(self._events) < MAX_PARTS and not self._ended:
            kept = {key: value for key, value in (attributes or {}).items() if _is_attribute(value)}
            self._events.append(Event(name, kept, timestamp))

    def add_link(self, context: SpanContext, attributes: Mapping[str, Any] | None = None) -> None:
        if len(self._links) < MAX_PARTS and not self._ended:
            self._links.append(Link(context, attributes))

    def update_name(self, name: str) -> None:
        self._name = name

    def set_status(self, status: Status | StatusCode, description: str | None = None) -> None:
        self._status = status if isinstance(status, Status) else Status(status, description)

    def record_exception(
        self,
        exception: BaseException,
        attributes: Mapping[str, Any] | None = None,
        timestamp: int | None = None,
        escaped: bool = False,
    ) -> None:
        told = {
            "exception.type": type(exception).__qualname__,
            "exception.message": str(exception),
            "exception.stacktrace": "".join(traceback.format_exception(exception)),
            "exception.escaped": str(escaped),
        }
        self.add_event("exception", {**told, **(attributes or {})}, timestamp)

    def end(self, end_time: int | None = None) -> None:
        if self._ended:
            return
        self._ended = True
        context = self._context
        self._processor.on_end(
            ReadableSpan(
                self._name,
                context=context,
                parent=SpanContext(context.trace_id, self._parent_id, is_remote=True, trace_flags=_SAMPLED),
                resource=self._resource,
                attributes=self._attributes,
                events=self._events,
                links=self._links,
                status=self._status,
                start_time=self._start_ns,
                end_time=time.time_ns() if end_time is None else end_time,
                instrumentation_scope=_SCOPE,
            )
        )


def _is_attribute(value: object) -> bool:
    if isinstance(value, _PLAIN):
        return True
    return isinstance(value, Sequence) and all(isinstance(one, _PLAIN) for one in value)
