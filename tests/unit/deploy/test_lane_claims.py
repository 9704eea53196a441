"""Whose result it is, with a batch and without one."""

from __future__ import annotations

from deploy.config_guard import ResultGuard, Tally
from deploy.lane_claims import LaneClaims
from rayline.bus import KafkaSettings, LogRecord
from rayline.results import BATCH, OUTCOME, SOURCE, TIMING


def result(source: str, batch: str | None = None) -> dict[str, bytes | None]:
    return {SOURCE: source.encode(), **({BATCH: batch.encode()} if batch is not None else {})}


def test_a_result_that_no_node_saw_is_that_of_the_lane_that_holds_its_partition() -> None:
    claims = LaneClaims()
    claims.learn({"ocr.requests/0": "lane-a", "ocr.requests/1": "lane-b"})
    assert claims.lane_of(result("ocr.requests/0/17")) == "lane-a"
    assert claims.lane_of(result("ocr.requests/1/17")) == "lane-b"
    assert claims.lane_of(result("text.requests/1/17")) is None
    assert claims.lane_of({}) is None


def test_a_batch_tells_more_than_a_claim_and_is_one_from_then_on() -> None:
    claims = LaneClaims()
    claims.learn({"ocr.requests/0": "0"})
    assert claims.lane_of(result("ocr.requests/0/1", "lane-a-9/64")) == "lane-a"
    assert claims.lane_of(result("ocr.requests/0/2")) == "lane-a"
    claims.learn({"ocr.requests/0": "0"})
    assert claims.lane_of(result("ocr.requests/0/3")) == "0"


def test_a_canarys_refusals_and_misses_count_though_no_node_saw_them_and_others_do_not() -> None:
    guard = ResultGuard(KafkaSettings("127.0.0.1:1"), [], span_seconds=10, instance="1")
    guard._claims.learn({"ocr.requests/0": "0", "ocr.requests/1": "1"})
    tally = Tally()
    for partition, outcome, batch in (
        (0, "invalid", None),
        (1, "invalid", None),
        (1, "deadline_exceeded", None),
        (1, "ok", "1-3/8"),
    ):
        headers = result(f"ocr.requests/{partition}/5", batch) | {OUTCOME: outcome.encode(), TIMING: b"queue=1.0"}
        guard._count(LogRecord(0, 0, 0, None, None, tuple(headers.items())), tally)  # type: ignore[arg-type]
    found = tally.quality(1.0)
    assert (found.results, found.invalid, found.misses) == (3, 1, 1)
