"""Fleets as tests need them: a load for each node."""

from __future__ import annotations

from rayline.reports import NodeLoad, NodeReport, NodeState
from scheduler.weights import Weigher, WeightPolicy


def report(key: str, load: NodeLoad | None = None, cpus: float | None = 8.0) -> NodeReport:
    return NodeReport("c", key, 1, 1, NodeState.READY, cpus, beat=True, load=load)


def load(
    host_cpu: float | None = 0.5,
    jobs: int | None = 4,
    own_cpu: float | None = 2.0,
    cores: float | None = 8.0,
    *,
    throttled: float | None = None,
    memory_pressure: float | None = None,
    disk_free: float | None = None,
    clock_skew_ms: float | None = None,
) -> NodeLoad:
    return NodeLoad(
        cores=cores,
        host_cpu=host_cpu,
        own_cpu=own_cpu,
        jobs_in_flight=jobs,
        throttled=throttled,
        memory_pressure=memory_pressure,
        disk_free=disk_free,
        clock_skew_ms=clock_skew_ms,
    )


def weigher_of(policy: WeightPolicy, loads: dict[str, NodeLoad | None], *, now: float = 0.0) -> Weigher:
    weigher = Weigher(policy=policy, seed=1)
    for key, value in loads.items():
        weigher.fleet.join(key, now)
        weigher.fleet.observe(key, report(key, value), now)
    return weigher


def weights_of(weigher: Weigher, now: float = 0.0) -> dict[str, float]:
    keys, weights = weigher.update(now)
    return dict(zip(keys, weights.tolist(), strict=True))
