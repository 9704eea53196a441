"""Each loss is paired with what took its place, once, with the time between."""

from __future__ import annotations

from deploy.local.losses import Recoveries
from rayline.clusters import ClusterBook, ClusterOrder, Slot


def book(*slots: Slot, generation: int = 1, revision: int = 1) -> ClusterBook:
    made = ClusterBook()
    made.take(ClusterOrder("c1", 1, revision, "life", generation, True, slots=slots))
    return made


def texts(recoveries: Recoveries, pods: set[str], made: ClusterBook, now: float) -> list[str]:
    return [recovery.text for recovery in recoveries.joined(pods, made, now)]


def test_the_first_start_is_no_recovery() -> None:
    assert texts(Recoveries(), {"a", "b"}, book(Slot(0, "a"), Slot(1, "b")), 1.0) == []


def test_a_replacement_is_told_once_when_it_serves() -> None:
    recoveries = Recoveries()
    first = book(Slot(0, "a"), Slot(1, "b"))
    assert texts(recoveries, {"a", "b"}, first, 1.0) == []
    recoveries.lost("a", 10.0)
    second = book(Slot(0, "c", replaces="a"), Slot(1, "b"))
    assert texts(recoveries, {"b"}, second, 12.0) == []
    assert texts(recoveries, {"b", "c"}, second, 17.5) == ["c serves 7.5 s after a ended"]
    assert texts(recoveries, {"b", "c"}, second, 18.0) == []


def test_a_cluster_serves_again_with_the_first_pod_of_its_new_generation() -> None:
    recoveries = Recoveries()
    texts(recoveries, {"a"}, book(Slot(0, "a")), 1.0)
    recoveries.lost("c1", 10.0)
    rebuilt = book(Slot(0, "b"), Slot(1, "c"), generation=2)
    assert texts(recoveries, {"b"}, rebuilt, 25.0) == ["cluster c1 serves again 15.0 s after its head was lost"]
    assert texts(recoveries, {"b", "c"}, rebuilt, 26.0) == []
