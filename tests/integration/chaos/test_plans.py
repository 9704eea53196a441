"""Faults under load on a real platform: nothing is lost, nothing is doubled, and service comes back in time."""

from __future__ import annotations

import sys
import tempfile
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import pytest_asyncio

from deploy.chaos.leftovers import family, left_over
from deploy.chaos.plan import Fault, Kind, Target
from deploy.chaos.run import deploy_echo, strike_under_load
from deploy.chaos.verdict import Verdict
from deploy.local.platform import LocalPlatform, PlatformPlan

pytestmark = [pytest.mark.integration, pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(240)]

RATE_PER_SECOND = 60.0


@dataclass(frozen=True, slots=True)
class Site:
    """A platform that is up, and the app of chaos on it."""

    platform: LocalPlatform
    app: str


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def site() -> AsyncIterator[Site]:
    """Two clusters of one pod, two lanes, for all plans of this module; at the end no process of it may be left."""
    with tempfile.TemporaryDirectory(prefix="rayline-chaos-") as folder:
        (Path(folder) / "logs").mkdir()
        # The broker of the test session is of this family, too, and stays.
        others = set(family())
        plan = PlatformPlan(state_dir=Path(folder), clusters=2, pods_per_cluster=1, lanes_per_app=2)
        async with LocalPlatform(plan) as platform:
            state = platform.folder.read()
            assert state is not None
            yield Site(platform, await deploy_echo(platform, nodes=2))
            processes = [process for process in family() if process not in others]
        assert left_over(processes, state.run_id) == 0


def stroke(kind: Kind, target: Target, *, at: float = 1.5, hold: float = 0.0, draw: float = 0.0) -> Fault:
    return Fault(at_seconds=at, kind=kind, target=target, draw=draw, for_seconds=hold)


@pytest.mark.parametrize(
    ("name", "schedule", "load_seconds", "recovered_ms"),
    [
        ("worker-kill", [stroke(Kind.KILL, Target.WORKER)], 5.0, 8_000),
        ("lane-kill twice", [stroke(Kind.KILL, Target.LANE), stroke(Kind.KILL, Target.LANE, at=2.6)], 7.0, 8_000),
        ("lane-freeze", [stroke(Kind.FREEZE, Target.LANE, hold=9.0)], 13.0, 10_000),
        ("pod-notice", [stroke(Kind.NOTICE, Target.POD, hold=2.0)], 6.0, 8_000),
        ("broker-restart", [stroke(Kind.KILL, Target.BROKER)], 6.0, 30_000),
        ("pod-kill", [stroke(Kind.KILL, Target.POD, draw=0.99)], 6.0, 8_000),
        ("head-kill", [stroke(Kind.KILL, Target.HEAD, draw=0.99)], 6.0, 8_000),
    ],
    ids=lambda value: value.replace(" ", "-") if isinstance(value, str) else "",
)
async def test_nothing_is_lost_or_doubled(
    site: Site, name: str, schedule: list[Fault], load_seconds: float, recovered_ms: float
) -> None:
    # Whatever the plan before took away is back, so that each plan strikes a whole platform.
    await site.platform.wait_app_ready(site.app, nodes=2)
    found = await strike_under_load(
        site.platform, app=site.app, schedule=schedule, rate_per_second=RATE_PER_SECOND, load_seconds=load_seconds
    )
    verdict = Verdict.of(
        plan=name,
        seed=0,
        report=found.report,
        answers=found.answers,
        strokes=found.strokes,
        begun_ms=found.begun_ms,
        left_over_processes=0,
    )
    sys.stdout.write(f"\n{name}: {verdict.to_json()}\n")
    assert verdict.jobs == int(RATE_PER_SECOND * load_seconds)
    assert verdict.missed_bars() == []
    assert len(verdict.strokes) == len(schedule)
    assert all("none ran" not in stroke.target for stroke in verdict.strokes)
    assert verdict.recovery_ms <= recovered_ms
