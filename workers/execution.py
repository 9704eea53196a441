"""The spans of one batch's time in an app's function."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext

from rayline.telemetry import Tracing, current
from rayline.wire import BatchHead, Verdict


@contextmanager
def execution(tracing: Tracing, head: BatchHead, *, app: str) -> Iterator[Callable[[Verdict], None]]:
    """A span under each that the head names (the attempt's). The first is current meanwhile: spans and log lines of the function
    belong to it. What is yielded takes what came of the batch."""
    started = [tracing.start("rayline.execute", parent, app=app, batch=head.batch) for parent in head.trace.values()]
    spans = [span for span in started if span is not None]

    def note(verdict: Verdict) -> None:
        for span in spans:
            span.set_attribute("rayline.verdict", verdict.value)

    try:
        with current(spans[0]) if spans else nullcontext():
            yield note
    finally:
        for span in spans:
            span.end()
