"""Faults under load on a real platform: nothing is lost, nothing is doubled, and service comes back in time."""

from __future__ import annotations

import sys
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from deploy.chaos.leftovers import family, left_over
from deploy.chaos.picture import save_picture
from deploy.chaos.plan import Bars, FaultSpec, LoadSpec, Plan
from deploy.chaos.run import Theatre, open_theatre, strike_under_load, watched
from deploy.chaos.schedule import draw_schedule
from deploy.chaos.verdict import Verdict
from deploy.local.platform import LocalPlatform, PlatformPlan

pytestmark = [pytest.mark.integration, pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(240)]

RATE_PER_SECOND = 30.0


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def theatre() -> AsyncIterator[Theatre]:
    """Two clusters of one pod, two lanes, for all plans of this module; at the end no process of it may be left."""
    with tempfile.TemporaryDirectory(prefix="rayline-chaos-") as folder:
        for name in ("logs", "record"):
            (Path(folder) / name).mkdir()
        # The broker of the test session is of this family, too, and stays.
        others = set(family())
        plan = PlatformPlan(state_dir=Path(folder), clusters=2, pods_per_cluster=1, lanes_per_app=2)
        platform = LocalPlatform(plan)
        async with watched(platform, None) as census, platform:
            state = platform.folder.read()
            assert state is not None
            yield await open_theatre(platform, census, record=Path(folder) / "record", pods=2, work_ms=5)
            processes = [process for process in family() if process not in others]
        assert left_over(processes, state.run_id) == 0


def fault(kind: str, target: str, at: float = 1.5, **options: Any) -> FaultSpec:
    return FaultSpec.model_validate({"kind": kind, "target": target, "between": (at, at), **options})


@pytest.mark.parametrize(
    ("name", "faults", "load_seconds", "bars"),
    [
        ("worker-kill", [fault("kill", "worker")], 5.0, {}),
        ("lane-kill-twice", [fault("kill", "lane", again_within=(1, 1))], 7.0, {}),
        ("lane-freeze", [fault("freeze", "lane", for_seconds=9)], 13.0, {}),
        ("pod-notice", [fault("notice", "pod", for_seconds=5)], 6.0, {"notice_max_ms": 3_000, "outcomes": ["ok"]}),
        ("broker-restart", [fault("kill", "broker")], 6.0, {}),
        ("pod-kill", [fault("kill", "pod", pick="newest")], 6.0, {}),
        (
            "poison",
            [fault("poison", "producer", beside=64)],
            8.0,
            {"workers_lost": 6, "outcomes": ["ok", "quarantined", "deadline_exceeded"]},
        ),
        ("head-kill", [fault("kill", "head", pick="newest")], 6.0, {}),
    ],
    ids=[
        "worker-kill",
        "lane-kill-twice",
        "lane-freeze",
        "pod-notice",
        "broker-restart",
        "pod-kill",
        "poison",
        "head-kill",
    ],
)
async def test_nothing_is_lost_or_doubled(
    theatre: Theatre, tmp_path: Path, name: str, faults: list[FaultSpec], load_seconds: float, bars: dict[str, Any]
) -> None:
    # Whatever the plan before took away is back, so that each plan strikes a whole platform.
    await theatre.platform.wait_app_ready(theatre.app, nodes=2)
    plan = Plan(
        name=name,
        summary=name,
        load_seconds=load_seconds,
        tail_seconds=1,
        load=LoadSpec(rate=RATE_PER_SECOND),
        clusters=2,
        pods=1,
        faults=tuple(faults),
        bars=Bars.model_validate(bars),
    )
    found = await strike_under_load(theatre, plan=plan, schedule=draw_schedule(plan, 1))
    verdict = Verdict(plan=plan, seed=1, found=found, left_over_processes=0)
    sys.stdout.write(f"\n{name}: {verdict.to_json()}\n")
    assert verdict.jobs >= int(RATE_PER_SECOND * load_seconds) - 2
    assert verdict.missed_bars() == []
    assert all(stroke.skipped is None for stroke in verdict.strokes)
    assert len({execution.job for execution in found.evidence.executions}) >= verdict.outcomes["ok"]
    assert found.evidence.sent, "the kernel saw no batch go to any node"
    save_picture(tmp_path / "run.png", verdict)
