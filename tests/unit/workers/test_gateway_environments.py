"""Actors that wait for their environment: placed once, never taken for broken, told of, and no reason to end the old version."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from rayline.app_spec import AppSpec
from rayline.config import AppValues
from rayline.reports import NodeReport
from rayline.rollout import place_of
from workers.gateway import Gateway
from workers.pool import ActorKey, PodNode

POD = PodNode("n1", "pod", 1, 1.0)
OLD = AppSpec("app", "1", "/", "m:f", actors_per_node=1, bundle="sha256:" + "1" * 64)
NEW = AppSpec("app", "2", "/", "m:f", actors_per_node=1, bundle="sha256:" + "2" * 64)


class Pool:
    """A cluster of one pod whose actors answer as `answers` say, by version; keeps what was placed and removed."""

    def __init__(self) -> None:
        self.answers: dict[str, dict[str, Any]] = {}
        self.placed: list[str] = []
        self.removed: list[str] = []
        self.drained: list[str] = []
        self.given: list[AppSpec] = []

    def nodes(self) -> tuple[list[PodNode], list[PodNode]]:
        return [POD], []

    def place(self, key: ActorKey, spec: AppSpec, _node: str) -> str:
        self.given.append(spec)
        self.placed.append(key.version)
        return key.version

    def ask(self, version: str, method: str) -> tuple[str, str]:
        if method == "drain":
            self.drained.append(version)
        return version, method

    def answered(self, references: list[Any]) -> list[Any]:
        return references

    def answer(self, reference: tuple[str, str]) -> dict[str, Any]:
        return {} if reference[1] == "statistics" else dict(self.answers[reference[0]])

    def remove(self, version: str) -> None:
        self.removed.append(version)


def serving(version: str) -> dict[str, Any]:
    endpoint = {"app": "app", "version": version, "name": version, "host": "h", "port": 1, "slots": 2, "instance": version}
    return {**endpoint, "pid": 1, "reason": None, "wanted_models": 0, "models_problem": None}


def waiting(version: str, reason: str | None = None) -> dict[str, Any]:
    return {"app": "app", "version": version, "pid": 1, "port": 0, "waiting": True, "reason": reason}


class Rounds:
    """A gateway over such a pool, a second for each round."""

    def __init__(self) -> None:
        self.pool = Pool()
        self.gateway = Gateway(cluster="c", address="", token_path=Path("/nowhere"), token="", sink=_nowhere, check=_unasked)
        self.gateway._pool = self.pool
        self._now = 0.0

    def round(self, count: int = 1) -> NodeReport:
        for _ in range(count):
            self._now += 1.0
            (report,) = self.gateway._step(self._now)
        return report

    @staticmethod
    def served(report: NodeReport) -> list[str]:
        return [actor.version for actor in report.actors or ()]


async def _nowhere(_reports: list[NodeReport], _partition: int) -> None:
    return


def _unasked(_spec: AppSpec) -> None:
    raise AssertionError("an app with an environment cannot be tried where its gateway runs")


@pytest.fixture
def rounds() -> Iterator[Rounds]:
    made = Rounds()
    yield made
    made.gateway._checker.shutdown()


def test_an_actor_waits_for_its_environment_as_long_as_it_takes(rounds: Rounds) -> None:
    rounds.pool.answers["1"] = waiting("1")
    rounds.gateway.set_apps([OLD])
    report = rounds.round(500)
    assert rounds.pool.placed == ["1"]
    assert (rounds.served(report), report.reason) == ([], None)
    assert not rounds.gateway._in_hurry(), "an environment that takes long is no reason to look five times a second"
    rounds.pool.answers["1"] = serving("1")
    assert rounds.served(rounds.round(3)) == ["1"]


def test_a_failed_environment_is_told_and_its_actor_stays_for_the_next_attempt(rounds: Rounds) -> None:
    rounds.pool.answers["1"] = waiting("1", "no room left (make room)")
    rounds.gateway.set_apps([OLD])
    assert rounds.round(500).reason == "no room left (make room)"
    assert (rounds.pool.placed, rounds.pool.removed) == (["1"], [])
    rounds.pool.answers["1"] = serving("1")
    report = rounds.round(3)
    assert (rounds.served(report), report.reason) == (["1"], None)


def test_the_old_version_serves_until_the_new_one_has_its_environment(rounds: Rounds) -> None:
    rounds.pool.answers.update({"1": serving("1"), "2": waiting("2", "ImportError (mend the app)")})
    rounds.gateway.set_apps([OLD])
    rounds.round(3)
    rounds.gateway.set_apps([NEW])
    report = rounds.round(500)
    assert (rounds.served(report), report.reason) == (["1"], "ImportError (mend the app)")
    assert rounds.pool.drained == []
    rounds.pool.answers["2"] = serving("2")
    assert rounds.served(rounds.round(5)) == ["2"]
    assert (rounds.pool.drained, rounds.pool.removed) == (["1"], ["1"])


def test_a_node_outside_of_the_share_stays_and_goes_over_and_back_only_when_the_other_version_is_ready(rounds: Rounds) -> None:
    outside = rounds.gateway.set_shares
    here = place_of("app", "c/pod")
    rounds.pool.answers.update({"1": serving("1"), "2": serving("2")})
    rounds.gateway.set_apps([OLD])
    rounds.round(3)
    outside(AppValues({"app": (1, here)}))
    rounds.gateway.set_apps([replace(NEW, previous=OLD)])
    assert rounds.served(rounds.round(50)) == ["1"]
    assert (rounds.pool.placed, rounds.pool.drained) == (["1"], [])
    outside(AppValues({"app": (2, here + 0.01)}))
    assert rounds.served(rounds.round(5)) == ["2"]
    rounds.pool.answers["1"] = waiting("1")
    outside(AppValues({"app": (3, 0.0)}))
    assert rounds.served(rounds.round(50)) == ["2"], "what is to be left serves until the other is there"
    rounds.pool.answers["1"] = serving("1")
    assert rounds.served(rounds.round(5)) == ["1"]
    assert rounds.pool.given == [OLD, NEW, OLD], "each version's actors are made of its own spec, without the other's"


def test_a_new_gateway_leaves_a_node_with_the_version_before_as_it_is(rounds: Rounds) -> None:
    rounds.pool.answers["1"] = serving("1")
    rounds.gateway.set_shares(AppValues({"app": (1, 0.0)}))
    rounds.gateway.set_apps([replace(NEW, previous=OLD)])
    assert rounds.served(rounds.round(3)) == ["1"]
    assert rounds.pool.placed == ["1"]
