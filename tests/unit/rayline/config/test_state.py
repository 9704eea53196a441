"""What one process makes of config records: scopes, refusals, answers, replay."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import given
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
