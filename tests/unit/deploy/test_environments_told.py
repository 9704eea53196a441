"""How far a node is with an app's environment, and why it is not there, stands in `status`, `nodes` and `top`."""

from __future__ import annotations

import pytest

from deploy.node_inspection import NodeInspection
from deploy.status import StatusReport
from rayline.reports import EnvironmentLoad, NodeLoad, NodeReport, NodeState
from scheduler.view import NodeView, Standing

FETCHING = EnvironmentLoad("reader", "2", "fetching", share=0.34)
CHECKING = EnvironmentLoad("reader", "2", "checking")
FAILED = EnvironmentLoad("ocr", "7", "failed", reason="no room left", remedy="make room on this node", retry_seconds=8.2)
READY = EnvironmentLoad("ocr", "6", "ready")


def node(*environments: EnvironmentLoad, state: NodeState = NodeState.READY, reason: str | None = None) -> NodeView:
    report = NodeReport("c1", "pod-0", 1, 1, state, reason=reason, load=NodeLoad(environments=environments))
    return NodeView(report, 0.0)


def status(view: NodeView) -> StatusReport:
    return StatusReport(None, False, "host:9092", [view], [], {}, None, None)


def test_status_tells_each_phase_and_a_failure_with_its_remedy_and_next_attempt() -> None:
    text = status(node(FETCHING, FAILED, READY)).text()
    (fetching,) = [line for line in text.splitlines() if "reader 2" in line]
    (failed,) = [line for line in text.splitlines() if "ocr 7" in line]
    assert "c1/pod-0" in fetching
    assert "fetching 34%" in fetching
    for part in ("failed, again in 8 s", "no room left", "make room on this node"):
        assert part in failed
    assert "ocr 6" not in text, "what is ready is no news"
    rows = status(node(FETCHING, READY)).as_dict()["nodes"][0]["environments"]
    assert [(row["app"], row["phase"]) for row in rows] == [("reader", "fetching"), ("ocr", "ready")]


@pytest.mark.parametrize(
    ("environment", "told"),
    [
        (FETCHING, "environment of reader 2: fetching 34%"),
        (CHECKING, "environment of reader 2: checking"),
        (FAILED, "environment of ocr 7: failed: no room left (make room on this node)"),
        (READY, ""),
    ],
)
def test_the_reason_of_a_node_in_nodes_and_top_is_what_it_waits_for(environment: EnvironmentLoad, told: str) -> None:
    assert NodeInspection(node(environment), Standing.READY, 0.1, {}).why == told


def test_what_the_node_itself_says_comes_before_its_environments() -> None:
    assert NodeInspection(node(FETCHING, reason="notice: SIGTERM"), Standing.DRAINING, 0.1, {}).why == "notice: SIGTERM"
