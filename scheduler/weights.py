"""Weights of nodes: a policy turns what is known of the nodes into how much work each should get."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from scheduler.view import NodeView


class WeightPolicy(Protocol):
    """Gives each node a positive weight, or None where it cannot say."""

    def weigh(self, nodes: Mapping[str, NodeView]) -> dict[str, float | None]: ...


class StaticWeights:
    """A node's weight is its CPU count: its share of the work is its share of the cores."""

    def weigh(self, nodes: Mapping[str, NodeView]) -> dict[str, float | None]:
        return {key: node.report.cpus if node.report.cpus and node.report.cpus > 0 else None for key, node in nodes.items()}


def fill_unknown(weights: Mapping[str, float | None]) -> dict[str, float]:
    """Unknown weights become the mean of the known ones (gRPC A58), or 1 where none is known."""
    known = [weight for weight in weights.values() if weight is not None]
    mean = sum(known) / len(known) if known else 1.0
    return {key: mean if weight is None else weight for key, weight in weights.items()}
