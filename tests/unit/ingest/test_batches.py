"""Record batches of a transaction: order and bounds, and that every refusal makes something smaller until it passes."""

from __future__ import annotations

from collections.abc import Sequence

from hypothesis import given
from hypothesis import strategies as st

from ingest.batches import MAX_BATCH_BYTES, BatchBuilding, Outgoing
from ingest.records import Ended
from rayline.bus.record_batch import read_batch
from rayline.clock import BrokerClock
from rayline.results import Outcome
from scheduler.batch import Trail
from tests.unit.ingest.jobs import job

BROKER_BYTES = 40_000


def building() -> BatchBuilding:
    return BatchBuilding(results_topic="r", result_partitions=4, dlq_topic="d", clock=BrokerClock(wall_ms=0, monotonic=0))


def build(under_test: BatchBuilding, ended: Sequence[Ended]) -> list[Outgoing]:
    batches = under_test.begin()
    return [*batches.add(6, ended, now=0.0), *batches.rest()]


def records(built: list[Outgoing], topic: str) -> list[tuple[bytes | None, bytes | None]]:
    found = []
    for out in built:
        if out.where[0] == topic:
            found += [(record.key, record.value) for record in read_batch(out.batch.build(-1, -1, -1))]
    return found


def an_error(ended: Ended, error_type: str, error_message: str) -> None:
    ended.outcome, ended.value, ended.error_type, ended.error_message = Outcome.ERROR, None, error_type, error_message


sizes = st.lists(
    st.tuples(st.sampled_from([10, 900, 30_000, 60_000, 200_000]), st.booleans(), st.sampled_from([0, 10, 90_000])),
    min_size=1,
    max_size=25,
)


@given(sizes)
def test_refusals_end_and_only_what_is_too_large_by_itself_loses_anything(jobs: list[tuple[int, bool, int]]) -> None:
    ended = []
    for offset, (size, good, key_bytes) in enumerate(jobs):
        one = job(offset, payload=bytes(10 if good else size), key=bytes(key_bytes))
        fate = (Outcome.OK, bytes(size), None) if good else (Outcome.INVALID, None, "too_large")
        ended.append(Ended(one, fate[0], fate[1], None, None, Trail(), 0.0, dead_letter=fate[2]))
    under_test = building()
    for _ in range(12 + 4 * len(jobs)):
        built = build(under_test, ended)
        if all(out.batch.size() <= BROKER_BYTES for out in built):
            break
        assert under_test.make_smaller(built, an_error), "nothing could be made smaller"
    else:
        raise AssertionError("refused for ever")
    assert len(records(built, "r")) == len(jobs)
    for one, (size, good, key_bytes) in zip(ended, jobs, strict=True):
        if size + key_bytes < BROKER_BYTES - 2_000:
            assert one.letter_whole
            assert not one.bare
            assert (one.outcome is Outcome.OK) == good


def test_results_keep_the_order_and_partition_of_their_jobs() -> None:
    ended = [
        Ended(job(n, key=b"%d" % n), Outcome.OK, bytes(MAX_BATCH_BYTES * 2 // 5), None, None, Trail(), 0.0) for n in range(7)
    ]
    built = build(building(), ended)
    assert {out.where for out in built} == {("r", 2)}
    assert [key for key, _ in records(built, "r")] == [b"%d" % n for n in range(7)]
    assert all(out.batch.size() <= MAX_BATCH_BYTES for out in built)


def test_a_dead_letter_of_a_tombstone_is_a_tombstone() -> None:
    ended = [
        Ended(job(0, payload=b"", key=b"a"), Outcome.INVALID, None, "T", "m", Trail(), 0.0, dead_letter="empty", tombstone=True),
        Ended(job(1, payload=b"", key=b"b"), Outcome.INVALID, None, "T", "m", Trail(), 0.0, dead_letter="empty"),
    ]
    assert records(build(building(), ended), "d") == [(b"a", None), (b"b", b"")]
