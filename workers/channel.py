"""What a lane uses to send batches to one actor: `slots` streams, each with its own thread. Does not import Ray."""

from __future__ import annotations

import asyncio
import atexit
import logging
import queue
import socket
import threading
import weakref
from collections import deque
from collections.abc import Callable
from typing import Any, Protocol

import pyarrow as pa
from pyarrow import flight

from rayline.errors import WireError
from rayline.reports import ActorEndpoint
from rayline.wire import ANSWER_SCHEMA, REQUEST_SCHEMA, AnswerHead, BatchHead, Hello, JobStatus, Verdict

MAX_REASON_CHARS = 500
EXIT_SECONDS = 1.0
CONNECT_SECONDS = 2.0
_MAX_STATUS = max(JobStatus)
# What gRPC says of a call for which it found no connection, and of no other.
_NEVER_CONNECTED = "failed to connect to all addresses"

_log = logging.getLogger(__name__)

OnChunk = Callable[[pa.RecordBatch, AnswerHead], None]


class Channel(Protocol):
    """The way to one actor. The lane opens no more exchanges at once than `slots`."""

    @property
    def slots(self) -> int: ...

    async def exchange(
        self, batch: pa.RecordBatch, head: BatchHead, *, timeout_seconds: float, on_chunk: OnChunk
    ) -> AnswerHead: ...

    def close(self) -> None: ...


class FlightChannel:
    """Owns the streams to one actor process and their threads. Does not own what the answers mean, nor any retry.

    Life cycle: constructed without I/O; streams open with their first batch and again after they broke; `close` ends it, batches
    that are out then return LOST. All methods are for the event loop's thread.
    """

    def __init__(
        self, endpoint: ActorEndpoint, *, app: str, version: str, token: str, loop: asyncio.AbstractEventLoop | None = None
    ) -> None:
        self.endpoint = endpoint
        self._hello = Hello(app, version, token).pack()
        self._loop = loop if loop is not None else asyncio.get_running_loop()
        self._idle: deque[_Slot] = deque()
        self._slots: list[_Slot] = []
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._closed = False

    @property
    def slots(self) -> int:
        return self.endpoint.slots

    async def exchange(self, batch: pa.RecordBatch, head: BatchHead, *, timeout_seconds: float, on_chunk: OnChunk) -> AnswerHead:
        """Send one batch of REQUEST_SCHEMA, return the last answer's head; `on_chunk` gets every answer in order, the last too.

        Never raises for what the peer does: a broken stream or an answer outside the protocol is Verdict.LOST with its reason, a
        refused connection UNREACHED, silence for `timeout_seconds` TIMEOUT. Cancelling gives the stream up.
        """
        slot = await self._free_slot()
        if slot is None:
            return AnswerHead(head.batch, True, Verdict.LOST, reason="the channel is closed")
        flying = _Flying(batch=batch, head=head, on_chunk=on_chunk, done=self._loop.create_future())
        timer = self._loop.call_later(
            timeout_seconds, slot.give_up, flying, Verdict.TIMEOUT, f"no answer in {timeout_seconds:.3g} s"
        )
        slot.send(flying)
        try:
            return await flying.done
        finally:
            timer.cancel()
            if not flying.done.done() or flying.done.cancelled():
                slot.give_up(flying, Verdict.LOST, "cancelled")
            self._release(slot)

    def close(self) -> None:
        """End all streams; returns at once, the threads end by themselves."""
        self._closed = True
        for slot in self._slots:
            slot.close()
        while self._waiting:
            waiter = self._waiting.popleft()
            if not waiter.done():
                waiter.set_result(None)

    async def _free_slot(self) -> _Slot | None:
        while not self._closed:
            if self._idle:
                return self._idle.pop()
            if len(self._slots) < self.slots:
                slot = _Slot(address=(self.endpoint.host, self.endpoint.port), hello=self._hello, loop=self._loop)
                self._slots.append(slot)
                return slot
            waiter: asyncio.Future[None] = self._loop.create_future()
            self._waiting.append(waiter)
            try:
                await waiter
            except asyncio.CancelledError:
                if waiter.done() and not waiter.cancelled():
                    self._wake_one()
                raise
        return None

    def _release(self, slot: _Slot) -> None:
        if slot.broken:
            # Its thread may still hang in a call to the peer: it is left to end, and a fresh slot takes its place.
            self._slots.remove(slot)
            slot.close()
        else:
            self._idle.append(slot)
        self._wake_one()

    def _wake_one(self) -> None:
        while self._waiting:
            waiter = self._waiting.popleft()
            if not waiter.done():
                waiter.set_result(None)
                return


class _Flying:
    """One batch on its way."""

    __slots__ = ("batch", "done", "head", "on_chunk")

    def __init__(self, *, batch: pa.RecordBatch, head: BatchHead, on_chunk: OnChunk, done: asyncio.Future[AnswerHead]) -> None:
        self.batch = batch
        self.head = head
        self.on_chunk = on_chunk
        self.done = done


class _Slot:
    """One stream and the thread that blocks on it. Broken once, it is never used again."""

    def __init__(self, *, address: tuple[str, int], hello: bytes, loop: asyncio.AbstractEventLoop) -> None:
        self.broken = False
        self._location = f"grpc://{address[0]}:{address[1]}"
        self._address = address
        self._hello = hello
        self._loop = loop
        self._inbox: queue.SimpleQueue[_Flying | None] = queue.SimpleQueue()
        self._current: _Flying | None = None
        self._client: Any = None
        self._reader: Any = None
        self._writer: Any = None
        self._thread = threading.Thread(target=self._work, name=f"rayline-slot-{address[1]}", daemon=True)
        self._thread.start()
        _living_slots.add(self)

    def send(self, flying: _Flying) -> None:
        self._current = flying
        self._inbox.put(flying)

    def give_up(self, flying: _Flying, verdict: Verdict, reason: str) -> None:
        """In the loop's thread: conclude the batch without the peer and make the thread let go of the stream."""
        if self._current is not flying:
            return
        self.broken = True
        self._current = None
        reader = self._reader
        if reader is not None:
            reader.cancel()
        if not flying.done.done():
            flying.done.set_result(AnswerHead(flying.head.batch, True, verdict, reason=reason))

    def close(self) -> None:
        flying = self._current
        if flying is not None:
            self.give_up(flying, Verdict.LOST, "the channel is closed")
        self.abandon()

    def abandon(self) -> None:
        """Let go of the stream from any thread, without telling anybody."""
        self.broken = True
        reader = self._reader
        if reader is not None:
            reader.cancel()
        self._inbox.put(None)

    def join(self, timeout_seconds: float) -> None:
        self._thread.join(timeout_seconds)

    def _work(self) -> None:
        while (flying := self._inbox.get()) is not None:
            try:
                self._exchange(flying)
            except WireError as error:
                self._post(flying, None, _concluded(flying, Verdict.LOST, f"answer outside the protocol: {error}"))
                break
            except _UnreachedError as error:
                self._post(flying, None, _concluded(flying, Verdict.UNREACHED, f"no connection to {self._location}: {error}"))
                break
            except (pa.ArrowException, StopIteration, OSError) as error:
                # Its process ended between our look at the port and gRPC's: nothing was sent.
                verdict = Verdict.UNREACHED if _NEVER_CONNECTED in str(error) else Verdict.LOST
                self._post(flying, None, _concluded(flying, verdict, f"{type(error).__name__}: {error}"))
                break
        self._hang_up()

    def _exchange(self, flying: _Flying) -> None:
        if self._reader is None:
            self._open()
        self._writer.write_with_metadata(flying.batch, flying.head.pack())
        jobs = flying.batch.num_rows
        seen = bytearray(jobs)
        while True:
            chunk = self._reader.read_chunk()
            answer, head = _check(chunk, flying.head.batch, seen)
            self._post(flying, answer, head)
            if head.final:
                return

    def _open(self) -> None:
        # gRPC takes a second to say that nobody listens, and does not say whether the batch was sent.
        try:
            socket.create_connection(self._address, timeout=CONNECT_SECONDS).close()
        except OSError as error:
            raise _UnreachedError(str(error)) from error
        # A channel of its own for each stream: gRPC's global pool would make two streams share one connection and its lock.
        self._client = flight.FlightClient(self._location, generic_options=[("grpc.use_local_subchannel_pool", 1)])
        descriptor = flight.FlightDescriptor.for_command(self._hello)
        self._writer, reader = self._client.do_exchange(descriptor)
        self._reader = reader
        if self.broken:
            raise OSError("given up while the stream was opened")
        self._writer.begin(REQUEST_SCHEMA)

    def _hang_up(self) -> None:
        # Dropped in this thread: the last reference to a stream waits for its peer.
        reader, writer = self._reader, self._writer
        self._reader = self._writer = None
        if reader is not None:
            reader.cancel()
        if writer is not None:
            try:
                writer.close()
            except (pa.ArrowException, OSError) as error:
                _log.debug("stream to %s ended: %s", self._location, error)
        if self._client is not None:
            self._client.close()

    def _post(self, flying: _Flying, answer: pa.RecordBatch | None, head: AnswerHead) -> None:
        try:
            self._loop.call_soon_threadsafe(self._deliver, flying, answer, head)
        except RuntimeError:
            # The loop is closed: nobody waits for this answer any more.
            self._inbox.put(None)

    def _deliver(self, flying: _Flying, answer: pa.RecordBatch | None, head: AnswerHead) -> None:
        if self._current is not flying:
            return
        if answer is None:
            self.broken = True
        elif flying.done.done():
            return
        else:
            try:
                flying.on_chunk(answer, head)
            except Exception as error:  # noqa: BLE001 - it belongs to the caller of `exchange`, not to the event loop
                self.broken = True
                self._current = None
                flying.done.set_exception(error)
                return
        if head.final:
            # After a timeout the actor's thread is still inside the call: the stream is of no more use.
            self.broken = self.broken or head.verdict in (Verdict.TIMEOUT, Verdict.LOST)
            self._current = None
            if not flying.done.done():
                flying.done.set_result(head)


class _UnreachedError(Exception):
    """Nobody listens there: the batch was not sent."""


_living_slots: weakref.WeakSet[_Slot] = weakref.WeakSet()


@atexit.register
def _end_slots() -> None:
    """A thread that is inside gRPC when the interpreter goes down takes the process with it (SIGABRT): end them before."""
    slots = list(_living_slots)
    for slot in slots:
        slot.abandon()
    for slot in slots:
        slot.join(EXIT_SECONDS)


def _concluded(flying: _Flying, verdict: Verdict, reason: str) -> AnswerHead:
    return AnswerHead(flying.head.batch, True, verdict, reason=reason[:MAX_REASON_CHARS])


def _check(chunk: Any, batch: str, seen: bytearray) -> tuple[pa.RecordBatch, AnswerHead]:
    """One answer from the peer; raises WireError unless it is of ANSWER_SCHEMA, whole, and answers jobs of this batch once."""
    answer: pa.RecordBatch | None = chunk.data
    if answer is None or chunk.app_metadata is None or chunk.app_metadata.size == 0:
        raise WireError("an answer is one record batch with a head")
    head = AnswerHead.unpack(chunk.app_metadata.to_pybytes())
    if head.batch != batch:
        raise WireError(f"an answer to batch {head.batch!r}; {batch!r} is here")
    if not answer.schema.equals(ANSWER_SCHEMA):
        raise WireError("an answer of another schema")
    try:
        answer.validate(full=True)
    except pa.ArrowInvalid as error:
        raise WireError(f"an answer that is not valid Arrow: {error}") from error
    indexes, statuses = answer.column(0), answer.column(1)
    if indexes.null_count or statuses.null_count:
        raise WireError("an answer without index or status")
    positions = indexes.to_pylist()
    if positions == list(range(len(seen))) and not any(seen):
        positions, seen[:] = [], b"\1" * len(seen)
    for index in positions:
        if not 0 <= index < len(seen) or seen[index]:
            raise WireError(f"an answer to job {index} of {len(seen)}, which is not there or was answered before")
        seen[index] = 1
    codes = statuses.to_pylist()
    if any(not 0 <= code <= _MAX_STATUS for code in set(codes)):
        raise WireError("an answer with an unknown status")
    missing = answer.column(2).is_null().to_pylist() if answer.column(2).null_count else ()
    if codes.count(JobStatus.OK) != answer.num_rows - len(missing) + missing.count(False) or any(
        gone and code == JobStatus.OK for gone, code in zip(missing, codes, strict=False)
    ):
        raise WireError("an answer in which a job is ok without a value, or has a value without being ok")
    if head.final and head.verdict is Verdict.DONE and not all(seen):
        raise WireError(f"verdict done, but {len(seen) - sum(seen)} of {len(seen)} jobs are without an answer")
    return answer, head
