"""An update of all weights at once: the same picks as one node after the other, whatever happened in between."""

from __future__ import annotations

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from rayline.reports import ActorEndpoint, NodeLoad, NodeReport, NodeState
from scheduler.router import Router, Target
from scheduler.swrr import SmoothWeightedRoundRobin
from scheduler.view import View

NODES = [f"n{number:02}" for number in range(80)]  # more than have weights of their own (`weigher.GRID_ABOVE`)


class Plainly(SmoothWeightedRoundRobin[str]):
    """Weighs one node after the other, as it is defined."""

    def reweigh(self, keys: tuple[str, ...], weights: Any) -> None:
        for key, weight in zip(keys, weights.tolist(), strict=True):
            if not self._blocked[self._rows[key]]:
                self.set_weight(key, weight)


def router_of(rotation: type[SmoothWeightedRoundRobin[str]]) -> Router:
    router = Router(app="app", seed=1)
    router._rotations = {tier: rotation() for tier in router._rotations}
    router._order = tuple(router._rotations.items())
    return router


def beat(node: str, seq: int, host_cpu: float, state: NodeState = NodeState.READY) -> NodeReport:
    actors = tuple(ActorEndpoint("app", "1", f"a{number}", "h", 1, 2, f"{node}.{number}") for number in range(2))
    load = NodeLoad(cores=2.0, host_cpu=host_cpu, own_cpu=0.0, jobs_in_flight=0)
    return NodeReport("c", node, 1 + seq // 1000, seq, state, 2.0, actors=actors, beat=True, load=load)


steps = st.lists(
    st.one_of(
        st.tuples(st.just("beats"), st.integers(0, 1 << 16)),
        st.tuples(st.just("picks"), st.integers(1, 150)),
        st.tuples(st.just("ends"), st.integers(0, 150)),
        st.tuples(st.just("leaves"), st.integers(0, 79)),
        st.tuples(st.just("restarts"), st.integers(0, 79)),
        st.tuples(st.just("wakes"), st.sampled_from([1, 4])),
        st.tuples(st.just("closes"), st.integers(0, 79)),
    ),
    min_size=1,
    max_size=12,
)


@settings(max_examples=40, deadline=None)
@given(steps, st.sampled_from([4, 80]))
def test_all_weights_at_once_give_the_picks_of_one_after_the_other(given_steps: list[tuple[str, int]], count: int) -> None:
    def picks(rotation: type[SmoothWeightedRoundRobin[str]]) -> list[str | None]:
        nodes, view, router = NODES[:count], View(), router_of(rotation)
        now, seq = 0.0, 1
        view.apply([beat(node, seq, 0.3) for node in nodes], now)
        router.refresh(view, "1", now)
        flying: list[Target] = []
        made: list[str | None] = []
        for what, number in given_steps:
            seq += 1
            match what:
                case "beats":
                    view.apply([beat(node, seq, ((number + 7 * row) % 100) / 100) for row, node in enumerate(nodes)], now)
                case "picks":
                    for _ in range(number):
                        target = router.pick(now, {f"c/{nodes[number % count]}"} if number % 3 == 0 else ())
                        made.append(None if target is None else target.endpoint.instance)
                        if target is not None:
                            flying.append(target)
                case "ends":
                    for target in flying[:number]:
                        router.finished(target, now, seconds=0.01 * (1 + number % 7), usual_seconds=0.02)
                    del flying[:number]
                case "leaves":
                    view.apply([beat(nodes[number % count], seq, 0.3, NodeState.DRAINING)], now)
                case "restarts":
                    view.apply([beat(nodes[number % count], seq + 1000 * seq, 0.1)], now)
                case "wakes":
                    now += number
                    router.wake(now)
                case "closes":
                    closed = f"c/{nodes[number % count]}"
                    router.set_factors(lambda key, closed=closed: 0.0 if key == closed else 1.0)
            router.refresh(view, "1", now)
        return made

    assert picks(SmoothWeightedRoundRobin) == picks(Plainly)
