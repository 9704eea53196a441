"""Every contestant gets the same jobs, and a late producer cannot hide a slow system."""

import msgpack
import pytest

from bench.latency import WARM_UP_SECONDS, summarise
from bench.load import JOB_BYTES, Schedule, job_number, key, payload


@pytest.mark.parametrize("number", [0, 1, 127, 128, 10**6, 2**40])
def test_a_job_is_a_msgpack_map_of_exactly_one_kilobyte(number: int) -> None:
    packed = payload(number)
    assert len(packed) == JOB_BYTES
    job = msgpack.unpackb(packed)
    assert job["id"] == number
    assert msgpack.packb(job) == packed  # an echo that decodes and encodes gives the same bytes


def test_keys_name_jobs() -> None:
    assert [job_number(key(number)) for number in (0, 7, 2**63)] == [0, 7, 2**63]


def test_latency_counts_from_the_intended_arrival_and_unseen_jobs_are_missing() -> None:
    warm = int(100 * WARM_UP_SECONDS)
    schedule = Schedule(started_ms=1_000.0, rate_per_s=100.0, jobs=warm + 4, worst_slip_ms=0)
    while_connecting = dict.fromkeys(range(warm), 60000.0)
    first_ms = schedule.intended_ms(warm)
    counted = {warm: first_ms + 5, warm + 1: first_ms + 30, warm + 3: first_ms + 1_031}
    seen = summarise(schedule, while_connecting | counted)
    assert seen.missing == 1
    assert seen.over_one_second == 1
    assert seen.latency_ms.p50 == 20.0
    assert seen.latency_ms.max == 1_001.0
