"""What `rayline clusters` says of a cluster follows from what is wanted, ordered and there."""

from __future__ import annotations

from deploy.cluster_report import ClusterState, cluster_report
from rayline.clusters import ActualCluster, Backoff, ClusterBook, ClusterOrder, DesiredCluster, Lease, Phase, ProcessFact, Slot

RUNNING = ProcessFact(Phase.RUNNING, 1)


def book(
    order: ClusterOrder | None = None, pods: dict[str, ProcessFact] | None = None, head: ProcessFact | None = RUNNING
) -> ClusterBook:
    made = ClusterBook()
    made.take(Lease(3, "keeper-1"))
    made.take(DesiredCluster("c1", 2))
    if order is not None:
        made.take(order)
        if pods is not None:
            made.take(ActualCluster("c1", order.executor, order.revision, order.generation, head, pods))
    return made


def order(*slots: Slot, wanted: bool = True, head: Backoff | None = None) -> ClusterOrder:
    return ClusterOrder("c1", 3, 1, "life", 1, wanted, slots=slots, head=head or Backoff())


def state(made: ClusterBook) -> ClusterState:
    (row,) = cluster_report(made, now_ms=1_000).rows
    return row.state


def test_a_cluster_runs_when_its_head_and_all_its_pods_do() -> None:
    both = order(Slot(0, "a"), Slot(1, "b"))
    assert state(book()) is ClusterState.WAITING
    assert state(book(both)) is ClusterState.BUILDING
    assert state(book(both, {"a": RUNNING, "b": RUNNING}, head=ProcessFact(Phase.STARTING, 1))) is ClusterState.BUILDING
    assert state(book(both, {"a": RUNNING, "b": ProcessFact(Phase.ENDED, 1)})) is ClusterState.BUILDING
    assert state(book(both, {"a": RUNNING, "b": RUNNING})) is ClusterState.RUNNING


def test_a_place_that_backs_off_says_how_often_until_when_and_why() -> None:
    failing = Slot(1, None, replaces="b", backoff=Backoff(3, 3_500, "no such GPU"))
    report = cluster_report(book(order(Slot(0, "a"), failing), {"a": RUNNING}), now_ms=1_000)
    (row,) = report.rows
    assert row.state is ClusterState.BACKING_OFF
    assert row.reasons == ["the place of b: 3 failure(s) in a row, next attempt in 2.5 s: no such GPU"]
    assert "no such GPU" in report.text()
    assert report.as_dict()["keeper"] == {"holder": "keeper-1", "epoch": 3}


def test_a_cluster_whose_head_keeps_failing_says_so() -> None:
    made = book(order(wanted=False, head=Backoff(2, 2_000, "the head of c1 ended")))
    assert state(made) is ClusterState.BACKING_OFF


def test_a_cluster_that_is_taken_down_is_shown_until_its_keeper_has_seen_to_it() -> None:
    made = book(order(Slot(0, "a")), {"a": RUNNING})
    made.apply(b"desired/c1", None)
    assert state(made) is ClusterState.GONE
    made.take(ClusterOrder("c1", 3, 2, "life", 1, False))
    assert list(cluster_report(made, now_ms=1).rows) == []
