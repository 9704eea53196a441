"""What one process makes of config records: scopes, refusals, answers, replay."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from hypothesis import assume, given
from hypothesis import strategies as st

from rayline.config import SETTINGS, AppValues, NodeValues, ProcessIdentity, Role, Verdict
from rayline.config.answer import Answer
from rayline.config.state import ConfigState

LANE = ProcessIdentity(role=Role.LANE, app="ocr", name="0")
AGENT = ProcessIdentity(role=Role.AGENT, cluster="a", node="p1")
GATEWAY = ProcessIdentity(role=Role.GATEWAY, cluster="a", registrar=True)


class Process:
    """A process that takes every value and remembers what was applied."""

    def __init__(self, identity: ProcessIdentity = LANE, base: dict[str, Any] | None = None) -> None:
        self.state = ConfigState(identity=identity, declared=SETTINGS, base=base)
        self.applied: list[tuple[str, Any]] = []
        self.refuses: dict[str, str] = {}
        self.version = 0
        self.state.start(self.apply)
        self.applied.clear()

    def apply(self, name: str, value: Any) -> str | None:
        if name in self.refuses:
            return self.refuses[name]
        self.applied.append((name, value))
        return None

    def take(self, key: str | bytes | None, value: Any = ..., *, raw: bytes | None = None) -> list[Answer]:
        self.version += 1
        given = raw if value is ... else json.dumps(value).encode()
        encoded = key.encode() if isinstance(key, str) else key
        return self.state.take(key=encoded, value=given, version=self.version, apply=self.apply)

    def value(self, name: str) -> Any:
        return self.state.effective()[name].value


def test_the_most_specific_record_counts_and_the_others_are_answered_overridden() -> None:
    lane = Process(base={"batching.max_jobs": 10})
    (answer,) = lane.take("global/batching.max_jobs", 20)
    assert (answer.verdict, answer.effective, lane.value("batching.max_jobs")) == (Verdict.APPLIED, 20, 20)
    answers = {answer.key: answer for answer in lane.take("app/ocr/batching.max_jobs", 30)}
    assert answers["app/ocr/batching.max_jobs"].verdict is Verdict.APPLIED
    assert answers["global/batching.max_jobs"].verdict is Verdict.OVERRIDDEN
    assert answers["global/batching.max_jobs"].effective == 30
    assert answers["global/batching.max_jobs"].version == 1
    assert lane.applied == [("batching.max_jobs", 20), ("batching.max_jobs", 30)]
    answers = {answer.key: answer for answer in lane.take("app/ocr/batching.max_jobs")}
    assert answers["global/batching.max_jobs"].verdict is Verdict.APPLIED
    assert (answers["app/ocr/batching.max_jobs"].verdict, lane.value("batching.max_jobs")) == (Verdict.APPLIED, 20)
    lane.take("global/batching.max_jobs")
    assert lane.value("batching.max_jobs") == 10


def test_a_record_for_others_changes_nothing_and_is_not_answered() -> None:
    lane = Process()
    assert lane.take("app/other/batching.max_jobs", 5) == []
    assert lane.take("global/heartbeat.interval_seconds", 5) == []
    assert lane.applied == []


def test_a_pod_takes_what_is_for_its_cluster_and_what_is_for_itself_before_that() -> None:
    agent = Process(AGENT)
    agent.take("cluster/a/heartbeat.interval_seconds", 2)
    agent.take("node/a/p2/heartbeat.interval_seconds", 9)
    assert agent.value("heartbeat.interval_seconds") == 2.0
    agent.take("node/a/p1/heartbeat.interval_seconds", 3)
    assert agent.value("heartbeat.interval_seconds") == 3.0
    assert agent.take("cluster/b/heartbeat.interval_seconds", 4) == []


def test_a_lane_hears_of_all_nodes_and_the_node_before_its_cluster() -> None:
    lane = Process()
    (first,) = lane.take("cluster/a/traffic.weight", 0.5)
    (second,) = lane.take("node/a/p1/traffic.weight", 2)
    assert (first.verdict, first.effective, second.effective) == (Verdict.APPLIED, 0.5, 2.0)
    values = lane.applied[-1][1]
    assert isinstance(values, NodeValues)
    assert [values.of(node) for node in ("a/p1", "a/p2", "b/p1")] == [2.0, 0.5, 1.0]


def test_an_agent_hears_of_all_apps_models_each_with_the_version_of_its_record() -> None:
    agent, lane = Process(AGENT), Process()
    first, second = ({"m": {"publication": number, "digest": "sha256:" + "0" * 64}} for number in (1, 2))
    (answer,) = agent.take("app/ocr/models", first)
    assert (answer.verdict, answer.effective, answer.source) == (Verdict.APPLIED, first, "app/ocr/models")
    agent.take("app/text/models", second)
    assert agent.applied[-1] == ("models", AppValues({"ocr": (1, first), "text": (2, second)}))
    agent.take("app/ocr/models", first)
    assert agent.applied[-1] == ("models", AppValues({"ocr": (3, first), "text": (2, second)}))
    (canary,) = agent.take("app/ocr/models", {"v": 1, "value": second, "only": "agent/b/p9", "otherwise": first})
    assert (canary.verdict, canary.effective) == (Verdict.OVERRIDDEN, first)
    (gone,) = agent.take("app/ocr/models")
    assert (gone.verdict, gone.effective) == (Verdict.APPLIED, {})
    assert agent.applied[-1] == ("models", AppValues({"text": (2, second)}))
    (refused,) = agent.take("app/ocr/models", {"m": 3})
    assert refused.verdict is Verdict.REJECTED
    assert lane.take("app/ocr/models", first) == []


def test_a_value_that_the_process_cannot_take_changes_nothing_and_says_why() -> None:
    lane = Process()
    lane.take("app/ocr/batching.linger_ms", 5)
    lane.refuses["batching.linger_ms"] = "it would eat the whole SLA"
    (answer,) = lane.take("app/ocr/batching.linger_ms", 60_000)
    assert (answer.verdict, answer.reason) == (Verdict.REJECTED, "it would eat the whole SLA")
    assert (answer.effective, lane.value("batching.linger_ms")) == (5.0, 5.0)


def test_an_invalid_record_leaves_the_last_good_one_in_force() -> None:
    lane = Process()
    lane.take("app/ocr/batching.max_jobs", 7)
    for raw in (b"", b"{", b'"8"', b"0", b"1e999", b"NaN", b"[" * 100_000, b"9" * 10_000, b"\xff", b"true", b" " * 70_000):
        (answer,) = lane.take("app/ocr/batching.max_jobs", raw=raw)
        assert answer.verdict is Verdict.REJECTED, raw[:20]
        assert answer.reason
        assert answer.effective == 7
    assert lane.value("batching.max_jobs") == 7
    assert lane.applied == [("batching.max_jobs", 7)]


def test_a_key_that_says_nothing_is_refused_by_everybody_and_a_scope_that_is_wrong_by_whom_it_covers() -> None:
    everybody = [Process(who) for who in (LANE, AGENT, GATEWAY)]
    for key in (None, b"", b"\xff\xfe/x", "nonsense", "planet/earth/log.level", "global/a/log.level", "app//x", "a" * 5000):
        for process in everybody:
            (answer,) = process.take(key, 1)
            assert answer.verdict is Verdict.REJECTED, key
    verdicts = [[answer.verdict for answer in process.take("node/a/p1/batching.max_jobs", 5)] for process in everybody]
    assert verdicts == [[], [Verdict.REJECTED], [Verdict.REJECTED]]
    for process in everybody:
        assert [answer.verdict for answer in process.take("global/batching.max_job", 5)] == [Verdict.REJECTED]


def test_what_addresses_nobody_is_refused_by_the_registrar() -> None:
    assert Process(LANE).take("app/nobody/batching.max_jobs", "x") == []
    (answer,) = Process(GATEWAY).take("app/nobody/batching.max_jobs", "x")
    assert answer.verdict is Verdict.REJECTED


def test_a_canary_counts_for_one_process_and_the_others_keep_what_they_had() -> None:
    first, second = Process(LANE), Process(ProcessIdentity(role=Role.LANE, app="ocr", name="1"))
    for lane in (first, second):
        lane.take("app/ocr/batching.max_jobs", 10)
    envelope = {"v": 1, "value": 99, "only": "lane/ocr/0", "otherwise": 10}
    verdicts = [lane.take("app/ocr/batching.max_jobs", envelope)[0].verdict for lane in (first, second)]
    assert verdicts == [Verdict.APPLIED, Verdict.OVERRIDDEN]
    assert [lane.value("batching.max_jobs") for lane in (first, second)] == [99, 10]
    for lane in (first, second):
        lane.take("app/ocr/batching.max_jobs", 99)
    assert [lane.value("batching.max_jobs") for lane in (first, second)] == [99, 99]


def test_a_conditional_record_counts_only_right_after_the_one_it_names() -> None:
    lane = Process()
    lane.take("app/ocr/batching.max_jobs", 10)
    lane.take("app/ocr/batching.max_jobs", 20)
    (answer,) = lane.take("app/ocr/batching.max_jobs", {"v": 1, "value": 10, "if_previous": 1})
    assert (answer.verdict, lane.value("batching.max_jobs")) == (Verdict.REJECTED, 20)
    (answer,) = lane.take("app/ocr/batching.max_jobs", {"v": 1, "value": 10, "if_previous": 3})
    assert (answer.verdict, lane.value("batching.max_jobs")) == (Verdict.APPLIED, 10)


def test_an_envelope_without_a_value_deletes() -> None:
    lane = Process()
    lane.take("app/ocr/batching.max_jobs", 10)
    lane.take("app/ocr/batching.max_jobs", {"v": 1, "if_previous": 1})
    assert lane.value("batching.max_jobs") == SETTINGS["batching.max_jobs"].default


def test_a_second_reading_of_the_topic_forgets_what_is_no_longer_in_it() -> None:
    lane = Process()
    lane.take("app/ocr/batching.max_jobs", 10)
    lane.take("app/ocr/batching.linger_ms", 10)
    lane.state.begin_replay()
    lane.take("app/ocr/batching.linger_ms", 10)
    lane.state.end_replay(lane.apply)
    assert lane.value("batching.max_jobs") == SETTINGS["batching.max_jobs"].default
    assert lane.value("batching.linger_ms") == 10.0


def test_another_manifest_counts_where_no_record_does() -> None:
    lane = Process(base={"batching.max_jobs": 10, "sla_seconds": 5.0})
    lane.take("app/ocr/batching.max_jobs", 20)
    lane.state.rebase({"batching.max_jobs": 11, "sla_seconds": 6.0}, lane.apply)
    assert (lane.value("batching.max_jobs"), lane.value("sla_seconds")) == (20, 6.0)


class Choosy(Process):
    """A lane that takes no linger that eats its SLA (10 s, 10 ms without any record)."""

    def __init__(self) -> None:
        self.values: dict[str, Any] = {"batching.linger_ms": 10.0, "sla_seconds": 10.0}
        super().__init__(base=dict(self.values))
        self.state.contradictions = self.contradictions

    @staticmethod
    def contradictions(values: Mapping[str, Any]) -> dict[tuple[str, ...], str]:
        fits = values["batching.linger_ms"] < values["sla_seconds"] * 1000
        return {} if fits else {("batching.linger_ms", "sla_seconds"): "it would eat the whole SLA"}

    def apply(self, name: str, value: Any) -> str | None:
        if name not in self.values:
            return None
        reasons = self.contradictions({**self.values, name: value})
        if not reasons:
            self.values[name] = value
        return next(iter(reasons.values()), None)

    def told(self) -> dict[str, Any]:
        """What it says is in force of those two."""
        return {name: self.value(name) for name in self.values}


LINGER, SLA = "app/ocr/batching.linger_ms", "app/ocr/sla_seconds"


def test_what_was_refused_for_another_setting_counts_once_that_allows_it_and_is_answered_so() -> None:
    lane = Choosy()
    assert [answer.verdict for answer in lane.take(LINGER, 50_000)] == [Verdict.REJECTED]
    answers = lane.take(SLA, 100)
    assert [(answer.key, answer.version, answer.verdict) for answer in answers] == [
        (SLA, 2, Verdict.APPLIED),
        (LINGER, 1, Verdict.APPLIED),
    ]
    assert lane.told() == lane.values == {"batching.linger_ms": 50_000.0, "sla_seconds": 100.0}


def test_a_newer_record_under_its_key_takes_the_place_of_one_that_was_refused() -> None:
    lane = Choosy()
    lane.take(LINGER, 50_000)
    lane.take(LINGER, 20)
    assert [answer.key for answer in lane.take(SLA, 100)] == [SLA]
    assert lane.value("batching.linger_ms") == 20.0


def test_a_deletion_that_was_refused_is_made_up_for() -> None:
    lane = Choosy()
    lane.take(SLA, 100)
    lane.take(LINGER, 50_000)
    assert [answer.verdict for answer in lane.take(SLA)] == [Verdict.REJECTED]
    lane.take(LINGER)
    assert lane.told() == lane.values == {"batching.linger_ms": 10.0, "sla_seconds": 10.0}


def test_a_restart_comes_to_the_same_when_compaction_took_what_once_allowed_a_record() -> None:
    running, restarted = Choosy(), Choosy()
    for key, value in ((SLA, 100), (LINGER, 50_000), (SLA, 90)):
        running.take(key, value)
    restarted.state.begin_replay()
    said = [*restarted.take(LINGER, 50_000), *restarted.take(SLA, 90), *restarted.state.end_replay(restarted.apply)]
    assert restarted.values == running.values == {"batching.linger_ms": 50_000.0, "sla_seconds": 90.0}
    assert [answer.verdict for answer in said if answer.key == LINGER] == [Verdict.REJECTED, Verdict.APPLIED]


def test_two_settings_that_are_forgotten_go_in_whatever_order_they_must() -> None:
    lane = Choosy()
    lane.take(SLA, 100)
    lane.take(LINGER, 50_000)
    lane.state.begin_replay()
    lane.state.end_replay(lane.apply)
    assert lane.told() == lane.values == {"batching.linger_ms": 10.0, "sla_seconds": 10.0}


def test_a_setting_that_contradicts_what_is_left_when_another_is_forgotten_is_told_as_rejected() -> None:
    lane = Choosy()
    lane.take(SLA, 100)
    lane.take(LINGER, 50_000)
    lane.state.begin_replay()
    lane.take(LINGER, 50_000)
    (answer,) = lane.state.end_replay(lane.apply)
    assert (answer.key, answer.verdict, answer.effective, answer.source) == (LINGER, Verdict.REJECTED, 10.0, "manifest")
    assert lane.told() == lane.values == {"batching.linger_ms": 10.0, "sla_seconds": 10.0}


def test_another_manifest_holds_back_what_contradicts_it_and_no_more_until_one_comes_that_does_not() -> None:
    lane = Choosy()
    lane.state.rebase({"batching.linger_ms": 10.0, "sla_seconds": 60.0}, lane.apply)
    lane.take(LINGER, 50_000)
    lane.take("app/ocr/batching.max_jobs", 7)
    (answer,) = lane.state.rebase({"batching.linger_ms": 20.0, "sla_seconds": 5.0}, lane.apply)
    assert (answer.key, answer.version, answer.verdict) == (LINGER, 1, Verdict.REJECTED)
    assert (answer.reason, answer.effective, answer.source) == ("it would eat the whole SLA", 20.0, "manifest")
    assert lane.told() == {"batching.linger_ms": 20.0, "sla_seconds": 5.0}
    assert lane.value("batching.max_jobs") == 7
    (answer,) = lane.state.rebase({"batching.linger_ms": 20.0, "sla_seconds": 60.0}, lane.apply)
    assert (answer.key, answer.version, answer.verdict, answer.effective) == (LINGER, 1, Verdict.APPLIED, 50_000.0)


_two = st.sampled_from(["batching.linger_ms", "sla_seconds"])
_touching = st.tuples(st.sampled_from(["global", "app/ocr"]), _two, st.sampled_from([None, 1, 5, 50, 500, 5_000, 50_000]))


@given(st.lists(_touching, max_size=12))
def test_a_restart_on_a_compacted_topic_comes_to_the_same_where_nothing_was_refused_in_the_end(
    records: list[tuple[str, str, int | None]],
) -> None:
    running, restarted = Choosy(), Choosy()
    newest: dict[str, int | None] = {}
    for scope, name, value in records:
        key = f"{scope}/{name}"
        running.take(key, *(() if value is None else (value,)))
        newest.pop(key, None)
        newest[key] = value
        assert running.told() == running.values
    assume(not running.state._held)
    restarted.state.begin_replay()
    for key, value in newest.items():
        if value is not None:
            restarted.take(key, value)
    restarted.state.end_replay(restarted.apply)
    assert restarted.told() == restarted.values == running.values
    assert not restarted.state._held


_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=10,
)
_values = st.binary(max_size=80) | _json.map(lambda value: json.dumps(value).encode())
_scopes = st.sampled_from(["global", "app/ocr", "app/x", "cluster/a", "node/a/p1", "planet/mars", "app", ""])
_names = st.sampled_from([*SETTINGS, "nothing", "batching.max_job"]) | st.text(max_size=12)
_keys = (
    st.none()
    | st.binary(max_size=40)
    | st.tuples(_scopes, _names).map(lambda parts: "/".join(parts).encode("utf-8", "surrogatepass"))
)


@given(st.lists(st.tuples(_keys, _values | st.none()), max_size=30))
def test_whatever_the_records_are_what_is_in_force_is_always_valid_and_each_refusal_has_a_reason(
    records: list[tuple[bytes | None, bytes | None]],
) -> None:
    for who in (LANE, AGENT, GATEWAY):
        process = Process(who)
        for version, (key, value) in enumerate(records):
            before = process.state.effective()
            answers = process.state.take(key=key, value=value, version=version, apply=process.apply)
            assert all(Answer(**_fields(answer)) == answer and answer.record_key.decode() for answer in answers)
            if any(answer.verdict is Verdict.REJECTED for answer in answers):
                assert process.state.effective() == before
                assert all(answer.reason for answer in answers)
            for name, now in process.state.effective().items():
                assert SETTINGS[name].check(now.value) == now.value


@given(st.lists(st.tuples(_keys, _values | st.none()), max_size=30))
def test_a_restart_that_replays_the_topic_comes_to_the_same_values(records: list[tuple[bytes | None, bytes | None]]) -> None:
    first, second = Process(), Process()
    for version, (key, value) in enumerate(records):
        first.state.take(key=key, value=value, version=version, apply=first.apply)
    for version, (key, value) in enumerate(records):
        second.state.take(key=key, value=value, version=version, apply=second.apply)
    assert first.state.effective() == second.state.effective()


def _fields(answer: Answer) -> dict[str, Any]:
    return {name: getattr(answer, name) for name in Answer.__dataclass_fields__}
