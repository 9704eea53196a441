"""Versions of an app that stand beside each other are told with their weights; a weight of a version that is nowhere as such."""

from __future__ import annotations

from dataclasses import replace

from deploy.app_versions import weights_in_force
from deploy.cli.nodes import _node_text
from deploy.node_inspection import NodeInspection
from deploy.status import StatusReport
from rayline.app_spec import AppSpec
from rayline.config import Presence, ProcessIdentity, Role
from rayline.reports import ActorEndpoint, NodeReport, NodeState
from rayline.versions import VersionWeights
from scheduler.view import NodeView, Standing

APP = AppSpec("ocr", "2+bbbbbbbbbbbb", "/app", "m:f")


def node(name: str, *versions: str) -> NodeView:
    actors = tuple(ActorEndpoint("ocr", version, f"{name}.{version}", "h", 1, 2, f"{name}.{version}") for version in versions)
    return NodeView(NodeReport("c", name, 1, 1, NodeState.READY, 1.0, actors=actors), 0.0)


def status(*nodes: NodeView, weights: dict[str, float] | None = None) -> StatusReport:
    told = {"ocr": VersionWeights(weights)} if weights is not None else {}
    return StatusReport(None, False, "host:9092", nodes, [APP], {}, None, None, version_weights=told)


def test_status_tells_each_version_with_its_weight_and_nodes() -> None:
    report = status(
        node("p0", "1+aaaaaaaaaaaa"), node("p1", APP.version), node("p2", "1+aaaaaaaaaaaa"), weights={"bbbb": 0.1, "7": 2.0}
    )
    rows = [line.split(maxsplit=4) for line in report.text().splitlines() if line.startswith("ocr")][1:]
    assert rows == [
        ["ocr", "2+bbbbbbbbbbbb", "0.1", "1", "1"],
        ["ocr", "1+aaaaaaaaaaaa", "1", "2", "2"],
        ["ocr", "7", "2", "no", "such version  0"],
    ]
    versions = report.as_dict()["apps"][0]["versions"]
    assert [(row["version"], row["weight"], row["nodes"]) for row in versions] == [
        ("2+bbbbbbbbbbbb", 0.1, 1),
        ("1+aaaaaaaaaaaa", 1.0, 2),
        ("7", 2.0, None),
    ]


def test_status_tells_how_far_a_roll_out_by_share_is() -> None:
    before = replace(APP, version="1+aaaaaaaaaaaa")
    nodes = [node(f"p{number}", "1+aaaaaaaaaaaa") for number in range(4)]
    report = StatusReport(None, False, "host:9092", nodes, [replace(APP, previous=before)], {}, None, None, shares={"ocr": 0.0})
    assert (
        "ocr: 2+bbbbbbbbbbbb belongs on 0 of 4 nodes (rollout.share 0), 1+aaaaaaaaaaaa on the others; one more at"
        in report.text()
    )
    told = report.as_dict()["apps"][0]["rollout"]
    assert (told["share"], told["previous"], told["nodes"], told["taking"]) == (0.0, "1+aaaaaaaaaaaa", 4, 0)
    done = replace(report, shares={})
    assert "rollout.share" not in done.text()
    assert done.as_dict()["apps"][0]["rollout"]["taking"] == 4


def test_one_version_without_a_weight_is_no_news() -> None:
    assert "WEIGHT" not in status(node("p0", APP.version)).text()
    assert "WEIGHT" in status(node("p0", APP.version), weights={"2": 0.5}).text()


def test_what_counts_is_what_the_lanes_have_in_force() -> None:
    setting = "traffic.version_weights"
    lane = Presence(ProcessIdentity(role=Role.LANE, app="ocr", name="0"), {setting: ({"2": 0.5}, f"app/ocr/{setting}")})
    other = Presence(ProcessIdentity(role=Role.AGENT, cluster="c", node="p0"), {"cordon": (False, "default")})
    assert weights_in_force([lane, other]) == {"ocr": VersionWeights({"2": 0.5})}


def test_explain_node_tells_the_version_and_its_weight_among_the_factors() -> None:
    lane = {
        "policy": "static",
        "version": "2+bb",
        "weight": 0.1,
        "share": 0.2,
        "running": 0,
        "factors": {"cores": 1.0, "version": 0.1},
    }
    text = _node_text("c/p0", NodeInspection(node("p0", "2+bb"), Standing.READY, 0.1, {"ocr/0": lane}), [])
    assert "20.0% of the work (lane ocr/0, version 2+bb, policy static, in flight 0)" in text
    assert "cores 1 · version 0.1" in text
