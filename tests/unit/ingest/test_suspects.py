"""The book of suspects: a successor reads the sets that its predecessor stood at, and settled jobs leave it."""

from __future__ import annotations

import msgpack
from hypothesis import given
from hypothesis import strategies as st

from ingest.records import Ended
from ingest.suspects import SuspectBook
from rayline.jobs import ContentType, Job
from rayline.results import Outcome
from rayline.suspects import Trial, decode_suspects
from scheduler.batch import Batch, Cause, Death, Sent, Trail
from tests.unit.ingest.jobs import job
from tests.unit.ingest.test_records import told

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


def test_a_successor_knows_where_its_suspects_were_sent_and_their_results_tell_it() -> None:
    trail = Trail()
    for number in range(5):
        sent = Sent("c", f"n{number}", "v7", f"b-{number}", 8 - number)
        trail = trail.sent_to(sent).ended(sent, Cause.KILLED)
    last = Sent("c", "n9", "v7", "b-9", 1)
    batch = suspects([job(4, given_id="poison")])
    batch.trail = trail.sent_to(last)
    book = SuspectBook()
    book.note(batch, TRIAL)
    (found,) = successor(book, 0).batches(("app.requests", 0), batch.jobs, "p")
    assert (found.attempts, [(one.sent.node, one.cause) for one in found.trail.tried]) == (
        6,
        [("n3", Cause.KILLED), ("n4", Cause.KILLED), ("n9", None)],
    )
    # What it died of is known once its node is heard of.
    known = found.trail.last
    assert known is not None
    given_up = Ended(found.jobs[0], Outcome.QUARANTINED, None, "T", "m", found.trail.ended(known, Cause.KILLED), 1.0)
    result = told(given_up)
    assert (result.cluster, result.node, result.batch, result.attempts, result.answered) == ("c", "n9", "b-9/1", 6, False)
    assert [one.cause for one in result.tried] == ["killed"] * 3


def test_what_a_lane_of_another_version_wrote_is_read_as_far_as_it_is_known() -> None:
    book, where = SuspectBook(), ("app.requests", 0)
    batch = suspects([job(1)])
    sent = Sent("c", "n", "v", "b", 1)
    batch.trail = Trail().sent_to(sent).ended(sent, Cause.KILLED)
    book.note(batch, TRIAL)
    record = msgpack.unpackb(book.record(where) or b"")
    record["cases"][0]["sendings"][0]["cause"] = "a cause of later days"
    heir = SuspectBook()
    heir.load(where, decode_suspects(msgpack.packb(record)))
    assert [one.cause for one in heir.batches(where, batch.jobs, "p")[0].trail.tried] == [None]
    for name in ("attempts", "sendings"):
        del record["cases"][0][name]
    heir.load(where, decode_suspects(msgpack.packb(record)))
    assert heir.batches(where, batch.jobs, "p")[0].trail == Trail()


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
