"""Loads an app: import path, environment, entrypoint, one instance of a class."""

from __future__ import annotations

import importlib
import inspect
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rayline.app_spec import AppSpec
from rayline.errors import ActorUnready


@dataclass(frozen=True, slots=True)
class LoadedApp:
    """The feature function of an app, ready to be called; `model_version` is what its class or function declares."""

    function: Callable[..., Any]
    is_async: bool
    model_version: str | None


def load_app(spec: AppSpec) -> LoadedApp:
    """Load an app into this process: its root becomes the first folder of `sys.path`, its variables are set.

    Raises ActorUnready, from the user's own exception where there is one, when the entrypoint cannot be loaded.
    """
    # As Ray does for actors with CPUs: a library that starts a thread for each core would take the neighbours' share.
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, int(spec.resources.num_cpus))))
    os.environ.update(spec.env)
    root = str(Path(spec.root).resolve())
    if root in sys.path:
        sys.path.remove(root)
    sys.path.insert(0, root)
    importlib.invalidate_caches()
    module_name, _, attribute = spec.entrypoint.partition(":")
    try:
        target: Any = importlib.import_module(module_name)
        for part in attribute.split("."):
            target = getattr(target, part)
        if inspect.isclass(target):
            target = target(**spec.constructor)
    except BaseException as error:
        # A module may call sys.exit(): that is a reason, too, not the end of the worker.
        raise ActorUnready(
            f"app {spec.name} {spec.version}: {spec.entrypoint} below {root} cannot be loaded: {type(error).__name__}: {error}"
        ) from error
    if not callable(target):
        raise ActorUnready(
            f"app {spec.name} {spec.version}: {spec.entrypoint} is a {type(target).__name__}, not a function or class"
        )
    version = getattr(target, "model_version", None)
    return LoadedApp(function=target, is_async=is_async(target), model_version=None if version is None else str(version)[:200])


def is_async(target: Any) -> bool:
    """Whether calling it gives a coroutine."""
    return inspect.iscoroutinefunction(target) or inspect.iscoroutinefunction(getattr(type(target), "__call__", None))  # noqa: B004
