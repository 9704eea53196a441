"""Deploying with a share: in no moment between its records does a node run anything but the old version or the new one."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from deploy import rollouts
from deploy.rollouts import Rollout, roll_out
from rayline.app_spec import AppSpec
from rayline.bus import KafkaSettings
from rayline.config import AppValues
from rayline.rollout import Shares, place_of
from tests.support.registry import registry_of

NOWHERE = KafkaSettings("127.0.0.1:1")
NODES = [f"c/pod-{number}" for number in range(30)]


def spec(version: str, previous: str | None = None) -> AppSpec:
    return AppSpec("app", version, "/", "m:f", previous=None if previous is None else spec(previous))


class Platform:
    """The two records of an app, and what each node is to run after each change of either."""

    def __init__(self, running: AppSpec | None, share: float = 1.0) -> None:
        self.running, self.share = running, share
        self.written: list[Any] = []
        self.seen: list[dict[str, str]] = []

    def nodes(self) -> dict[str, str]:
        assert self.running is not None
        shares = Shares(AppValues({"app": (0, self.share)}))
        return {node: shares.spec_on(self.running, node).version for node in NODES}

    def stand_in(self, monkeypatch: pytest.MonkeyPatch) -> None:
        platform = self

        async def nothing(*_: object) -> list[Any]:
            return []

        async def publish(_settings: object, deployed: AppSpec) -> list[Any]:
            platform.running = deployed
            platform.note(deployed)
            return []

        async def set_share(_settings: object, _app: str, share: float, _say: object) -> None:
            platform.share = share
            platform.note(share)

        async def shares(_settings: object) -> dict[str, float]:
            return {"app": platform.share}

        for name, stand_in in {
            "AppRegistry": registry_of(lambda: {} if platform.running is None else {"app": platform.running}),
            "ensure_topics": nothing,
            "publish_app": publish,
            "_set_share": set_share,
            "read_shares": shares,
        }.items():
            monkeypatch.setattr(rollouts, name, stand_in)

    def note(self, what: Any) -> None:
        self.written.append(what)
        if self.running is not None:
            self.seen.append(self.nodes())


@pytest.mark.parametrize(
    ("running", "before", "share"),
    [
        (spec("B"), 1.0, 0.3),
        (spec("B", "A"), 1.0, 0.3),
        (spec("B", "A"), 1.0, 0.0),
        (spec("B", "A"), 0.2, 0.6),
        (spec("B", "A"), 0.6, 0.2),
        (spec("B", "A"), 0.6, 1.0),
    ],
)
async def test_no_node_runs_anything_in_between_but_what_it_had_and_what_it_is_to_have(
    monkeypatch: pytest.MonkeyPatch, running: AppSpec, before: float, share: float
) -> None:
    platform = Platform(running, before)
    platform.stand_in(monkeypatch)
    had = platform.nodes()
    rollout, _ = await roll_out(NOWHERE, spec("C"), share=share, say=print)
    stable = {version for node, version in had.items() if place_of("app", node) >= before} or set(had.values())
    for node, version in platform.nodes().items():
        assert version == "C" if place_of("app", node) < share else {version} == stable
        # Who leaves the share before the new version is through gets it for a moment at most.
        assert {seen[node] for seen in platform.seen} <= {had[node], version, "C"}
    assert rollout == Rollout(platform.running or spec("?"), share)


async def test_without_a_share_one_record_is_written_and_the_share_in_force_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    platform = Platform(spec("B", "A"), 0.2)
    platform.stand_in(monkeypatch)
    rollout, _ = await roll_out(NOWHERE, spec("C"), say=print)
    assert platform.written == [spec("C", "A")]
    assert (rollout.partial, rollout.share) == (True, 0.2)


async def test_the_first_deployment_goes_everywhere(monkeypatch: pytest.MonkeyPatch) -> None:
    platform = Platform(None)
    platform.stand_in(monkeypatch)
    rollout, _ = await roll_out(NOWHERE, spec("A"), share=0.1, say=print)
    assert not rollout.partial
    assert set(platform.nodes().values()) == {"A"}


def test_a_partial_roll_out_is_told_in_a_sentence() -> None:
    nodes = sorted(NODES, key=lambda node: place_of("app", node))
    share = (place_of("app", nodes[9]) + place_of("app", nodes[10])) / 2
    rollout = Rollout(spec("B", "A"), share)
    assert rollout.taking(nodes) == nodes[:10]
    following = rollout.next_share(nodes)
    assert following is not None
    assert set(nodes[:11]) <= set(replace(rollout, share=following).taking(nodes))
    assert rollout.text(nodes) == (
        f"app: B belongs on 10 of 30 nodes (rollout.share {share:g}), A on the others; one more at {following:g}"
    )
    assert Rollout(spec("B", "A"), 0.0).text([]).endswith("A on the others")
