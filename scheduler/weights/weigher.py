"""Keeps the weights in force: when they are due, what they are, and why."""

from __future__ import annotations

import random
from collections.abc import Mapping
from typing import Final

import numpy as np

from rayline.app_spec import SchedulingPolicy
from scheduler.weights.fleet import Fleet, Floats
from scheduler.weights.headroom import HeadroomWeights
from scheduler.weights.least_loaded import LeastLoadedWeights
from scheduler.weights.policy import Weighed, WeightPolicy, Weights
from scheduler.weights.static import StaticWeights
from scheduler.weights.wechat import WechatWeights

DEFAULT_INTERVAL_SECONDS: Final = 3.0
# In relation to the mean: no policy may starve or flood a node by a slip of its formula. (gRPC A58 clamps at 10, which would
# take work from one large machine among many small ones.)
LEAST_OF_MEAN: Final = 0.01
MOST_OF_MEAN: Final = 100.0
# Above so many distinct weights they are rounded to a grid, which makes a pick cost the same for any number of nodes.
GRID_ABOVE: Final = 64
GRID_STEPS_PER_OCTAVE: Final = 8

_POLICIES: Final[Mapping[SchedulingPolicy, type[WeightPolicy]]] = {
    SchedulingPolicy.HEADROOM: HeadroomWeights,
    SchedulingPolicy.STATIC: StaticWeights,
    SchedulingPolicy.LEAST_LOADED: LeastLoadedWeights,
    SchedulingPolicy.WECHAT: WechatWeights,
}


def policy_of(name: SchedulingPolicy | str) -> WeightPolicy:
    """A policy by its name; raises ValueError for a name that there is not."""
    return _POLICIES[SchedulingPolicy(name)]()


class Weigher:
    """Owns the fleet's facts, the policy in force, and the last weights with their factors. Does not own who is picked.

    Life: nodes join, are observed and leave through `fleet`; `update` when `due`, or at any time.
    """

    def __init__(
        self,
        *,
        policy: WeightPolicy,
        interval_seconds: float = DEFAULT_INTERVAL_SECONDS,
        cards: Mapping[str, float] | None = None,
        seed: int | None = None,
    ) -> None:
        self.fleet = Fleet(cards=cards)
        self.policy = policy
        self.interval_seconds = interval_seconds
        self.updates = 0
        self._dice = np.random.default_rng(random.getrandbits(63) if seed is None else seed)
        self._due_at = -np.inf
        self._keys: tuple[str, ...] = ()
        self._rows: dict[str, int] = {}
        self._in_force: Floats = np.empty(0)
        self._weights = Weights(self._in_force)

    def due(self, now: float) -> bool:
        return now >= self._due_at

    def hurry(self) -> None:
        """The next update is due at once."""
        self._due_at = -np.inf

    def set_policy(self, policy: WeightPolicy) -> None:
        """In force from the next update, which is due at once."""
        self.policy = policy
        self._due_at = -np.inf

    def set_interval(self, seconds: float) -> None:
        self.interval_seconds = seconds
        self._due_at = -np.inf

    def update(self, now: float) -> tuple[tuple[str, ...], Floats]:
        """Weigh all nodes anew; returns keys and positive, finite weights in the same order."""
        with np.errstate(all="ignore"):
            self._weights = self.policy.weigh(self.fleet, now)
            self._in_force = _to_grid(_bound(self._weights.values), self._dice)
        if self._keys is not self.fleet.keys:
            self._keys, self._rows = self.fleet.keys, {}
        self._due_at = now + self.interval_seconds
        self.updates += 1
        return self._keys, self._in_force

    def weighed(self, key: str) -> Weighed:
        """One node's weight in force and how it came about. Raises KeyError for a node that is not weighed."""
        if not self._rows:
            self._rows = {known: row for row, known in enumerate(self._keys)}
        row = self._rows[key]
        said, weight = float(self._weights.values[row]), float(self._in_force[row])
        if np.isnan(said):
            note = "not known: the mean of the others"
        elif abs(weight - said) > 0.1 * weight:
            note = f"{self.policy.name} says {said:.4g}; bounded by {LEAST_OF_MEAN:g} to {MOST_OF_MEAN:g} times the mean"
        else:
            note = f"as {self.policy.name} says"
        factors = {name: None if np.isnan(column[row]) else float(column[row]) for name, column in self._weights.factors.items()}
        return Weighed(weight, factors, note)


def _bound(values: Floats) -> Floats:
    """Positive and finite, whatever a policy made of the facts: unknown becomes the mean (gRPC A58), or 1."""
    values = np.where(np.isfinite(values) & (values >= 0), values, np.nan)
    known = values[~np.isnan(values)]
    mean = float(known.mean()) if len(known) else 1.0
    if not 1e-9 < mean < 1e9:
        mean, values = 1.0, values / mean if mean > 0 else np.ones_like(values)
    return np.clip(np.where(np.isnan(values), mean, values), LEAST_OF_MEAN * mean, MOST_OF_MEAN * mean)


def _to_grid(weights: Floats, dice: np.random.Generator) -> Floats:
    """Round many distinct weights up or down to a geometric grid, by chance, so that no node gains or loses over time."""
    if len(weights) <= GRID_ABOVE or len(np.unique(weights)) <= GRID_ABOVE:
        return weights
    position = np.log2(weights) * GRID_STEPS_PER_OCTAVE
    lower = np.exp2(np.floor(position) / GRID_STEPS_PER_OCTAVE)
    step = lower * (2.0 ** (1.0 / GRID_STEPS_PER_OCTAVE) - 1.0)
    up = dice.random(len(weights)) < (weights - lower) / step
    return np.exp2((np.floor(position) + up) / GRID_STEPS_PER_OCTAVE)
