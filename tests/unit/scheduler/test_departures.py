"""What a lane tells of how a node left: who said it, when it was heard here, and from when on nothing was sent there."""

from __future__ import annotations

from typing import Any

import pytest

from rayline.reports import NodeReport, NodeState
from scheduler.departures import DEPARTURES_KEPT
from scheduler.router import Router
from scheduler.view import SUSPECT_AFTER_SECONDS, View
from tests.unit.scheduler.test_router import report, router_over


def heard(router: Router, view: View, one: NodeReport, *, written_at: float, now: float) -> None:
    """As a lane hears of it."""
    for key in view.apply([one], written_at):
        node = view.node(key)
        assert node is not None
        router.departures.news(node, written_at=written_at, heard_at=now)


def told(router: Router, key: str = "c/a") -> dict[str, Any]:
    return dict(router.departures.told()[key])


def test_a_notice_is_followed_from_the_nodes_word_to_the_last_pick() -> None:
    router, view = router_over(report("a"), report("b"))
    heard(router, view, report("a", seq=1_700_000, state=NodeState.DRAINING), written_at=0.5, now=0.55)
    assert router.departures.told() == {}, "a lane that pulls has not taken it over yet"
    router.refresh(view, "1", 3.0)
    heard(router, view, report("a", seq=1_700_001, state=NodeState.GONE), written_at=3.2, now=3.2)
    way = told(router)
    assert way.pop("update") == router.explain_node("c/b")["update"]  # type: ignore[index]
    assert way == {
        "incarnation": 1,
        "state": "draining",
        "said_ms": 1_700_000,
        "heard_after_ms": pytest.approx(50.0),
        "out_after_ms": pytest.approx(2_500.0),
        "by": "news",
    }


def test_an_actor_that_turns_a_batch_away_is_ahead_of_the_news() -> None:
    router, view = router_over(report("a"))
    target = router.pick(1.0)
    assert target is not None
    router.draining(target, 1.0)
    assert (told(router)["by"], told(router)["heard_after_ms"]) == ("actor", None)
    heard(router, view, report("a", seq=9, state=NodeState.DRAINING), written_at=0.9, now=1.2)
    router.refresh(view, "1", 1.2)
    assert (told(router)["by"], told(router)["out_after_ms"]) == ("actor", pytest.approx(100.0))
    assert told(router)["heard_after_ms"] == pytest.approx(300.0)


def test_silence_counts_from_the_last_beat_and_a_node_that_is_back_has_not_left() -> None:
    router, view = router_over(report("a"), report("b"))
    at = SUSPECT_AFTER_SECONDS + 0.1
    view.apply([report("b", seq=5)], at)
    router.refresh(view, "1", at)
    assert (told(router)["by"], told(router)["state"]) == ("silence", "silent")
    assert told(router)["out_after_ms"] == pytest.approx(1000 * at)
    view.apply([report("a", seq=6)], at + 1)
    router.refresh(view, "1", at + 1)
    assert router.departures.told() == {}


def test_the_last_ones_are_kept() -> None:
    names = [f"n{number:03}" for number in range(DEPARTURES_KEPT + 7)]
    router, view = router_over(*(report(name) for name in names), report("stays"))
    for number, name in enumerate(names):
        view.apply([report(name, seq=2, state=NodeState.GONE)], 1.0 + number / 100)
        router.refresh(view, "1", 1.0 + number / 100)
    assert list(router.departures.told()) == [f"c/{name}" for name in names[-DEPARTURES_KEPT:]]
