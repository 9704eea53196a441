"""What an app is, as plain values that every process can hold; `rayline/manifest.py` makes it from app.yaml."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from rayline.enums import StrEnum
from rayline.errors import FormatError


class BatchFormat(StrEnum):
    """What the feature function gets: payloads as they are, or as columns."""

    ROWS = "rows"
    NUMPY = "numpy"
    ARROW = "arrow"
    PANDAS = "pandas"


class Call(StrEnum):
    """Whether the function is called with one job's payload or with a whole batch."""

    JOB = "job"
    BATCH = "batch"


@dataclass(frozen=True, slots=True)
class Resources:
    """Of one actor: `num_cpus` and `num_gpus` are Ray's logical resources; `memory_bytes` the worker enforces (0: no limit)."""

    num_cpus: float = 1.0
    num_gpus: float = 0.0
    memory_bytes: int = 0


@dataclass(frozen=True, slots=True)
class Batching:
    """When a batch closes: at so many jobs or bytes, or when its oldest job has waited `linger_ms`."""

    max_jobs: int = 64
    max_bytes: int = 4 * 1024 * 1024
    linger_ms: float = 10.0


@dataclass(frozen=True, slots=True)
class Retries:
    """How often one job may run again, by cause. An eviction is not an error of the job: it has its own budget.

    `errors`: the function raised. `evictions`: its node left. `timeouts`: the call hung. `kills`: how many workers may die
    under a job that is alone in its batch before it is quarantined.
    """

    errors: int = 0
    evictions: int = 20
    timeouts: int = 1
    kills: int = 2


@dataclass(frozen=True, slots=True)
class Limits:
    """`execute_seconds`: one call of the function; `startup_seconds`: loading the app; `max_job_bytes`, `max_result_bytes`:
    one payload, one feature; `max_in_flight_bytes`: payloads that one lane holds in memory."""

    execute_seconds: float = 4.0
    startup_seconds: float = 60.0
    max_job_bytes: int = 1024 * 1024
    max_result_bytes: int = 1024 * 1024
    max_in_flight_bytes: int = 128 * 1024 * 1024


class SchedulingPolicy(StrEnum):
    """How nodes are weighed: docs/scheduling.md tells what each does and why `headroom` is the default."""

    HEADROOM = "headroom"
    STATIC = "static"
    LEAST_LOADED = "least-loaded"
    WECHAT = "wechat"


@dataclass(frozen=True, slots=True)
class Scheduling:
    """Which node gets how much. Weights are recomputed every `interval_seconds`, and at once when nodes come or go.

    `cards` gives the performance of one card of a kind in relation to others; a kind that is not named counts 1.
    """

    policy: SchedulingPolicy = SchedulingPolicy.HEADROOM
    interval_seconds: float = 3.0
    cards: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Requirement:
    """One package that is asked for, and where: `file:line`."""

    text: str
    where: str


@dataclass(frozen=True, slots=True)
class Environment:
    """What an app's bundle is built from; paths are below the app's `root` (or absolute, on the machine that builds).

    `python` is a version, or empty: the one that builds. `indexes` are names of settings, never addresses. `files` and
    `exclude` are patterns; `libraries` and `binaries` native files and folders for this app alone. `engine` is the module that
    the app computes with (empty: it names none), `providers` pairs of a card and what the engine uses there.
    """

    python: str = ""
    requirements: tuple[Requirement, ...] = ()
    constraints: tuple[Requirement, ...] = ()
    indexes: tuple[str, ...] = ()
    wheels: tuple[str, ...] = ()
    conda: str = ""
    files: tuple[str, ...] = ("**",)
    exclude: tuple[str, ...] = ()
    libraries: tuple[str, ...] = ()
    binaries: tuple[str, ...] = ()
    engine: str = ""
    providers: tuple[tuple[str, str], ...] = ()

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Environment:
        """Read plain values back (lists become tuples)."""
        requirements = {name: tuple(Requirement(**one) for one in data.get(name, ())) for name in ("requirements", "constraints")}
        values: dict[str, Any] = {
            name: tuple(value) if isinstance(value, list | tuple) else value for name, value in data.items()
        }
        providers = tuple((card, provider) for card, provider in data.get("providers", ()))
        return cls(**{**values, **requirements, "providers": providers})


@dataclass(frozen=True, slots=True)
class ModelSource:
    """A model by name: where it comes from when the bundle is built; `digest` (`sha256:…`) and `size_bytes` when declared."""

    name: str
    source: str
    digest: str = ""
    size_bytes: int | None = None


class ModelSwap(StrEnum):
    """How a new version of a model is taken up: by new actors beside the old ones, or by a second instance of the app's class in
    the same process, which takes over between two calls."""

    ACTOR = "actor"
    INSTANCE = "instance"


@dataclass(frozen=True, slots=True)
class AppSpec:
    """One app in one version.

    `root` is the folder that is put first on the import path, `entrypoint` is `module:callable` below it, `env` holds environment
    variables. `concurrency` is how many calls one actor runs at once; `actors_per_node` how many actors a pod gets (None: as many
    as its CPUs hold).

    `bundle` is the digest of the environment to run in, set when the app is deployed; empty: the platform's own. `prefetch` is
    that of one which nodes put in place beside it, so that a later version starts at once. `previous` is the version that nodes
    outside of the app's `rollout.share` run (`rayline.rollout`), which names none itself.
    """

    name: str
    version: str
    root: str
    entrypoint: str
    batch_format: BatchFormat = BatchFormat.ROWS
    call: Call = Call.JOB
    constructor: Mapping[str, Any] = field(default_factory=dict)
    env: Mapping[str, str] = field(default_factory=dict)
    resources: Resources = Resources()
    concurrency: int = 1
    actors_per_node: int | None = None
    batching: Batching = Batching()
    sla_seconds: float = 10.0
    partitions: int = 8
    retries: Retries = Retries()
    limits: Limits = Limits()
    scheduling: Scheduling = field(default_factory=Scheduling)
    environment: Environment = Environment()
    bundle: str = ""
    prefetch: str = ""
    models: tuple[ModelSource, ...] = ()
    model_swap: ModelSwap = ModelSwap.ACTOR
    previous: AppSpec | None = None

    def as_dict(self) -> dict[str, Any]:
        """Plain values (str enums stay str), for msgpack or JSON; `from_dict` reads it back."""
        return {"v": 1, **asdict(self)}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> AppSpec:
        """Read `as_dict` back; raises FormatError for another version or missing fields."""
        if data.get("v") != 1:
            raise FormatError(f"app spec of version {data.get('v')!r}; this Rayline reads version 1: upgrade it")
        values = {name: data[name] for name in cls.__dataclass_fields__ if name in data}
        try:
            values["batch_format"] = BatchFormat(values["batch_format"])
            values["call"] = Call(values["call"])
            values["resources"] = Resources(**values["resources"])
            values["batching"] = Batching(**values["batching"])
            values["retries"] = Retries(**values["retries"])
            values["limits"] = Limits(**values["limits"])
            values["environment"] = Environment.from_dict(values.get("environment", {}))
            values["models"] = tuple(ModelSource(**one) for one in values.get("models", ()))
            values["model_swap"] = ModelSwap(values.get("model_swap", ModelSwap.ACTOR))
            scheduling = dict(values.get("scheduling", {}))
            if "policy" in scheduling:
                scheduling["policy"] = SchedulingPolicy(scheduling["policy"])
            values["scheduling"] = Scheduling(**scheduling)
            previous = values.get("previous")
            values["previous"] = None if previous is None else cls.from_dict({"v": 1, **previous, "previous": None})
            return cls(**values)
        except (KeyError, TypeError, ValueError) as error:
            raise FormatError(f"not an app spec: {error!r}") from error
