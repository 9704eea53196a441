"""What operators look at, for every kind of screen: one model that follows the platform's topics."""

from __future__ import annotations

from deploy.observation.observation import Observation
from deploy.observation.snapshot import (
    AppRow,
    ClusterRow,
    ConfigRow,
    EventRow,
    LaneRow,
    NodePoint,
    NodeRow,
    NodeSeries,
    PartitionRow,
    PodRow,
    Point,
    ProcessRow,
    Series,
    Snapshot,
    SourceState,
    Window,
)

__all__ = [
    "AppRow",
    "ClusterRow",
    "ConfigRow",
    "EventRow",
    "LaneRow",
    "NodePoint",
    "NodeRow",
    "NodeSeries",
    "Observation",
    "PartitionRow",
    "PodRow",
    "Point",
    "ProcessRow",
    "Series",
    "Snapshot",
    "SourceState",
    "Window",
]
