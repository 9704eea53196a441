"""The environment variables of an app's processes: its own Python, programs, libraries and models; nothing of its neighbours."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from rayline.engines import ENGINE_VARIABLES, Chosen
from rayline.models import MODEL_VARIABLE_PREFIX, model_variable
from runtime_env.bundle import Bundle

# Variables that would lead Python, or the loader, into another environment.
_FOREIGN: Final = ("PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV", "CONDA_PREFIX", "LD_PRELOAD", "PYTHONSTARTUP", "PYTHONUSERBASE")
# Where programs write by themselves, and the folder of an app's data that each leads to.
_DATA_FOLDERS: Final = {"TMPDIR": "tmp", "XDG_CACHE_HOME": "cache"}
_DEFAULT_PATH: Final = "/usr/local/bin:/usr/bin:/bin"


def process_environment(
    root: Path, bundle: Bundle, base: Mapping[str, str], chosen: Chosen | None = None, data: Path | None = None
) -> dict[str, str]:
    """Variables for processes of `bundle`, unpacked at `root`, on top of `base` (usually `os.environ`).

    What the bundle brings comes first on the paths, and its models and what was `chosen` for it to compute with have their own
    variables, whatever `env.variables` say: a PATH or LD_LIBRARY_PATH there stands in the place of the machine's. `data` is the
    app's own folder for what it writes (`make_data_folders`), unless its `env.variables` name others.
    """
    foreign = (*_FOREIGN, *ENGINE_VARIABLES)
    kept = {name: value for name, value in base.items() if name not in foreign and not name.startswith(MODEL_VARIABLE_PREFIX)}
    written = {} if data is None else {name: str(data / folder) for name, folder in _DATA_FOLDERS.items()}
    given = {**kept, **written, **bundle.variables}
    native = (root / "native").is_dir()
    libraries = [str(root / "native" / "lib"), *filter(None, [given.get("LD_LIBRARY_PATH")])]
    programs = [*([str(root / "native" / "bin")] if native else []), str(root / "bin"), given.get("PATH") or _DEFAULT_PATH]
    return {
        **given,
        "PATH": os.pathsep.join(programs),
        **({"LD_LIBRARY_PATH": os.pathsep.join(libraries)} if native else {}),
        "PYTHONNOUSERSITE": "1",
        "PYTHONDONTWRITEBYTECODE": "1",
        **{model_variable(model.name): str(root / model.path) for model in bundle.models},
        **(chosen.variables() if chosen is not None else {}),
    }


def make_data_folders(data: Path) -> None:
    """What the variables of an app with this `data` name, for its user alone; folders that are there stay as they are."""
    for folder in _DATA_FOLDERS.values():
        (data / folder).mkdir(parents=True, exist_ok=True, mode=0o700)


def python_of(root: Path) -> Path:
    """The interpreter of an unpacked environment."""
    return root / "bin" / "python3"
