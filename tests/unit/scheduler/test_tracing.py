"""A batch's span has an attempt for each actor that took it, or a part of it, whatever became of that."""

from __future__ import annotations

import asyncio
import io
import json
import logging
from collections.abc import Awaitable, Callable, Iterator

import pytest
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import StatusCode

from rayline.jobs import Job
from rayline.logs import LineFormatter, LineHandler, LogFormat
from rayline.telemetry import JobSpan, Tracing
from rayline.wire import Verdict
from scheduler.budget import RetryBudget
from scheduler.tracing import BatchTraces
from tests.unit.ingest.jobs import job
from tests.unit.scheduler import virtual_time
from tests.unit.scheduler.test_hedged_batches import PLACES, warm_up
from tests.unit.scheduler.world import Exchange, World, all_done, all_out, forever

MESSAGING = {"messaging.system": "kafka", "messaging.operation.name": "process"}


class Traced:
    """A world whose dispatcher is traced, and the spans that ended in it."""

    def __init__(self, nodes: str = "abcd") -> None:
        self.exporter = InMemorySpanExporter()
        self.tracing = Tracing(SimpleSpanProcessor(self.exporter))
        traces = BatchTraces(tracing=self.tracing, app="app", lane="0", messaging=MESSAGING, epoch_ns=lambda at: int(at * 1e9))
        self.world = World(nodes=nodes, places=PLACES, traces=traces, budget=RetryBudget(now=0.0))

    def job(self, offset: int, *, traced: bool = True) -> Job:
        made = job(offset, payload=b"%d" % offset, expires=60.0)
        if traced:
            span = self.tracing.start("rayline.job", f"00-{'ab' * 16}-{'cd' * 8}-01")
            assert span is not None
            made.span = JobSpan(span)
        return made

    def run(self, jobs: list[Job], behave: Callable[[Exchange], Awaitable[Verdict]]) -> None:
        """Until all of them are out and nothing is in flight; then their results are committed."""

        async def main() -> None:
            async with self.world.running():
                await asyncio.sleep(0.1)
                before = await warm_up(self.world)
                assert self.exporter.get_finished_spans() == ()
                self.world.behave = behave
                self.world.submit(jobs)
                await all_out(self.world, before + len(jobs))
                for one in jobs:
                    if one.span is not None and one.span.batch is not None:
                        one.span.batch.job_ended()
                await self.world.dispatcher.wait_quiet()

        virtual_time.run(main())

    def named(self, name: str) -> list[ReadableSpan]:
        return [span for span in self.exporter.get_finished_spans() if span.name == name]

    def attempts(self) -> list[tuple[object, ...]]:
        told = [span.attributes or {} for span in self.named("rayline.attempt")]
        return [tuple(one[f"rayline.{name}"] for name in ("attempt", "hedge", "verdict", "unfinished")) for one in told]


def test_a_hedge_and_the_rival_that_it_beat_are_two_attempts_of_one_batch() -> None:
    traced = Traced()

    async def behave(exchange: Exchange) -> Verdict:
        return await (forever(exchange) if len(traced.world.sent) == 1 else all_done(exchange))

    traced.run([traced.job(0)], behave)
    assert traced.attempts() == [(2, True, "done", 0), (1, False, "beaten", 0)]
    (batch,) = traced.named("rayline.batch")
    attempts = traced.named("rayline.attempt")
    assert {span.parent.span_id for span in attempts if span.parent is not None} == {batch.context.span_id}
    assert {span.status.status_code for span in attempts} == {StatusCode.UNSET}
    assert batch.end_time == max(span.end_time or 0 for span in attempts)
    places = [(span.attributes or {})["rayline.node"] for span in attempts]
    assert len(set(places)) == 2


@pytest.mark.parametrize("verdict", [Verdict.DRAINING, Verdict.LOST, Verdict.BUSY])
def test_an_attempt_that_failed_says_why_and_what_is_left_goes_on_in_the_same_batch(verdict: Verdict) -> None:
    traced = Traced()

    async def behave(exchange: Exchange) -> Verdict:
        return verdict if len(traced.world.sent) == 1 else await all_done(exchange)

    traced.run([traced.job(0), traced.job(1, traced=False), traced.job(2)], behave)
    first, *others = traced.attempts()
    assert first == (1, False, verdict.value, 3)
    assert {(outcome, left) for _, _, outcome, left in others} == {("done", 0)}
    (batch,) = traced.named("rayline.batch")
    told = {name: value for name, value in (batch.attributes or {}).items() if name.startswith("messaging.")}
    assert told == {**MESSAGING, "messaging.batch.message_count": 3}
    assert {span.parent.span_id for span in traced.named("rayline.attempt") if span.parent is not None} == {batch.context.span_id}
    assert traced.named("rayline.attempt")[0].status.status_code is StatusCode.ERROR


def test_batches_without_a_traced_job_leave_nothing() -> None:
    traced = Traced()
    traced.run([traced.job(0, traced=False)], all_done)
    assert traced.exporter.get_finished_spans() == ()


@pytest.fixture
def logged() -> Iterator[Callable[[], list[dict[str, str]]]]:
    """What the scheduler logged so far."""
    handler, log = LineHandler(stream := io.StringIO()), logging.getLogger("scheduler")
    handler.setFormatter(LineFormatter(LogFormat.JSON))
    log.addHandler(handler)
    log.setLevel(logging.INFO)
    yield lambda: [json.loads(line) for line in stream.getvalue().splitlines()]
    log.removeHandler(handler)
    log.setLevel(logging.NOTSET)


@pytest.mark.parametrize("traced_job", [True, False])
@pytest.mark.parametrize("ends", ["lost", "late", "gone"])
def test_what_is_logged_of_a_batch_names_its_span_where_it_has_one(
    logged: Callable[[], list[dict[str, str]]], ends: str, traced_job: bool
) -> None:
    traced = Traced()

    async def behave(exchange: Exchange) -> Verdict:
        if len(traced.world.sent) > 1:
            return await all_done(exchange)
        if ends == "lost":
            return Verdict.LOST
        if ends == "gone":
            del traced.world.beating[traced.world.sent[0][0]]
        return await forever(exchange)

    traced.run([traced.job(0, traced=False), traced.job(1, traced=traced_job)], behave)
    lines = [line for line in logged() if line["message"].startswith("batch ")]
    assert lines
    expected = {f"{span.context.trace_id:032x}/{span.context.span_id:016x}" for span in traced.named("rayline.batch")}
    assert {f"{line['trace_id']}/{line['span_id']}" for line in lines if "trace_id" in line} == expected
    assert bool(expected) is traced_job
