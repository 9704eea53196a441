"""The load beside the faults: an open loop that keeps to its schedule, whatever happens to the answers or to the broker."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass
from typing import Any, Final

import msgpack

from rayline.errors import BrokerUnavailable
from rayline.jobs import JOB_ID
from rayline.topics import requests_topic

TEXT_BYTES: Final = 200
_DELIVERY_MS: Final = 120_000


@dataclass(frozen=True, slots=True)
class Clockwork:
    """Job `n` is due `n / rate` seconds after the beginning, on the clock of `time.time` (epoch milliseconds)."""

    begun_ms: float
    rate_per_second: float

    def due_ms(self, number: int) -> float:
        return self.begun_ms + number * 1000 / self.rate_per_second


def job_payload(number: int) -> bytes:
    """What job `number` carries; its result must be the same bytes."""
    packed: bytes = msgpack.packb({"n": number, "text": f"{number:08d}" * (TEXT_BYTES // 8)})
    return packed


class Load:
    """Produces jobs with ids 0, 1, 2, … from a thread of its own, so that nothing in this process delays it.

    Owns a confluent-kafka producer (idempotent, so that a broker's restart doubles no job). Does not read results.
    Life: `start` -> `wait`, which returns when the broker has every job.
    """

    def __init__(self, *, bootstrap_servers: str, app: str, rate_per_second: float, seconds: float) -> None:
        self._settings = {
            "bootstrap.servers": bootstrap_servers,
            "enable.idempotence": True,
            "linger.ms": 2,
            "delivery.timeout.ms": _DELIVERY_MS,
            "log_level": 0,
        }
        self._topic = requests_topic(app)
        self._rate = rate_per_second
        self.jobs = int(rate_per_second * seconds)
        self.clockwork = Clockwork(begun_ms=0.0, rate_per_second=rate_per_second)
        self._failures: list[str] = []
        self._thread = threading.Thread(target=self._produce, name="chaos load", daemon=True)

    def start(self) -> Clockwork:
        """Begin; the schedule counts from now."""
        self.clockwork = Clockwork(begun_ms=time.time() * 1000, rate_per_second=self._rate)
        self._thread.start()
        return self.clockwork

    def wait(self) -> None:
        """Until all jobs are delivered (blocks); raises BrokerUnavailable when one could not be."""
        self._thread.join()
        if self._failures:
            raise BrokerUnavailable(f"{len(self._failures)} jobs could not be produced: {self._failures[0]}")

    def _produce(self) -> None:
        from confluent_kafka import Producer

        producer = Producer(self._settings)
        for number in range(self.jobs):
            ahead_seconds = (self.clockwork.due_ms(number) - time.time() * 1000) / 1000
            producer.poll(max(0.0, ahead_seconds))
            while (left := (self.clockwork.due_ms(number) - time.time() * 1000) / 1000) > 0:
                producer.poll(left)
            headers = [(JOB_ID, str(number).encode())]
            producer.produce(self._topic, job_payload(number), headers=headers, on_delivery=self._delivered)
        undelivered = producer.flush(_DELIVERY_MS / 1000)
        if undelivered:
            self._failures.append(f"{undelivered} jobs were not delivered in {_DELIVERY_MS / 1000:.0f} s")

    def _delivered(self, error: Any, _message: Any) -> None:
        if error is not None:
            self._failures.append(str(error))
