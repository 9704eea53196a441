"""What a lane counts beside its work: per answer and per transaction, never per job more than a few list look-ups."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from ingest.records import Ended
from ingest.stalls import PartitionFacts, StallWatch
from rayline.metrics import Histogram, Sample
from rayline.metrics import declared as d
from rayline.results import Outcome
from rayline.topics import dlq_topic, group_id, requests_topic, results_topic
from scheduler.dispatcher import Answers

if TYPE_CHECKING:
    from ingest.publisher import PublisherStatistics


class JobMeters:
    """Owns the histograms of one lane. Life: `answered`, `committed`, … as it happens; `samples` now and then. One that is not
    `counting`, since nobody will ask, costs nothing for each job."""

    def __init__(self, *, counting: bool = True) -> None:
        self._counting = counting
        self.records_read = 0
        self._late = 0
        self._latency = Histogram(d.LATENCY.bounds)
        self._process = Histogram(d.PROCESS_DURATION.bounds)
        self._queue = Histogram(d.QUEUE.bounds)
        self._dispatch = Histogram(d.DISPATCH.bounds)
        self._execute = Histogram(d.EXECUTE.bounds)
        self._publish = Histogram(d.PUBLISH.bounds)
        self._batch_size = Histogram(d.BATCH_SIZE.bounds)
        self._transaction = Histogram(d.TRANSACTION_DURATION.bounds)

    def answered(self, answers: Answers) -> None:
        """Jobs of one batch were answered; its times are theirs."""
        if not self._counting:
            return
        journey, jobs = answers.journey, len(answers.jobs)
        self._execute.add(journey.execute_ms / 1000, jobs)
        self._dispatch.add(max(0.0, journey.answered - journey.dispatched - journey.execute_ms / 1000), jobs)
        self._queue.add_many([journey.dispatched - job.arrived for job in answers.jobs])

    def dispatched(self, jobs: int) -> None:
        """A batch of so many jobs was closed."""
        self._batch_size.add(jobs)

    def transaction(self, seconds: float) -> None:
        """One was committed within so long."""
        self._transaction.add(seconds)

    def committed(self, ended: Sequence[Ended], *, now: float, broker_ms: float) -> None:
        """Results were committed at `now` (monotonic seconds), which is `broker_ms` by the broker's clock (epoch ms)."""
        if not self._counting:
            return
        self._latency.add_many([max(0.0, broker_ms - one.job.timestamp_ms) / 1000 for one in ended])
        self._process.add_many([now - one.job.arrived for one in ended])
        self._publish.add_many([now - one.at for one in ended])
        self._late += sum([one.job.expires < now for one in ended])

    def samples(self, app: str) -> Iterable[Sample]:
        kafka = {d.SYSTEM: "kafka", d.DESTINATION: requests_topic(app), d.GROUP: group_id(app)}
        yield Sample(d.CONSUMED, self.records_read, {**kafka, d.OPERATION: "poll"})
        yield Sample(d.PROCESS_DURATION, self._process.snapshot(), {**kafka, d.OPERATION: "process"})
        yield Sample(d.LATE, self._late)
        for metric, histogram in (
            (d.LATENCY, self._latency),
            (d.QUEUE, self._queue),
            (d.DISPATCH, self._dispatch),
            (d.EXECUTE, self._execute),
            (d.PUBLISH, self._publish),
            (d.BATCH_SIZE, self._batch_size),
            (d.TRANSACTION_DURATION, self._transaction),
        ):
            yield Sample(metric, histogram.snapshot())


def publisher_samples(statistics: PublisherStatistics, app: str) -> Iterable[Sample]:
    """Of what was committed; each outcome from the start, since Prometheus takes no counter's first value for growth."""
    kafka = {d.SYSTEM: "kafka", d.OPERATION: "send"}
    yield Sample(d.SENT, sum(statistics.results.values()), {**kafka, d.DESTINATION: results_topic(app)})
    yield Sample(d.SENT, statistics.dead_letters, {**kafka, d.DESTINATION: dlq_topic(app)})
    for outcome in Outcome:
        yield Sample(d.RESULTS, statistics.results.get(outcome, 0), {d.OUTCOME: outcome.value})
    yield Sample(d.TRANSACTIONS, statistics.transactions)
    yield Sample(d.RECOVERIES, statistics.recoveries)


def partition_samples(facts: Iterable[PartitionFacts], watch: StallWatch) -> Iterable[Sample]:
    """Of each partition that the lane holds."""
    ages = watch.ages()
    for fact in facts:
        where = {d.DESTINATION: fact.key[0], d.PARTITION: str(fact.key[1])}
        yield Sample(d.LAG, fact.lag, where)
        yield Sample(d.PROGRESS_AGE, ages.get(fact.key, 0.0), where)
        yield Sample(d.HALTED, int(fact.halted is not None), where)
    for stall in watch.blocked():
        where = {d.DESTINATION: stall.key[0], d.PARTITION: str(stall.key[1])}
        yield Sample(d.OPEN_TRANSACTION, watch.open_seconds(stall), where | {d.SUBJECT: watch.producer(stall) or "unknown"})
