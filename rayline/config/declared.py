"""Every tunable, declared once: validation, `rayline config`, docs/config.md and the JSON Schema are made from this list.

To add one: declare it here, wire it where `ConfigWatch.on` is called, and add its effect's test (tests/…/test_effects.py asks
for one by name).
"""

from __future__ import annotations

from typing import Any, Final

from rayline.app_spec import AppSpec, Batching, Limits, Retries, Scheduling, SchedulingPolicy
from rayline.config.setting import About, Kind, Role, Scope, Setting

_SPEC: Final = AppSpec("app", "1", "/", "m:f")
_BATCHING, _RETRIES, _LIMITS, _SCHEDULING = Batching(), Retries(), Limits(), Scheduling()
_FOR_APPS: Final = (Scope.GLOBAL, Scope.APP)
_FOR_NODES: Final = (Scope.GLOBAL, Scope.CLUSTER, Scope.NODE)
_EVERYWHERE: Final = (Scope.GLOBAL, Scope.APP, Scope.CLUSTER, Scope.NODE)
_LANES: Final = (Role.LANE,)
_NEXT_JOB: Final = "From the next job read."
_NEXT_DISPATCH: Final = "From the next dispatch."
_AT_ONCE: Final = "At once."

_ALL: Final = (
    Setting(
        name="batching.max_jobs",
        kind=Kind.INTEGER,
        unit="jobs",
        minimum=1,
        maximum=100_000,
        default=_BATCHING.max_jobs,
        scopes=_FOR_APPS,
        roles=_LANES,
        description="A batch closes at so many jobs.",
        effect=_NEXT_JOB,
        constant="rayline.app_spec:Batching.max_jobs",
    ),
    Setting(
        name="batching.max_bytes",
        kind=Kind.INTEGER,
        unit="bytes",
        minimum=1,
        maximum=64 * 2**20,
        default=_BATCHING.max_bytes,
        scopes=_FOR_APPS,
        roles=_LANES,
        description="A batch closes at so many payload bytes.",
        effect=_NEXT_JOB,
        constant="rayline.app_spec:Batching.max_bytes",
    ),
    Setting(
        name="batching.linger_ms",
        kind=Kind.NUMBER,
        unit="ms",
        minimum=0,
        maximum=60_000,
        default=_BATCHING.linger_ms,
        scopes=_FOR_APPS,
        roles=_LANES,
        description="A batch closes when its oldest job has waited so long (earlier when a deadline asks for it).",
        effect=_NEXT_JOB,
        constant="rayline.app_spec:Batching.linger_ms",
    ),
    Setting(
        name="in_flight.max_jobs",
        kind=Kind.INTEGER,
        unit="jobs",
        minimum=1,
        maximum=1_000_000,
        default=32_000,
        scopes=_FOR_APPS,
        roles=_LANES,
        description="Jobs that one lane holds from reading to publishing; past it, it stops reading.",
        effect="At the next poll of Kafka, within half a second.",
        constant="ingest.lane:MAX_JOBS_HELD",
    ),
    Setting(
        name="in_flight.max_bytes",
        kind=Kind.INTEGER,
        unit="bytes",
        minimum=2**20,
        maximum=2**36,
        default=_LIMITS.max_in_flight_bytes,
        scopes=_FOR_APPS,
        roles=_LANES,
        description="Payload bytes that one lane holds in memory; past it, it stops reading.",
        effect="At the next poll of Kafka, within half a second.",
        constant="rayline.app_spec:Limits.max_in_flight_bytes",
    ),
    Setting(
        name="limits.max_job_bytes",
        kind=Kind.INTEGER,
        unit="bytes",
        minimum=1,
        maximum=64 * 2**20,
        default=_LIMITS.max_job_bytes,
        scopes=_FOR_APPS,
        roles=_LANES,
        description="A larger payload is `invalid`.",
        effect=_NEXT_JOB,
        constant="rayline.app_spec:Limits.max_job_bytes",
    ),
    Setting(
        name="sla_seconds",
        kind=Kind.NUMBER,
        unit="s",
        minimum=0.1,
        maximum=86_400,
        default=_SPEC.sla_seconds,
        scopes=_FOR_APPS,
        roles=_LANES,
        description="Deadline of a job without `deadline-ms`: its record's time plus this.",
        effect=_NEXT_JOB,
        constant="rayline.app_spec:AppSpec.sla_seconds",
    ),
    Setting(
        name="retries.errors",
        kind=Kind.INTEGER,
        unit="times",
        minimum=0,
        maximum=100,
        default=_RETRIES.errors,
        scopes=_FOR_APPS,
        roles=_LANES,
        description="How often a job may run again after the function raised for it.",
        effect="From the next answer.",
        constant="rayline.app_spec:Retries.errors",
    ),
    Setting(
        name="retries.evictions",
        kind=Kind.INTEGER,
        unit="times",
        minimum=0,
        maximum=1000,
        default=_RETRIES.evictions,
        scopes=_FOR_APPS,
        roles=_LANES,
        description="How often a job may run again after its pod was evicted or lost.",
        effect="From the next eviction.",
        constant="rayline.app_spec:Retries.evictions",
    ),
    Setting(
        name="retries.timeouts",
        kind=Kind.INTEGER,
        unit="times",
        minimum=0,
        maximum=100,
        default=_RETRIES.timeouts,
        scopes=_FOR_APPS,
        roles=_LANES,
        description="How often a job may run again after the function ran past `limits.execute_seconds`.",
        effect="From the next timeout.",
        constant="rayline.app_spec:Retries.timeouts",
    ),
    Setting(
        name="retries.kills",
        kind=Kind.INTEGER,
        unit="times",
        minimum=0,
        maximum=100,
        default=_RETRIES.kills,
        scopes=_FOR_APPS,
        roles=_LANES,
        description="How many workers may die under a job that is alone in its batch; then it is quarantined.",
        effect="From the next worker that dies.",
        constant="rayline.app_spec:Retries.kills",
    ),
    Setting(
        name="weights.policy",
        kind=Kind.CHOICE,
        choices=tuple(policy.value for policy in SchedulingPolicy),
        default=_SCHEDULING.policy.value,
        scopes=_FOR_APPS,
        roles=_LANES,
        description="How nodes are weighed (docs/scheduling.md).",
        effect=_NEXT_DISPATCH,
        constant="rayline.app_spec:Scheduling.policy",
    ),
    Setting(
        name="weights.interval_seconds",
        kind=Kind.NUMBER,
        unit="s",
        minimum=0.1,
        maximum=60,
        default=_SCHEDULING.interval_seconds,
        scopes=_FOR_APPS,
        roles=_LANES,
        description="Weights are recomputed so often, and at once when nodes come or go.",
        effect="From the next recomputation.",
        constant="rayline.app_spec:Scheduling.interval_seconds",
    ),
    Setting(
        name="traffic.weight",
        kind=Kind.NUMBER,
        unit="times",
        minimum=0,
        maximum=1000,
        default=1.0,
        scopes=(Scope.CLUSTER, Scope.NODE),
        roles=_LANES,
        about=About.NODE,
        description="A cluster's (or a node's) share of the work in relation to its capacity: the weights of its nodes are "
        "multiplied by it. 0: no new batch goes there.",
        effect=_NEXT_DISPATCH,
    ),
    Setting(
        name="cordon",
        kind=Kind.FLAG,
        default=False,
        scopes=(Scope.CLUSTER, Scope.NODE),
        roles=(Role.LANE, Role.AGENT),
        about=About.NODE,
        description="No new batch goes to these nodes; what runs there ends there. Can be lifted.",
        effect=_NEXT_DISPATCH,
    ),
    Setting(
        name="drain",
        kind=Kind.FLAG,
        default=False,
        scopes=(Scope.NODE,),
        roles=(Role.AGENT,),
        description="The pod drains as if it had been given notice: no new batch, what runs ends, then it leaves. For good.",
        effect=_AT_ONCE,
    ),
    Setting(
        name="heartbeat.interval_seconds",
        kind=Kind.NUMBER,
        unit="s",
        minimum=0.1,
        maximum=60,
        default=1.0,
        scopes=_FOR_NODES,
        roles=(Role.AGENT,),
        description="How often a node reports itself. Longer costs less and detects silence later.",
        effect="From the next beat.",
    ),
    Setting(
        name="transactions.interval_ms",
        kind=Kind.NUMBER,
        unit="ms",
        minimum=1,
        maximum=5_000,
        default=40.0,
        scopes=_FOR_APPS,
        roles=_LANES,
        description="Results are committed at most so often: shorter is faster for each job, longer cheaper for the broker.",
        effect="From the next transaction.",
        constant="ingest.publisher:TRANSACTION_INTERVAL_SECONDS",
    ),
    Setting(
        name="trace.sampling",
        kind=Kind.NUMBER,
        unit="share",
        minimum=0,
        maximum=1,
        default=1.0,
        scopes=_FOR_APPS,
        roles=_LANES,
        description="Which share of the jobs that their producers sampled is traced; decided by the trace id, so that all "
        "processes agree.",
        effect=_NEXT_JOB,
    ),
    Setting(
        name="log.level",
        kind=Kind.CHOICE,
        choices=("DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL"),
        default="INFO",
        scopes=_EVERYWHERE,
        roles=tuple(Role),
        description="The least severe log lines that are written.",
        effect=_AT_ONCE,
    ),
)

SETTINGS: Final[dict[str, Setting]] = {setting.name: setting for setting in _ALL}


def schema() -> dict[str, Any]:
    """JSON Schema of all settings' values, by name."""
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Rayline settings",
        "type": "object",
        "additionalProperties": False,
        "properties": {name: setting.schema() for name, setting in SETTINGS.items()},
    }


def describe(setting: Setting) -> dict[str, Any]:
    """One setting as plain values, for lists and documents."""
    return {
        "name": setting.name,
        "kind": setting.kind.value,
        "unit": setting.unit,
        "default": setting.default,
        "right": setting.right(),
        "scopes": [scope.value for scope in setting.scopes],
        "processes": [role.value for role in setting.roles],
        "effect": setting.effect,
        "description": setting.description,
    }
