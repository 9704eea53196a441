"""app.yaml → AppSpec: described, bounded fields; every error names file and line, what was found and what would be right."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Final, Literal, get_args, get_origin

from pydantic import Field, ValidationError
from pydantic.fields import FieldInfo

from rayline.app_spec import (
    AppSpec,
    BatchFormat,
    Batching,
    Call,
    Limits,
    ModelSwap,
    Resources,
    Retries,
    Scheduling,
    SchedulingPolicy,
)
from rayline.entrypoint import ENTRYPOINT_PATTERN, as_module
from rayline.environment_manifest import EnvSection, ModelSection, read_environment, read_models
from rayline.errors import ManifestError
from rayline.manifest_types import Section, Size
from rayline.yaml_lines import LocatedYaml, read_yaml, suggestion

VERSION_DIGITS: Final = 12
MAX_HASHED_FILES: Final = 5_000


# Defaults are declared once, where every process reads them.
_RESOURCES, _BATCHING, _RETRIES, _LIMITS, _SCHEDULING = Resources(), Batching(), Retries(), Limits(), Scheduling()


class ResourcesSection(Section):
    num_cpus: float = Field(
        default=_RESOURCES.num_cpus,
        gt=0,
        le=1024,
        description="CPUs of one actor (Ray's logical resource; fractions share a CPU).",
    )
    num_gpus: float = Field(default=_RESOURCES.num_gpus, ge=0, le=64, description="GPUs of one actor.")
    memory: Size = Field(
        default=_RESOURCES.memory_bytes,
        ge=0,
        le=2**44,
        description="Memory one actor may use, e.g. `512MiB`; past it, it is restarted. 0: no limit.",
    )


class BatchingSection(Section):
    max_jobs: int = Field(default=_BATCHING.max_jobs, ge=1, le=100_000, description="A batch closes at so many jobs …")
    max_bytes: Size = Field(default=_BATCHING.max_bytes, ge=1, le=64 * 2**20, description="… or at so many payload bytes …")
    linger_ms: float = Field(
        default=_BATCHING.linger_ms,
        ge=0,
        le=60_000,
        description="… or when its oldest job has waited so long (earlier when a deadline asks for it).",
    )


class RetriesSection(Section):
    errors: int = Field(
        default=_RETRIES.errors, ge=0, le=100, description="How often a job may run again after the function raised for it."
    )
    evictions: int = Field(
        default=_RETRIES.evictions, ge=0, le=1000, description="How often after its pod was evicted or lost: not the job's fault."
    )
    timeouts: int = Field(
        default=_RETRIES.timeouts, ge=0, le=100, description="How often after the function ran past `limits.execute_seconds`."
    )
    kills: int = Field(
        default=_RETRIES.kills, ge=0, le=100, description="How often after its worker died with it; then it is quarantined."
    )


class LimitsSection(Section):
    execute_seconds: float = Field(
        default=_LIMITS.execute_seconds, gt=0, le=3600, description="One call of the function may take so long."
    )
    startup_seconds: float = Field(
        default=_LIMITS.startup_seconds,
        gt=0,
        le=3600,
        description="Importing the module and building the class may take so long.",
    )
    max_job_bytes: Size = Field(default=_LIMITS.max_job_bytes, ge=1, le=64 * 2**20, description="A larger payload is `invalid`.")
    max_result_bytes: Size = Field(
        default=_LIMITS.max_result_bytes, ge=1, le=64 * 2**20, description="A larger feature is an `error` result."
    )
    max_in_flight_bytes: Size = Field(
        default=_LIMITS.max_in_flight_bytes,
        ge=2**20,
        le=2**36,
        description="Payloads one lane holds in memory; past it, it stops reading.",
    )


class SchedulingSection(Section):
    policy: Literal["headroom", "static", "least-loaded", "wechat"] = Field(
        default="headroom", description="How nodes are weighed (docs/scheduling.md)."
    )
    interval_seconds: float = Field(
        default=_SCHEDULING.interval_seconds,
        ge=0.1,
        le=60,
        description="Weights are recomputed so often, and at once when nodes come or go.",
    )
    cards: dict[str, Annotated[float, Field(gt=0, le=1000)]] = Field(
        default={}, description="Performance of one card by its kind, e.g. `{A10: 1.0, L40: 2.5}`; a kind not named counts 1."
    )


class Manifest(Section):
    """The keys of app.yaml."""

    name: str = Field(
        pattern=r"^[a-zA-Z0-9][a-zA-Z0-9._-]{0,99}$",
        examples=["text-features"],
        description="The app; its topics are `<name>.requests`, `<name>.results`, `<name>.dlq`. "
        "Letters, digits, `.`, `_`, `-`; at most 100.",
    )
    version: str | None = Field(
        default=None,
        pattern=r"^[a-zA-Z0-9][a-zA-Z0-9._+-]{0,63}$",
        examples=["1.4.0"],
        description="Shown in every result; default: a short hash of app.yaml and the app's .py files.",
    )
    entrypoint: str = Field(
        pattern=ENTRYPOINT_PATTERN,
        examples=["feature:extract"],
        description="`module:callable` below the folder of app.yaml: a function, or a class that is built once for each actor.",
    )
    batch_format: Literal["rows", "numpy", "arrow", "pandas"] = Field(
        default="rows", description="What a function with `call: batch` gets: a list of payloads, or the payloads as columns."
    )
    call: Literal["job", "batch"] = Field(
        default="job", description="Call the function with one job's payload, or with a whole batch."
    )
    constructor: dict[str, Any] = Field(default={}, description="Keyword arguments for the class of `entrypoint`.")
    env: EnvSection = Field(default=EnvSection(), description="Python, packages and files of the app: `rayline env build`.")
    models: list[ModelSection] = Field(default=[], description="Models that travel with the app.")
    model_swap: Literal["actor", "instance"] = Field(
        default="actor",
        description="How a model that `rayline model` puts in force is taken up: by new actors beside the old ones, or by a "
        "second instance of the class in the same process (docs/environments.md).",
    )
    resources: ResourcesSection = Field(default=ResourcesSection(), description="What one actor needs.")
    concurrency: int = Field(
        default=1, ge=1, le=1024, description="Calls that one actor runs at once (async functions, or threads)."
    )
    actors_per_node: int | None = Field(
        default=None, ge=1, le=1024, description="Actors on each pod; default: as many as its CPUs hold."
    )
    batching: BatchingSection = Field(default=BatchingSection(), description="When a batch closes.")
    sla_seconds: float = Field(
        default=10.0, gt=0, le=86_400, description="Deadline of a job without `deadline-ms`: its record's time plus this."
    )
    partitions: int = Field(default=8, ge=1, le=1000, description="Partitions of the app's topics when they are made.")
    retries: RetriesSection = Field(default=RetriesSection(), description="How often one job may run again, by cause.")
    limits: LimitsSection = Field(default=LimitsSection(), description="Bounds that protect the platform.")
    scheduling: SchedulingSection = Field(default=SchedulingSection(), description="Which node gets how much of the work.")


def load_manifest(path: Path | str) -> AppSpec:
    """Read app.yaml (or the app.yaml of a folder); raises ManifestError naming file, line and what would be right."""
    path = Path(path)
    if path.is_dir():
        path = path / "app.yaml"
    located = read_yaml(path)
    try:
        manifest = Manifest.model_validate(located.value)
    except ValidationError as error:
        found = sorted(error.errors(), key=lambda item: located.line(item["loc"]))
        raise ManifestError("\n".join(_explain(located, item) for item in found)) from None
    _check_across_fields(located, manifest)
    root = path.resolve().parent
    return AppSpec(
        name=manifest.name,
        version=manifest.version or content_version(path),
        root=str(root),
        entrypoint=manifest.entrypoint,
        batch_format=BatchFormat(manifest.batch_format),
        call=Call(manifest.call),
        constructor=manifest.constructor,
        env=manifest.env.variables,
        resources=Resources(
            num_cpus=manifest.resources.num_cpus,
            num_gpus=manifest.resources.num_gpus,
            memory_bytes=manifest.resources.memory,
        ),
        concurrency=manifest.concurrency,
        actors_per_node=manifest.actors_per_node,
        batching=Batching(**manifest.batching.model_dump()),
        sla_seconds=manifest.sla_seconds,
        partitions=manifest.partitions,
        retries=Retries(**manifest.retries.model_dump()),
        limits=Limits(**manifest.limits.model_dump()),
        environment=read_environment(located, manifest.env),
        models=read_models(located, manifest.models),
        model_swap=ModelSwap(manifest.model_swap),
        scheduling=Scheduling(
            policy=SchedulingPolicy(manifest.scheduling.policy),
            interval_seconds=manifest.scheduling.interval_seconds,
            cards=manifest.scheduling.cards,
        ),
    )


def manifest_schema() -> dict[str, Any]:
    """JSON Schema of app.yaml, for editors (`# yaml-language-server: $schema=…`)."""
    schema = Manifest.model_json_schema()
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema, "title": "Rayline app.yaml"}


def manifest_fields(section: type[Section] | None = None, prefix: str = "") -> Iterator[tuple[str, str, str]]:
    """Every key as (dotted name, default as it would be written, description), sections flattened; for the docs."""
    for name, field in (section or Manifest).model_fields.items():
        below = _section_of(field.annotation)
        if below is not None:
            yield from manifest_fields(below, f"{prefix}{name}{'.' if field.annotation is below else '[].'}")
            continue
        default = "required" if field.is_required() else _as_written(field.default)
        yield f"{prefix}{name}", default, field.description or ""


def content_version(path: Path) -> str:
    """A short hash of the manifest and every .py file below its folder (hidden folders and caches left out)."""
    digest = hashlib.sha256(path.read_bytes())
    for number, source in enumerate(_sources(path.resolve().parent)):
        if number >= MAX_HASHED_FILES:
            raise ManifestError(
                f"{path}: more than {MAX_HASHED_FILES} .py files below its folder; "
                "give `version:`, or move app.yaml into a folder of its own"
            )
        digest.update(f"\0{source.relative_to(path.resolve().parent)}\0".encode())
        digest.update(source.read_bytes())
    return digest.hexdigest()[:VERSION_DIGITS]


def _sources(folder: Path) -> Iterator[Path]:
    for entry in sorted(folder.iterdir()):
        if entry.name.startswith(".") or entry.name in ("__pycache__", "node_modules", "venv"):
            continue
        if entry.is_dir() and not entry.is_symlink():
            yield from _sources(entry)
        elif entry.suffix == ".py" and entry.is_file():
            yield entry


def _explain(located: LocatedYaml, error: Any) -> str:
    """One pydantic error as `file:line: key: found …; right would be …`."""
    keys = tuple(key for key in error["loc"] if key != "[key]")
    name = ".".join(str(key) for key in keys)
    where = located.where(keys)
    if error["type"] == "extra_forbidden":
        known = list(_section_at(keys[:-1]).model_fields)
        hint = suggestion(str(keys[-1]), known)
        return f"{where}: unknown key `{name}`{hint}; known here: {', '.join(known)}"
    if error["type"] == "invalid_key":
        right = ", ".join(_section_at(keys[:-1]).model_fields)
        return f"{where}: the key {_shown(error['input'])} is no text; right would be one of: {right}"
    if error["type"] == "missing":
        return f"{where}: `{name}` is missing: {_description(keys)}"
    if error["type"] == "model_type":
        right = ", ".join(_section_at(keys).model_fields)
        what = f"`{name}`" if name else "the manifest"
        return f"{where}: {what} is {_shown(error['input'])}; right would be a mapping of: {right}"
    return f"{where}: `{name}` is {_shown(error['input'])}; right would be {_right(error, keys)}. {_description(keys)}".rstrip()


def _right(error: Any, keys: tuple[Any, ...]) -> str:
    context = error.get("ctx", {})
    match error["type"]:
        case "greater_than":
            return f"a number above {context['gt']:g}"
        case "greater_than_equal":
            return f"a number of at least {context['ge']:g}"
        case "less_than_equal":
            return f"a number of at most {context['le']:g}"
        case "literal_error":
            hint = suggestion(str(error["input"]), str(context["expected"]).replace("'", "").replace(" or ", ", ").split(", "))
            return f"{context['expected']}{hint}"
        case "string_pattern_mismatch" if keys == ("entrypoint",) and (module := as_module(error["input"])) is not None:
            return f"{module}, the module's name with dots instead of a file"
        case "string_pattern_mismatch":
            return f"text like {(_field(keys).examples or [context['pattern']])[0]}"
        case "string_type":
            return "text (put it in quotes)"
        case "int_type":
            return "a whole number"
        case "float_type":
            return "a number"
        case "list_type":
            return "a list: [a, b], or lines that begin with `- `"
        case "string_too_short":
            return "text that is not empty"
        case "dict_type":
            return "a mapping (key: value)"
        case "value_error":
            return str(context["error"])
        case _:
            return str(error["msg"])


def _section_of(annotation: Any) -> type[Section] | None:
    """The section that a field holds, itself or as items of a list; None for plain values."""
    inner = get_args(annotation)[0] if get_origin(annotation) is list else annotation
    return inner if isinstance(inner, type) and issubclass(inner, Section) else None


def _section_at(keys: tuple[Any, ...]) -> type[Section]:
    section: type[Section] = Manifest
    for key in keys:
        if isinstance(key, str):
            section = _section_of(section.model_fields[key].annotation) or section
    return section


def _field(keys: tuple[Any, ...]) -> FieldInfo:
    """The field that a path of keys leads to; below a free mapping (`env.variables.A`) the mapping's own."""
    section: type[Section] = Manifest
    field = FieldInfo(annotation=Manifest)
    for key in keys:
        if not isinstance(key, str):
            continue
        field = section.model_fields[key]
        below = _section_of(field.annotation)
        if below is None:
            break
        section = below
    return field


def _description(keys: tuple[Any, ...]) -> str:
    return _field(keys).description or ""


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}…"


def _as_written(value: Any) -> str:
    if value is None:
        return "–"
    if value == {} or value == []:
        return f"`{value}`"
    if isinstance(value, int) and value >= 2**20 and value % 2**20 == 0:
        return f"`{value // 2**20}MiB`"
    return f"`{value:g}`" if isinstance(value, float) else f"`{value}`"


def _check_across_fields(located: LocatedYaml, manifest: Manifest) -> None:
    """What single fields cannot see."""
    if manifest.name == "rayline" or manifest.name.startswith("rayline."):
        raise ManifestError(
            f"{located.where(('name',))}: `name` is {manifest.name!r}; `rayline.` is the platform's own: choose another name"
        )
    if manifest.batching.linger_ms >= manifest.sla_seconds * 1000:
        raise ManifestError(
            f"{located.where(('batching', 'linger_ms'))}: `batching.linger_ms` is {manifest.batching.linger_ms:g}, which eats "
            f"the whole SLA of {manifest.sla_seconds:g} s; right would be well below {manifest.sla_seconds * 1000:g}"
        )
    if manifest.limits.max_job_bytes > manifest.limits.max_in_flight_bytes:
        raise ManifestError(
            f"{located.where(('limits', 'max_job_bytes'))}: `limits.max_job_bytes` is larger than `limits.max_in_flight_bytes` "
            f"({manifest.limits.max_in_flight_bytes}): such a job could never be read; lower it or raise the other"
        )
