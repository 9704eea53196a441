"""Plans as data: what runs, the load beside it, which faults strike whom, and the bars. Pure, apart from reading the file."""

from __future__ import annotations

import json
from enum import StrEnum
from itertools import accumulate
from pathlib import Path
from typing import Any, Final

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from deploy.chaos.effects.network import Direction
from deploy.config_change import read_request
from deploy.config_set import read_set
from rayline.config import Change
from rayline.errors import ConfigError

PLANS: Final = Path(__file__).parent / "plans"


class Kind(StrEnum):
    """What is done."""

    KILL = "kill"
    """SIGKILL; of a pod or head, everything in it at once."""
    STOP = "stop"
    """SIGTERM; supervision brings it back."""
    FREEZE = "freeze"
    """SIGSTOP, and SIGCONT after `for_seconds`; of a pod or head, everything in it."""
    NOTICE = "notice"
    """The eviction of a pod: SIGTERM, SIGKILL of what is left after `for_seconds`."""
    THROTTLE = "throttle"
    """A pod gets `cpu` cores for `for_seconds`: by its cgroup, else by SIGSTOP and SIGCONT in turns."""
    HOG = "hog"
    """A noisy neighbour: busy processes on the pod's cores for `for_seconds`."""
    PARTITION = "partition"
    """The pod's packets from and to all others (or one `direction` alone) are dropped for `for_seconds`."""
    LOSS = "loss"
    """`percent` of them are, or what is beyond `rate_mbit`."""
    DELAY = "delay"
    """They are delayed by `delay_ms`, with `jitter_ms`, and doubled, disordered or damaged at random."""
    DISK_FULL = "disk-full"
    """The broker's or a pod's folder for new log files has no free byte for `for_seconds`."""
    POISON = "poison"
    """A job that kills the process which runs it."""
    SKEW = "skew"
    """The producer's clock is wrong by `clock_seconds` for `for_seconds`."""
    SCALE = "scale"
    """`cluster` is to have `pods` pods from now on; one that is not there is built, 0 takes it down."""


class Target(StrEnum):
    """Whom it strikes."""

    LANE = "lane"
    BROKER = "broker"
    WORKER = "worker"
    """A process that runs the app's function."""
    POD = "pod"
    HEAD = "head"
    GATEWAY = "gateway"
    RESOURCE = "resource"
    KEEPER = "keeper"
    PRODUCER = "producer"
    CLUSTER = "cluster"


class Pick(StrEnum):
    """Which of several."""

    ANY = "any"
    BUSY = "busy"
    """A pod or worker that is running a job at this very moment (at most two seconds one is waited for, then any)."""
    OLDEST = "oldest"
    NEWEST = "newest"


_TARGETS: Final[dict[Kind, frozenset[Target]]] = {
    Kind.NOTICE: frozenset({Target.POD}),
    Kind.THROTTLE: frozenset({Target.POD}),
    Kind.HOG: frozenset({Target.POD}),
    Kind.PARTITION: frozenset({Target.POD}),
    Kind.LOSS: frozenset({Target.POD}),
    Kind.DELAY: frozenset({Target.POD}),
    Kind.DISK_FULL: frozenset({Target.POD}),
    Kind.POISON: frozenset({Target.PRODUCER}),
    Kind.SKEW: frozenset({Target.PRODUCER}),
    Kind.SCALE: frozenset({Target.CLUSTER}),
}
_PROCESSES: Final = frozenset(Target) - {Target.PRODUCER, Target.CLUSTER}
NETWORK_KINDS: Final = frozenset({Kind.PARTITION, Kind.LOSS, Kind.DELAY})
_LASTING: Final = NETWORK_KINDS | {Kind.FREEZE, Kind.NOTICE, Kind.THROTTLE, Kind.HOG, Kind.DISK_FULL, Kind.SKEW}


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class FaultSpec(_Strict):
    """One line of `faults`: what, whom, and when, in seconds of the load."""

    kind: Kind
    target: Target
    between: tuple[float, float] | None = Field(default=None, description="once, at a moment drawn from these seconds")
    every: float | None = Field(default=None, gt=0, description="again and again, so many seconds apart …")
    jitter: float = Field(default=0.0, ge=0, description="… each so much later at most …")
    start: float = Field(default=5.0, ge=0, description="… from this second on …")
    count: int = Field(default=1, ge=1, description="… so many times.")
    again_within: tuple[float, float] | None = Field(
        default=None, description="a second stroke on the same target, so long after"
    )
    pick: Pick = Pick.ANY
    share: float | None = Field(default=None, gt=0, le=1, description="strike this share of all candidates, not one")
    within: float = Field(default=0.0, ge=0, description="spread a share over so many seconds")
    needs: int = Field(default=0, ge=0, description="wait until so many pods serve the app")
    for_seconds: float = Field(default=0.0, ge=0)
    cpu: float = Field(default=0.3, gt=0, description="cores of a throttled pod")
    by_signals: bool = Field(default=False, description="throttle by SIGSTOP and SIGCONT: it also slows a pod that uses less")
    percent: int = Field(default=10, ge=1, le=100, description="share of packets that are lost")
    rate_mbit: float | None = Field(
        default=None, gt=0, description="packets beyond so much a second are lost, instead of a share"
    )
    direction: Direction = Field(
        default=Direction.BOTH, description="of a partition or loss: only packets to the pod, or from it"
    )
    delay_ms: float = Field(default=100, ge=0)
    jitter_ms: float = Field(default=50, ge=0)
    duplicate_percent: int = Field(default=0, ge=0, le=100, description="of a delay: share of packets that come twice")
    reorder_percent: int = Field(default=0, ge=0, le=100, description="… that overtake others")
    corrupt_percent: int = Field(default=0, ge=0, le=100, description="… that are damaged")
    clock_seconds: float = Field(default=30, description="how wrong the producer's clock is")
    processes: int = Field(default=2, ge=1, description="of a hog")
    beside: int = Field(default=0, ge=0, description="so many good jobs at once, with the poison in their middle")
    cluster: str | None = Field(default=None, description="which one is scaled …")
    pods: int | None = Field(default=None, ge=0, le=64, description="… to so many pods")

    @model_validator(mode="after")
    def _possible(self) -> FaultSpec:
        for span in (self.between or (0.0, 0.0), self.again_within or (0.0, 0.0)):
            if not 0 <= span[0] <= span[1]:
                raise ValueError("a span is [earliest, latest], in seconds, none negative")
        if (self.between is None) == (self.every is None):
            raise ValueError("a fault strikes `between` two moments, or `every` so many seconds: give one of them")
        fitting = _TARGETS.get(self.kind, _PROCESSES)
        if self.target not in fitting:
            raise ValueError(f"{self.kind} strikes only a {' or '.join(sorted(fitting))}, not a {self.target}")
        if self.kind in _LASTING and not self.for_seconds:
            raise ValueError(f"{self.kind} needs for_seconds")
        if (self.kind is Kind.SCALE) is (self.cluster is None or self.pods is None):
            raise ValueError("a scale, and nothing else, has a cluster and its pods")
        if self.pick is Pick.BUSY and self.target not in (Target.POD, Target.WORKER):
            raise ValueError("only a pod or worker is picked by being busy")
        return self


class RandomFault(_Strict):
    """One kind of accident of a random plan, drawn by `weight`."""

    kind: Kind
    target: Target
    weight: float = Field(default=1.0, gt=0)
    for_seconds: tuple[float, float] = (0.0, 0.0)
    share: float | None = Field(default=None, gt=0, le=1)
    needs: int = 0

    @model_validator(mode="after")
    def _possible(self) -> RandomFault:
        for seconds in self.for_seconds:
            FaultSpec(kind=self.kind, target=self.target, between=(0, 0), for_seconds=seconds)
        return self


class RandomPlan(_Strict):
    """Accidents one after the other, at exponential distances, from `start` to `until` (seconds of the load)."""

    start: float = 5.0
    until: float
    mean_seconds: float = Field(gt=0)
    faults: tuple[RandomFault, ...] = Field(min_length=1)


class LoadPhase(_Strict):
    """A part of the load at another rate: `times` what the load has otherwise, for so many seconds."""

    seconds: float = Field(gt=0)
    times: float = Field(gt=0, le=100)


class LoadSpec(_Strict):
    """Jobs a second: `rate`, or a `share` of what a calibration finds that this platform sustains.

    `phases` follow each other from the load's beginning; after them, and where there are none, the rate is that.
    """

    share: float = Field(default=0.5, gt=0, le=1)
    rate: float | None = Field(default=None, gt=0)
    phases: tuple[LoadPhase, ...] = ()

    def bursts(self) -> list[tuple[float, float]]:
        """From when until when more comes than otherwise, in seconds of the load."""
        ends = list(accumulate(phase.seconds for phase in self.phases))
        return [(end - phase.seconds, end) for end, phase in zip(ends, self.phases, strict=True) if phase.times > 1]


class Bars(_Strict):
    """What must hold besides: nothing lost, doubled, wrong or left over. None: no bar."""

    outcomes: tuple[str, ...] = Field(default=("ok", "deadline_exceeded"), description="no other outcome may occur")
    ok_in_time_share: float | None = Field(default=None, description="at least this share of all jobs `ok` within 10 s")
    quarantined: int | None = Field(default=None, description="exactly so many")
    job_p99_ms: float | None = None
    job_max_ms: float | None = None
    notice_p99_ms: float | None = Field(default=None, description="notice to the last batch sent there")
    notice_max_ms: float | None = None
    redispatch_p99_ms: float | None = Field(default=None, description="kill to the second dispatch")
    silent_after_ms: float | None = Field(default=None, description="a frozen pod gets nothing new after so long")
    back_in_rotation_ms: float | None = Field(default=None, description="what was frozen or throttled gets work again")
    serving_again_ms: float | None = Field(default=None, description="what was killed has a successor that serves")
    extra_attempts_share: float | None = None
    workers_lost: int | None = Field(default=None, description="processes that jobs killed, at most")
    share_halved_ms: float | None = Field(default=None, description="a throttled pod's share is below half after so long")
    share_back_ms: float | None = Field(
        default=None, description="what was throttled or frozen has 80 % of its undisturbed share, so long after the end"
    )
    share_crossings: int | None = Field(
        default=None, description="its share falls below half, and rises over half, at most so often each"
    )
    share_at_return: float | None = Field(
        default=None, description="what was frozen starts slowly: at most this part of its undisturbed share at first"
    )
    disturbed_p99_factor: float | None = Field(default=None, description="p99 during a lasting fault against before")
    ok_again_ms: float | None = Field(
        default=None, description="so long after the last burst (or fault), 99.9 % of the jobs that follow are `ok` within 10 s"
    )
    normal_again_ms: float | None = Field(
        default=None, description="so long after the last burst (or fault), latency is as it was before the first one"
    )
    view_again_ms: float | None = Field(
        default=None, description="after a control-plane fault the view tells of every node again"
    )
    suspected_wrongly: int | None = Field(default=None, description="nodes that counted as silent though nothing struck them")


class Plan(_Strict):
    """A plan file. `tail_seconds` of load follow the last fault; the load lasts longer when faults had to wait (`needs`)."""

    name: str
    summary: str
    load_seconds: float = Field(gt=0)
    tail_seconds: float = Field(default=5.0, ge=0)
    load: LoadSpec = LoadSpec()
    clusters: int = Field(default=2, ge=1)
    pods: int = Field(default=3, ge=1, description="of each cluster")
    lanes: int = Field(default=1, ge=1)
    work_ms: float = Field(default=5.0, ge=0, description="CPU time of one job on the idle machine")
    config: str | dict[str, Any] = Field(
        default_factory=dict, description="settings during the run: a set's name, or keys and values"
    )
    retry: bool = Field(default=True, description="jobs run again; without, whatever ends an attempt ends the job")
    whole_again: bool = Field(default=False, description="the load goes on until all pods serve again")
    faults: tuple[FaultSpec, ...] = ()
    random: RandomPlan | None = None
    bars: Bars = Bars()

    @model_validator(mode="after")
    def _strikes(self) -> Plan:
        if not self.faults and self.random is None and not self.load.bursts():
            raise ValueError("a plan has `faults`, or `random`, or a phase of the load with more `times` than 1")
        try:
            self.settings()
        except ConfigError as error:
            raise ValueError(str(error)) from error
        return self

    def settings(self) -> list[Change]:
        """What `config` says. Raises ConfigError where a key or value is not right."""
        if isinstance(self.config, str):
            return read_set(self.config)
        return [read_request(key, json.dumps(value)) for key, value in self.config.items()]

    @property
    def stays_changed(self) -> bool:
        """Whether the platform is another one after it: it has other settings, or other clusters."""
        return bool(self.config) or any(spec.kind is Kind.SCALE for spec in self.faults)

    @property
    def needs_network(self) -> bool:
        """Whether it runs in a network namespace of its own."""
        kinds = {spec.kind for spec in self.faults} | {spec.kind for spec in (self.random.faults if self.random else ())}
        return bool(kinds & NETWORK_KINDS)


def plan_names(folder: Path = PLANS) -> list[str]:
    return sorted(path.stem for path in folder.glob("*.yaml"))


def load_plan(name: str, folder: Path = PLANS, *, short: bool = False, **given: Any) -> Plan:
    """Read a shipped plan by its name, or any by its path; raises ConfigError that says what would be right.

    `short` lays the file's `short:` over the rest, key by key, and then comes what is `given`.
    """
    path = Path(name) if name.endswith((".yaml", ".yml")) else folder / f"{name}.yaml"
    if not path.exists():
        raise ConfigError(f"no plan {name!r}; there are: {', '.join(plan_names(folder))} (or give the path of a YAML file)")
    try:
        data: dict[str, Any] = dict(yaml.safe_load(path.read_text()))
        shorter = data.pop("short", None) or {}
        return Plan.model_validate({"name": path.stem, **data, **(shorter if short else {}), **given})
    except (yaml.YAMLError, TypeError, ValueError, ValidationError) as error:
        raise ConfigError(f"{path}: {error}") from error
