"""The record batches of one transaction, and what to make smaller when the broker refuses them for their size."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Final

from ingest.records import Ended, SharedHeaders, dead_letter_headers, journey_headers, lone_headers, result_headers
from rayline.bus.record_batch import RecordBatchWriter, encode_headers
from rayline.clock import BrokerClock
from scheduler.dispatcher import Journey

# Brokers with small heaps suffer from batches of half a megabyte and more.
MAX_BATCH_BYTES: Final = 192 * 1024
_MIN_BATCH_BYTES: Final = 16 * 1024


@dataclass(slots=True)
class Outgoing:
    """One record batch for one partition; `newest` is the job of its newest record, `letters` whether it holds dead letters."""

    where: tuple[str, int]
    batch: RecordBatchWriter
    newest: Ended
    letters: bool


class BatchBuilding:
    """Owns the size at which a record batch is full, which the broker's refusals lower. Does not own batches: each transaction
    has its own (`begin`).
    """

    def __init__(self, *, results_topic: str, result_partitions: int, dlq_topic: str, clock: BrokerClock) -> None:
        self._results_topic = results_topic
        self._result_partitions = result_partitions
        self._dlq_topic = dlq_topic
        self._clock = clock
        self._full_bytes = MAX_BATCH_BYTES

    def begin(self) -> OpenBatches:
        """The batches of a new transaction."""
        return OpenBatches(
            results_topic=self._results_topic,
            result_partitions=self._result_partitions,
            dlq_topic=self._dlq_topic,
            clock=self._clock,
            full_bytes=self._full_bytes,
        )

    def make_smaller(self, refused: Iterable[Outgoing], replace_value: Callable[[Ended, str, str], None]) -> bool:
        """The broker refused one of these for its size; False when nothing can be made smaller.

        The largest is at fault. Where it holds many records, fewer go into one batch from now on; where it holds one, that one
        loses, in this order: the feature (the job becomes an error), the dead letter's payload, the job's key and headers.
        """
        largest = max(refused, key=lambda outgoing: outgoing.batch.size())
        if largest.batch.record_count() > 1:
            if self._full_bytes <= _MIN_BATCH_BYTES:
                return False
            self._full_bytes = max(_MIN_BATCH_BYTES, min(self._full_bytes, largest.batch.size()) // 2)
            return True
        ended = largest.newest
        if largest.letters and ended.letter_whole:
            ended.letter_whole = False
        elif ended.value is not None and not largest.letters:
            size = len(ended.value)
            replace_value(
                ended,
                "rayline.ResultTooLarge",
                f"the feature has {size} bytes, more than the broker takes (max.message.bytes of {self._results_topic})",
            )
        elif not ended.bare:
            ended.bare = True
        else:
            return False
        return True


class OpenBatches:
    """Owns the batches of one transaction that are not full yet. Does not own those that it has handed out.

    Life: `add` any number of times → `rest`.
    """

    def __init__(
        self, *, results_topic: str, result_partitions: int, dlq_topic: str, clock: BrokerClock, full_bytes: int
    ) -> None:
        self._results_topic = results_topic
        self._result_partitions = result_partitions
        self._clock = clock
        self._full_bytes = full_bytes
        self._shared: dict[Journey, SharedHeaders] = {}
        self._writers: dict[int, _Writer] = {}
        self._letters = _Writer((dlq_topic, 0), full_bytes, letters=True)

    def add(self, partition: int, jobs: Iterable[Ended], *, now: float) -> Iterator[Outgoing]:
        """Append the results and dead letters of jobs of one partition, in their order; hands out what is full by that.

        `now` is monotonic seconds.
        """
        epoch_ms = self._clock.at(0.0)
        shared, letters = self._shared, self._letters
        # The same partition number keeps the order of a key, and the key's partition where the counts are equal.
        number = partition % self._result_partitions
        writer = self._writers.get(number)
        if writer is None:
            writer = self._writers[number] = _Writer((self._results_topic, number), self._full_bytes, letters=False)
        place = b""
        for ended in jobs:
            job, journey = ended.job, ended.journey
            if journey is None:
                common = lone_headers(ended, now=now)
            elif (known := shared.get(journey)) is None:
                common = shared[journey] = journey_headers(journey, now=now)
            else:
                common = known
            if not place:
                place = f"{job.topic}/{partition}/".encode()
            headers = result_headers(
                ended, common, place=place, appended_ms=job.timestamp_ms, arrived_ms=job.arrived * 1000 + epoch_ms
            )
            full = writer.append(ended, None if ended.bare else job.key, ended.value, headers)
            if full is not None:
                yield full
            if ended.dead_letter is not None:
                full = letters.append(ended, *_letter(ended, int(self._clock.at(now))))
                if full is not None:
                    yield full

    def rest(self) -> Iterator[Outgoing]:
        """What is not full, results before dead letters."""
        for writer in (*self._writers.values(), self._letters):
            if writer.current is not None:
                yield writer.current


class _Writer:
    """Appends records for one partition, opening a new batch whenever one is full."""

    def __init__(self, where: tuple[str, int], full_bytes: int, *, letters: bool) -> None:
        self._where = where
        self._full_bytes = full_bytes
        self._letters = letters
        self.current: Outgoing | None = None

    def append(self, ended: Ended, key: bytes | None, value: bytes | None, headers: bytes) -> Outgoing | None:
        """The batch that was full without this record, if one was."""
        current, full = self.current, None
        if current is None or not current.batch.append(key=key, value=value, headers=headers, full_bytes=self._full_bytes):
            full = current
            current = self.current = Outgoing(self._where, RecordBatchWriter(), ended, self._letters)
            current.batch.append(key=key, value=value, headers=headers)
        current.newest = ended
        return full


def _letter(ended: Ended, time_ms: int) -> tuple[bytes | None, bytes | None, bytes]:
    """Key, value and headers of a dead letter: the job as it was, unless the broker refuses to take it once more."""
    job = ended.job
    if ended.bare:
        return None, None, encode_headers(dead_letter_headers(ended, time_ms=time_ms))
    value = job.payload if ended.letter_whole and not ended.tombstone else None
    return job.key, value, encode_headers(dead_letter_headers(ended, time_ms=time_ms))
