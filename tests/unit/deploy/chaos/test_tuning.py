"""What a plan changes of the platform that it strikes: settings, retries left out, packets disturbed, clusters made larger."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import pytest

from deploy.chaos.effects.network import Direction, Disturbance
from deploy.chaos.faults import FaultInjector, Stroke, disturbance_of
from deploy.chaos.plan import FaultSpec, Kind, Target, load_plan
from deploy.chaos.schedule import draw_schedule
from deploy.chaos.site import Seen
from deploy.chaos.tuning import app_of, set_config
from deploy.config_change import Effect, Outcome
from rayline.app_spec import AppSpec, Retries
from rayline.bus import KafkaSettings
from rayline.config import Change
from rayline.config.answer import Verdict
from rayline.errors import ConfigError
from tests.unit.deploy.chaos.staged import FAULT_MS, PODS, evidence, execution, stroke, verdict

SETTINGS = KafkaSettings(bootstrap_servers="127.0.0.1:1")


class Written:
    """A changer whose processes take everything, but for the keys that they refuse."""

    def __init__(self) -> None:
        self.keys: list[str] = []
        self.refused: set[str] = set()

    async def write(self, change: Change, *, why: str) -> int:
        self.keys.append(str(change.key))
        assert "notice-article" in why
        return len(self.keys)

    async def wait(self, change: Change, version: int, **_: object) -> Outcome:
        verdict = Verdict.REJECTED if str(change.key) in self.refused else Verdict.APPLIED
        return Outcome(str(change.key), version, [Effect("lane/a/0", None, change.value, verdict)])


@pytest.fixture
def written(monkeypatch: pytest.MonkeyPatch) -> Written:
    written = Written()

    @asynccontextmanager
    async def opened(*_: object, **__: object) -> AsyncIterator[Any]:
        yield written

    monkeypatch.setattr("deploy.chaos.tuning.ConfigBoard", opened)
    monkeypatch.setattr("deploy.chaos.tuning.Changer", opened)
    return written


async def test_a_plan_puts_its_settings_in_force_or_does_not_begin(written: Written) -> None:
    plan = load_plan("notice-article")
    await set_config(SETTINGS, plan)
    assert written.keys == [str(change.key) for change in plan.settings()]
    written.refused.add("global/view.pull_seconds")
    with pytest.raises(ConfigError, match="pull_seconds"):
        await set_config(SETTINGS, plan)


async def test_a_plan_without_settings_writes_none(written: Written) -> None:
    await set_config(SETTINGS, load_plan("notice"))
    assert written.keys == []


def test_without_retries_no_cause_leads_to_another_attempt() -> None:
    app = AppSpec("a", "1", "/", "m:f", retries=Retries(errors=3))
    assert app_of(load_plan("evictions"), app) is app
    left = app_of(load_plan("evictions", retry=False), app).retries
    assert (left.errors, left.evictions, left.timeouts, left.kills) == (0, 0, 0, 1)


@pytest.mark.parametrize(
    ("fault", "disturbance"),
    [
        ({"kind": "partition"}, Disturbance(100)),
        ({"kind": "partition", "direction": "from"}, Disturbance(100, direction=Direction.FROM)),
        ({"kind": "loss", "percent": 30, "direction": "to"}, Disturbance(30, direction=Direction.TO)),
        ({"kind": "loss", "rate_mbit": 3}, Disturbance(10, rate_mbit=3)),
        ({"kind": "delay", "reorder_percent": 25}, Disturbance(delay_ms=100, jitter_ms=50, reorder_percent=25)),
    ],
)
def test_a_fault_of_the_network_says_what_happens_to_packets(fault: dict[str, object], disturbance: Disturbance) -> None:
    spec = FaultSpec.model_validate({"target": "pod", "between": (0, 0), "for_seconds": 1, **fault})
    assert disturbance_of(spec) == disturbance


def test_disturbances_are_what_the_kernels_tools_take() -> None:
    assert Disturbance(100).match() == ""
    assert Disturbance(30).match() == "numgen random mod 100 < 30 "
    assert Disturbance(10, rate_mbit=3).match() == "limit rate over 375 kbytes/second "
    assert Disturbance().match() is None
    whole = Disturbance(delay_ms=100, jitter_ms=50, duplicate_percent=5, reorder_percent=25, corrupt_percent=1)
    assert " ".join(whole.netem()) == "delay 100ms 50ms duplicate 5% reorder 25% corrupt 1%"


async def test_a_scale_is_ordered_and_told_as_a_stroke() -> None:
    ordered: list[tuple[str, int]] = []
    told: list[Stroke] = []
    nothing: Any = None

    async def scale(cluster: str, pods: int) -> None:
        ordered.append((cluster, pods))

    injector = FaultInjector(site=nothing, load=nothing, network=None, on_stroke=told.append, scale=scale)
    plan = load_plan("scale-out")
    await injector.run([replace(fault, at_seconds=0.0) for fault in draw_schedule(plan, 1)])
    assert sorted(ordered) == [("c1", 3), ("c2", 2), ("c3", 2)]
    assert sorted((stroke.kind, stroke.target, stroke.cluster) for stroke in told) == [
        (Kind.SCALE, "c1 to 3", "c1"),
        (Kind.SCALE, "c2 to 2", "c2"),
        (Kind.SCALE, "c3 to 2", "c3"),
    ]


def test_what_was_scaled_serves_with_the_first_job_in_a_pod_that_is_new() -> None:
    scaled = stroke(Kind.SCALE, Target.CLUSTER, session=0, cluster="c2")
    new = Seen("c2/pod-201", "c2", 201, FAULT_MS + 20_000)
    seen = replace(evidence(executions=[execution(1, 101, 5.0), execution(2, 201, 21_000.0)]), pods=(*PODS.values(), new))
    assert verdict(strokes=[scaled], seen=seen).serving_again_ms == 21_000.0
    never = replace(seen, executions=seen.executions[:1])
    assert verdict(strokes=[scaled], seen=never).serving_again_ms is None
