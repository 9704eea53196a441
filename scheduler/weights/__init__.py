"""Weights of nodes: a policy turns what is known of the nodes into how much work each should get."""

from scheduler.weights.policy import Weighed, WeightPolicy, Weights
from scheduler.weights.static import StaticWeights
from scheduler.weights.weigher import DEFAULT_INTERVAL_SECONDS, Weigher, policy_of

__all__ = ["DEFAULT_INTERVAL_SECONDS", "StaticWeights", "Weighed", "Weigher", "WeightPolicy", "Weights", "policy_of"]
