"""Sets of settings: YAML files that say what is to stand under which keys. Pure, apart from reading the file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Final

import yaml

from deploy.config_change import read_request
from rayline.config import Change
from rayline.errors import ConfigError

SETS: Final = Path(__file__).parent / "config_sets"


def set_names(folder: Path = SETS) -> list[str]:
    """The sets that are shipped."""
    return sorted(path.stem for path in folder.glob("*.yaml"))


def read_set(name: str, folder: Path = SETS) -> list[Change]:
    """Every change of a shipped set, or of any file by its path, in the order of the file.

    Raises:
        ConfigError: no such set, no map of keys to values, or a key or value that is not right; nothing of it is to be written.
    """
    path = Path(name) if name.endswith((".yaml", ".yml")) else folder / f"{name}.yaml"
    try:
        found = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise ConfigError(f"no set {name!r}; there are: {', '.join(set_names(folder))} (or give a YAML file's path)") from error
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ConfigError(f"{path} cannot be read: {error}") from error
    if not isinstance(found, dict) or not found:
        raise ConfigError(f"{path}: a set is a map from keys to values, e.g. global/weights.policy: wechat")
    try:
        return [read_request(str(key), json.dumps(value)) for key, value in found.items()]
    except (ConfigError, TypeError) as error:
        raise ConfigError(f"{path}: {error}") from error
