"""Charts are values: bounded, and without a way for text of a topic to become code."""

from __future__ import annotations

from typing import Any

from deploy.console import charts
from deploy.observation import EventRow, NodePoint, NodeSeries, Point, Series

HOSTILE = ":formatter"


def _point(second: int, p99_ms: float | None = 100.0) -> Point:
    return Point(second, 10, 5.0, p99_ms, p99_ms, 1, 2)


def _keys(value: Any) -> set[str]:
    if isinstance(value, dict):
        return {str(key) for key in value} | {key for one in value.values() for key in _keys(one)}
    return {key for one in value for key in _keys(one)} if isinstance(value, list) else set()


def test_the_worst_of_a_group_is_drawn_and_nothing_is_left_out() -> None:
    points = [_point(second, 900.0 if second == 1001 else 100.0) for second in range(1000, 1900)]
    thin = charts.thinned(points, 180)
    assert len(thin) == 180
    assert max(point.p99_ms or 0 for point in thin) == 900.0


def test_groups_stand_still_while_time_moves_on() -> None:
    points = [_point(second, float(second % 97)) for second in range(2000)]
    before = charts.thinned(points[0:900], 90)
    after = charts.thinned(points[5:905], 90)
    assert {point.second: point for point in before}.items() & {point.second: point for point in after}.items()
    assert [point for point in before if point.second >= 10] == [point for point in after if point.second < 900]


def test_few_points_stay_as_they_are() -> None:
    points = [_point(second) for second in range(50)]
    assert charts.thinned(points) == points
    assert charts.thinned([]) == []


def test_names_from_topics_are_values_and_never_keys() -> None:
    series = NodeSeries(HOSTILE, (NodePoint(1000, 1.0, 0.5, 1, 0.2),))
    assert not {key for key in _keys(charts.shares([series])) if key == HOSTILE}
    event = EventRow(1000, 1, HOSTILE, HOSTILE, HOSTILE, HOSTILE, HOSTILE, HOSTILE)
    drawn = charts.latency(Series(None, (_point(1),), (event,)), 10_000)
    assert HOSTILE not in _keys(drawn["series"])
    assert charts.shares([series])["tooltip"]["renderMode"] == "richText"


def test_each_eviction_is_marked_and_marks_are_bounded() -> None:
    events = tuple(EventRow(1000 * n, n, "keeper", "pod.replaced", "c1", "t", None, "evicted") for n in range(100))
    marks = charts.latency(Series(None, (_point(1),), events), None)["series"][1]["markLine"]["data"]
    assert [mark["xAxis"] for mark in marks] == [1000 * n for n in range(60, 100)]


def test_a_waterfall_begins_each_phase_where_the_one_before_ended() -> None:
    begins, lengths = charts.waterfall([("queue", 10.0, "#000"), ("execute", 5.0, "#000"), ("publish", 1.0, "#000")])["series"]
    assert begins["data"] == [0.0, 10.0, 15.0]
    assert [bar["value"] for bar in lengths["data"]] == [10.0, 5.0, 1.0]
