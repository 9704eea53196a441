"""The jobs of chaos: what they carry, what their results must be, and how much work one is."""

from __future__ import annotations

import hashlib
import time
from typing import Any, Final

import msgpack

TEXT_BYTES: Final = 200
_BLOCK_BYTES: Final = 64 * 1024
_PROBE_ROUNDS: Final = 200


def job_payload(number: int, *, poison: bool = False) -> bytes:
    """What job `number` carries (msgpack)."""
    job: dict[str, Any] = {"n": number, "text": f"{number:08d}" * (TEXT_BYTES // 8)}
    packed: bytes = msgpack.packb({**job, "poison": True} if poison else job)
    return packed


def expected_result(payload: bytes) -> bytes:
    """The exact bytes of the ok result of a job."""
    job = msgpack.unpackb(payload)
    packed: bytes = msgpack.packb({"n": job["n"], "digest": hashlib.sha256(job["text"].encode()).hexdigest()})
    return packed


def rounds_for(work_ms: float) -> int:
    """How many rounds of the app's loop take `work_ms` of CPU on this machine: the same work everywhere from now on."""
    block, best_ms = bytes(_BLOCK_BYTES), float("inf")
    for _ in range(5):
        begun, burn = time.thread_time(), hashlib.sha256()
        for _ in range(_PROBE_ROUNDS):
            burn.update(block)
        best_ms = min(best_ms, (time.thread_time() - begun) * 1000)
    return round(work_ms / best_ms * _PROBE_ROUNDS)
