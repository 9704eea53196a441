"""`explain node`: each hop of a node's end, for people; `explain pick`: a job is found with and without its app."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from types import SimpleNamespace
from typing import Any

import pytest
from typer.testing import CliRunner

from deploy.cli import app
from deploy.cli.exit_codes import ExitCode
from deploy.cli.nodes import _left_lines
from deploy.node_inspection import NodeEntry
from rayline.events import Event

SAID_MS = 1_790_000_000_250
WAY = {
    "incarnation": 1,
    "state": "draining",
    "said_ms": SAID_MS,
    "heard_after_ms": 12.4,
    "out_after_ms": 2612.0,
    "by": "news",
    "update": 17,
}


def event(kind: str, at_ms: int) -> NodeEntry:
    return NodeEntry(at_ms, Event("resource", kind, "c1/p", kind))


def test_each_hop_of_a_notice_is_told_with_its_time() -> None:
    history = [event("node.notice", SAID_MS - 60_000), event("node.notice", SAID_MS + 31), event("node.gone", SAID_MS + 900)]
    said, resources, lane = _left_lines({"ocr/lane-0": WAY}, history)
    assert "draining, said at" in said
    assert said.endswith(".250 by its own clock")
    assert "resources told of it 31 ms later" in resources
    assert "lane ocr/lane-0: heard of it 12 ms after the broker, sent nothing new there after 2612 ms (by the news;" in lane
    assert "update 17" in lane


def test_what_is_not_known_of_a_hop_is_left_out() -> None:
    silent = {**WAY, "state": "silent", "heard_after_ms": None, "by": "silence"}
    assert "last heard at" in _left_lines({"a/0": silent}, [])[0]
    assert len(_left_lines({"a/0": silent}, [])) == 2
    unsaid = {**WAY, "said_ms": None, "heard_after_ms": None, "out_after_ms": None, "by": "actor"}
    assert _left_lines({"a/0": unsaid}, []) == [
        "  left        lane a/0: sent nothing new there (its actor turned a batch away; update 17 of its weights)"
    ]
    assert _left_lines({}, []) == []


@pytest.fixture
def results(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two apps are deployed; only `ocr` has a result, of job `j1`."""
    result: Any = SimpleNamespace(
        job_id="j1", source="ocr.requests/0/1", cluster="c1", node="p1", attempts=1, batch="b/1", pick="tier=room", answered=True
    )

    async def find(_: object, name: str, job: str, *, since_seconds: float | None) -> list[Any]:
        assert since_seconds is None
        return [result] if (name, job) == ("ocr", "j1") else []

    @asynccontextmanager
    async def registry(_: object) -> AsyncIterator[Any]:
        async def snapshot() -> dict[str, None]:
            return {"speech": None, "ocr": None}

        yield SimpleNamespace(snapshot=snapshot)

    monkeypatch.setattr("deploy.journey.find_results", find)
    monkeypatch.setattr("deploy.app_registry.AppRegistry", registry)


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["j1"], 0, '"app": "ocr"'),
        (["ocr", "j1"], 0, '"app": "ocr"'),
        (["speech", "j1"], ExitCode.NO, "speech.results holds no result"),
        (["j2"], ExitCode.NO, "the results of all apps hold no result of job j2"),
        (["ocr", "j1", "j2"], 2, "JOB, or APP JOB"),
    ],
)
@pytest.mark.usefixtures("results")
def test_a_pick_is_found_by_the_job_alone_and_in_one_app(words: list[str], code: int, said: str) -> None:
    answer = CliRunner().invoke(app, ["explain", "pick", *words, "-o", "json", "--bootstrap-servers", "127.0.0.1:1"])
    assert (answer.exit_code, said in answer.output) == (code, True), answer.output
