"""Models of an app: which publication is in force, what lies on a node, and how a result names what answered it.

An app's models are in force together, under one **generation**, made of the offset of the record in `rayline.config` that chose
them. It only grows, also when an operator goes back to an earlier publication; 0 stands for the models of the app's own bundle.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Final

from rayline.errors import FormatError

MAX_MODELS: Final = 100
MAX_PROBLEM_CHARS: Final = 1_000
MODEL_VARIABLE_PREFIX: Final = "RAYLINE_MODEL_"
MODEL_NAME: Final = re.compile(r"[a-z][a-z0-9_-]{0,63}")
_DIGEST: Final = re.compile(r"sha256:[0-9a-f]{64}")
_VERSION: Final = 1


def model_variable(name: str) -> str:
    """The environment variable that holds a model's path."""
    return f"{MODEL_VARIABLE_PREFIX}{name.upper().replace('-', '_')}"


@dataclass(frozen=True, slots=True)
class ModelChoice:
    """One publication of a model: its number in the store, and the digest of its manifest, so that nothing else passes for it."""

    publication: int
    digest: str


def read_choices(value: Any) -> dict[str, ModelChoice]:
    """The value of the setting `models`: `{name: {"publication": …, "digest": …}}`; raises ValueError for anything else."""
    if not isinstance(value, dict) or len(value) > MAX_MODELS:
        raise ValueError(f"a map of at most {MAX_MODELS} models by name")
    return {_name(name): _choice(name, one) for name, one in value.items()}


def choices_value(choices: Mapping[str, ModelChoice]) -> dict[str, Any]:
    """The plain value that `read_choices` reads."""
    return {name: asdict(choice) for name, choice in sorted(choices.items())}


@dataclass(frozen=True, slots=True)
class PlacedModel:
    """A model on this node: the path of its file or folder, and the number of its publication."""

    path: str
    publication: int


@dataclass(frozen=True, slots=True)
class PlacedModels:
    """All published models of an app on this node that are in force together; those of its bundle are not among them."""

    generation: int
    models: Mapping[str, PlacedModel]

    @property
    def paths(self) -> dict[str, str]:
        return {name: model.path for name, model in self.models.items()}

    @property
    def label(self) -> str | None:
        """How results name it, `<generation>:<model>@<publication>,…`; None where all models are the bundle's."""
        named = ",".join(f"{name}@{model.publication}" for name, model in sorted(self.models.items()))
        return f"{self.generation}:{named or 'bundle'}" if self.generation else None


BUNDLED: Final = PlacedModels(0, {})


def generation_at(offset: int) -> int:
    """The generation that a record of `rayline.config` makes: never 0, also where it is the first of the topic."""
    return offset + 1


def generation_of(model_version: str | None) -> int:
    """The generation that a result's `model-version` names; 0 where it names none."""
    number = (model_version or "").partition(":")[0]
    return int(number) if number.isascii() and number.isdigit() else 0


@dataclass(frozen=True, slots=True)
class NodeModels:
    """What a node's agent tells the actors of one app: the generation that is wanted, those that are in place (oldest first), and
    why the wanted one is not."""

    wanted: int
    placed: tuple[PlacedModels, ...] = ()
    problem: str | None = None

    @property
    def newest(self) -> PlacedModels | None:
        return self.placed[-1] if self.placed else None

    def of(self, generation: int) -> PlacedModels | None:
        """What is in place of a generation; the bundle's own is always."""
        return next((one for one in self.placed if one.generation == generation), None if generation else BUNDLED)

    def encode(self) -> bytes:
        return json.dumps({"v": _VERSION, **asdict(self)}).encode()

    @classmethod
    def decode(cls, data: bytes) -> NodeModels:
        """Raises FormatError for anything that `encode` did not write."""
        try:
            found = json.loads(data)
            if found["v"] != _VERSION:
                raise FormatError(f"models of version {found['v']!r}; this Rayline reads version {_VERSION}")
            placed = tuple(
                PlacedModels(int(one["generation"]), {name: PlacedModel(**model) for name, model in one["models"].items()})
                for one in found["placed"]
            )
            return cls(int(found["wanted"]), placed, found["problem"])
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise FormatError(f"not what an agent writes of models: {error!r}") from error


def _name(name: Any) -> str:
    if not isinstance(name, str) or not MODEL_NAME.fullmatch(name):
        raise ValueError(f"a model's name is {name!r}; right would be lower case letters, digits, `-` and `_`, at most 64")
    return name


def _choice(name: str, value: Any) -> ModelChoice:
    if not isinstance(value, dict) or value.keys() != {"publication", "digest"}:
        raise ValueError(f"model {name} needs `publication` and `digest`")
    publication, digest = value["publication"], value["digest"]
    if isinstance(publication, bool) or not isinstance(publication, int) or publication < 1:
        raise ValueError(f"model {name}: publication {publication!r}; right would be a number from 1")
    if not isinstance(digest, str) or not _DIGEST.fullmatch(digest):
        raise ValueError(f"model {name}: digest {digest!r}; right would be sha256: and 64 hexadecimal digits")
    return ModelChoice(publication, digest)
