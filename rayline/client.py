"""Submitting jobs and reading results from Python: a convenience over what docs/protocol.md says.

async with Client("localhost:9092") as client:
    submitted = await client.submit("text-features", {"text": "hello"})
    result = await client.result("text-features", submitted, timeout_seconds=10)
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Callable, Iterable, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Final
from uuid import uuid4

from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from rayline.bus import CompactedLog, Delivery, KafkaSettings, LogRecord, Publisher, missing_topics
from rayline.codec import encode_payload
from rayline.errors import BusError, ConfigError, NoResult
from rayline.jobs import CONTENT_TYPE, DEADLINE_MS, JOB_ID, MAX_JOB_ID_BYTES, ContentType, Header
from rayline.result_watch import ResultWatch
from rayline.results import Result, parse_result
from rayline.topics import requests_topic, results_topic

DEFAULT_MAX_IN_FLIGHT: Final = 1000
_POLL_MS: Final = 500
_CLOCK_SLACK_MS: Final = 1000


@dataclass(frozen=True, slots=True)
class NewJob:
    """One job with more than its payload, for `submit_many`. `deadline_ms` is absolute (epoch milliseconds)."""

    payload: Any
    job_id: str | None = None
    key: bytes | None = None
    deadline_ms: int | None = None
    headers: Sequence[Header] = ()
    content_type: ContentType = ContentType.MSGPACK


@dataclass(frozen=True, slots=True)
class Submitted:
    """A job that the broker has: its id, where its record stands, and when it was written (epoch milliseconds)."""

    job_id: str
    topic: str
    partition: int
    offset: int
    timestamp_ms: int

    @property
    def source(self) -> str:
        """As the result's header `source` names the job."""
        return f"{self.topic}/{self.partition}/{self.offset}"


class Client:
    """Speaks to Rayline through Kafka alone.

    Owns one producer and, while `result` is used, one reader of each app's results. Does not know lanes, pods or clusters.
    Life: `async with Client(...)`, or `start` -> any use from any number of tasks -> `close`.
    """

    def __init__(self, kafka: KafkaSettings | str, *, linger_ms: int = 2) -> None:
        self._settings = KafkaSettings(bootstrap_servers=kafka) if isinstance(kafka, str) else kafka
        self._linger_ms = linger_ms
        self._publisher: Publisher | None = None
        self._watches: dict[str, ResultWatch] = {}
        self._known_apps: set[str] = set()

    @property
    def settings(self) -> KafkaSettings:
        return self._settings

    async def start(self) -> None:
        """Connect; raises BrokerUnavailable when no broker answers."""
        publisher = Publisher(settings=self._settings, client_id="rayline-client", linger_ms=self._linger_ms)
        await publisher.start()
        self._publisher = publisher

    async def close(self) -> None:
        """Stop reading, then wait for what is on its way to the broker and close."""
        watches, self._watches = list(self._watches.values()), {}
        for watch in watches:
            await watch.close()
        if self._publisher is not None:
            publisher, self._publisher = self._publisher, None
            await publisher.close()

    async def __aenter__(self) -> Client:
        await self.start()
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        await self.close()

    async def submit(
        self,
        app: str,
        payload: Any,
        *,
        job_id: str | None = None,
        key: bytes | None = None,
        deadline_ms: int | None = None,
        headers: Sequence[Header] = (),
        content_type: ContentType = ContentType.MSGPACK,
    ) -> Submitted:
        """Write one job and wait until the broker has it. Without `job_id` it gets a random one.

        Raises:
            FormatError: the payload cannot be encoded.
            RecordTooLarge, BusError: the broker refuses it, or the app's topics do not exist.
        """
        job = NewJob(payload, job_id, key, deadline_ms, headers, content_type)
        return await (await self._send(app, job))

    async def submit_many(
        self,
        app: str,
        jobs: Iterable[Any] | AsyncIterable[Any],
        *,
        max_in_flight: int = DEFAULT_MAX_IN_FLIGHT,
        on_submitted: Callable[[Submitted], None] | None = None,
    ) -> int:
        """Write jobs (payloads, or `NewJob`s) as they come; returns how many once the broker has them all.

        Never more than `max_in_flight` are unacknowledged: until then the next one is not taken from `jobs`. `on_submitted`
        is told of each as the broker acknowledges it.

        Raises:
            FormatError, BusError: of the first job that failed, after those before it were settled.
        """
        room = asyncio.Semaphore(max_in_flight)
        pending: set[asyncio.Task[Submitted]] = set()
        failed: list[BaseException] = []
        count = 0

        def settled(task: asyncio.Task[Submitted]) -> None:
            pending.discard(task)
            room.release()
            error = None if task.cancelled() else task.exception()
            if error is not None:
                failed.append(error)
            elif on_submitted is not None and not task.cancelled():
                on_submitted(task.result())

        try:
            async for item in _each(jobs):
                await room.acquire()
                if failed:
                    break
                task = await self._send(app, item if isinstance(item, NewJob) else NewJob(item))
                pending.add(task)
                task.add_done_callback(settled)
                count += 1
        finally:
            if pending:
                await asyncio.wait(set(pending))
        if failed:
            raise failed[0]
        return count

    async def results(self, app: str, *, from_beginning: bool = False, follow: bool = True) -> AsyncGenerator[Result]:
        """Results as a `read_committed` consumer sees them: from now on, or all that the topic holds.

        Without `follow` it ends where the topic ended when reading began. The first `anext` fixes where "now" is.

        Raises:
            FormatError: a record is no result.
            BusError: the app's topics do not exist, or cannot be read.
        """
        await self._check_app(app)
        topic = results_topic(app)
        async with CompactedLog(
            settings=self._settings, topic=topic, from_end=not from_beginning, client_id="rayline-results"
        ) as log:
            while True:
                for record in await log.getmany(timeout_ms=_POLL_MS):
                    yield _result(record)
                if not follow and log.caught_up.is_set():
                    return

    async def result(self, app: str, job: str | Submitted, *, timeout_seconds: float = 30.0) -> Result:
        """Wait for the result of one job; of several with one id, a `Submitted` finds its own, an id the first.

        Raises:
            NoResult: none came within `timeout_seconds`.
        """
        try:
            async with asyncio.timeout(timeout_seconds):
                if isinstance(job, Submitted):
                    return await self._result_of(app, job)
                async with aclosing(self.results(app, from_beginning=True)) as results:
                    async for result in results:
                        if result.job_id == job:
                            return result
        except TimeoutError as error:
            name = job.job_id if isinstance(job, Submitted) else job
            raise NoResult(
                f"no result of job {name} of {app} within {timeout_seconds:g} s: see with `rayline status` whether lanes and "
                "pods run, and whether the job's id is right"
            ) from error
        raise AssertionError("unreachable: results are followed for ever")

    async def _result_of(self, app: str, job: Submitted) -> Result:
        watch = self._watches.get(app)
        if watch is None:
            watch = self._watches[app] = ResultWatch(
                settings=self._settings, topic=results_topic(app), since_ms=job.timestamp_ms - _CLOCK_SLACK_MS, parse=_result
            )
        if watch.remembers(since_ms=job.timestamp_ms):
            return await watch.wait_for(job.source)
        since_ms = job.timestamp_ms - _CLOCK_SLACK_MS
        lone = ResultWatch(settings=self._settings, topic=results_topic(app), since_ms=since_ms, parse=_result)
        try:
            return await lone.wait_for(job.source)
        finally:
            await lone.close()

    async def _send(self, app: str, job: NewJob) -> asyncio.Task[Submitted]:
        if self._publisher is None:
            raise ConfigError("this Client is not started: use `async with Client(...)`, or await `start()`")
        await self._check_app(app)
        job_id = job.job_id if job.job_id is not None else uuid4().hex
        topic = requests_topic(app)
        sent = await self._publisher.send(
            topic, key=job.key, value=encode_payload(job.payload, job.content_type), headers=_headers(job, job_id)
        )
        return asyncio.ensure_future(_submitted(job_id, topic, sent))

    async def _check_app(self, app: str) -> None:
        """Say at once that there is no such app: the producer would look for its topic for a quarter of a minute."""
        if app in self._known_apps:
            return
        if await missing_topics(self._settings, [requests_topic(app), results_topic(app)]):
            raise BusError(
                f"no app {app!r} here: its topics do not exist; `rayline deploy` makes them, `rayline status` lists apps"
            )
        self._known_apps.add(app)


async def _submitted(job_id: str, topic: str, sent: asyncio.Future[Delivery]) -> Submitted:
    delivery = await sent
    return Submitted(job_id, topic, delivery.partition, delivery.offset, delivery.timestamp_ms)


def _headers(job: NewJob, job_id: str) -> list[Header]:
    encoded_id = job_id.encode()
    if not 0 < len(encoded_id) <= MAX_JOB_ID_BYTES:
        raise ConfigError(f"a job id of {len(encoded_id)} bytes; right would be 1 to {MAX_JOB_ID_BYTES} bytes of UTF-8")
    headers: list[Header] = [*job.headers, (JOB_ID, encoded_id)]
    if job.content_type is not ContentType.MSGPACK:
        headers.append((CONTENT_TYPE, job.content_type.value.encode()))
    if job.deadline_ms is not None:
        headers.append((DEADLINE_MS, b"%d" % job.deadline_ms))
    trace: dict[str, str] = {}
    TraceContextTextMapPropagator().inject(trace)
    headers.extend((name, value.encode()) for name, value in trace.items())
    return headers


async def _each(jobs: Iterable[Any] | AsyncIterable[Any]) -> AsyncIterator[Any]:
    if isinstance(jobs, AsyncIterable):
        async for job in jobs:
            yield job
    else:
        for job in jobs:
            yield job


def _result(record: LogRecord) -> Result:
    return parse_result(key=record.key, value=record.value, headers=record.headers, timestamp_ms=record.timestamp_ms)
