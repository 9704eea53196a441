"""How soon a change is in force is told by the slowest process, by answers and by what processes do."""

from __future__ import annotations

from bench.config_latency import Heard, first
from bench.config_latency_verdict import Made, judge
from rayline.bus import LogRecord
from rayline.config import Answer, Verdict
from rayline.reports import NodeReport, NodeState, encode_reports
from rayline.results import BATCH
from scheduler.batch import next_batch_id

KEY = "global/log.level"


def made(*answered: float | None, shown: tuple[float | None, ...] = (), key: str = KEY) -> Made:
    roles = ("lane/app/0", "agent/a/p", "launcher/h")
    return Made(key, 1, dict(zip(roles, answered, strict=False)), dict(zip("xyz", shown, strict=False)))


def record(value: bytes | None, at_ms: int, headers: tuple[tuple[str, bytes], ...] = ()) -> LogRecord:
    return LogRecord(0, 0, at_ms, b"key", value, headers)


def test_a_change_is_as_slow_as_its_slowest_process() -> None:
    outcome = judge([made(10, 20, 300), made(50, 40, 30)])
    told = outcome["keys"][KEY]
    assert told["processes"] == ["agent/a/p", "lane/app/0", "launcher/h"]
    assert (told["answered_ms"]["p50"], told["answered_ms"]["max"], told["answered_ms"]["missing"]) == (50, 300, 0)
    assert outcome["roles"]["launcher"]["max"] == 300
    assert "shown_ms" not in told
    assert all(bar["met"] for bar in outcome["bars"])


def test_what_comes_after_a_second_or_not_at_all_misses_a_bar() -> None:
    late = judge([made(10, 20, 1001)])
    assert [bar["met"] for bar in late["bars"]] == [False, True]
    silent = judge([made(10, None, 20), made(10, 20, 30)])
    assert silent["keys"][KEY]["answered_ms"]["missing"] == 1
    assert [bar["met"] for bar in silent["bars"]] == [True, False]


def test_what_processes_do_is_judged_beside_what_they_say() -> None:
    outcome = judge([made(10, shown=(900, 1100)), made(10, shown=(5, None))])
    told = outcome["keys"][KEY]
    assert told["shown_by"] == ["x", "y"]
    assert (told["shown_ms"]["max"], told["shown_ms"]["missing"]) == (1100, 1)
    assert [bar["met"] for bar in outcome["bars"]] == [True, True, False, False]


def test_only_applied_is_an_answer_and_each_process_is_waited_for() -> None:
    heard = Heard()
    for process, verdict in (("lane/app/0", Verdict.APPLIED), ("lane/app/1", Verdict.REJECTED)):
        heard.take_applied(record(Answer(KEY, 7, process, verdict).encode(), 1_250))
    heard.take_applied(record(None, 1_260))
    found = heard.answered(7, ["lane/app/0", "lane/app/1", "keeper/1"], 1_000)
    assert found == {"lane/app/0": 250.0, "lane/app/1": None, "keeper/1": None}


def test_a_lanes_first_batch_of_the_size_counts_from_the_change_on() -> None:
    heard = Heard()
    for at_ms, lane, size in (
        (900, "lane-app-0", 8),
        (1_100, "lane-app-0", 8),
        (1_300, "lane-app-0", 8),
        (1_050, "lane-app-1", 7),
    ):
        heard.take_result(record(b"", at_ms, ((BATCH, f"{next_batch_id(lane)}/{size}".encode()),)))
    heard.take_result(record(b"", 1_000))
    assert heard.batches(8, ["lane-app-0", "lane-app-1"], 1_000) == {"lane-app-0": 100.0, "lane-app-1": None}


def test_an_agents_first_beat_of_the_interval_counts() -> None:
    heard = Heard()
    for at_ms, interval_ms, beat in ((1_100, 205, False), (1_200, 205, True), (1_300, 210, True)):
        report = NodeReport("a", "p", 1, 1, NodeState.READY, 1.0, beat=beat, interval_ms=interval_ms)
        heard.take_report(record(encode_reports([report]), at_ms))
    heard.take_report(record(b"nonsense", 1_400))
    assert heard.beats(205, ["a/p", "a/q"], 1_000) == {"a/p": 200.0, "a/q": None}


async def test_waiting_ends_with_the_news_that_was_waited_for() -> None:
    heard = Heard()
    assert await heard.until(lambda: True)


def test_what_was_before_the_change_is_not_its_effect() -> None:
    assert first([], 5) is None
    assert first([1, 4], 5) is None
    assert first([9, 5, 7], 5) == 0.0
