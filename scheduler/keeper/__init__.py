"""The keeper: which clusters, heads and pods should run, decided from what is wanted and what there is. Pure, no I/O."""

from __future__ import annotations

from scheduler.keeper.actions import Action, ActionKind
from scheduler.keeper.decide import Limits, NodeFact, Plan, decide

__all__ = ["Action", "ActionKind", "Limits", "NodeFact", "Plan", "decide"]
