"""The model that screens look at, under virtual time."""

from __future__ import annotations

import json
from dataclasses import asdict

from deploy.observation import Snapshot
from deploy.observation.journal import MAX_EVENTS
from deploy.observation.latency import MOST_VERSIONS
from deploy.observation.model import BROKER, Model, results_source
from rayline.app_spec import AppSpec
from rayline.bus import LogRecord
from rayline.clusters import DesiredCluster, encode_entry
from rayline.config import Answer, Presence, ProcessIdentity, Role, Verdict
from rayline.events import Event, encode_event
from rayline.lane_record import LaneRecord, encode_lane_record
from rayline.reports import ActorEndpoint, NodeLoad, NodeReport, NodeState
from rayline.stalls import Stall, StallKind
from scheduler.listener import Heard
from scheduler.node_history import EVENT_ID

NOW = 100.0
NOW_MS = 1_700_000_000_000


def record(key: str | None, value: bytes | None, *, at_ms: int = NOW_MS, offset: int = 0, **headers: str) -> LogRecord:
    named = tuple((name.replace("_", "-"), text.encode()) for name, text in headers.items())
    return LogRecord(0, offset, at_ms, None if key is None else key.encode(), value, named)


def app(model: Model, name: str = "ocr", **fields: object) -> None:
    spec = AppSpec(name, "7", "/app", "m:f", **fields)  # type: ignore[arg-type]
    model.take_app(record(name, json.dumps(spec.as_dict()).encode()))


def node(model: Model, name: str, *, at: float = NOW, **fields: object) -> None:
    actor = ActorEndpoint("ocr", "7", f"a-{name}", "h", 1, 2, "i")
    base = NodeReport("c1", name, NOW_MS - 5_000, 1, NodeState.READY, cpus=2.0, actors=(actor,), beat=True)
    values = {field: getattr(base, field) for field in base.__dataclass_fields__} | fields
    model.take_nodes(Heard([NodeReport(**values)], at, at))


def answering() -> Model:
    model = Model(broker="b:9092", started_ms=NOW_MS)
    model.expect([BROKER])
    model.source_read(BROKER, NOW_MS)
    return model


def look(model: Model, *, after: float = 0.0) -> Snapshot:
    return model.snapshot(NOW + after, NOW_MS + round(after * 1000))


def test_a_node_carries_what_lanes_say_of_it() -> None:
    model = answering()
    node(model, "n1", load=NodeLoad(cores=2.0, own_cpu=1.0, jobs_in_flight=9))
    node(model, "n2")
    for lane, share in (("0", 0.25), ("1", 0.75)):
        told = LaneRecord("ocr", lane, False, 2, {"c1/n1": {"weight": 1.5, "share": share, "running": 2, "note": None}})
        model.take_lane(record(told.key.decode(), encode_lane_record(told)))
    first, second = look(model).nodes
    assert (first.weight, first.share, first.in_flight, first.jobs_in_flight, first.cpu) == (1.5, 0.5, 4, 9, 0.5)
    assert (second.weight, second.share, second.in_flight, second.cpu) == (None, None, None, None)


def test_a_lanes_new_word_replaces_its_old_one_whatever_stood_in_it() -> None:
    model = answering()
    node(model, "n1")
    words: list[dict[str, object]] = [
        {"weight": float("nan"), "share": 10**400, "running": "x", "note": 7},
        {},
        {"weight": 4.0, "share": 0.5, "running": 1, "note": "slow start"},
    ]
    for lane in ("0", "1"):
        for word in words:
            value = json.dumps({"v": 1, "stale": False, "nodes_total": 1, "nodes": {"c1/n1": word}}).encode()
            model.take_lane(record(f"lanes/ocr/{lane}", value))
    (row,) = look(model).nodes
    assert (row.weight, row.share, row.in_flight, row.note) == (4.0, 0.5, 2, "slow start")
    for lane in ("0", "1"):
        model.take_lane(record(f"lanes/ocr/{lane}", None))
    (row,) = look(model).nodes
    assert (row.weight, row.share, row.in_flight, row.note) == (None, None, None, None)


def test_silence_of_one_node_is_its_own_and_silence_of_all_is_ours() -> None:
    model = answering()
    node(model, "n1")
    node(model, "n2")
    node(model, "n2", at=NOW + 6, seq=2)
    states = {row.node: (row.state, row.reason) for row in look(model, after=6).nodes}
    assert states == {"n1": ("suspect", "no beat for 6 s"), "n2": ("ready", None)}
    model.source_read(BROKER, NOW_MS + 20_000)
    late = look(model, after=20)
    assert late.nodes_stale
    assert StallKind.NODES in {stall.kind for stall in late.stalls}
    assert {row.state for row in late.nodes if row.node == "n2"} == {"ready"}


def test_what_was_never_read_is_unknown_and_not_zero() -> None:
    model = answering()
    model.expect(["apps", "nodes"])
    app(model)
    snapshot = look(model)
    (row,) = snapshot.apps
    assert not snapshot.caught_up
    assert (row.lag, row.rate_in, row.rate_out, row.windows, row.dead_letters, row.recent) == (None, None, None, {}, None, None)
    assert {source.source for source in snapshot.sources if not source.known} == {"apps", "nodes"}


def test_an_app_tells_rates_lag_outcomes_and_misses() -> None:
    model = answering()
    app(model, sla_seconds=1.0)
    model.source_read(results_source("ocr"), NOW_MS)
    model.take_offsets("ocr", {0: 100, 1: 100}, {0: 90, 1: 100}, NOW_MS)
    model.take_offsets("ocr", {0: 200, 1: 100}, {0: 150, 1: 100}, NOW_MS + 5_000)
    results = [
        record(None, b"", at_ms=NOW_MS + 4_000, outcome=outcome, timing=f"queue={queue},execute=10.0")
        for outcome, queue in (("ok", 10.0), ("ok", 1_990.0), ("deadline_exceeded", 1_000.0), ("error", 10.0))
    ]
    model.take_results("ocr", [*results, record(None, b"", nonsense="1")], NOW_MS + 5_000)
    model.take_dead_letters("ocr", 3, 0)
    (row,) = look(model, after=5).apps
    assert (row.lag, row.rate_in, row.rate_out) == (50, 20.0, 0.4)
    assert [(one.partition, one.lag) for one in row.partitions] == [(0, 50), (1, 0)]
    assert row.recent is not None
    assert row.recent.outcomes == {"ok": 2, "error": 1, "deadline_exceeded": 1}
    assert (row.recent.misses, row.recent.max_ms, row.recent.exact) == (2, 2_000.0, True)
    assert (row.dead_letters, row.dead_letters_exact) == (3, True)


def lane(model: Model, *, at_ms: int = NOW_MS, name: str = "0", stalls: tuple[Stall, ...] = ()) -> None:
    presence = Presence(ProcessIdentity(role=Role.LANE, app="ocr", name=name), stalls=stalls)
    model.take_applied(record(presence.record_key.decode(), presence.encode(), at_ms=at_ms))


def stand_still(model: Model, seconds: int) -> None:
    """Of partition 0 nothing is committed, 1 moves, 2 is empty; the lane lives and the broker answers all the time."""
    for second in range(0, seconds + 1, 2):
        now_ms = NOW_MS + second * 1000
        model.take_offsets("ocr", {0: 10, 1: 100, 2: 5}, {0: 4, 1: second, 2: 5}, now_ms)
        model.source_read(BROKER, now_ms)
        lane(model, at_ms=now_ms)


def test_a_partition_with_lag_that_does_not_move_is_told_and_one_that_moves_is_not() -> None:
    model = answering()
    app(model, sla_seconds=10.0)
    stand_still(model, 30)
    stalls = look(model, after=30).stalls
    assert [(stall.kind, stall.subject, stall.since_ms) for stall in stalls] == [(StallKind.PARTITION, "ocr.requests/0", NOW_MS)]
    assert "6 jobs lie in partition 0" in stalls[0].text
    model.take_offsets("ocr", {0: 10, 1: 100, 2: 5}, {0: 10, 1: 100, 2: 5}, NOW_MS + 31_000)
    assert look(model, after=31).stalls == ()


def test_a_partition_that_its_lane_tells_of_is_told_once_with_the_lanes_reason() -> None:
    model = answering()
    app(model, sla_seconds=10.0)
    stand_still(model, 30)
    own = Stall(StallKind.OPEN_TRANSACTION, "ocr.requests/0", 12.0, "end that producer")
    lane(model, at_ms=NOW_MS + 30_000, stalls=(own,))
    (stall,) = look(model, after=30).stalls
    assert (stall.kind, stall.process, stall.since_ms) == (StallKind.OPEN_TRANSACTION, "lane/ocr/0", NOW_MS + 18_000)
    assert "end that producer" in stall.text


def test_jobs_that_wait_without_any_lane_are_told_at_once() -> None:
    model = answering()
    app(model)
    model.take_offsets("ocr", {0: 10}, {0: 4}, NOW_MS)
    assert [(stall.kind, stall.subject) for stall in look(model).stalls] == [(StallKind.LANE, "ocr")]
    lane(model)
    assert look(model).stalls == ()


def test_after_a_broker_was_away_nobody_is_blamed_for_its_silence() -> None:
    model = answering()
    app(model, sla_seconds=10.0)
    lane(model)
    model.take_offsets("ocr", {0: 10}, {0: 4}, NOW_MS)
    assert [stall.kind for stall in look(model, after=60).stalls] == [StallKind.BROKER]
    model.source_read(BROKER, NOW_MS + 60_000)
    model.take_offsets("ocr", {0: 10}, {0: 4}, NOW_MS + 60_000)
    assert look(model, after=61).stalls == ()
    for second in range(60, 88, 2):
        model.source_read(BROKER, NOW_MS + second * 1000)
    assert {stall.kind for stall in look(model, after=88).stalls} == {StallKind.PROCESS, StallKind.PARTITION}


def test_a_broker_that_does_not_answer_is_one_stall_and_not_one_for_each_source() -> None:
    model = answering()
    model.expect(["apps"])
    model.source_failed("apps", "cannot be read")
    model.source_failed(BROKER, "no answer")
    assert [stall.kind for stall in look(model, after=5).stalls] == [StallKind.BROKER]
    assert not look(model, after=5).answering
    model.source_read(BROKER, NOW_MS + 6_000)
    assert [(stall.kind, stall.subject) for stall in look(model, after=6).stalls] == [(StallKind.SOURCE, "apps")]


def test_a_broker_that_hangs_without_an_error_is_told_as_well() -> None:
    model = answering()
    assert look(model, after=2).stalls == ()
    assert [stall.kind for stall in look(model, after=4).stalls] == [StallKind.BROKER]


def test_a_lane_that_says_nothing_any_more_is_told_and_one_that_ended_is_not() -> None:
    model = answering()
    app(model)
    for name in ("0", "1"):
        presence = Presence(ProcessIdentity(role=Role.LANE, app="ocr", name=name))
        model.take_applied(record(presence.record_key.decode(), presence.encode()))
    ended = Presence(ProcessIdentity(role=Role.LANE, app="ocr", name="1"))
    model.take_applied(record(ended.record_key.decode(), None))
    for second in range(2, 27, 2):
        model.source_read(BROKER, NOW_MS + second * 1000)
    snapshot = look(model, after=26)
    assert [(row.lane, row.silent) for row in snapshot.lanes] == [("0", True)]
    assert [(stall.kind, stall.subject) for stall in snapshot.stalls] == [(StallKind.PROCESS, "lane/ocr/0")]


def test_a_process_that_cannot_read_its_settings_is_told() -> None:
    model = answering()
    presence = Presence(ProcessIdentity(role=Role.KEEPER, name="k"), problem="the topic is gone")
    model.take_applied(record(presence.record_key.decode(), presence.encode()))
    assert [(stall.kind, stall.subject) for stall in look(model).stalls] == [(StallKind.CONFIG, "keeper/k")]


def test_an_event_that_several_resources_saw_stands_once_and_in_order() -> None:
    model = answering()
    lost = encode_event(Event("resource", "node.lost", "c1/n1", "c1/n1 is lost"))
    for offset in (1, 2):
        model.take_event(record("c1/n1", lost, offset=offset, at_ms=NOW_MS + 9, **{EVENT_ID: "lost/1"}))
    built = encode_event(Event("keeper", "cluster.built", "c1", "cluster c1 is being built"))
    model.take_event(record("c1", built, offset=3, at_ms=NOW_MS))
    model.take_event(record("c1", b"nonsense", offset=4))
    events = look(model).events
    assert [(event.kind, event.mark) for event in events] == [("node.lost", "lost"), ("cluster.built", "built")]
    assert [mark.kind for mark in model.series(None, NOW_MS + 1000, 60).marks] == ["cluster.built", "node.lost"]


def test_a_setting_tells_its_value_who_took_it_and_what_was_refused() -> None:
    model = answering()
    key = "app/ocr/batching.max_jobs"
    for name in ("0", "1", "gone"):
        at_ms = NOW_MS - 900_000 if name == "gone" else NOW_MS
        presence = Presence(ProcessIdentity(role=Role.LANE, app="ocr", name=name))
        model.take_applied(record(presence.record_key.decode(), presence.encode(), at_ms=at_ms))
    model.take_config(record(key, b"64", offset=5))
    for name, verdict in (("0", Verdict.APPLIED), ("1", Verdict.REJECTED), ("gone", Verdict.APPLIED)):
        answer = Answer(key, 5, f"lane/ocr/{name}", verdict, 64, key, "too small" if name == "1" else None)
        model.take_applied(record(None, answer.encode()))
    (row,) = look(model).config
    assert (row.key, row.value, row.applied, row.rejected) == (key, 64, ("lane/ocr/0",), {"lane/ocr/1": "too small"})
    model.take_config(record("global/nonsense", b"1", offset=6))
    assert {row.key: row.refusal is None for row in look(model).config} == {key: True, "global/nonsense": False}
    model.take_config(record(key, None, offset=7))
    assert [row.key for row in look(model).config] == ["global/nonsense"]
    assert {event.kind for event in look(model).events} == {"config.set", "config.refused", "config.deleted"}


def test_a_cluster_shows_what_is_wanted_and_what_reports() -> None:
    model = answering()
    key, value = encode_entry(DesiredCluster("c1", 3))
    model.take_cluster(record(key.decode(), value))
    model.take_cluster(record("nonsense", b"{}"))
    node(model, "n1")
    node(model, "n2", cluster="foreign")
    rows = {row.cluster: row for row in look(model).clusters}
    assert (rows["c1"].desired_pods, rows["c1"].nodes) == (3, {"ready": 1})
    assert (rows["foreign"].desired_pods, rows["foreign"].state) == (None, "reporting")


def test_looks_at_nodes_and_clusters_are_kept_and_bounded() -> None:
    model = answering()
    for step in range(400):
        node(model, "n1", at=NOW + step * 5, seq=step + 1, load=NodeLoad(cores=2.0, own_cpu=0.5))
        model.tick(NOW + step * 5, NOW_MS + step * 5_000)
    points = model.node_series("c1/n1").points
    assert len(points) == 180
    assert (points[-1].at_ms, points[-1].cpu, points[-1].weight) == (NOW_MS + 399 * 5_000, 0.25, None)
    assert len(model.node_series("c1").points) == 180
    assert model.node_series("c1/unknown").points == ()


def test_events_are_bounded_and_a_snapshot_is_plain_json() -> None:
    model = answering()
    app(model)
    node(model, "n1")
    for number in range(MAX_EVENTS + 50):
        event = Event("keeper", "pod.started", "c1", f"number {number}")
        model.take_event(record("c1", encode_event(event), offset=number))
    snapshot = look(model)
    assert len(snapshot.events) == MAX_EVENTS
    assert snapshot.events[0].text == f"number {MAX_EVENTS + 49}"
    assert json.loads(json.dumps(snapshot.as_dict()))["apps"][0]["app"] == "ocr"
    json.dumps(asdict(model.series("ocr", NOW_MS)))


def test_records_that_cannot_be_read_change_nothing() -> None:
    model = answering()
    app(model)
    for take in (model.take_app, model.take_cluster, model.take_event, model.take_config, model.take_applied, model.take_lane):
        for value in (b"", b"\xff\x00", b"{}", b"[]", b"null", b"9" * 400):
            take(record("ocr", value))
            take(record("lanes/ocr/0", value))
    snapshot = look(model)
    assert [row.version for row in snapshot.apps] == ["7"]
    assert snapshot.lanes == ()


def test_a_silent_node_is_lost_when_the_setting_says_so() -> None:
    model = answering()
    node(model, "n1")
    node(model, "n2", at=NOW + 9)
    assert [row.state for row in look(model, after=9).nodes] == ["suspect", "ready"]
    model.take_config(record("global/view.lost_seconds", b"8"))
    assert [row.state for row in look(model, after=9).nodes] == ["lost", "ready"]
    model.take_config(record("global/view.lost_seconds", None))
    assert [row.state for row in look(model, after=9).nodes] == ["suspect", "ready"]


def test_each_version_that_answers_is_told_with_its_share_and_what_is_no_answer_is_not() -> None:
    model = answering()
    app(model)
    model.source_read(results_source("ocr"), NOW_MS)
    told = [("7", "ok")] * 3 + [("6", "error")] + [("7", "deadline_exceeded"), ("5", "quarantined")] * 5
    results = [record(None, b"", at_ms=NOW_MS + 4_000, app_version=version, outcome=outcome) for version, outcome in told]
    unnamed = record(None, b"", at_ms=NOW_MS + 4_000, outcome="ok")
    hostile = [record(None, b"", at_ms=NOW_MS + 4_000, app_version=f"\x1b[2J{n}", outcome="invalid") for n in range(2)]
    model.take_results("ocr", [*results, unnamed, *hostile], NOW_MS + 5_000)
    (row,) = look(model, after=5.0).apps
    assert {window.seconds: window.version_shares() for window in row.windows.values()}[60] == [("7", 0.75), ("6", 0.25)]
    strange = [record(None, b"", at_ms=NOW_MS + 4_000, app_version=f"\x1b[2J{n}", outcome="ok") for n in range(500)]
    model.take_results("ocr", strange, NOW_MS + 5_000)
    (row,) = look(model, after=65.0).apps
    versions = row.windows[max(row.windows)].versions
    assert len(versions) <= 2 * MOST_VERSIONS
    assert all(version.isprintable() for version in versions)
