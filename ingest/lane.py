"""A lane: one member of an app's consumer group, from the record read to the result committed."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Final

from aiokafka.structs import TopicPartition

from ingest.admission import Admission, Reason, Rejection
from ingest.batcher import Batcher, Closed
from ingest.metering import JobMeters, partition_samples, publisher_samples
from ingest.partition import PartitionState
from ingest.publisher import PhaseHook, ResultPublisher
from ingest.records import Ended
from ingest.stalls import BlockedPartition, PartitionFacts, StallWatch, closed, unheard
from ingest.suspects import SuspectLog
from ingest.takeover import Halted, Takeover, read_back
from ingest.tracing import batch_traces, start_job_span
from rayline.app_spec import AppSpec
from rayline.bus.consumer import GroupConsumer, Record
from rayline.bus.protocol import GroupMember
from rayline.bus.settings import KafkaSettings
from rayline.clock import BrokerClock
from rayline.errors import MemberFenced, OffsetLost, TransactionIndefinite
from rayline.events import Event
from rayline.jobs import Job
from rayline.lane_record import MAX_NODES, LaneRecord
from rayline.metrics import Sample
from rayline.metrics import declared as metrics
from rayline.reports import NodeReport
from rayline.results import Outcome
from rayline.stalls import Stall
from rayline.telemetry import Tracing
from rayline.topics import group_id, requests_topic, transactional_id
from rayline.versions import VersionWeights
from rayline.waits import news_by
from rayline.wire import JobStatus
from scheduler.batch import Trail
from scheduler.dispatcher import Answers, ChannelFactory, Dispatcher, new_batch
from scheduler.metering import DispatchSamples, view_samples, weight_samples
from scheduler.router import Router, phase_of
from scheduler.statistics import DispatchStatistics
from scheduler.view import View

_log = logging.getLogger(__name__)

POLL_MS: Final = 500
# A lane learns from its heartbeat that another one left: a handover waits for it.
HEARTBEAT_MS: Final = 300
# A poll's records are admitted in one go: more would make answers and commits wait.
MAX_POLL_RECORDS: Final = 1_000
MAX_JOBS_HELD: Final = 32_000
RESUME_SHARE: Final = 0.7
STOP_SECONDS: Final = 1.5
REFRESH_SECONDS: Final = 0.25
# 0: what is heard of nodes counts at once.
PULL_SECONDS: Final = 0.0
MAX_CLAIM_CHARS: Final = 500


@dataclass(frozen=True, slots=True)
class _Assignment:
    """Partitions, and the membership under which they are ours."""

    partitions: frozenset[TopicPartition]
    member: GroupMember


@dataclass(frozen=True, slots=True)
class LaneStatistics:
    """A snapshot of one lane."""

    partitions: int
    halted: tuple[Halted, ...]
    jobs_held: int
    bytes_held: int
    batches_queued: int
    batches_in_flight: int
    dispatch: DispatchStatistics
    transactions: int
    results: dict[str, int]


class Lane:
    """Composes consumer, admission, batcher, dispatcher and publisher of one app.

    Owns the partitions that are assigned to it, from takeover to loss, and the bounds on what it holds in memory. Does not own
    where nodes come from (`heard` is told) nor the app's version (`update` is told).

    Life: `run` → takeovers and jobs until `stop` is set → what is in flight gets a moment → results are committed → the
    partitions are given up. Raises ProducerFenced when another process took its identity.
    """

    def __init__(
        self,
        *,
        settings: KafkaSettings,
        spec: AppSpec,
        instance: str,
        channels: ChannelFactory,
        result_partitions: int,
        session_timeout_ms: int = 6_000,
        on_phase: PhaseHook | None = None,
        tracing: Tracing | None = None,
        metered: bool = True,
    ) -> None:
        """`metered`: somebody will ask for `samples`; without, nothing is counted for each job."""
        self._settings = settings
        self._spec = spec
        self._instance = instance
        self._result_partitions = result_partitions
        self._transactional_id = transactional_id(spec.name, instance)
        self._tracing = tracing
        self._clock = BrokerClock()
        self._meters = JobMeters(counting=metered)
        self._dispatch_samples = DispatchSamples()
        self._stall_watch = StallWatch()
        self._view = View()
        self._partitions: dict[TopicPartition, PartitionState] = {}
        self._halted: tuple[Halted, ...] = ()
        self._admission = Admission(spec=spec, clock=self._clock)
        self._batcher = Batcher(spec.batching)
        self._suspects = SuspectLog(settings=settings, is_published=self._is_published)
        self._router = Router(
            app=spec.name,
            policy=spec.scheduling.policy,
            interval_seconds=spec.scheduling.interval_seconds,
            cards=spec.scheduling.cards if spec.resources.num_gpus else None,
            phase=phase_of(instance),
        )
        self._dispatcher = Dispatcher(
            spec=spec,
            view=self._view,
            router=self._router,
            sink=self,
            channels=channels,
            batch_prefix=instance,
            memory=self._suspects,
            traces=batch_traces(tracing, self._clock, app=spec.name, lane=instance),
        )
        self._consumer = GroupConsumer(
            settings=settings,
            topics=[requests_topic(spec.name)],
            group_id=group_id(spec.name),
            listener=self,
            client_id=self._transactional_id,
            group_instance_id=instance,
            session_timeout_ms=session_timeout_ms,
            heartbeat_interval_ms=HEARTBEAT_MS,
        )
        self._publisher = ResultPublisher(
            settings=settings,
            app=spec.name,
            transactional_id=self._transactional_id,
            consumer=self._consumer,
            partitions=self._partitions,
            clock=self._clock,
            result_partitions=result_partitions,
            meters=self._meters,
            on_phase=on_phase,
            on_published=self._regulate,
        )
        self._assigned: _Assignment | None = None
        self._assignment_changed = asyncio.Event()
        self._retuned = asyncio.Event()
        self._linger: asyncio.TimerHandle | None = None
        self._linger_at = float("inf")
        self._held_back = False
        self._max_jobs_held = MAX_JOBS_HELD
        self._refresh_at = 0.0
        self._pull_seconds = PULL_SECONDS

    async def run(self, stop: asyncio.Event, on_ready: Callable[[], None] | None = None) -> None:
        """Work until `stop` is set. `on_ready` is called after the first takeover."""
        await self._publisher.start()
        await self._consumer.start()
        try:
            async with asyncio.TaskGroup() as tasks:
                workers = [
                    tasks.create_task(self._take_over(on_ready), name="takeover"),
                    tasks.create_task(self._publisher.run(), name="publisher"),
                    tasks.create_task(self._dispatcher.run(), name="dispatcher"),
                ]
                reader = tasks.create_task(self._read(), name="reader")
                await stop.wait()
                reader.cancel()
                await self._finish()
                for worker in workers:
                    worker.cancel()
        finally:
            if self._linger is not None:
                self._linger.cancel()
            await self._consumer.stop(leave=stop.is_set())
            await self._publisher.close()
            await self._suspects.close()

    def heard(self, reports: Iterable[NodeReport], *, at: float | None = None, ears: float | None = None) -> None:
        """Node reports, sent at `at` (monotonic seconds; now), `ears` as in `View.apply`. Called with none from time to time."""
        now = time.monotonic()
        written_at = now if at is None else at
        changed = self._view.apply(reports, written_at, ears=ears)
        for key in changed:
            if (node := self._view.node(key)) is not None:
                self._router.departures.news(node, written_at=written_at, heard_at=now)
        # Silence is news too, which no report brings; a plain beat is none.
        if (changed and not self._pull_seconds) or now >= self._refresh_at:
            self._refresh_at = now + (self._pull_seconds or REFRESH_SECONDS)
            self._dispatcher.refresh()

    def update(self, spec: AppSpec) -> None:
        """Another version of the app is in force, from the next record on."""
        self._spec = spec
        self._admission.update(spec)
        self._batcher.update(spec.batching)
        self._arm_linger()
        self._router.set_policy(spec.scheduling.policy)
        self._router.set_interval(spec.scheduling.interval_seconds)
        self._dispatcher.update(spec)
        self._retuned.set()

    def set_max_jobs_held(self, jobs: int) -> None:
        """Stop reading at so many jobs held, from the next poll on."""
        self._max_jobs_held = jobs

    def set_transaction_interval(self, seconds: float) -> None:
        """Commit results at most so often."""
        self._publisher.set_interval(seconds)

    def set_max_transaction_interval(self, seconds: float) -> None:
        """Where batches take long, commit results as seldom as that, and so seldom at most."""
        self._publisher.set_max_interval(seconds)

    def set_transaction_results(self, results: int) -> None:
        """Commit about so many results at a time at most."""
        self._publisher.set_max_results(results)

    def set_slack_margin(self, seconds: float) -> None:
        """Close batches so long before a deadline would need it."""
        self._batcher.set_slack_margin(seconds)
        self._arm_linger()

    def set_lost_after(self, seconds: float) -> None:
        """Give a silent node up, with what is in flight there, after so long."""
        self._view.lost_after_seconds = seconds

    def set_pull_interval(self, seconds: float) -> None:
        """Take over what is heard of nodes so often only; 0: at once."""
        self._pull_seconds, self._refresh_at = seconds, 0.0

    def set_weight_policy(self, name: str) -> None:
        """Weigh nodes by another policy. Raises ValueError for a name that there is not."""
        self._router.set_policy(name)
        self._weigh_anew()

    def set_weight_interval(self, seconds: float) -> None:
        """Recompute weights so often."""
        self._router.set_interval(seconds)
        self._weigh_anew()

    def tune_budget(self, *, extra_share: float | None = None, reserve_jobs: int | None = None) -> None:
        """What retries and hedges may cost (see `scheduler.budget`)."""
        self._dispatcher.tune_budget(extra_share=extra_share, reserve_jobs=reserve_jobs)

    def tune_hedging(self, *, late_factor: float | None = None, late_floor_seconds: float | None = None) -> None:
        """From when on a batch counts as late (see `scheduler.hedging`)."""
        self._dispatcher.tune_hedging(late_factor=late_factor, late_floor_seconds=late_floor_seconds)

    def set_traffic(self, factor_of: Callable[[str], float] | None) -> None:
        """Multiply the weight of each node (`cluster/pod`) by this; 0 keeps new batches away. None: leave them as they are."""
        self._router.set_factors(factor_of)
        self._weigh_anew()

    def set_versions(self, weights: VersionWeights, *, beside: tuple[str, ...] | None) -> None:
        """Multiply the weight of each node by that of its version; `beside` as in `Routes.update`."""
        self._router.set_versions(weights, beside=beside)
        self._weigh_anew()

    def explain_nodes(self) -> LaneRecord:
        """The nodes that batches go to, why each gets what it gets, and which way the last ones left."""
        keys = sorted(self._router.weights())
        told = {key: node for key in keys[:MAX_NODES] if (node := self._router.explain_node(key)) is not None}
        stale, left = self._view.stale(time.monotonic()), self._router.departures.told()
        return LaneRecord(self._spec.name, self._instance, stale, len(keys), told, left)

    async def weights_due(self, since: float) -> None:
        """Wait until weights that were looked at then (monotonic seconds) are old: their interval, as it is now, has passed,
        or what they follow from was changed since."""
        if await news_by(self._retuned, since + self._router.interval_seconds):
            self._retuned.clear()

    def statistics(self) -> LaneStatistics:
        return LaneStatistics(
            partitions=len(self._partitions),
            halted=self._halted,
            jobs_held=self._jobs_held(),
            bytes_held=self._bytes_held(),
            batches_queued=self._dispatcher.queued,
            batches_in_flight=self._dispatcher.in_flight,
            dispatch=self._dispatcher.statistics(),
            transactions=self._publisher.statistics.transactions,
            results={outcome.value: count for outcome, count in self._publisher.statistics.results.items()},
        )

    def samples(self, now: float) -> list[Sample]:
        """What the lane counts and holds, for its metrics; to be asked each second, as it also looks for what stands still."""
        facts = self._partition_facts()
        self._stall_watch.observe(facts, now=now, sla_seconds=self._spec.sla_seconds)
        app = self._spec.name
        return [
            *self._meters.samples(app),
            *publisher_samples(self._publisher.statistics, app),
            *self._dispatch_samples.read(self._dispatcher.statistics()),
            *partition_samples(facts, self._stall_watch),
            *view_samples(self._view, now),
            *weight_samples(self._router.weights()),
            Sample(metrics.SLA, self._spec.sla_seconds),
            Sample(metrics.HELD_JOBS, self._jobs_held()),
            Sample(metrics.HELD_BYTES, self._bytes_held()),
            Sample(metrics.QUEUED, self._dispatcher.queued),
            Sample(metrics.IN_FLIGHT, self._dispatcher.in_flight),
            Sample(metrics.BUDGET_LEFT, max(0.0, self._dispatcher.budget.available(now))),
            Sample(metrics.BUDGET_RESERVE, self._dispatcher.budget.reserve_jobs),
        ]

    def stalls(self, _: float) -> list[Stall]:
        """What made no progress when `samples` was asked last."""
        return self._stall_watch.stalls()

    def closed(self, now: float) -> list[Stall]:
        """Whether jobs wait while operators' weights keep them from every node."""
        return closed(self._spec.name, self._router.closed_since, now) if self._dispatcher.queued else []

    def unheard(self, now: float) -> list[Stall]:
        """Whether nobody tells of nodes any more."""
        return unheard(self._view.ears, now)

    def blocked(self) -> list[BlockedPartition]:
        """Partitions behind an open transaction whose producer is not named yet."""
        return [blocked for blocked in self._stall_watch.blocked() if self._stall_watch.producer(blocked) is None]

    def name_producer(self, blocked: BlockedPartition, producer: str) -> None:
        """Who holds that transaction open."""
        self._stall_watch.name_producer(blocked, producer)

    # What the consumer group calls.

    async def on_revoked(self, partitions: frozenset[TopicPartition]) -> None:
        """The open transaction ends under the old generation; after that nothing is published until the takeover."""
        await self._publisher.suspend()
        for tp in partitions:
            if tp in self._partitions:
                self._partitions[tp].owned = False

    async def on_assigned(self, partitions: frozenset[TopicPartition]) -> None:
        self._assigned = _Assignment(partitions, self._consumer.member())
        self._assignment_changed.set()

    # What the dispatcher calls.

    def answered(self, answers: Answers) -> None:
        self._meters.answered(answers)
        journey = answers.journey
        now = journey.answered
        trail = journey.trail
        self._publisher.observe_service(now - journey.dispatched)
        jobs: list[Ended] = []
        for job, status, value, error_type, error_message in zip(
            answers.jobs, answers.statuses, answers.values, answers.error_types, answers.error_messages, strict=True
        ):
            if status == JobStatus.OK:
                ended = Ended(job, Outcome.OK, value, None, None, trail, now, journey)
            elif status == JobStatus.ERROR:
                ended = Ended(job, Outcome.ERROR, None, error_type, error_message, trail, now, journey)
            else:
                ended = Ended(
                    job,
                    Outcome.INVALID,
                    None,
                    error_type,
                    error_message,
                    trail,
                    now,
                    journey,
                    dead_letter=Reason.UNDECODABLE,
                )
            jobs.append(ended)
        self._end(jobs)

    def ended(self, jobs: list[Job], outcome: Outcome, error_type: str, error_message: str, trail: Trail) -> None:
        now = time.monotonic()
        dead_letter = "quarantined" if outcome is Outcome.QUARANTINED else None
        self._end([Ended(job, outcome, None, error_type, error_message, trail, now, dead_letter=dead_letter) for job in jobs])

    def _end(self, jobs: Iterable[Ended]) -> None:
        """Jobs of any partitions ended; those of a partition in their order."""
        by_partition: dict[tuple[str, int], list[Ended]] = {}
        for ended in jobs:
            where = ended.job.topic, ended.job.partition
            if where in by_partition:
                by_partition[where].append(ended)
            else:
                by_partition[where] = [ended]
        for where, of_one in by_partition.items():
            state = self._partitions.get(TopicPartition(*where))
            if state is not None:
                state.end(of_one)
        self._publisher.notify()

    async def _take_over(self, on_ready: Callable[[], None] | None) -> None:
        """Bring each new assignment into work; one that comes meanwhile calls off what is done for the one before."""
        while True:
            await self._assignment_changed.wait()
            self._assignment_changed.clear()
            assignment = self._assigned
            if assignment is None:
                continue
            attempt = asyncio.create_task(self._take_over_once(assignment), name="takeover of one assignment")
            superseded = asyncio.create_task(self._assignment_changed.wait(), name="next assignment")
            try:
                await asyncio.wait({attempt, superseded}, return_when=asyncio.FIRST_COMPLETED)
            finally:
                superseded.cancel()
                attempt.cancel()
                await asyncio.wait({attempt, superseded})
            if attempt.cancelled():
                _log.info("takeover superseded by a newer assignment")
            elif attempt.result() and on_ready is not None:
                on_ready()
                on_ready = None

    async def _take_over_once(self, assignment: _Assignment) -> bool:
        """Fence, read back, claim and settle; False when the group has moved on meanwhile, or it must be done again."""
        began = time.monotonic()
        # Beside the takeover, not before it: only the first dispatch waits for it.
        reading = asyncio.create_task(self._suspects.read([(tp.topic, tp.partition) for tp in assignment.partitions]))
        try:
            takeover = await read_back(
                settings=self._settings,
                app=self._spec.name,
                consumer=self._consumer,
                transactional_id=self._transactional_id,
                assigned=assignment.partitions,
                partitions=self._partitions,
                result_partitions=self._result_partitions,
            )
            if self._partitions:
                await self._publisher.claim(self._partitions, self._claim_event(takeover), member=assignment.member)
            suspects = await reading
        except MemberFenced as error:
            # The next assignment is on its way.
            _log.info("takeover superseded: %s", error)
            return False
        except TransactionIndefinite as error:
            _log.warning("takeover begins again: %s", error)
            self._assignment_changed.set()
            return False
        finally:
            reading.cancel()
        self._suspects.load({partition: suspects.get(partition, ()) for partition in map(tuple, takeover.fresh)})
        self._settle(takeover)
        _log.info(
            "took over %d partition(s) in %.2f s (%d kept, fenced: %s)",
            len(self._partitions),
            time.monotonic() - began,
            len(takeover.kept),
            ", ".join(takeover.fenced) or "nobody",
        )
        return True

    def _settle(self, takeover: Takeover) -> None:
        """The claim is committed: position each partition and let its records come."""
        kept = {(tp.topic, tp.partition) for tp in takeover.kept}
        self._batcher.retain(kept)
        self._dispatcher.retain(kept)
        self._halted = takeover.halted
        for halted in takeover.halted:
            _log.error("partition %s/%d is halted: %s", halted.partition.topic, halted.partition.partition, halted.reason)
        for tp, state in self._partitions.items():
            state.owned = True
            state.paused = False
            self._consumer.seek(tp, state.ledger.position)
        self._consumer.resume(self._partitions)
        self._held_back = False
        self._publisher.resume()

    def _claim_event(self, takeover: Takeover) -> Event:
        numbers = ", ".join(str(tp.partition) for tp in sorted(self._partitions))[:MAX_CLAIM_CHARS] or "no"
        fenced = f"; fenced: {', '.join(takeover.fenced)}" if takeover.fenced else ""
        text = f"lane {self._instance} works on partition(s) {numbers} of {self._spec.name}{fenced}"
        halted = "; ".join(f"partition {h.partition.partition} is halted: {h.reason}" for h in takeover.halted)
        return Event("lane", "lane.claimed", f"{self._spec.name}/{self._instance}", text, halted or None)

    async def _read(self) -> None:
        while True:
            try:
                fetched = await self._consumer.getmany(timeout_ms=POLL_MS, max_records=MAX_POLL_RECORDS)
            except OffsetLost as error:
                self._halt(error)
                continue
            if fetched:
                now = time.monotonic()
                for tp, records in fetched.items():
                    state = self._partitions.get(tp)
                    if state is not None and state.owned:
                        self._admit(tp, state, records, now)
                self._arm_linger()
            self._follow_gaps()
            self._regulate()

    def _follow_gaps(self) -> None:
        """The reader may stand behind records that it never hands out; the committed offset follows it."""
        trailing = False
        for tp, state in self._partitions.items():
            position = self._consumer.position(tp) if state.owned and not state.halted else None
            if position is not None:
                state.ledger.skip_to(position)
                trailing |= state.ledger.trails
        if trailing:
            self._publisher.notify()

    def _admit(self, tp: TopicPartition, state: PartitionState, records: list[Record], now: float) -> None:
        ledger, admit, add = state.ledger, self._admission.admit, self._batcher.add
        self._meters.records_read += len(records)
        topic, number = tp
        if records[-1].timestamp_type == 1:
            self._clock.observe_read(append_ms=records[-1].timestamp, read_at=now)
        suspected, suspects = self._suspects.book.suspected((topic, number)), list[Job]()
        closed: list[Closed] = []
        for record in records:
            if not ledger.read(record.offset):
                continue
            admitted = admit(topic, number, record, now)
            if isinstance(admitted, Rejection):
                self._reject(state, admitted, now)
                continue
            if self._tracing is not None and admitted.headers:
                admitted.span = start_job_span(self._tracing, admitted, app=self._spec.name, lane=self._instance)
            state.take(admitted)
            if suspected and record.offset in suspected:
                suspects.append(admitted)
                continue
            batch = add(admitted, now)
            if batch is not None:
                closed.append(batch)
        self._submit(closed)
        if suspects:
            self._dispatcher.submit(self._suspects.book.batches((topic, number), suspects, self._instance))

    def _reject(self, state: PartitionState, rejection: Rejection, now: float) -> None:
        state.take(rejection.job)
        reason = rejection.reason.value
        ended = Ended(
            rejection.job,
            Outcome.INVALID,
            None,
            f"rayline.{reason}",
            rejection.message,
            Trail(),
            now,
            dead_letter=reason,
            tombstone=rejection.tombstone,
            letter_whole=rejection.whole,
        )
        state.end([ended])
        self._publisher.notify()

    def _submit(self, closed: Iterable[Closed]) -> None:
        batches = [new_batch(batch.jobs, batch.size_bytes, self._instance) for batch in closed]
        for batch in batches:
            self._meters.dispatched(len(batch.jobs))
        if batches:
            self._dispatcher.submit(batches)

    def _arm_linger(self) -> None:
        """One timer for the batch that is due first."""
        due = self._batcher.next_due()
        if due is None or due >= self._linger_at:
            return
        if self._linger is not None:
            self._linger.cancel()
        self._linger_at = due
        self._linger = asyncio.get_running_loop().call_at(due, self._close_due)

    def _close_due(self) -> None:
        self._linger, self._linger_at = None, float("inf")
        service = self._router.service_seconds()
        if service is not None:
            self._batcher.expect_service(service)
        self._submit(self._batcher.due(time.monotonic()))
        self._arm_linger()

    def _weigh_anew(self) -> None:
        """An operator changed what weights follow from."""
        self._dispatcher.refresh()
        self._retuned.set()

    def _regulate(self) -> None:
        """Pass pressure on to Kafka: pause what is too far ahead, everything when memory is full."""
        held_bytes, held_jobs = self._bytes_held(), self._jobs_held()
        limit = self._spec.limits.max_in_flight_bytes
        share = RESUME_SHARE if self._held_back else 1.0
        self._held_back = held_bytes >= limit * share or held_jobs >= self._max_jobs_held * share
        pause, resume = [], []
        for tp, state in self._partitions.items():
            if not state.owned or state.halted:
                continue
            hold = self._held_back or state.full
            if hold and not state.paused:
                pause.append(tp)
            elif not hold and state.paused:
                resume.append(tp)
            state.paused = hold
        if pause:
            self._consumer.pause(pause)
        if resume:
            self._consumer.resume(resume)

    def _partition_facts(self) -> list[PartitionFacts]:
        halted = {halted.partition: halted.reason for halted in self._halted}
        facts = [
            PartitionFacts(
                key=(tp.topic, tp.partition),
                owned=state.owned,
                paused=state.paused,
                position=state.ledger.position,
                frontier=state.ledger.frontier,
                outstanding=state.ledger.outstanding,
                waiting=state.waiting,
                end=self._consumer.highwater(tp),
                stable=self._consumer.stable(tp),
                answer=self._consumer.answered_ms(tp),
                halted=halted.get(tp),
            )
            for tp, state in self._partitions.items()
        ]
        lost = [tp for tp in halted if tp not in self._partitions]
        return facts + [PartitionFacts((tp.topic, tp.partition), False, True, 0, 0, 0, 0, halted=halted[tp]) for tp in lost]

    def _is_published(self, topic: str, partition: int, offset: int) -> bool | None:
        state = self._partitions.get(TopicPartition(topic, partition))
        return None if state is None else state.ledger.is_published(offset)

    def _halt(self, error: OffsetLost) -> None:
        tp = TopicPartition(*error.partition)
        state = self._partitions.get(tp)
        if state is None or state.halted:
            return
        state.halted = True
        self._halted = (*self._halted, Halted(tp, str(error)))
        _log.error("partition %s/%d is halted: %s", tp.topic, tp.partition, error)

    def _bytes_held(self) -> int:
        return sum(state.held_bytes for state in self._partitions.values())

    def _jobs_held(self) -> int:
        return sum(state.under_way + state.waiting for state in self._partitions.values())

    async def _finish(self) -> None:
        """No more reading: what is in flight gets a moment, then what ended is committed."""
        deadline = time.monotonic() + STOP_SECONDS
        self._submit(self._batcher.due(float("inf")))
        try:
            async with asyncio.timeout_at(deadline):
                await self._dispatcher.wait_quiet()
        except TimeoutError:
            _log.info("%d batch(es) are left to the next owner of the partitions", self._dispatcher.in_flight)
        try:
            async with asyncio.timeout(STOP_SECONDS):
                await self._publisher.wait_idle()
        except TimeoutError:
            _log.warning("some results are left to the next owner of the partitions")
