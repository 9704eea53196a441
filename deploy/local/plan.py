"""What a local platform should be, and what one sees of its pods."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from rayline.bus import KafkaSettings
from rayline.clusters import DesiredCluster


@dataclass(frozen=True, slots=True)
class PlatformPlan:
    """What should run. `kafka` None: a broker of our own. `console`: the web page for operators, too."""

    state_dir: Path
    clusters: int = 2
    pods_per_cluster: int = 2
    cpus_per_pod: float = 1
    lanes_per_app: int = 1
    keepers: int = 1
    resources: int = 2
    kafka: KafkaSettings | None = None
    console: bool = False

    def desired(self) -> list[DesiredCluster]:
        """The clusters (`c1`, `c2`, …) that it asks for."""
        names = [f"c{number}" for number in range(1, self.clusters + 1)]
        return [DesiredCluster(name, self.pods_per_cluster, self.cpus_per_pod) for name in names]


@dataclass(frozen=True, slots=True)
class PodInfo:
    """A running pod. `ready`: its cluster's gateway sees it and can place actors there."""

    name: str
    cluster: str
    pid: int
    ready: bool
