"""Dashboard and alerts speak of metrics and labels that there are, and can be read by those who use them."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

from deploy.metrics_reference import label, prometheus_names, series
from rayline.metrics import METRICS, MetricsBoard, declared
from rayline.metrics.declared import PROCESS, PROCESS_ATTRIBUTES
from rayline.metrics.export import PrometheusPage
from rayline.reports import NodeReport, NodeState
from rayline.stalls import Stall, StallKind
from scheduler.node_history import NodeHistory
from scheduler.view import Standing, View

FOLDER = Path(__file__).resolve().parents[3] / "deploy" / "dashboards"
METRIC = re.compile(r"\b(?:rayline|messaging|process)_[a-z_]+\b")
# What stands in braces or after `by`: labels, not metrics.
LABELS = re.compile(r"\{[^}]*\}|\bby\s*\([^)]*\)|,\s*\w+\)$")


def dashboard() -> dict[str, Any]:
    return json.loads((FOLDER / "rayline.json").read_text(encoding="utf-8"))


def rules() -> list[dict[str, Any]]:
    groups = yaml.safe_load((FOLDER / "alerts.yaml").read_text(encoding="utf-8"))["groups"]
    return [rule for group in groups for rule in group["rules"]]


def queries() -> Iterator[tuple[str, str]]:
    board = dashboard()
    for panel in board["panels"]:
        for target in panel.get("targets", ()):
            yield panel["title"], target["expr"]
    for annotation in board["annotations"]["list"]:
        yield annotation["name"], annotation["expr"]
    for variable in board["templating"]["list"]:
        if variable["type"] == "query":
            yield variable["name"], variable["query"]["query"]
    for rule in rules():
        yield rule["alert"], rule["expr"]


QUERIES = list(queries())
SELECTED = re.compile(r"\b((?:rayline|messaging|process)_[a-z_]+)\{([^}]*)\}")
# The labels of each series, those of a histogram's parts as well.
OF_SERIES = {
    name + ending: {label(attribute) for attribute in (*METRICS[metric].attributes, *PROCESS_ATTRIBUTES)}
    for metric, name in prometheus_names().items()
    for ending in ("", "_bucket", "_sum", "_count")
}
IDS = [f"{name}-{number}" for number, (name, _) in enumerate(QUERIES)]


@pytest.mark.parametrize("query", [query for _, query in QUERIES], ids=IDS)
def test_a_query_names_only_metrics_that_are_declared(query: str) -> None:
    named = set(METRIC.findall(LABELS.sub("", query)))
    assert named or "up{" in query
    assert not named - series()


@pytest.mark.parametrize("query", [query for _, query in QUERIES], ids=IDS)
def test_a_query_names_only_labels_that_its_metrics_have(query: str) -> None:
    known = {label(name) for metric in METRICS.values() for name in metric.attributes} | {label(n) for n in PROCESS_ATTRIBUTES}
    named = {name for part in LABELS.finditer(query) for name in METRIC.findall(part[0])} - series()
    assert not named - known


@pytest.mark.parametrize("query", [query for _, query in QUERIES], ids=IDS)
def test_a_selector_names_only_labels_of_its_own_metric(query: str) -> None:
    for name, selector in SELECTED.findall(query):
        given = set(re.findall(r"(\w+)\s*(?:=~|!~|!=|=)", re.sub(r'"[^"]*"', "", selector)))
        assert given <= OF_SERIES[name] | {"le", "job", "instance"}, name


def test_each_fault_that_must_not_pass_unseen_has_an_alert_on_its_own_metric() -> None:
    watched = {
        "SLA": declared.LATE,
        "silent stall": declared.STALLED,
        "lag": declared.LAG,
        "evictions": declared.NODE_EVENTS,
        "retries near budget": declared.BUDGET_LEFT,
        "frozen process": declared.LOOP_AGE,
    }
    names = prometheus_names()
    named = {found for rule in rules() for found in METRIC.findall(LABELS.sub("", rule["expr"]))}
    assert not {what for what, metric in watched.items() if names[metric.name] not in named}


@pytest.mark.parametrize("query", [query for _, query in QUERIES], ids=IDS)
def test_the_brackets_of_a_query_fit(query: str) -> None:
    closing, open_ones = {")": "(", "}": "{", "]": "["}, list[str]()
    for char in re.sub(r'"[^"]*"', "", query):
        if char in "({[":
            open_ones.append(char)
        elif char in closing:
            assert open_ones.pop() == closing[char]
    assert not open_ones


def test_every_declared_metric_has_one_name_of_its_own_at_the_page() -> None:
    names = prometheus_names()
    assert set(names) == set(METRICS)
    assert len(set(names.values())) == len(names)


def test_panels_do_not_overlap_and_fit_the_width() -> None:
    taken: set[tuple[int, int]] = set()
    for panel in dashboard()["panels"]:
        place = panel["gridPos"]
        cells = {(x, y) for x in range(place["x"], place["x"] + place["w"]) for y in range(place["y"], place["y"] + place["h"])}
        assert not cells & taken, panel["title"]
        assert place["x"] + place["w"] <= 24
        taken |= cells
    identities = [panel["id"] for panel in dashboard()["panels"]]
    assert len(set(identities)) == len(identities)


def test_every_alert_says_how_bad_it_is_what_happened_and_what_to_do() -> None:
    for rule in rules():
        assert rule["labels"]["severity"] in {"page", "ticket"}, rule["alert"]
        assert rule["annotations"]["summary"]
        assert rule["annotations"]["action"]
    assert len({rule["alert"] for rule in rules()}) == len(rules())


def test_the_sla_burns_are_judged_over_a_long_and_a_short_window() -> None:
    windows = [set(re.findall(r"\[(\w+)\]", rule["expr"])) for rule in rules() if "SlaBurn" in rule["alert"]]
    assert windows == [{"1h", "5m"}, {"6h", "30m"}]


def test_standings_that_alerts_name_exist() -> None:
    text = (FOLDER / "alerts.yaml").read_text(encoding="utf-8")
    named = {name for group in re.findall(r'rayline_standing=~"([^"]+)"', text) for name in group.split("|")}
    assert named
    assert named <= {standing.value for standing in Standing}


def test_a_node_that_gives_notice_and_goes_is_one_eviction_to_the_alert() -> None:
    view, history = View(), NodeHistory()
    seen = []
    for seq, state in enumerate((NodeState.READY, NodeState.DRAINING, NodeState.GONE)):
        view.apply([NodeReport("a", "p", 1, seq, state, 1.0)], float(seq))
        seen += [one.event.kind for one in history.observe(view, float(seq))]
    assert seen == ["node.joined", "node.ready", "node.notice", "node.gone"]
    (rule,) = (rule for rule in rules() if rule["alert"] == "RaylineEvictions")
    (counted,) = re.findall(r'rayline_event=~"([^"]+)"', rule["expr"])
    assert len([kind for kind in seen if re.fullmatch(counted, kind)]) == 1


# Who looks on sees these; Prometheus sees them by its own scrapes, or by a metric of its own.
SEEN_FROM_OUTSIDE = {
    StallKind.LOOP: "rayline_process_loop_age_seconds > 10",
    StallKind.PROCESS: 'up{job="rayline"} == 0',
    StallKind.LANE: "unless count by (rayline_app) (rayline_partition_lag)",
    StallKind.CONFIG: "rayline_config_unreadable == 1",
}


@pytest.mark.parametrize("kind", sorted(set(StallKind) - SEEN_FROM_OUTSIDE.keys() - {StallKind.SOURCE}))
def test_whatever_a_process_says_stands_still_there_is_one_alert_for_it(kind: StallKind) -> None:
    board = MetricsBoard(now=0.0, common={PROCESS: "lane/ocr/0"})
    board.stalls_from(lambda _: [Stall(kind, "ocr.requests/3", 20.0, "nothing moves")])
    assert list(firing(board)) == []
    board.gather(1.0)
    assert len(list(firing(board))) == 1


@pytest.mark.parametrize("kind", sorted(SEEN_FROM_OUTSIDE))
def test_what_a_process_cannot_say_has_an_alert_of_its_own(kind: StallKind) -> None:
    assert [rule["alert"] for rule in rules() if SEEN_FROM_OUTSIDE[kind] in rule["expr"]]


def firing(board: MetricsBoard) -> Iterator[str]:
    """The alerts on stalls that what a process shows would set off."""
    shown = [
        sample
        for family in text_string_to_metric_families(PrometheusPage(board).text().decode())
        for sample in family.samples
        if sample.name == "rayline_process_stalled_seconds"
    ]
    for rule in rules():
        found = re.search(r'rayline_process_stalled_seconds\{(\w+)="(\w+)"\}\) > 0$', rule["expr"])
        if found is not None and any(sample.labels[found[1]] == found[2] and sample.value > 0 for sample in shown):
            yield rule["alert"]
