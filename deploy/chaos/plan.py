"""Plans as data: which faults strike what, and when. Pure: one plan and one seed give one schedule, always."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Final, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from rayline.errors import ConfigError

Candidate = TypeVar("Candidate")
PLANS: Final = Path(__file__).parent / "plans"


class Kind(StrEnum):
    """What is done to a process."""

    KILL = "kill"
    """SIGKILL."""
    STOP = "stop"
    """SIGTERM; supervision brings it back."""
    FREEZE = "freeze"
    """SIGSTOP, and SIGCONT after `for_seconds`."""
    NOTICE = "notice"
    """The eviction of a pod: SIGTERM, SIGKILL after `for_seconds`."""


class Target(StrEnum):
    """Whom it strikes; of several, one is drawn."""

    LANE = "lane"
    BROKER = "broker"
    WORKER = "worker"
    """The process that runs the app's function."""
    POD = "pod"
    HEAD = "head"


class FaultSpec(BaseModel):
    """One fault of a plan: at a moment drawn from `between` (seconds of the load), on one `target`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    kind: Kind
    target: Target
    between: tuple[float, float] = Field(description="earliest and latest second of the load")
    again_within: tuple[float, float] | None = Field(
        default=None, description="a second stroke on the same target, so long after"
    )
    for_seconds: float = Field(default=0.0, ge=0)

    @model_validator(mode="after")
    def _possible(self) -> FaultSpec:
        for span in (self.between, self.again_within or (0.0, 0.0)):
            if not 0 <= span[0] <= span[1]:
                raise ValueError("a span is [earliest, latest], in seconds, none negative")
        if self.kind is Kind.NOTICE and self.target is not Target.POD:
            raise ValueError("only a pod gets a notice")
        if self.kind in (Kind.FREEZE, Kind.NOTICE) and not self.for_seconds:
            raise ValueError(f"{self.kind} needs for_seconds")
        return self


class Plan(BaseModel):
    """A plan file: the load, what runs, and the faults."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str
    summary: str
    load_seconds: float = Field(gt=0)
    lanes: int = Field(default=1, ge=1)
    faults: tuple[FaultSpec, ...]


@dataclass(frozen=True, slots=True)
class Fault:
    """One stroke. `draw` in [0, 1) chooses among the candidates; strokes of one fault share it, so that they hit one target."""

    at_seconds: float
    kind: Kind
    target: Target
    draw: float
    for_seconds: float


def plan_names(folder: Path = PLANS) -> list[str]:
    return sorted(path.stem for path in folder.glob("*.yaml"))


def load_plan(name: str, folder: Path = PLANS) -> Plan:
    """Read a shipped plan by its name, or any by its path; raises ConfigError that says what would be right."""
    path = Path(name) if name.endswith((".yaml", ".yml")) else folder / f"{name}.yaml"
    if not path.exists():
        raise ConfigError(f"no plan {name!r}; there are: {', '.join(plan_names(folder))} (or give the path of a YAML file)")
    try:
        data = yaml.safe_load(path.read_text())
        return Plan.model_validate({"name": path.stem, **data})
    except (yaml.YAMLError, TypeError, ValidationError) as error:
        raise ConfigError(f"{path}: {error}") from error


def draw_schedule(plan: Plan, seed: int) -> list[Fault]:
    """The plan's strokes in the order of time; the same for the same seed."""
    dice = random.Random(f"{plan.name}/{seed}")
    strokes: list[Fault] = []
    for spec in plan.faults:
        at, draw = dice.uniform(*spec.between), dice.random()
        moments = [at] if spec.again_within is None else [at, at + dice.uniform(*spec.again_within)]
        strokes += [Fault(moment, spec.kind, spec.target, draw, spec.for_seconds) for moment in moments]
    return sorted(strokes, key=lambda fault: fault.at_seconds)


def choose(candidates: Sequence[Candidate], draw: float) -> Candidate | None:
    """One of the candidates (in their order) by a number in [0, 1); None where there are none."""
    return candidates[int(draw * len(candidates))] if candidates else None
