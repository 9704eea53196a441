"""What a tunable is: a described value with type, bounds, default, the scopes it may be set for, the processes that read it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from rayline.models import MAX_MODELS, choices_value, read_choices
from rayline.versions import MAX_VERSIONS, MAX_WEIGHT, read_version_weights


class Kind(StrEnum):
    """The type of a value. MODELS: publications by the name of the model (`rayline.models`). VERSIONS: weights by the name of the
    app's version (`rayline.versions`)."""

    INTEGER = "integer"
    NUMBER = "number"
    FLAG = "flag"
    CHOICE = "choice"
    MODELS = "models"
    VERSIONS = "versions"


class Scope(StrEnum):
    """For whom a record of the config topic counts; a later one is more specific and wins."""

    GLOBAL = "global"
    APP = "app"
    CLUSTER = "cluster"
    NODE = "node"


class Role(StrEnum):
    """The kinds of processes that watch the config topic."""

    LANE = "lane"
    AGENT = "agent"
    GATEWAY = "gateway"
    RESOURCE = "resource"
    KEEPER = "keeper"
    CONSOLE = "console"
    LAUNCHER = "launcher"


class About(StrEnum):
    """What a value is a fact of: the process that reads it, or a node or an app that this process deals with."""

    PROCESS = "process"
    NODE = "node"
    APP = "app"


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """One tunable, declared once in `rayline.config.declared`.

    `minimum` and `maximum` are inclusive. `effect` says from when on a change counts. `constant`
    names where the code keeps the default, as `module:NAME` or, for a field of a dataclass, `module:Class.field`.
    """

    name: str
    kind: Kind
    description: str
    effect: str
    scopes: tuple[Scope, ...]
    roles: tuple[Role, ...]
    default: Any
    unit: str = ""
    minimum: float | None = None
    maximum: float | None = None
    choices: tuple[str, ...] = ()
    about: About = About.PROCESS
    constant: str | None = None

    def check(self, value: Any) -> Any:
        """The value as it is used (a whole number given for NUMBER becomes a float).

        Raises:
            ValueError: another type, or out of bounds; the message says what would be right.
        """
        match self.kind:
            case Kind.FLAG:
                if not isinstance(value, bool):
                    raise self._wrong(value)
                return value
            case Kind.CHOICE:
                if not isinstance(value, str) or value not in self.choices:
                    raise self._wrong(value)
                return value
            case Kind.MODELS:
                try:
                    return choices_value(read_choices(value))
                except ValueError as error:
                    raise ValueError(f"{self.name} is {shown(value)}: {error}; right would be {self.right()}") from error
            case Kind.VERSIONS:
                try:
                    return read_version_weights(value)
                except ValueError as error:
                    raise ValueError(f"{self.name} is {shown(value)}: {error}; right would be {self.right()}") from error
            case Kind.INTEGER:
                if isinstance(value, float) and value.is_integer():
                    value = int(value)
                if isinstance(value, bool) or not isinstance(value, int) or not self._within(value):
                    raise self._wrong(value)
                return value
            case Kind.NUMBER:
                if not self._is_number(value):
                    raise self._wrong(value)
                return float(value)

    def right(self) -> str:
        """What a value must be, in words."""
        match self.kind:
            case Kind.FLAG:
                return "true or false"
            case Kind.CHOICE:
                return f"one of {', '.join(self.choices)}"
            case Kind.MODELS:
                return "a map from each model's name to its publication and digest, as `rayline model use` writes it"
            case Kind.VERSIONS:
                return (
                    'an object such as {"1.4.0": 0.1, "1.3.0": 1}, or the same as text (1.4.0=0.1,1.3.0=1): weights from 0 to '
                    f"{_plain(MAX_WEIGHT)} by version, {MAX_VERSIONS} at most"
                )
            case Kind.INTEGER:
                what = "a whole number"
            case Kind.NUMBER:
                what = "a number"
        return f"{what} from {_plain(self.minimum)} to {_plain(self.maximum)}" + (f" ({self.unit})" if self.unit else "")

    def schema(self) -> dict[str, Any]:
        """JSON Schema of the value."""
        described = {"title": self.name, "description": f"{self.description} {self.effect}", "default": self.default}
        if self.unit:
            described["x-unit"] = self.unit
        match self.kind:
            case Kind.FLAG:
                return {**described, "type": "boolean"}
            case Kind.CHOICE:
                return {**described, "enum": list(self.choices)}
            case Kind.MODELS:
                choice = {"type": "object", "required": ["publication", "digest"], "additionalProperties": False}
                fields = {"publication": {"type": "integer", "minimum": 1}, "digest": {"type": "string"}}
                each = {**choice, "properties": fields}
                return {**described, "type": "object", "maxProperties": MAX_MODELS, "additionalProperties": each}
            case Kind.VERSIONS:
                weight = {"type": "number", "minimum": 0, "maximum": MAX_WEIGHT}
                weights = {"type": "object", "maxProperties": MAX_VERSIONS, "additionalProperties": weight}
                return {**described, "anyOf": [weights, {"type": "string"}]}
            case Kind.INTEGER | Kind.NUMBER:
                return {**described, "type": self.kind.value, "minimum": self.minimum, "maximum": self.maximum}

    def _is_number(self, value: Any) -> bool:
        return not isinstance(value, bool) and isinstance(value, int | float) and self._within(value)

    def _within(self, value: float) -> bool:
        if isinstance(value, float) and not math.isfinite(value):
            return False
        return (self.minimum is None or value >= self.minimum) and (self.maximum is None or value <= self.maximum)

    def _wrong(self, value: Any) -> ValueError:
        return ValueError(f"{self.name} is {shown(value)}; right would be {self.right()}")


def _plain(bound: float | None) -> str:
    return "–" if bound is None else str(int(bound)) if float(bound).is_integer() else f"{bound:g}"


def shown(value: Any, chars: int = 80) -> str:
    """A value from outside, short enough for one line, whatever it is."""
    if isinstance(value, int) and not isinstance(value, bool) and value.bit_length() > 512:
        return "a number of hundreds of digits"
    text = repr(value)
    return text if len(text) <= chars else f"{text[: chars - 1]}…"
