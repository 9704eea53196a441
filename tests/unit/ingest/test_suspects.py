"""The book of suspects: a successor reads the sets that its predecessor stood at, and settled jobs leave it."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from ingest.suspects import SuspectBook
from rayline.jobs import ContentType, Job
from rayline.suspects import Trial, decode_suspects
from scheduler.batch import Batch, Death
from tests.unit.ingest.jobs import job

TRIAL = Trial("c/n", 1, "i", 4)
DEATHS = (Death("c/n", 1, 5.0, alone=False),)


def suspects(jobs: list[Job], deaths: tuple[Death, ...] = DEATHS) -> Batch:
    return Batch("b", ContentType.MSGPACK, jobs, len(jobs), deaths=deaths, suspects=8)


def successor(book: SuspectBook, *partitions: int) -> SuspectBook:
    heir = SuspectBook()
    for partition in partitions:
        where = ("app.requests", partition)
        heir.load(where, decode_suspects(book.record(where)))
    return heir


@given(st.lists(st.integers(0, 3), min_size=1, max_size=12), st.data())
def test_a_successor_batches_what_it_reads_of_a_set_together_and_apart_from_other_sets(
    partitions: list[int], data: st.DataObject
) -> None:
    jobs = [job(offset, partition=partition) for offset, partition in enumerate(partitions)]
    middle = data.draw(st.integers(0, len(jobs)))
    book = SuspectBook()
    for number, half in enumerate((jobs[:middle], jobs[middle:])):
        if half:
            book.note(suspects(half, DEATHS * (number + 1)), TRIAL)
    heir = successor(book, *set(partitions))
    for partition in set(partitions):
        mine = [one for one in jobs if one.partition == partition]
        batches = heir.batches(("app.requests", partition), mine, "p")
        assert sorted(one.offset for batch in batches for one in batch.jobs) == [one.offset for one in mine]
        for batch in batches:
            assert len({one in jobs[:middle] for one in batch.jobs}) == 1
            assert len(batch.deaths) == (1 if batch.jobs[0] in jobs[:middle] else 2)
            assert (batch.suspects, batch.trial, batch.suspect) == (8, TRIAL, True)


def test_the_newest_word_on_a_job_counts() -> None:
    jobs = [job(offset) for offset in range(4)]
    book = SuspectBook()
    book.note(suspects(jobs), TRIAL)
    book.note(suspects(jobs[:2], DEATHS * 2), None)
    sets = {tuple(case.offsets): (len(case.deaths), case.trial) for case in decode_suspects(book.record(("app.requests", 0)))}
    assert sets == {(0, 1): (2, None), (2, 3): (1, TRIAL)}


def test_jobs_whose_results_are_committed_leave_and_the_last_one_leaves_a_tombstone() -> None:
    book, where = SuspectBook(), ("app.requests", 0)
    book.note(suspects([job(1), job(2)]), TRIAL)
    book.unwritten.clear()
    book.tidy(lambda *_: False)
    assert (book.unwritten, sorted(book.suspected(where))) == (set(), [1, 2])
    book.tidy(lambda *source: source[2] == 1)
    assert (book.unwritten, sorted(book.suspected(where))) == ({where}, [2])
    book.tidy(lambda *_: True)
    assert not book
    assert book.unwritten == {where}
    assert book.record(where) is None


def test_what_is_known_of_another_lanes_partition_is_not_overwritten() -> None:
    book = SuspectBook()
    book.note(suspects([job(1, partition=0), job(1, partition=1)]), TRIAL)
    book.tidy(lambda _topic, partition, _offset: None if partition == 0 else True)
    assert book.unwritten == {("app.requests", 1)}
