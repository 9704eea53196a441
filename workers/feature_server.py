"""The actor's own Flight port: batches in, answers out, on one long-lived stream for each slot (protocol: rayline/wire.py)."""

from __future__ import annotations

import hmac
import threading
import time
from typing import Any

import pyarrow as pa
from pyarrow import flight

from rayline.app_spec import AppSpec
from rayline.errors import WireError
from rayline.telemetry import Tracing
from rayline.wire import ANSWER_SCHEMA, REQUEST_SCHEMA, AnswerHead, BatchHead, Hello, Verdict
from workers.execution import execution
from workers.executor import Executor, Run
from workers.gate import CallGate
from workers.job_gauge import Gauged

MAX_JOBS_PER_BATCH = 100_000
FLUSH_SECONDS = 0.1


class Exchange:
    """One batch on one stream. Whoever finishes it first (its own thread, the watchdog, the end of a drain) has the last word.

    `answered` is set once the last answer is with gRPC; `finished` before it is written.
    """

    __slots__ = ("_context", "_flushed", "_jobs", "_lock", "_writer", "answered", "finished", "run")

    def __init__(self, *, run: Run, jobs: int, writer: Any, context: Any, now: float) -> None:
        self.run = run
        self.finished = False
        self.answered = False
        self._jobs = jobs
        self._writer = writer
        self._context = context
        self._flushed = now
        self._lock = threading.Lock()

    def flush(self, now: float) -> None:
        """Hand out finished jobs while the batch runs; quick batches never come here."""
        if now - self._flushed < FLUSH_SECONDS or not len(self.run.answers):
            return
        self._write_part(now)

    def hand_out(self) -> None:
        """Send what is finished: the jobs that follow are another version's."""
        self._write_part(time.monotonic())

    def announce(self, begins: int) -> None:
        """An answer with what is finished: this job begins (see `AnswerHead.begins`)."""
        now = time.monotonic()
        with self._lock:
            if not self.finished:
                self._flushed = now
                self._write(
                    AnswerHead(
                        self.run.head.batch, False, Verdict.DONE, self._execute_ms(now), self.run.model_version, begins=begins
                    )
                )

    def stop_if_left(self) -> None:
        """Nobody waits for this batch any more: it ends at the next job boundary, and its place is free."""
        if not self.run.draining and self.left_by_peer():
            self.run.draining = True

    def finish(self, verdict: Verdict, reason: str | None = None) -> bool:
        """Send the last answer with all jobs that finished; False when it was sent before."""
        with self._lock:
            if self.finished:
                return False
            self.finished = True
            now, run = time.monotonic(), self.run
            self._write(AnswerHead(run.head.batch, True, verdict, self._execute_ms(now), run.model_version, reason))
            self.answered = True
            return True

    def unfinished_jobs(self) -> int:
        """How many jobs of the batch have no answer yet."""
        answers = self.run.answers
        return 0 if self.finished else max(0, self._jobs - answers.taken - len(answers))

    def left_by_peer(self) -> bool:
        return bool(self._context.is_cancelled())

    def _execute_ms(self, now: float) -> float:
        run = self.run
        seconds = run.execute_seconds or (now - run.entered if run.entered is not None else 0.0)
        return seconds * 1000

    def _write_part(self, now: float) -> None:
        with self._lock:
            if not self.finished:
                self._flushed = now
                self._write(AnswerHead(self.run.head.batch, False, Verdict.DONE, self._execute_ms(now), self.run.model_version))

    def _write(self, head: AnswerHead) -> None:
        self._writer.write_with_metadata(self.run.answers.take(), head.pack())


class FeatureServer(flight.FlightServerBase):
    """Owns the port, the gate and the set of batches that are here now. Does not own the executor, nor limits of time or memory
    (the watchdog does).

    Life cycle: listens from construction; `drain` turns new batches away and hands back running ones; `shutdown` ends it.
    """

    def __init__(
        self, *, spec: AppSpec, executor: Executor, host: str, token: str, max_waiting: int, tracing: Tracing | None = None
    ) -> None:
        super().__init__(location=f"grpc://{host}:0")
        self._spec = spec
        self._executor = executor
        self._hello_token = token.encode()
        self._gate = CallGate(permits=spec.concurrency, max_waiting=max_waiting)
        self._exchanges: set[Exchange] = set()
        self._tracing = tracing
        self._draining = False
        # What is said to batches while draining: that the node goes, or that this actor alone has no time for them.
        self._goodbye = Verdict.DRAINING
        self._batches = 0
        self._jobs = 0

    @property
    def exchanges(self) -> tuple[Exchange, ...]:
        """The batches that are here now."""
        return tuple(self._exchanges)

    def statistics(self) -> dict[str, Any]:
        """Counts since the start, and what is here now."""
        return {
            "batches": self._batches,
            "jobs": self._jobs,
            "here": len(self._exchanges),
            "jobs_here": self.jobs_here(),
            "waiting": self._gate.waiting,
            "draining": self._draining,
        }

    def owes_answers(self) -> bool:
        """Whether a lane that is still there waits for one."""
        return any(not exchange.answered and not exchange.left_by_peer() for exchange in self.exchanges)

    def gauged(self) -> Gauged:
        """What the pod's agent is told each moment."""
        return Gauged(self.jobs_here(), self._jobs, self._batches)

    def jobs_here(self) -> int:
        """How many jobs without an answer are here now."""
        return sum(exchange.unfinished_jobs() for exchange in self.exchanges)

    def drain(self, hand_back_seconds: float, *, leaving: bool = True) -> None:
        """Take no more batches; running ones hand back their unfinished jobs at the next job boundary, and in
        `hand_back_seconds` wherever they are.

        Not `leaving`: this actor ends and its node stays. Lanes are told BUSY then, as they stop sending to a node that says
        DRAINING."""
        self._goodbye = Verdict.DRAINING if leaving else Verdict.BUSY
        self._draining = True
        self._gate.drain()
        for exchange in self.exchanges:
            exchange.run.draining = True
        timer = threading.Timer(hand_back_seconds, self._hand_back)
        timer.daemon = True
        timer.start()

    def _hand_back(self) -> None:
        """Answer for calls that still run; what they return is dropped. A thread for each: a frozen lane may block one."""
        for exchange in self.exchanges:
            words = (self._goodbye, "the actor is leaving, and the call did not return in the time that was left")
            threading.Thread(target=exchange.finish, args=words, name="rayline-hand-back", daemon=True).start()

    def do_exchange(self, context: Any, descriptor: Any, reader: Any, writer: Any) -> None:
        """One stream. Its first message must name this app, this version and the token."""
        self._admit(descriptor.command or b"")
        writer.begin(ANSWER_SCHEMA)
        if not reader.schema.equals(REQUEST_SCHEMA):
            raise flight.FlightServerError("rayline: requests have another schema than rayline.wire.REQUEST_SCHEMA")
        while True:
            try:
                chunk = reader.read_chunk()
            except StopIteration:
                return
            if not self._serve(chunk, writer, context):
                return

    def _admit(self, command: bytes) -> None:
        try:
            hello = Hello.unpack(command)
            token = hello.token.encode()
        except (WireError, AttributeError) as error:
            raise flight.FlightUnauthenticatedError(f"rayline: {error}") from error
        if not hmac.compare_digest(token, self._hello_token):
            raise flight.FlightUnauthenticatedError("rayline: wrong token for this cluster")
        if (hello.app, hello.version) != (self._spec.name, self._spec.version):
            raise flight.FlightServerError(
                f"rayline: here is {self._spec.name} {self._spec.version}, not {hello.app} {hello.version}"
            )

    def _serve(self, chunk: Any, writer: Any, context: Any) -> bool:
        """One batch; False when the watchdog had the last word, so that the stream ends."""
        head, payloads = self._parse(chunk)
        now = time.monotonic()
        run = Run(head=head, now=now)
        exchange = Exchange(run=run, jobs=len(payloads), writer=writer, context=context, now=now)
        run.hand_out = exchange.hand_out
        if head.alone:
            run.announce = exchange.announce
        self._exchanges.add(exchange)
        try:
            # Looked at after the batch is in the set, so that a notice in between finds it in one of the two places.
            if self._draining:
                return exchange.finish(self._goodbye)
            if self._tracing is not None and head.trace:
                run.around = execution(self._tracing, head, app=self._spec.name)
            verdict = self._executor.run(run, payloads, self._gate)
            self._batches += 1
            self._jobs += len(payloads)
            return exchange.finish(self._goodbye if verdict is Verdict.DRAINING else verdict)
        finally:
            self._exchanges.discard(exchange)

    def _parse(self, chunk: Any) -> tuple[BatchHead, list[bytes]]:
        data: pa.RecordBatch = chunk.data
        if data is None or chunk.app_metadata is None:
            raise flight.FlightServerError("rayline: a request is one record batch with a head")
        try:
            head = BatchHead.unpack(chunk.app_metadata.to_pybytes())
            data.validate(full=True)
        except (WireError, ValueError, pa.ArrowInvalid) as error:
            raise flight.FlightServerError(f"rayline: {error}") from error
        if data.num_rows > MAX_JOBS_PER_BATCH or data.column(0).null_count:
            raise flight.FlightServerError(f"rayline: {data.num_rows} jobs, or a null payload; at most {MAX_JOBS_PER_BATCH} jobs")
        return head, data.column(0).to_pylist()
