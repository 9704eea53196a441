"""What a lane knows of jobs under which workers died, kept in `rayline.suspects` beyond its own life."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Collection, Iterable
from dataclasses import replace
from typing import Final

from rayline.bus.log import CompactedLog, Publisher
from rayline.bus.settings import KafkaSettings
from rayline.errors import BusError, FormatError
from rayline.jobs import Job
from rayline.suspects import Sending, SuspectCase, Trial, WorkerDeath, decode_suspects, encode_suspects, suspects_key
from rayline.topics import SUSPECTS
from scheduler.batch import Attempt, Batch, Cause, Death, Sent, Trail, next_batch_id
from scheduler.router import Target

_log = logging.getLogger(__name__)

# A bus that takes longer is worse for the jobs than a memory with a hole.
WRITE_SECONDS: Final = 2.0
READ_SECONDS: Final = 5.0
TIDY_SECONDS: Final = 1.0

# Of each set, so that a record holds thousands of them.
SENDINGS_KEPT: Final = 3
_CAUSES: Final = frozenset(cause.value for cause in Cause)

Partition = tuple[str, int]
IsPublished = Callable[[str, int, int], bool | None]


class SuspectBook:
    """Owns the cases of the partitions that are ours. Pure.

    Life: `load` at a takeover, `batches` for what is read of its jobs, `note` when a worker died and before a trial, `tidy` now
    and then. `unwritten` are the partitions of which more is known than was written.
    """

    def __init__(self) -> None:
        self._cases: dict[Partition, dict[int, SuspectCase]] = {}
        self.unwritten: set[Partition] = set()

    def __bool__(self) -> bool:
        return bool(self._cases)

    def load(self, partition: Partition, cases: Iterable[SuspectCase]) -> None:
        """What an earlier owner knew."""
        known = {offset: case for case in cases for offset in case.offsets}
        if known:
            self._cases[partition] = known

    def note(self, batch: Batch, trial: Trial | None) -> None:
        """Workers died under this batch; with `trial` it is about to run there."""
        deaths = tuple(WorkerDeath(death.node, death.incarnation, death.alone) for death in batch.deaths)
        offsets: dict[Partition, list[int]] = {}
        for job in batch.jobs:
            offsets.setdefault((job.topic, job.partition), []).append(job.offset)
        sendings = tuple(_sending(attempt) for attempt in batch.trail.tried[-SENDINGS_KEPT:])
        for partition, mine in offsets.items():
            case = SuspectCase(tuple(mine), batch.suspects, deaths, trial, batch.attempts, sendings)
            self._cases.setdefault(partition, {}).update(dict.fromkeys(mine, case))
        self.unwritten |= offsets.keys()

    def suspected(self, partition: Partition) -> dict[int, SuspectCase]:
        """Suspected offsets of a partition."""
        return self._cases.get(partition, {})

    def batches(self, partition: Partition, jobs: Iterable[Job], prefix: str) -> list[Batch]:
        """Jobs that were suspected before, in the sets they were in."""
        known = self.suspected(partition)
        sets: dict[int, list[Job]] = {}
        for job in jobs:
            sets.setdefault(id(known[job.offset]), []).append(job)
        return [_batch(known[together[0].offset], together, prefix) for together in sets.values()]

    def tidy(self, is_published: IsPublished) -> None:
        """Forget jobs whose results are committed, and partitions that are not ours (None)."""
        for partition, known in list(self._cases.items()):
            verdicts = {offset: is_published(*partition, offset) for offset in known}
            if None in verdicts.values():
                del self._cases[partition]
                self.unwritten.discard(partition)
                continue
            settled = [offset for offset, published in verdicts.items() if published]
            for offset in settled:
                del known[offset]
            if settled:
                self.unwritten.add(partition)
            if not known:
                del self._cases[partition]

    def record(self, partition: Partition) -> bytes | None:
        """The value to be written for a partition."""
        sets: dict[int, tuple[SuspectCase, list[int]]] = {}
        for offset, case in self.suspected(partition).items():
            sets.setdefault(id(case), (case, []))[1].append(offset)
        return encode_suspects([replace(case, offsets=tuple(sorted(offsets))) for case, offsets in sets.values()])


def _batch(case: SuspectCase, jobs: list[Job], prefix: str) -> Batch:
    # Before anything that this process heard: a node that still beats outlived them.
    deaths = tuple(Death(death.node, death.incarnation, 0.0, death.alone) for death in case.deaths)
    return Batch(
        batch_id=next_batch_id(prefix),
        content_type=jobs[0].content_type,
        jobs=jobs,
        size_bytes=sum(len(job.payload) for job in jobs),
        deaths=deaths,
        suspects=case.suspects,
        trial=case.trial,
        trail=Trail(case.attempts, tuple(_attempt(sending) for sending in case.sendings)),
    )


def _sending(attempt: Attempt) -> Sending:
    sent, cause = attempt.sent, attempt.cause
    return Sending(sent.cluster, sent.node, sent.app_version, sent.batch_id, sent.size, None if cause is None else cause.value)


def _attempt(sending: Sending) -> Attempt:
    sent = Sent(sending.cluster, sending.node, sending.app_version, sending.batch, sending.size)
    return Attempt(sent, Cause(sending.cause) if sending.cause in _CAUSES else None)


class SuspectLog:
    """Owns the book and the way to its topic. Does not own which jobs are suspect (the dispatcher knows).

    Nothing is written as long as no worker dies. A bus that does not answer costs the memory, never the jobs.

    Life: `read` at each takeover; `remember` before each trial; what is settled is tidied up in the background; `close`.
    """

    def __init__(self, *, settings: KafkaSettings, is_published: IsPublished) -> None:
        self.book = SuspectBook()
        self._settings = settings
        self._is_published = is_published
        self._publisher: Publisher | None = None
        self._turn = asyncio.Lock()
        self._connecting: asyncio.Task[None] | None = None
        self._tidying: asyncio.Task[None] | None = None
        self._noting: asyncio.Task[None] | None = None

    async def close(self) -> None:
        """Write what is settled by now."""
        if self._connecting is not None:
            self._connecting.cancel()
            await asyncio.gather(self._connecting, return_exceptions=True)
        if self._noting is not None:
            await self._noting
        if self._tidying is not None:
            self._tidying.cancel()
            await asyncio.gather(self._tidying, return_exceptions=True)
            self.book.tidy(self._is_published)
            await self._write()
        if self._publisher is not None:
            await self._publisher.close()

    async def read(self, partitions: Collection[Partition]) -> dict[Partition, tuple[SuspectCase, ...]]:
        """What is known of these partitions."""
        wanted = {suspects_key(*partition): partition for partition in partitions}
        found: dict[Partition, tuple[SuspectCase, ...]] = {}
        if not wanted:
            return found
        try:
            async with (
                asyncio.timeout(READ_SECONDS),
                CompactedLog(settings=self._settings, topic=SUSPECTS, client_id="rayline-suspects") as log,
            ):
                while not log.caught_up.is_set():
                    for record in await log.getmany(timeout_ms=100):
                        if record.key in wanted:
                            found[wanted[record.key]] = _decoded(record.value)
        except (BusError, TimeoutError) as error:
            _log.warning("what was learnt of jobs that kill workers cannot be read (%r): it is learnt again", error)
        return found

    def load(self, found: dict[Partition, tuple[SuspectCase, ...]]) -> None:
        """Take over what `read` found."""
        for partition, cases in found.items():
            self.book.load(partition, cases)
        self._tidy_from_now_on()
        if self._connecting is None:
            self._connecting = asyncio.create_task(self._connect(), name="connection for suspects")

    def note(self, batch: Batch) -> None:
        """A worker died under this batch: written at once, the lane may be next."""
        self.book.note(batch, None)
        if self._noting is None or self._noting.done():
            self._noting = asyncio.create_task(self._write_noted(), name="suspects that were noted")

    async def remember(self, batch: Batch, target: Target) -> None:
        """This batch, under which workers died, is about to run there; returns when the bus has it."""
        self.book.note(batch, Trial(target.node, target.incarnation, target.endpoint.instance, len(batch.jobs)))
        await self._write()
        self._tidy_from_now_on()

    async def _connect(self) -> None:
        """Ahead of time: a batch whose worker died should not wait for a connection."""
        try:
            async with self._turn:
                await self._open()
        except BusError as error:
            _log.warning("no connection yet to keep what is learnt of jobs that kill workers: %s", error)

    async def _open(self) -> Publisher:
        if self._publisher is None:
            publisher = Publisher(settings=self._settings, client_id="rayline-suspects")
            await publisher.start()
            self._publisher = publisher
        return self._publisher

    async def _write_noted(self) -> None:
        while self.book.unwritten:
            await self._write()

    async def _write(self) -> None:
        try:
            async with asyncio.timeout(WRITE_SECONDS), self._turn:
                publisher = await self._open()
                written, self.book.unwritten = self.book.unwritten, set()
                sent = [
                    await publisher.enqueue(SUSPECTS, key=suspects_key(*partition), value=self.book.record(partition))
                    for partition in written
                ]
                await asyncio.gather(*sent)
        except (BusError, TimeoutError) as error:
            _log.warning("what was learnt of jobs that kill workers is not kept (%r)", error)

    def _tidy_from_now_on(self) -> None:
        if self.book and (self._tidying is None or self._tidying.done()):
            self._tidying = asyncio.create_task(self._tidy(), name="suspects that are settled")

    async def _tidy(self) -> None:
        while self.book:
            await asyncio.sleep(TIDY_SECONDS)
            self.book.tidy(self._is_published)
            if self.book.unwritten:
                await self._write()


def _decoded(value: bytes | None) -> tuple[SuspectCase, ...]:
    try:
        return decode_suspects(value)
    except FormatError as error:
        _log.warning("a record of %s is left out: %s", SUSPECTS, error)
        return ()
