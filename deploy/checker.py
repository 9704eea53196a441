"""The judge: reads every job and every result back with a client that is not ours, and counts what is missing or double.

Nothing here trusts Rayline. The reader is confluent-kafka with ``isolation.level=read_committed``; a result is matched to its
job by the exact position in its ``source`` header and cross-checked by its ``job-id``.

Latency is taken from the broker's own clock: the result record's append time minus the job record's (both ``LogAppendTime`` on
topics that Rayline makes). A result becomes visible to a ``read_committed`` consumer only when its transaction commits, which
the append time does not contain: add one commit interval (20-50 ms) for the time of visibility.
"""

from __future__ import annotations

import json
from array import array
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from enum import Enum, auto
from typing import Any, Final

import numpy as np

from deploy.committed_reader import Record, StartOffsets, end_offsets, read_committed
from rayline.jobs import CE_ID, JOB_ID
from rayline.results import OUTCOME, SOURCE
from rayline.topics import requests_topic, results_topic

MAX_EXAMPLES: Final = 20
_NO_RECORD: Final = -1
_UNNAMED: Final = "(none)"


class Correlation(Enum):
    """How a result names its job. KEY is for systems that write no ``source`` header: keys of jobs must then be distinct."""

    SOURCE = auto()
    KEY = auto()


@dataclass(frozen=True, slots=True)
class LateJob:
    """A job whose result came after its SLA."""

    source: str
    outcome: str
    latency_ms: int


@dataclass(frozen=True, slots=True)
class LatencyMs:
    """Of each job's first result, in milliseconds; None without results."""

    p50: float | None
    p99: float | None
    p999: float | None
    max: float | None

    @classmethod
    def of(cls, latencies_ms: Sequence[float]) -> LatencyMs:
        """Percentiles by the nearest sample at or above the rank."""
        if not len(latencies_ms):
            return cls(None, None, None, None)
        p50, p99, p999, highest = np.percentile(np.asarray(latencies_ms), [50, 99, 99.9, 100], method="inverted_cdf")
        return cls(float(p50), float(p99), float(p999), float(highest))

    def to_json(self) -> dict[str, float | None]:
        return {"p50": self.p50, "p99": self.p99, "p99.9": self.p999, "max": self.max}


@dataclass(frozen=True, slots=True)
class Report:
    """The verdict. The example lists hold at most ``MAX_EXAMPLES``; the counts beside them are complete."""

    jobs: int
    results: int
    outcomes: Mapping[str, int]
    lost: int  # jobs without a result
    duplicated: int  # results beyond the first of one job
    unknown: int  # results that name no job that was read
    mismatched_ids: int  # results whose job-id is not their job's
    wrong_payload: int  # ok results that are not what the job should give
    late: int
    latency_ms: LatencyMs
    first_result_ms: int | None  # broker time, epoch milliseconds
    last_result_ms: int | None
    lost_examples: tuple[str, ...] = ()
    duplicated_examples: tuple[str, ...] = ()
    unknown_examples: tuple[str, ...] = ()
    late_examples: tuple[LateJob, ...] = field(default=())

    @property
    def exactly_once(self) -> bool:
        """Whether each job has exactly one result, of its own, and nothing else is there."""
        return not (self.lost or self.duplicated or self.unknown or self.mismatched_ids)

    @property
    def jobs_per_s(self) -> float | None:
        """Jobs answered a second between the first result and the last one; None with fewer than two moments."""
        if self.first_result_ms is None or self.last_result_ms is None or self.last_result_ms <= self.first_result_ms:
            return None
        return (self.results - self.duplicated) / (self.last_result_ms - self.first_result_ms) * 1000

    def to_json(self) -> dict[str, Any]:
        """Plain values in the names of the commands' ``--json``."""
        return {**asdict(self), "latency_ms": self.latency_ms.to_json(), "exactly_once": self.exactly_once}

    def __str__(self) -> str:
        return json.dumps(self.to_json(), indent=2)


class _Partition:
    """What is kept of one requests partition, by distance from its first offset: some 20 bytes a job."""

    __slots__ = ("base", "expected", "ids", "results", "times_ms")

    def __init__(self, base: int) -> None:
        self.base = base
        self.times_ms = array("q")  # _NO_RECORD where the log has a gap
        self.ids = array("q")  # hash of the given job id; 0: none given
        self.expected = array("q")  # hash of the expected result, when payloads are compared
        self.results = array("H")


class Judge:
    """Matches results to jobs. Pure: give it every job with ``job``, then every result with ``result``, then ask ``report``.

    Owns the counts. Does not read Kafka and keeps no payload: an expected result is remembered by its 64-bit hash.
    """

    def __init__(
        self,
        *,
        requests_topic: str,
        sla_seconds: float = 10.0,
        correlation: Correlation = Correlation.SOURCE,
        expected_result: Callable[[bytes], bytes] | None = None,
    ) -> None:
        self._topic = requests_topic
        self._sla_ms = sla_seconds * 1000
        self._correlation = correlation
        self._expected_result = expected_result
        self._partitions: dict[int, _Partition] = {}
        self._by_key: dict[int, tuple[int, int]] = {}
        self._jobs = self._results = self._unknown = self._mismatched_ids = self._wrong_payload = self._late = 0
        self._duplicated = 0
        self._outcomes: Counter[str] = Counter()
        self._latencies_ms = array("q")
        self._first_result_ms: int | None = None
        self._last_result_ms: int | None = None
        self._duplicated_examples: list[str] = []
        self._unknown_examples: list[str] = []
        self._late_examples: list[LateJob] = []

    def job(self, record: Record) -> None:
        """Enter one job; the records of one partition come in the order of their offsets."""
        partition = self._partitions.get(record.partition)
        if partition is None:
            partition = self._partitions[record.partition] = _Partition(record.offset)
        index = record.offset - partition.base
        gap = index - len(partition.times_ms)
        if gap < 0:
            raise ValueError(f"job {record.partition}/{record.offset} came after a later one of its partition")
        if gap:
            partition.times_ms.extend([_NO_RECORD] * gap)
            partition.ids.extend([0] * gap)
            partition.expected.extend([0] * gap)
            partition.results.extend([0] * gap)
        headers = dict(record.headers)
        given_id = headers.get(JOB_ID) or headers.get(CE_ID)
        partition.times_ms.append(record.timestamp_ms)
        partition.ids.append(hash(given_id) if given_id else 0)
        partition.expected.append(hash(self._expected_result(record.value or b"")) if self._expected_result else 0)
        partition.results.append(0)
        self._jobs += 1
        if self._correlation is Correlation.KEY:
            position = (record.partition, record.offset)
            if self._by_key.setdefault(hash(record.key), position) != position:
                raise ValueError(f"job {record.partition}/{record.offset} repeats the key {record.key!r}: correlate by source")

    def result(self, record: Record) -> None:
        """Enter one result; all jobs have been entered before."""
        headers = dict(record.headers)
        outcome = (headers.get(OUTCOME) or _UNNAMED.encode()).decode("utf-8", "replace")
        self._results += 1
        self._outcomes[outcome] += 1
        self._first_result_ms = min(record.timestamp_ms, self._first_result_ms or record.timestamp_ms)
        self._last_result_ms = max(record.timestamp_ms, self._last_result_ms or record.timestamp_ms)
        position = self._position(record, headers)
        if position is None:
            self._unknown += 1
            _keep(self._unknown_examples, f"{record.partition}/{record.offset}: source {headers.get(SOURCE)!r}")
            return
        number, index = position
        partition = self._partitions[number]
        source = f"{self._topic}/{number}/{partition.base + index}"
        if self._correlation is Correlation.SOURCE and not _same_id(headers.get(JOB_ID), partition.ids[index], source):
            self._mismatched_ids += 1
        if self._expected_result and outcome in ("ok", _UNNAMED) and hash(record.value) != partition.expected[index]:
            self._wrong_payload += 1
        if partition.results[index]:
            self._duplicated += 1
            _keep(self._duplicated_examples, source)
        else:
            latency_ms = record.timestamp_ms - partition.times_ms[index]
            self._latencies_ms.append(latency_ms)
            if latency_ms > self._sla_ms:
                self._late += 1
                _keep(self._late_examples, LateJob(source=source, outcome=outcome, latency_ms=latency_ms))
        partition.results[index] = min(partition.results[index] + 1, 65_535)

    def report(self) -> Report:
        """The verdict on what has been entered so far."""
        lost = 0
        lost_examples: list[str] = []
        for number, partition in sorted(self._partitions.items()):
            present = np.frombuffer(partition.times_ms, dtype=np.int64) != _NO_RECORD
            missing = np.flatnonzero(present & (np.frombuffer(partition.results, dtype=np.uint16) == 0))
            lost += len(missing)
            for index in missing[:MAX_EXAMPLES]:
                _keep(lost_examples, f"{self._topic}/{number}/{partition.base + int(index)}")
        return Report(
            jobs=self._jobs,
            results=self._results,
            outcomes=dict(sorted(self._outcomes.items())),
            lost=lost,
            duplicated=self._duplicated,
            unknown=self._unknown,
            mismatched_ids=self._mismatched_ids,
            wrong_payload=self._wrong_payload,
            late=self._late,
            latency_ms=LatencyMs.of(self._latencies_ms),
            first_result_ms=self._first_result_ms,
            last_result_ms=self._last_result_ms,
            lost_examples=tuple(lost_examples),
            duplicated_examples=tuple(self._duplicated_examples),
            unknown_examples=tuple(self._unknown_examples),
            late_examples=tuple(self._late_examples),
        )

    def _position(self, record: Record, headers: Mapping[str, bytes | None]) -> tuple[int, int] | None:
        """Partition and index of the job that a result names, or None."""
        if self._correlation is Correlation.KEY:
            found = self._by_key.get(hash(record.key))
        else:
            found = _parse_source(headers.get(SOURCE), self._topic)
        if found is None:
            return None
        number, offset = found
        partition = self._partitions.get(number)
        if partition is None:
            return None
        index = offset - partition.base
        if not 0 <= index < len(partition.times_ms) or partition.times_ms[index] == _NO_RECORD:
            return None
        return number, index


def check(
    bootstrap_servers: str,
    *,
    app: str,
    requests_from: StartOffsets | None = None,
    results_from: StartOffsets | None = None,
    sla_seconds: float = 10.0,
    correlation: Correlation = Correlation.SOURCE,
    expected_result: Callable[[bytes], bytes] | None = None,
    client_settings: Mapping[str, Any] | None = None,
) -> Report:
    """Judge all jobs and results of an app up to now. Blocks; about 5 µs a record.

    ``requests_from`` and ``results_from`` map partition to first offset (default: the beginning). ``expected_result`` gives, for
    a job's payload, the exact bytes that its ok result must have. ``client_settings`` are librdkafka's, for TLS and SASL.
    The end of the results is fixed before that of the jobs: in a running system jobs under way count as lost, and no result as
    unknown.

    Raises ConfigError without confluent-kafka, BrokerUnavailable when the broker or a topic does not answer.
    """
    requests, results = requests_topic(app), results_topic(app)
    results_until = end_offsets(bootstrap_servers, results, client_settings=client_settings)
    judge = Judge(requests_topic=requests, sla_seconds=sla_seconds, correlation=correlation, expected_result=expected_result)
    for record in read_committed(bootstrap_servers, requests, start=requests_from, client_settings=client_settings):
        judge.job(record)
    for record in read_committed(
        bootstrap_servers, results, start=results_from, until=results_until, client_settings=client_settings
    ):
        judge.result(record)
    return judge.report()


def _parse_source(raw: bytes | None, topic: str) -> tuple[int, int] | None:
    if raw is None:
        return None
    name, _, rest = raw.decode("utf-8", "replace").partition("/")
    partition, _, offset = rest.partition("/")
    if name != topic or not (partition.isdecimal() and offset.isdecimal()):
        return None
    return int(partition), int(offset)


def _same_id(job_id: bytes | None, given: int, source: str) -> bool:
    if job_id is None:
        return False
    if given:
        return hash(job_id) == given
    _, partition, offset = source.rsplit("/", 2)
    return job_id == f"{partition}-{offset}".encode()


def _keep(examples: list[Any], example: Any) -> None:
    if len(examples) < MAX_EXAMPLES:
        examples.append(example)
