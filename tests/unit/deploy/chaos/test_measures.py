"""Each number means what its documentation says."""

from __future__ import annotations

from dataclasses import replace

import pytest

from deploy.chaos import measures
from deploy.chaos.evidence.answers import Answer
from deploy.chaos.evidence.executions import Execution
from deploy.chaos.faults import Stroke
from deploy.chaos.measures import Recovery
from deploy.chaos.plan import Kind, Target
from deploy.chaos.site import Seen
from tests.unit.deploy.chaos.staged import FAULT_MS, PODS, answer, evidence, execution, stroke


def test_recovery_waits_for_the_slowest_partition() -> None:
    answers = [
        answer(due=-50, took=60),  # due before the fault: proves nothing
        answer(due=20, took=40),
        answer(due=30, took=2470, partition=1),
        answer(due=2600, took=50, partition=1),
    ]
    assert measures.recovery_after(FAULT_MS, answers).recovery_ms == 2500


def test_settled_is_when_the_last_slow_job_was_answered() -> None:
    answers = [answer(due=-100, took=1600), answer(due=5, took=1195), answer(due=80_000, took=5_000)]
    assert measures.recovery_after(FAULT_MS, answers) == Recovery(recovery_ms=1200, settled_ms=1500)


def test_without_a_later_job_there_is_nothing_to_recover() -> None:
    assert measures.recovery_after(FAULT_MS, [answer(due=-500, took=1)]) == Recovery(recovery_ms=0, settled_ms=0)


def test_the_last_dispatch_is_seen_by_three_witnesses() -> None:
    seen = evidence(
        answers=[
            answer(due=0, node="c1/pod-101", dispatched_ms=FAULT_MS + 12),
            answer(due=0, node="c1/pod-102", dispatched_ms=9e9),
        ],
        executions=[execution(1, 101, -5, 1), execution(2, 101, 40, 45), execution(3, 102, 900, 905)],
        sent=[(101, 25.0), (102, 950.0)],
    )
    (last,) = measures.last_dispatches([stroke()], seen)
    assert (last.executed, last.wire, last.headers) == (40, 25, 12)
    assert last.worst == 40


def test_nothing_sent_after_a_notice_is_zero() -> None:
    (last,) = measures.last_dispatches([stroke()], evidence(executions=[execution(1, 101, -5, 1)]))
    assert last.worst == 0


def test_a_redispatch_counts_from_the_kill_to_the_next_beginning_elsewhere() -> None:
    seen = evidence(
        executions=[
            execution(1, 101, -5),  # died with the pod …
            execution(1, 102, 80, 85),  # … and began again
            execution(2, 101, -50, -45),  # had ended: not concerned
            execution(3, 102, -3, 2),  # ran elsewhere
        ]
    )
    assert measures.redispatches([stroke(Kind.KILL)], seen) == [80]


def test_a_job_that_ran_elsewhere_already_waited_for_nothing() -> None:
    seen = evidence(executions=[execution(1, 101, -5), execution(1, 102, -4, 3)])
    assert measures.redispatches([stroke(Kind.KILL)], seen) == [0]


def test_a_killed_worker_is_known_by_its_process_and_a_killed_head_by_its_cluster() -> None:
    seen = evidence(
        executions=[execution(1, 101, -5, pid=7), execution(2, 101, -5, pid=8), execution(1, 102, 30), execution(2, 102, 50)]
    )
    assert measures.redispatches([stroke(Kind.KILL, Target.WORKER, session=7)], seen) == [30]
    assert measures.redispatches([stroke(Kind.KILL, Target.HEAD, session=1)], evidence(executions=[execution(1, 101, -5)])) == []


def test_extra_attempts_are_calls_beyond_the_first() -> None:
    assert measures.extra_attempts_share([execution(1, 101, 0, 1), execution(1, 102, 5, 6), execution(2, 101, 7, 8)]) == 0.5
    assert measures.extra_attempts_share([]) is None


def test_workers_lost_are_the_processes_that_poison_ended() -> None:
    seen = [execution(-1, 101, 0, pid=1), execution(-1, 102, 5, pid=2), execution(5, 102, 4, pid=2), execution(6, 101, 1, pid=3)]
    assert measures.workers_lost(seen) == 2


def test_silence_ends_with_the_last_batch_that_was_sent_while_the_pod_was_frozen() -> None:
    frozen = stroke(Kind.FREEZE, until_ms=FAULT_MS + 60_000)
    seen = evidence(sent=[(101, -5.0), (101, 800.0), (102, 5_000.0), (101, 61_000.0)])
    assert measures.silent_after(frozen, seen) == 800
    assert measures.back_in_rotation(frozen, seen) == 1_000


def test_a_successor_serves_when_a_pod_that_started_later_begins_a_job() -> None:
    seen = evidence(executions=[execution(1, 102, 10, 15), execution(2, 103, 9_000, 9_005)])
    assert measures.serving_again(stroke(Kind.KILL), seen) is None
    later = with_pod(seen, 103, FAULT_MS + 500)
    assert measures.serving_again(stroke(Kind.KILL), later) == 9_000


def with_pod(seen: measures.Evidence, session: int, from_ms: float) -> measures.Evidence:
    return replace(seen, pods=(*seen.pods, Seen(f"c1/pod-from-{from_ms}", "c1", session, from_ms)))


def test_a_pod_that_got_the_id_of_one_that_is_gone_is_another_one() -> None:
    seen = evidence(executions=[execution(1, 101, 40, 45), execution(2, 101, 60_500), execution(2, 102, 60_600)])
    reused = with_pod(seen, 101, FAULT_MS + 60_000)
    assert [last.executed for last in measures.last_dispatches([stroke()], seen)] == [60_500]
    assert [last.executed for last in measures.last_dispatches([stroke()], reused)] == [40]
    first = stroke(Kind.KILL)
    assert measures.serving_again(first, reused) == 60_500
    second = replace(first, at_ms=FAULT_MS + 60_550)
    assert measures.redispatches([second], reused) == [50]
    assert reused.node_of(second) != reused.node_of(first) == PODS[101].name


LOAD_PER_SECOND = 40


def load_of(*parts: tuple[float, float]) -> list[Execution]:
    """Jobs at a steady rate from 10 s before the fault on; each part is so many seconds long, in which pod 101 has so much of
    its usual half of them."""
    made: list[Execution] = []
    owed = 0.0
    for seconds, kept in ((10.0, 1.0), *parts):
        for _ in range(round(seconds * LOAD_PER_SECOND)):
            owed += kept / 2
            mine = owed >= 1
            owed -= mine
            moment = len(made) * 1000 / LOAD_PER_SECOND - 10_000
            made.append(execution(len(made), 101 if mine else 102, moment, moment + 1))
    return made


def throttled_for(seconds: float, kind: Kind = Kind.THROTTLE) -> Stroke:
    return stroke(kind, until_ms=FAULT_MS + seconds * 1000)


def test_a_share_is_halved_at_the_end_of_the_first_window_that_shows_it() -> None:
    halved = measures.share_halved_after(throttled_for(20), evidence(executions=load_of((3, 1), (17, 0.2))))
    assert halved is not None
    assert 4_000 < halved <= 5_000
    assert measures.share_halved_after(throttled_for(20), evidence(executions=load_of((20, 0.9)))) is None


def test_a_share_is_back_when_it_has_four_fifths_of_what_it_had_before() -> None:
    back = measures.share_back_after(throttled_for(20), evidence(executions=load_of((20, 0.1), (6, 0.5), (8, 0.7), (12, 0.9))))
    assert back is not None
    assert 15_000 < back <= 18_500


@pytest.mark.parametrize("parts", [[(20, 0.1)], [(20, 0.1), (30, 0.7)]], ids=["the load ends", "it stays short"])
def test_a_share_that_does_not_come_back_is_none(parts: list[tuple[float, float]]) -> None:
    assert measures.share_back_after(throttled_for(20), evidence(executions=load_of(*parts))) is None


@pytest.mark.parametrize(
    ("parts", "crossings"),
    [
        ([(20, 0.1), (20, 1)], (1, 1)),
        ([(20, 0.1), (4, 1), (4, 0.1), (12, 1)], (2, 2)),
        ([(20, 0.1), (4, 0.55), (4, 0.45), (4, 0.55), (8, 1)], (1, 1)),
        ([(20, 1)], (0, 0)),
        ([(8, 0.2), (4, 1), (8, 0.2)], (2, 1)),
    ],
    ids=["once down, once up", "flaps while it recovers", "trembles at half", "no effect", "flaps during the fault"],
)
def test_flapping_is_counted_by_crossings_of_half(parts: list[tuple[float, float]], crossings: tuple[int, int]) -> None:
    assert measures.share_crossings(throttled_for(20), evidence(executions=load_of(*parts))) == crossings


def test_a_pod_without_a_share_before_tells_nothing_of_its_share() -> None:
    seen = evidence(executions=[execution(n, 102, -10_000 + n * 25, -9_999 + n * 25) for n in range(1_600)])
    assert measures.share_back_after(throttled_for(20), seen) is None
    assert measures.share_crossings(throttled_for(20), seen) is None
    assert measures.share_at_return(throttled_for(20), seen) is None


def test_a_slow_start_is_the_share_from_the_first_new_batch_on() -> None:
    frozen = throttled_for(20, Kind.FREEZE)
    seen = evidence(executions=load_of((23, 0), (4, 0.2), (20, 1)), sent=[(101, 23_000.0)])
    assert measures.share_at_return(frozen, seen) == pytest.approx(0.2, abs=0.03)
    assert measures.share_at_return(frozen, evidence(executions=seen.executions)) is None


def test_normal_is_three_quiet_seconds_in_a_row() -> None:
    before = [answer(due=-10_000 + n * 20, took=50) for n in range(500)]
    slow = [answer(due=n * 20, took=2_000) for n in range(200)]
    quiet = [answer(due=4_000 + n * 20, took=60) for n in range(300)]
    assert measures.normal_after(FAULT_MS, [*before, *slow, *quiet]) == pytest.approx(4_000, abs=250)
    assert measures.normal_after(FAULT_MS, [*before, *slow]) is None


def test_what_is_normal_after_a_burst_is_what_was_before_it_began() -> None:
    calm = [answer(due=-20_000 + n * 20, took=200) for n in range(500)]
    burst = [answer(due=-10_000 + n * 20, took=9_000) for n in range(500)]
    slow, quiet = ([answer(due=from_ms + n * 20, took=took) for n in range(300)] for from_ms, took in ((0, 1_000), (6_000, 300)))
    all_of_it = [*calm, *burst, *slow, *quiet]
    assert measures.normal_after(FAULT_MS, all_of_it, usual_until_ms=FAULT_MS - 10_000) == pytest.approx(6_000, abs=250)
    assert measures.normal_after(FAULT_MS, all_of_it) == 0, "compared with the burst itself everything is normal"


def ok_after(answers: list[Answer], share: float = 0.999) -> float | None:
    return measures.ok_after(FAULT_MS, answers, share=share, within_ms=10_000)


def test_jobs_are_ok_again_from_the_last_one_on_that_was_not_unless_it_is_one_of_a_thousand() -> None:
    late = [answer(n, due=n * 20, took=10_100, outcome="deadline_exceeded") for n in range(100)]
    good = [answer(n, due=n * 20) for n in range(100, 1_600)]
    assert ok_after([*late, *good]) == pytest.approx(1_980, abs=20)
    good[700] = answer(800, due=16_000, took=10_001)
    assert ok_after([*late, *good]) == pytest.approx(1_980, abs=20)
    assert ok_after([*late, *good], share=1.0) == pytest.approx(16_020)


def test_an_overload_that_does_not_end_or_a_load_that_ends_too_early_is_none() -> None:
    assert ok_after([answer(n, due=n * 20, outcome="deadline_exceeded") for n in range(1_000)]) is None
    assert ok_after([answer(n, due=n * 20) for n in range(400)]) is None
    assert ok_after([]) is None


def test_the_view_is_whole_again_when_every_node_of_before_was_told_of() -> None:
    told = [(-5_000.0, {"old"}), (-500.0, {"a", "b"}), (-100.0, {"a"}), (300.0, {"a", "c"}), (700.0, {"b"}), (900.0, {"a"})]
    records = [(FAULT_MS + at, frozenset(nodes)) for at, nodes in told]
    assert measures.view_again(records, FAULT_MS) == 700
    assert measures.view_again(records[:4], FAULT_MS) is None
    assert measures.view_again([], FAULT_MS) is None


def test_a_silence_is_wrong_where_no_fault_explains_it() -> None:
    frozen, other = PODS[101].name, PODS[102].name
    suspected = [(FAULT_MS + 3_500, frozen), (FAULT_MS + 3_500, other), (FAULT_MS - 1, frozen), (FAULT_MS + 60_000, frozen)]
    freeze = stroke(Kind.FREEZE, until_ms=FAULT_MS + 5_000)
    assert measures.suspected_wrongly(suspected, [freeze], evidence()) == suspected[1:]
    for killed in (stroke(Kind.KILL, Target.HEAD), stroke(Kind.KILL, Target.BROKER, cluster=None)):
        assert measures.suspected_wrongly(suspected, [killed], evidence()) == suspected[2:]
