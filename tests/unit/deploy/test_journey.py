"""One job's story as text: all of it that its result and its lines tell."""

from __future__ import annotations

from dataclasses import replace

from deploy.journey import journey_text, printed_text
from deploy.printed_lines import FoundLine, JobLines, Wanted, wanted_for
from rayline.bus import LogRecord
from rayline.codec import encode_payload
from rayline.jobs import ContentType
from rayline.printed import APP_HEADER, PrintedLine, Printer, Stream
from rayline.results import Outcome, Result, Tried

RESULT = Result(
    "page-7",
    Outcome.OK,
    "ocr.requests/3/17",
    None,
    encode_payload({"words": 3}, ContentType.JSON),
    ContentType.JSON,
    (),
    1_700_000_001_000,
    app_version="1",
    node="p1",
    cluster="c1",
    attempts=2,
    batch="lane-ocr-0-17/64",
    timing_ms={"queue": 400.0, "execute": 600.0},
    pick="tier=room,weight=1.25,share=0.1670,nodes=6,running=0,avoided=1,update=12",
)
PRINTER = Printer("c1", "p1", "ocr", "1", "a", "i")


def found(text: str, stream: Stream = Stream.STDOUT, **fields: object) -> FoundLine:
    return FoundLine(PRINTER, PrintedLine(1_700_000_000_500, stream, text, **fields))  # type: ignore[arg-type]


def test_the_story_tells_when_where_why_and_what_came_of_it() -> None:
    told = journey_text(RESULT)
    for part in (
        "job page-7: ok",
        "arrived   2023-11-14T22:13:20.000Z, published 2023-11-14T22:13:21.000Z",
        "ran on    c1/p1",
        "attempts  2, last in batch lane-ocr-0-17/64",
        "an actor was free",
        "avoided   1 node(s)",
        'result    {"words": 3}',
    ):
        assert part in told
    assert "operators" not in told
    weighed = replace(RESULT, pick=f"{RESULT.pick},version=0.1")
    assert "operators traffic.version_weights 0.1" in journey_text(weighed)
    refused = replace(RESULT, outcome=Outcome.INVALID, value=None, pick=None, node=None, error_type="E", error_message="no")
    assert "job page-7: invalid (E: no)" in journey_text(refused)
    assert "result " not in journey_text(refused)


def test_a_job_without_an_answer_tells_where_it_was_sent_and_what_came_of_each_attempt() -> None:
    evicted, killed = Tried("c2", "p9", "evicted", "lane-ocr-0-3"), Tried("c1", "p1", "killed", "lane-ocr-0-17")
    given_up = replace(RESULT, outcome=Outcome.QUARANTINED, value=None, attempts=4, tried=(evicted, killed))
    told = journey_text(given_up)
    for part in (
        "ran on    ended without an answer; last sent to c1/p1",
        "attempts  4, last in batch lane-ocr-0-17/64",
        "    2 earlier ones, no longer told\n    c2/p9  evicted: its node left",
        "    c1/p1  killed: its worker died (batch lane-ocr-0-17)",
        "waiting, and all that it was tried in",
    ):
        assert part in told
    assert wanted_for(given_up).batches == {"lane-ocr-0-3", "lane-ocr-0-17"}
    answered = journey_text(replace(RESULT, tried=(evicted,)))
    assert "ran on    c1/p1" in answered
    assert "attempts  2, last in batch lane-ocr-0-17/64\n    c2/p9  evicted" in answered
    assert "no longer told" not in answered


def test_a_job_that_was_nowhere_says_so() -> None:
    nowhere = replace(RESULT, outcome=Outcome.DEADLINE_EXCEEDED, node=None, cluster=None, batch=None, pick=None, attempts=0)
    assert "no node: it was never dispatched" in journey_text(nowhere)
    assert "no node: it was refused before dispatch" in journey_text(replace(nowhere, outcome=Outcome.INVALID))
    assert "never dispatched" not in journey_text(replace(nowhere, outcome=Outcome.QUARANTINED))


def test_the_trace_of_a_job_is_told_where_it_has_one() -> None:
    trace = "0af7651916cd43dd8448eb211c80319c"
    traced = replace(RESULT, headers=(("traceparent", f"00-{trace}-b7ad6b7169203331-01".encode()),))
    assert f"trace     {trace}" in journey_text(traced)
    assert traced.as_dict()["trace_id"] == trace
    for headers in ((), (("traceparent", b"\x1b[2J"),)):
        untraced = replace(RESULT, headers=headers)
        assert "trace  " not in journey_text(untraced)
        assert untraced.as_dict()["trace_id"] is None


def test_what_was_printed_follows_line_by_line() -> None:
    traceback = found("Traceback:\n  in x\nValueError: no", Stream.TRACEBACK, job="page-7")
    missing = found("too many", Stream.DROPPED, dropped=12)
    assert printed_text(JobLines([found("reading"), traceback, missing])).split("\n") == [
        "  printed",
        "    22:13:20.500 | reading",
        "    22:13:20.500 ! Traceback:",
        "                 !   in x",
        "                 ! ValueError: no",
        "    22:13:20.500 ~ 12 lines dropped: too many",
    ]
    assert printed_text(JobLines([])) == "  printed   nothing"
    assert printed_text(JobLines([], whole=False)) == "  printed   nothing that is still kept"
    assert printed_text(None) == "  printed   not known"


def test_a_line_that_somebody_else_wrote_gives_a_terminal_no_orders() -> None:
    assert found("\x1b[2J", job="\x1b[31m").text().isprintable()


def test_a_jobs_lines_are_its_own_and_those_of_its_batch_that_are_nobodys() -> None:
    wanted = wanted_for(RESULT)
    assert wanted == Wanted("ocr", None, "page-7", frozenset({"lane-ocr-0-17"}))
    batch = "lane-ocr-0-17"
    lines = [
        PrintedLine(1, Stream.STDOUT, "own, in an earlier attempt", "lane-ocr-0-3", "page-7"),
        PrintedLine(1, Stream.STDOUT, "the batch's", batch),
        PrintedLine(1, Stream.STDOUT, "a neighbour's", batch, "page-8"),
        PrintedLine(1, Stream.STDOUT, "of another batch", "lane-ocr-0-3"),
        PrintedLine(1, Stream.STDOUT, "nobody's"),
    ]
    assert [line.text for line in lines if wanted.matches(line)] == ["own, in an earlier attempt", "the batch's"]


def test_records_of_other_apps_and_nodes_are_not_opened() -> None:
    record = LogRecord(0, 0, 0, b"c1/p1", b"", ((APP_HEADER, b"ocr"),))
    for wanted, takes in (
        (Wanted("ocr"), True),
        (Wanted("ocr", "p1"), True),
        (Wanted("ocr", "c1/p1"), True),
        (Wanted("ocr", "c2/p1"), False),
        (Wanted("ocr", "1"), False),
        (Wanted("other"), False),
    ):
        assert wanted.takes(record) is takes
    assert not Wanted("ocr").takes(replace(record, key=None, headers=()))
