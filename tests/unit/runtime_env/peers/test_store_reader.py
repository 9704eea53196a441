"""What is read from the store keeps to the limits that hold now."""

from __future__ import annotations

import io
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from runtime_env.peers.store_reader import StoreReader
from runtime_env.peers.throttle import Throttle


class Asked(Throttle):
    """Tells when a reader has learned how long it is to wait."""

    def __init__(self) -> None:
        super().__init__(apply=lambda *_: None)
        self.asked = threading.Event()

    def wait_seconds(self, count: int) -> float:
        seconds = super().wait_seconds(count)
        self.asked.set()
        return seconds


@pytest.mark.parametrize("lifted", [None, 2**30])
def test_a_read_that_waits_for_hours_goes_on_within_a_second_when_its_limit_is_raised(lifted: int | None) -> None:
    throttle = Asked()
    throttle.set_own(download=1, upload=None)
    throttle.observe(fetching=1, reading=True)
    store: Any = None
    stop = threading.Event()
    reader = StoreReader(store=store, throttle=throttle, due=lambda _: [], unwritten_bytes=lambda: 0, stop=stop)
    with ThreadPoolExecutor(1) as pool:
        reading = pool.submit(reader._paced_read, io.BytesIO(bytes(100_000)), 100_000)
        assert throttle.asked.wait(10)
        assert not reading.done()
        throttle.set_own(download=lifted, upload=None)
        try:
            assert len(reading.result(timeout=10)) == 100_000
        finally:
            stop.set()
