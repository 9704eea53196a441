"""The load beside the faults: an open loop that keeps to its schedule, whatever happens to the answers or to the broker.

It is a process of its own, so that nothing here delays it, and it slows nothing of what it measures. Jobs are due at a steady
rate, or at one rate after the other; a job that could not be produced in time counts as waiting from when it was due.
"""

from __future__ import annotations

import asyncio
import json
import os
import queue
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final

from deploy.chaos.jobs import job_payload
from rayline.errors import BrokerUnavailable
from rayline.jobs import JOB_ID
from rayline.topics import requests_topic

DELIVERY_MS: Final = 120_000
FIRST_EXTRA: Final = 1_000_000_000


@dataclass(frozen=True, slots=True)
class Clockwork:
    """Job `n` is due `n / rate` seconds after the beginning, on the clock of `time.time` (epoch milliseconds); `extras`
    says it of those that were put in between, by number (negative: poison).

    `phases`, each with its seconds and its jobs a second, come first, one after the other; then the rate holds.
    """

    begun_ms: float
    rate_per_second: float
    extras: Mapping[int, float] = field(default_factory=dict)
    phases: Sequence[tuple[float, float]] = ()

    def due_ms(self, number: int) -> float:
        if number in self.extras:
            return self.extras[number]
        begun_ms, jobs_before = self.begun_ms, 0.0
        for seconds, per_second in self.phases:
            if number < jobs_before + seconds * per_second:
                return begun_ms + (number - jobs_before) * 1000 / per_second
            begun_ms, jobs_before = begun_ms + seconds * 1000, jobs_before + seconds * per_second
        return begun_ms + (number - jobs_before) * 1000 / self.rate_per_second


@dataclass(frozen=True, slots=True)
class LoadOptions:
    """What the process gets as JSON on its command line. `jobs` None: until told to stop."""

    bootstrap_servers: str
    app: str
    rate_per_second: float
    first_number: int = 0
    jobs: int | None = None
    phases: Sequence[tuple[float, float]] = ()

    def clockwork(self, begun_ms: float, extras: Mapping[int, float] | None = None) -> Clockwork:
        """When each job is due of a load that began then."""
        return Clockwork(begun_ms, self.rate_per_second, extras or {}, self.phases)


class Load:
    """The load's process, from outside.

    Owns the process. Does not read results. Life: `start` -> `poison`, `skew` at any time -> `stop`, which returns when the
    broker has every job.
    """

    def __init__(self, options: LoadOptions) -> None:
        self._options = options
        self._process: asyncio.subprocess.Process | None = None

    async def start(self) -> Clockwork:
        """Begin; the schedule counts from now."""
        command = (sys.executable, "-P", "-m", "deploy.chaos.load", json.dumps(asdict(self._options)))
        self._process = await asyncio.create_subprocess_exec(
            *command, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, start_new_session=True
        )
        return self._options.clockwork((await self._answer())["begun_ms"])

    async def poison(self, *, beside: int = 0) -> None:
        """One more job, now, that kills the process which runs it, in the middle of `beside` good ones."""
        await self._tell(f"poison {beside}")

    async def skew(self, seconds: float) -> None:
        """From now on the producer's clock is wrong by so much."""
        await self._tell(f"skew {seconds}")

    async def wait(self) -> Clockwork:
        """Until all jobs are produced and delivered; raises BrokerUnavailable when one could not be."""
        answer = await self._answer()
        assert self._process is not None
        await self._process.wait()
        if answer["failures"]:
            raise BrokerUnavailable(f"{answer['failed']} jobs could not be produced: {answer['failures'][0]}")
        extras = {int(number): due_ms for number, due_ms in answer["extras"].items()}
        return self._options.clockwork(answer["begun_ms"], extras)

    async def stop(self) -> Clockwork:
        """No more jobs; returns as `wait` does."""
        await self._tell("stop")
        return await self.wait()

    def end(self) -> None:
        """Without ceremony; nothing happens when it has ended."""
        if self._process is not None and self._process.returncode is None:
            self._process.kill()

    async def _tell(self, words: str) -> None:
        assert self._process is not None
        assert self._process.stdin is not None
        self._process.stdin.write(f"{words}\n".encode())
        await self._process.stdin.drain()

    async def _answer(self) -> dict[str, Any]:
        assert self._process is not None
        assert self._process.stdout is not None
        line = await self._process.stdout.readline()
        if not line:
            raise BrokerUnavailable(f"the load's process ended with status {await self._process.wait()}")
        answer: dict[str, Any] = json.loads(line)
        return answer


class _Producer:
    """The inside of the process: one loop by the clock; words from stdin change what it does next."""

    def __init__(self, options: LoadOptions) -> None:
        from confluent_kafka import Producer

        self._options = options
        # Idempotent: a broker's restart doubles no job.
        self._producer = Producer(
            {
                "bootstrap.servers": options.bootstrap_servers,
                "enable.idempotence": True,
                "linger.ms": 2,
                "delivery.timeout.ms": DELIVERY_MS,
                "log_level": 0,
            }
        )
        self._topic = requests_topic(options.app)
        self._skew_ms = 0.0
        self._stopped = threading.Event()
        self._poisons_wanted: queue.SimpleQueue[int] = queue.SimpleQueue()
        self._poisons = 0
        self._extras: dict[int, float] = {}
        self._failed = 0
        self._failures: list[str] = []

    def run(self) -> None:
        self._producer.list_topics(self._topic, timeout=DELIVERY_MS / 1000)
        clockwork = self._options.clockwork(time.time() * 1000)
        _print({"begun_ms": clockwork.begun_ms})
        threading.Thread(target=self._listen, name="words", daemon=True).start()
        number = self._options.first_number
        while not self._stopped.is_set() and (self._options.jobs is None or number < self._options.jobs):
            while (left := (clockwork.due_ms(number) - time.time() * 1000) / 1000) > 0:
                self._producer.poll(left)
            self._produce(number)
            number += 1
            while not self._poisons_wanted.empty():
                self._poison(self._poisons_wanted.get())
        undelivered = self._producer.flush(DELIVERY_MS / 1000)
        if undelivered:
            self._failed += undelivered
            self._failures.append(f"not delivered in {DELIVERY_MS / 1000:.0f} s")
        _print(
            {
                "begun_ms": clockwork.begun_ms,
                "extras": self._extras,
                "failed": self._failed,
                "failures": self._failures[:1],
            }
        )

    def _poison(self, beside: int) -> None:
        self._poisons += 1
        first = FIRST_EXTRA * self._poisons
        numbers = [first + number for number in range(beside)]
        numbers.insert(beside // 2, -self._poisons)
        for number in numbers:
            self._extras[number] = time.time() * 1000
            self._produce(number)

    def _produce(self, number: int) -> None:
        clock_ms = {"timestamp": int(time.time() * 1000 + self._skew_ms)} if self._skew_ms else {}
        headers = [(JOB_ID, str(number).encode())]
        payload = job_payload(number, poison=number < 0)
        self._producer.produce(self._topic, payload, headers=headers, on_delivery=self._delivered, **clock_ms)
        self._producer.poll(0)

    def _listen(self) -> None:
        for line in sys.stdin:
            word, _, rest = line.strip().partition(" ")
            if word == "poison":
                self._poisons_wanted.put(int(rest))
            elif word == "skew":
                self._skew_ms = float(rest) * 1000
            elif word == "stop":
                self._stopped.set()
        self._stopped.set()  # whoever started us is gone

    def _delivered(self, error: Any, _message: Any) -> None:
        if error is not None:
            self._failed += 1
            self._failures.append(str(error))


def _print(answer: Mapping[str, Any]) -> None:
    sys.stdout.write(json.dumps(answer) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    os.chdir(Path(sys.executable).anchor)
    _Producer(LoadOptions(**json.loads(sys.argv[1]))).run()
