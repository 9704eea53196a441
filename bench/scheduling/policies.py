"""Every way of choosing that is compared, by name."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final, TypeAlias

from bench.scheduling.lanes import (
    Chooser,
    HashLane,
    PerfectLane,
    RandomLane,
    RoundRobinLane,
    RouterLane,
    StaleLeastLoadedLane,
    SwrrLane,
)
from bench.scheduling.node import SimNode
from bench.scheduling.scenario import Chances
from scheduler.weights import StaticWeights, WeightPolicy, policy_of
from scheduler.weights.wechat import WechatWeights

LaneMaker: TypeAlias = Callable[[dict[str, SimNode], int, Chances], Chooser]


def _routed(name: str) -> LaneMaker:
    return lambda nodes, lane, _: RouterLane(nodes=nodes, policy=policy_of(name), lane=lane, seed=lane)


def _weighed(make: Callable[[], WeightPolicy]) -> LaneMaker:
    return lambda nodes, lane, _: SwrrLane(nodes=nodes, policy=make(), seed=lane)


# The product's policies, as its lanes run them.
PRODUCT: Final[Mapping[str, LaneMaker]] = {
    "headroom": _routed("headroom"),
    "static": _routed("static"),
    "least-loaded": _routed("least-loaded"),
    "wechat": _routed("wechat"),
}
PERFECT: Final = "perfect knowledge"
FORMULA: Final = "article's formula"
OWN_FORMULA: Final = "article, own CPU"
REFERENCES: Final[Mapping[str, LaneMaker]] = {
    PERFECT: lambda nodes, _, __: PerfectLane(nodes),
    FORMULA: _weighed(WechatWeights),
    OWN_FORMULA: _weighed(lambda: WechatWeights(own_utilisation=True)),
    "static SWRR": _weighed(StaticWeights),
    "least loaded, stale": lambda nodes, _, __: StaleLeastLoadedLane(nodes=nodes),
    "consistent hashing": lambda nodes, _, __: HashLane(nodes),
    "round robin": lambda nodes, _, chances: RoundRobinLane(nodes=nodes, dice=chances.policy),
    "random": lambda nodes, _, chances: RandomLane(nodes=nodes, dice=chances.policy),
}
ABLATIONS: Final[Mapping[str, LaneMaker]] = {
    "article, without log": _weighed(lambda: WechatWeights(logarithm=False)),
    "article, own CPU, without log": _weighed(lambda: WechatWeights(own_utilisation=True, logarithm=False)),
}
ALL: Final[Mapping[str, LaneMaker]] = {**PRODUCT, **REFERENCES, **ABLATIONS}
EVERYDAY: Final = (*PRODUCT, *REFERENCES)
SHORTLIST: Final = ("headroom", "static", "least-loaded", "wechat", PERFECT, FORMULA)
