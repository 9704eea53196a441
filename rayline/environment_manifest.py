"""`env:` and `models:` of app.yaml: what an app's bundle is built from, with requirement files read and located."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Final

from pydantic import Field

from rayline.app_spec import Environment, ModelSource, Requirement
from rayline.errors import ManifestError
from rayline.manifest_types import Section, Size
from rayline.models import model_variable
from rayline.yaml_lines import LocatedYaml

MAX_REQUIREMENTS: Final = 5_000
_LOCAL_SOURCE: Final = re.compile(r"^(?![A-Za-z][A-Za-z0-9+.-]*://)")
_COMMENT: Final = re.compile(r"(^|\s)#.*$")
_RIGHT_PATH: Final = "right would be a path from the folder of app.yaml"
_FOLDERS: Final = ("libraries", "binaries", "wheels")

SettingName = Annotated[str, Field(pattern=r"^[a-z][a-z0-9-]{0,63}$", examples=["company-packages"])]
CardName = Annotated[str, Field(min_length=1, max_length=100, examples=["nvidia"])]
ProviderName = Annotated[str, Field(min_length=1, max_length=100, examples=["CUDAExecutionProvider"])]


class EnvSection(Section):
    """`env:` in app.yaml."""

    python: str | None = Field(
        default=None,
        pattern=r"^3\.(10|11|12|13)(\.\d{1,2})?$",
        examples=["'3.11'"],
        description="Python of the app, in quotes: `'3.10'` to `'3.13'`, or a patch release; default: the one that builds.",
    )
    requirements: list[str] = Field(
        default=[], description="Packages, as in a requirements file: `numpy>=2`. No addresses: see `env.indexes`, `env.wheels`."
    )
    requirements_file: str | None = Field(default=None, description="A requirements file below the folder of app.yaml.")
    constraints_file: str | None = Field(default=None, description="A constraints file: versions, without asking for packages.")
    indexes: list[SettingName] = Field(
        default=[],
        description="Further package indexes by name: `company-packages` is the address in RAYLINE_INDEX_COMPANY_PACKAGES "
        "where the bundle is built. Addresses and passwords never enter a bundle.",
    )
    wheels: list[str] = Field(
        default=[], description="Folders below the app's with wheels of your own (`pip wheel -w wheels .`)."
    )
    conda: str | None = Field(
        default=None,
        description="A conda environment file instead of `python` and `requirements`; needs conda and conda-pack to build.",
    )
    files: list[str] = Field(
        default=["**"], description="Files that belong to the app, as patterns below its folder; hidden ones and caches never do."
    )
    exclude: list[str] = Field(default=[], description="Patterns of files that do not belong to it.")
    variables: dict[str, str] = Field(default={}, description="Environment variables of the app's processes.")
    libraries: list[str] = Field(
        default=[], description="Native libraries, files or folders: on the library path of this app alone."
    )
    binaries: list[str] = Field(default=[], description="Programs, files or folders: on the PATH of this app alone.")
    engine: str | None = Field(
        default=None,
        pattern=r"^[A-Za-z_]\w*(\.[A-Za-z_]\w*)*$",
        examples=["onnxruntime"],
        description="The module that the app computes with: `onnxruntime`, `torch`, `openvino`, or one of its own. A node where "
        "it lacks its provider never gets traffic. The app is told by RAYLINE_ENGINE, RAYLINE_PROVIDER and RAYLINE_CARD.",
    )
    providers: dict[CardName, ProviderName] = Field(
        default={},
        description="What the engine computes on, by a part of the card's kind; `cpu` for nodes without a card, `any` for all. "
        "The first that fits counts; default: the engine's own for nvidia, ascend and cpu.",
    )


class ModelSection(Section):
    """One entry of `models:` in app.yaml."""

    name: str = Field(
        pattern=r"^[a-z][a-z0-9_-]{0,63}$",
        examples=["detector"],
        description="The app finds the model by RAYLINE_MODEL_<NAME>: the path of its file or folder.",
    )
    source: str = Field(
        min_length=1,
        description="A file or folder, an http(s) address, or what fsspec opens (`s3://…`), where the bundle is built.",
    )
    digest: str | None = Field(
        default=None,
        pattern=r"^sha256:[0-9a-f]{64}$",
        examples=["sha256:<64 hexadecimal digits>"],
        description="SHA-256 of the file; needed when the source is not on this machine.",
    )
    size: Size | None = Field(default=None, ge=0, le=2**44, description="Bytes of the file, checked beside the digest.")


def read_environment(located: LocatedYaml, section: EnvSection) -> Environment:
    """The section with its files read; raises ManifestError with file and line for what is missing or cannot be used."""
    root = located.path.resolve().parent
    if section.conda is not None and (section.python or section.requirements or section.requirements_file):
        raise ManifestError(
            f"{located.where(('env', 'conda'))}: `env.conda` brings its own Python and packages; "
            "drop `env.python` and `env.requirements`, or list them in the conda file"
        )
    if section.providers and section.engine is None:
        raise ManifestError(
            f"{located.where(('env', 'providers'))}: `env.providers` are those of an engine: name it in `env.engine`"
        )
    listed = [
        _checked(Requirement(text.strip(), located.where(("env", "requirements", index))))
        for index, text in enumerate(section.requirements)
    ]
    in_files = _from_file(located, root, ("env", "requirements_file"), section.requirements_file)
    for name in ("conda", *_FOLDERS):
        value = getattr(section, name)
        for index, path in enumerate([value] if isinstance(value, str) else value or []):
            keys = ("env", name) if isinstance(value, str) else ("env", name, index)
            if not (root / path).exists():
                raise ManifestError(f"{located.where(keys)}: `env.{name}`: there is no {root / path}; {_RIGHT_PATH}")
    return Environment(
        python=section.python or "",
        requirements=(*listed, *in_files),
        constraints=tuple(_from_file(located, root, ("env", "constraints_file"), section.constraints_file)),
        indexes=tuple(section.indexes),
        wheels=tuple(section.wheels),
        conda=section.conda or "",
        files=tuple(section.files),
        exclude=tuple(section.exclude),
        libraries=tuple(section.libraries),
        binaries=tuple(section.binaries),
        engine=section.engine or "",
        providers=tuple(section.providers.items()),
    )


def read_models(located: LocatedYaml, sections: list[ModelSection]) -> tuple[ModelSource, ...]:
    """The models, checked: variables once, a digest for what is not on this machine, a local file that exists."""
    root = located.path.resolve().parent
    names: dict[str, str] = {}
    for index, section in enumerate(sections):
        where = located.where(("models", index, "source"))
        variable = model_variable(section.name)
        if variable in names:
            raise ManifestError(
                f"{located.where(('models', index))}: the model {section.name!r} would be found by {variable}, and so would "
                f"{names[variable]!r} before it; keep one, or give it another name"
            )
        names[variable] = section.name
        if not _LOCAL_SOURCE.match(section.source):
            if section.digest is None:
                raise ManifestError(
                    f"{where}: `models.{index}.digest` is missing: what comes over the network is taken only by its SHA-256"
                )
            if "@" in section.source.split("://", 1)[1].split("/", 1)[0] and not section.source.startswith("s3://"):
                raise ManifestError(f"{where}: the source holds a user or password; give it to the machine that builds instead")
        elif not (root / section.source).exists():
            raise ManifestError(f"{where}: there is no {root / section.source}; {_RIGHT_PATH}, or an address")
    return tuple(ModelSource(one.name, one.source, one.digest or "", one.size) for one in sections)


def _from_file(located: LocatedYaml, root: Path, keys: tuple[str, str], name: str | None) -> list[Requirement]:
    if name is None:
        return []
    path = root / name
    if not path.is_file():
        raise ManifestError(f"{located.where(keys)}: `{'.'.join(keys)}`: there is no file {path}; {_RIGHT_PATH}")
    return list(_read_requirements(path, root, ()))


def _read_requirements(path: Path, root: Path, above: tuple[Path, ...]) -> Iterator[Requirement]:
    """Every requirement with its `file:line`; `-r` files are followed, other options are refused."""
    if path in above or len(above) > MAX_REQUIREMENTS:
        raise ManifestError(f"{path}: requirement files include each other in a circle: {', '.join(map(str, above))}")
    pending, start = "", 1
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        start = start if pending else number
        text = pending + _COMMENT.sub("", line).strip()
        if text.endswith("\\"):
            pending = text[:-1].rstrip() + " "
            continue
        pending = ""
        if text.startswith(("-r ", "--requirement ")):
            below = path.parent / text.split(None, 1)[1]
            if not below.is_file():
                raise ManifestError(
                    f"{path}:{start}: there is no file {below}; right would be a path from the folder of {path.name}"
                )
            yield from _read_requirements(below, root, (*above, path))
        elif text:
            yield _checked(Requirement(text, f"{path}:{start}"))


def _checked(requirement: Requirement) -> Requirement:
    """Refuse what would put an address, or a folder of the building machine, into the bundle."""
    text, where = requirement.text, requirement.where
    if text.startswith("-"):
        raise ManifestError(
            f"{where}: option {text.split()[0]!r} is not read here; indexes are named in `env.indexes`, wheels lie in folders "
            "named in `env.wheels`"
        )
    if "://" in text or " @ " in text:
        raise ManifestError(
            f"{where}: {text.split('@')[0].strip()!r} is asked for by an address; name its index in `env.indexes`, "
            "or put its wheel into a folder named in `env.wheels`"
        )
    return requirement
