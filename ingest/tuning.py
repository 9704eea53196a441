"""What live settings do to a lane: values that override the manifest's, and the lane's own rhythms."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from typing import Any, Final

from ingest.lane import Lane
from rayline.app_spec import AppSpec
from rayline.config import ConfigWatch, NodeValues
from rayline.errors import ConfigError
from rayline.telemetry import Tracing
from rayline.versions import VersionWeights

_log = logging.getLogger(__name__)

_EVEN_WEIGHTS: Final = NodeValues(1.0)
_NO_CORDONS: Final = NodeValues(False)

# Settings that stand in for a field of the manifest: section (None: the manifest itself) and field.
_FIELDS: Final[Mapping[str, tuple[str | None, str]]] = {
    "batching.max_jobs": ("batching", "max_jobs"),
    "batching.max_bytes": ("batching", "max_bytes"),
    "batching.linger_ms": ("batching", "linger_ms"),
    "in_flight.max_bytes": ("limits", "max_in_flight_bytes"),
    "limits.max_job_bytes": ("limits", "max_job_bytes"),
    "sla_seconds": (None, "sla_seconds"),
    "retries.errors": ("retries", "errors"),
    "retries.evictions": ("retries", "evictions"),
    "retries.timeouts": ("retries", "timeouts"),
    "retries.kills": ("retries", "kills"),
}


def manifest_values(spec: AppSpec) -> dict[str, Any]:
    """The settings that an app's manifest gives."""
    return {
        **{
            name: getattr(spec if section is None else getattr(spec, section), field)
            for name, (section, field) in _FIELDS.items()
        },
        "weights.policy": spec.scheduling.policy.value,
        "weights.interval_seconds": spec.scheduling.interval_seconds,
    }


def contradictions(values: Mapping[str, Any]) -> dict[tuple[str, ...], str]:
    """Which of a lane's settings (every one of `_FIELDS` is there) contradict each other, and why."""
    found: dict[tuple[str, ...], str] = {}
    linger_ms, sla_seconds = values["batching.linger_ms"], values["sla_seconds"]
    if linger_ms >= sla_seconds * 1000:
        found["batching.linger_ms", "sla_seconds"] = (
            f"batching.linger_ms of {linger_ms:g} would eat the whole SLA of {sla_seconds:g} s: "
            "lower it, or raise sla_seconds first"
        )
    job_bytes, held_bytes = values["limits.max_job_bytes"], values["in_flight.max_bytes"]
    if job_bytes > held_bytes:
        found["limits.max_job_bytes", "in_flight.max_bytes"] = (
            f"limits.max_job_bytes of {job_bytes} is more than in_flight.max_bytes "
            f"({held_bytes}): such a job could never be read; raise that first"
        )
    return found


def overridden(spec: AppSpec, values: Mapping[str, Any]) -> AppSpec:
    """The spec with settings in the place of its own values.

    Raises:
        ConfigError: they contradict each other.
    """
    for name, value in values.items():
        section, field = _FIELDS[name]
        spec = replace(
            spec, **({field: value} if section is None else {section: replace(getattr(spec, section), **{field: value})})
        )
    reasons = contradictions(manifest_values(spec))
    if reasons:
        raise ConfigError("; ".join(reasons.values()))
    return spec


class LaneTuning:
    """Owns which values stand in for the deployed manifest's. Does not own the lane, nor where values come from.

    Life: `wire` before the watch starts; `deploy` for each new version of the app.
    """

    def __init__(self, *, lane: Lane, spec: AppSpec, tracing: Tracing | None = None) -> None:
        self._lane = lane
        self._spec = spec
        self._tracing = tracing
        self._values: dict[str, Any] = {}
        self._deploying = False
        self._weights = _EVEN_WEIGHTS
        self._cordons = _NO_CORDONS
        self._version_weights = VersionWeights()

    def wire(self, watch: ConfigWatch) -> None:
        """Register every setting of a lane."""
        watch.rule_out(contradictions)
        for name in _FIELDS:
            watch.on(name, partial(self._override, name))
        watch.on("in_flight.max_jobs", self._lane.set_max_jobs_held)
        watch.on("transactions.interval_ms", lambda ms: self._lane.set_transaction_interval(ms / 1000))
        watch.on("transactions.max_interval_ms", lambda ms: self._lane.set_max_transaction_interval(ms / 1000))
        watch.on("transactions.max_results", self._lane.set_transaction_results)
        watch.on("batching.slack_margin_ms", lambda ms: self._lane.set_slack_margin(ms / 1000))
        watch.on("trace.sampling", self._sample)
        watch.on("weights.policy", self._lane.set_weight_policy)
        watch.on("weights.interval_seconds", self._lane.set_weight_interval)
        watch.on("budget.extra_share", lambda share: self._lane.tune_budget(extra_share=share))
        watch.on("budget.reserve_jobs", lambda jobs: self._lane.tune_budget(reserve_jobs=jobs))
        watch.on("hedging.late_factor", lambda factor: self._lane.tune_hedging(late_factor=factor))
        watch.on("hedging.late_floor_ms", lambda ms: self._lane.tune_hedging(late_floor_seconds=ms / 1000))
        watch.on("view.pull_seconds", self._lane.set_pull_interval)
        watch.on("view.lost_seconds", self._lane.set_lost_after)
        watch.on("traffic.weight", self._set_weights)
        watch.on("traffic.version_weights", self._set_version_weights)
        watch.on("cordon", self._set_cordons)

    def deploy(self, spec: AppSpec, watch: ConfigWatch) -> None:
        """A new version of the app is in force; settings go on standing in for its values, but for those that contradict them."""
        self._spec = spec
        # The lane takes the version once all values are those that stand beside it.
        self._deploying = True
        watch.rebase(manifest_values(spec))
        self._deploying = False
        try:
            spec = overridden(spec, self._values)
        except ConfigError as error:
            _log.error("the manifest of version %s of app %s contradicts itself: %s", spec.version, spec.name, error)
        self._tell_versions()
        self._lane.update(spec)

    def _override(self, name: str, value: Any) -> None:
        values = {**self._values, name: value}
        spec = overridden(self._spec, values)
        self._values = values
        if not self._deploying:
            self._lane.update(spec)

    def _sample(self, share: float) -> None:
        if self._tracing is not None:
            self._tracing.set_sampling(share)

    def _set_weights(self, weights: NodeValues) -> None:
        self._weights = weights
        self._tell_factors()

    def _set_cordons(self, cordons: NodeValues) -> None:
        self._cordons = cordons
        self._tell_factors()

    def _tell_factors(self) -> None:
        """Where no operator asks for anything, no node has to be looked up at each update of weights."""
        asked = (self._weights, self._cordons) != (_EVEN_WEIGHTS, _NO_CORDONS)
        self._lane.set_traffic(self._factor if asked else None)

    def _set_version_weights(self, weights: Mapping[str, float]) -> None:
        self._version_weights = VersionWeights(weights)
        self._tell_versions()

    def _tell_versions(self) -> None:
        """The version before the newest stands beside it, on nodes that do not take the newest or do not have it yet; so do all
        while any is named."""
        previous = self._spec.previous
        beside: tuple[str, ...] | None = None if previous is None else (previous.version,)
        if self._version_weights and beside is None:
            beside = ()
        self._lane.set_versions(self._version_weights, beside=beside)

    def _factor(self, node: str) -> float:
        return 0.0 if self._cordons.of(node) else float(self._weights.of(node))
