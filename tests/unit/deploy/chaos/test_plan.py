"""Plans: the shipped ones are sound, errors say what would be right."""

from __future__ import annotations

from pathlib import Path

import pytest

from deploy.chaos.command import run
from deploy.chaos.plan import PLANS, Kind, Target, load_plan, plan_names
from rayline.errors import ConfigError

PROMISED = {
    "notice",
    "pod-kill",
    "freeze",
    "head-kill",
    "mass-eviction",
    "throttle",
    "control-plane",
    "poison",
    "random",
    "overload",
    "all",
}


def test_the_promised_plans_are_shipped() -> None:
    assert set(plan_names()) >= PROMISED


@pytest.mark.parametrize("name", plan_names())
def test_every_shipped_plan_can_be_read_in_both_forms(name: str) -> None:
    plan, short = load_plan(name), load_plan(name, short=True)
    assert short.name == plan.name == name
    assert short.bars == plan.bars
    assert short.load_seconds <= min(60, plan.load_seconds) or name == "all"


# What each plan must show, as it is promised: a bar that is loosened here is loosened for everybody.
PROMISED_BARS: dict[str, dict[str, object]] = {
    "notice": {"outcomes": ("ok",), "notice_p99_ms": 300, "notice_max_ms": 1_000},
    "pod-kill": {"outcomes": ("ok",), "redispatch_p99_ms": 1_000, "job_p99_ms": 5_000, "job_max_ms": 10_000},
    "freeze": {
        "job_max_ms": 10_000,
        "silent_after_ms": 3_500,
        "back_in_rotation_ms": 20_000,
        "share_at_return": 0.5,
        "share_back_ms": 40_000,
        "share_crossings": 1,
    },
    "head-kill": {"job_max_ms": 10_000, "serving_again_ms": 30_000},
    "mass-eviction": {"outcomes": ("ok", "deadline_exceeded"), "extra_attempts_share": 0.2},
    "throttle": {"share_halved_ms": 6_000, "share_back_ms": 30_000, "share_crossings": 1, "disturbed_p99_factor": 1.5},
    "control-plane": {"outcomes": ("ok",), "view_again_ms": 1_000},
    "poison": {"outcomes": ("ok", "quarantined"), "quarantined": 1, "workers_lost": 6},
    "random": {"ok_in_time_share": 0.999},
    "evictions": {"ok_in_time_share": 0.999, "extra_attempts_share": 0.2},
    "notice-article": {"outcomes": ("ok",), "notice_max_ms": 4_000},
    "heads-in-turn": {"outcomes": ("ok",), "job_max_ms": 10_000, "serving_again_ms": 30_000},
    "scale-out": {"outcomes": ("ok",), "job_max_ms": 10_000, "serving_again_ms": 60_000},
    "mass-eviction-all": {"notice_max_ms": 1_000, "extra_attempts_share": 0.2},
    "neighbour": {"outcomes": ("ok",), "job_max_ms": 10_000, "suspected_wrongly": 0},
    "overload": {"outcomes": ("ok", "deadline_exceeded"), "ok_again_ms": 20_000, "normal_again_ms": 20_000},
}


@pytest.mark.parametrize("name", PROMISED_BARS)
def test_a_plan_keeps_the_bars_that_are_promised(name: str) -> None:
    bars = load_plan(name).bars.model_dump()
    assert {key: bars[key] for key in PROMISED_BARS[name]} == PROMISED_BARS[name]


def test_plans_strike_as_often_and_as_long_as_it_is_promised() -> None:
    faults = {name: load_plan(name).faults[0] for name in ("notice", "pod-kill", "freeze", "mass-eviction", "poison")}
    assert (faults["notice"].count, faults["notice"].for_seconds) == (200, 5.0)
    assert faults["pod-kill"].count == 50
    assert faults["freeze"].for_seconds == 60.0
    assert (faults["mass-eviction"].share, faults["mass-eviction"].within) == (0.5, 1.0)
    assert faults["poison"].beside == 1_000
    assert load_plan("random").load_seconds == 600
    assert all(
        (plan.clusters, plan.pods, plan.load.share) == (2, 3, 0.5) for plan in map(load_plan, ("notice", "pod-kill", "freeze"))
    )


def test_the_overload_is_three_times_what_is_sustained_and_then_half_of_it_again() -> None:
    plan = load_plan("overload")
    assert plan.faults == ()
    assert [phase.times * plan.load.share for phase in plan.load.phases] == [0.5, 3.0]
    assert plan.load.bursts() == [(20.0, 50.0)]
    assert plan.load_seconds - 50 >= 60


def test_the_plans_together_strike_every_target_by_every_kind() -> None:
    specs = [spec for name in plan_names() for spec in load_plan(name).faults]
    assert {spec.kind for spec in specs} == set(Kind)
    assert {spec.target for spec in specs} == set(Target)


def test_an_unknown_plan_names_those_that_exist() -> None:
    with pytest.raises(ConfigError, match="lane-kill"):
        load_plan("lane-kil")


@pytest.mark.parametrize(
    ("fault", "named"),
    [
        ("{kind: notice, target: lane, between: [1, 2], for_seconds: 1}", "only a pod"),
        ("{kind: poison, target: pod, between: [1, 2]}", "only a producer"),
        ("{kind: freeze, target: lane, between: [1, 2]}", "for_seconds"),
        ("{kind: kill, target: lane, between: [2, 1]}", "earliest"),
        ("{kind: kill, target: lane}", "between"),
        ("{kind: kill, target: lane, between: [1, 2], every: 3}", "between"),
        ("{kind: kill, target: producer, between: [1, 2]}", "producer"),
        ("{kind: melt, target: lane, between: [1, 2]}", "kind"),
        ("{kind: scale, target: cluster, cluster: c2, between: [1, 2]}", "its pods"),
        ("{kind: kill, target: cluster, between: [1, 2]}", "not a cluster"),
        ("{kind: kill, target: lane, cluster: c1, pods: 2, between: [1, 2]}", "nothing else"),
    ],
)
def test_a_wrong_fault_says_what_is_wrong(tmp_path: Path, fault: str, named: str) -> None:
    path = tmp_path / "own.yaml"
    path.write_text(f"summary: mine\nload_seconds: 5\nfaults:\n  - {fault}\n")
    with pytest.raises(ConfigError, match=named):
        load_plan(str(path))


@pytest.mark.parametrize("text", ["", "summary: mine\nload_seconds: 5\n", "- a list\n", "summary: [\n"])
def test_what_is_no_plan_is_refused_with_its_path(tmp_path: Path, text: str) -> None:
    path = tmp_path / "own.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=r"own\.yaml"):
        load_plan(str(path))


@pytest.mark.parametrize("load", ["{rate: 5}", "{phases: [{seconds: 5, times: 0.5}]}"])
def test_a_plan_that_neither_strikes_nor_overloads_is_refused(tmp_path: Path, load: str) -> None:
    path = tmp_path / "own.yaml"
    path.write_text(f"summary: mine\nload_seconds: 5\nload: {load}\n")
    with pytest.raises(ConfigError, match="faults"):
        load_plan(str(path))


def test_an_impossible_accident_is_refused_when_the_plan_is_read(tmp_path: Path) -> None:
    path = tmp_path / "own.yaml"
    accident = "{kind: notice, target: lane, for_seconds: [1, 2]}"
    path.write_text(f"summary: mine\nload_seconds: 5\nrandom: {{until: 5, mean_seconds: 1, faults: [{accident}]}}\n")
    with pytest.raises(ConfigError, match="only a pod"):
        load_plan(str(path))


def test_a_plan_of_ones_own_is_read_by_its_path() -> None:
    assert load_plan(str(PLANS / "pod-kill.yaml")) == load_plan("pod-kill")


def test_only_plans_that_disturb_the_network_need_a_namespace() -> None:
    assert [name for name in plan_names() if load_plan(name).needs_network] == ["network", "network-storm"]


def test_the_plan_in_the_articles_mode_differs_by_its_settings_and_its_bar_alone() -> None:
    ours, article = load_plan("notice"), load_plan("notice-article")
    assert article.faults == ours.faults
    assert {str(change.key): change.value for change in article.settings()}["global/view.pull_seconds"] == 3
    assert ours.settings() == []
    assert load_plan("notice", config="as-in-the-article").settings() == article.settings()


@pytest.mark.parametrize("config", ["no-such-set", "{global/weights.policy: best}", "{global/nothing: 1}"])
def test_settings_that_are_not_right_are_refused_when_the_plan_is_read(tmp_path: Path, config: str) -> None:
    path = tmp_path / "own.yaml"
    fault = "{kind: kill, target: lane, between: [1, 2]}"
    path.write_text(f"summary: mine\nload_seconds: 5\nconfig: {config}\nfaults: [{fault}]\n")
    with pytest.raises(ConfigError, match=r"own\.yaml"):
        load_plan(str(path))


def test_only_plans_that_leave_nothing_changed_may_strike_somebody_elses_platform() -> None:
    assert [name for name in plan_names() if load_plan(name).stays_changed] == ["notice-article", "scale-out"]
    with pytest.raises(ConfigError, match="--state-dir"):
        run(None, ["scale-out", "--state-dir", "nowhere"])
