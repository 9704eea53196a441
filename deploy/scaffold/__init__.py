"""The scaffold that `rayline init` writes: an app that runs as it is."""

from __future__ import annotations

import re
from importlib.resources import files
from pathlib import Path
from typing import Final

from rayline.errors import ConfigError

_FILES: Final = {
    "app.yaml.txt": "app.yaml",
    "feature.py.txt": "feature.py",
    "test_feature.py.txt": "test_feature.py",
    "jobs.jsonl.txt": "jobs.jsonl",
}


def write_scaffold(folder: Path, name: str | None) -> tuple[str, list[Path]]:
    """Write the files into a new or empty folder; returns the app's name and what was written.

    Raises:
        ConfigError: the folder holds something, or its name makes no app name.
    """
    app = name or re.sub(r"[^a-zA-Z0-9._-]+", "-", folder.resolve().name).strip("-._").lower()
    if not re.fullmatch(r"[a-zA-Z0-9][a-zA-Z0-9._-]{0,99}", app):
        raise ConfigError(f"{app!r} is no app name (letters, digits, `.`, `_`, `-`): give one with --name")
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ConfigError(f"{folder} is not empty: choose a new folder, so that nothing of yours is overwritten")
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    for source, target in _FILES.items():
        text = (files(__package__) / source).read_text(encoding="utf-8").replace("{{name}}", app)
        (folder / target).write_text(text, encoding="utf-8")
        written.append(folder / target)
    return app, written
