"""Agents and gateways count what their metrics show."""

from __future__ import annotations

from pathlib import Path

from rayline.metrics import MetricsBoard, declared
from workers.agent import Agent, PodOptions
from workers.gateway import _ROUNDS, ROUND_SECONDS, Gateway, _measure, _Member
from workers.notices import Notice
from workers.pool import ActorKey, ActorPhase


class Nowhere:
    async def send(self, *args: object, **kwargs: object) -> None:
        raise NotImplementedError


def gateway(tmp_path: Path) -> Gateway:
    async def sink(*_: object) -> None:
        return None

    return Gateway(cluster="c1", address="127.0.0.1:1", token_path=tmp_path / "token", token="t", sink=sink)


def test_a_gateway_counts_its_actors_by_phase(tmp_path: Path) -> None:
    board, found = MetricsBoard(now=0.0), gateway(tmp_path)
    key = ActorKey("ocr", "1", "p1", 1, 0)
    found._members = {key: _Member(None, ActorPhase.READY, 0.0)}
    _measure(board, found)
    samples = {one.attributes[declared.PHASE]: one.value for one in board.gather(1.0).samples[declared.ACTORS]}
    assert samples == {phase.name.lower(): int(phase is ActorPhase.READY) for phase in ActorPhase}


def test_a_gateway_whose_rounds_do_not_reach_the_broker_is_told(tmp_path: Path) -> None:
    board, found = MetricsBoard(now=0.0), gateway(tmp_path)
    _measure(board, found)
    began = board._activities[_ROUNDS].done_at
    found.round_at = began + 5
    assert not board.gather(began + 5 + ROUND_SECONDS).stalls
    assert board.gather(began + 6 + ROUND_SECONDS).stalls[0].subject == _ROUNDS


def test_an_agent_counts_beats_left_out_and_its_notice(tmp_path: Path) -> None:
    options = PodOptions(
        cluster="c1", pod="p1", address="127.0.0.1:1", token_path=tmp_path / "token", num_cpus=1.0, grace_seconds=5.0
    )
    agent = Agent(options=options, publisher=Nowhere())  # type: ignore[arg-type]
    assert {sample.metric: sample.value for sample in agent.samples(0.0)} == {
        declared.BEATS_DROPPED: 0,
        declared.NODE_NOTICES: 0,
    }
    agent.give_notice(Notice("the machine goes", None))
    agent._heartbeat.dropped = 3
    assert {sample.metric: sample.value for sample in agent.samples(0.0)} == {
        declared.BEATS_DROPPED: 3,
        declared.NODE_NOTICES: 1,
    }
