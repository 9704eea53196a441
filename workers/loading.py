"""Loads an app: import path, environment, entrypoint, one instance of a class."""

from __future__ import annotations

import importlib
import inspect
import os
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rayline.app_spec import AppSpec, ModelSwap
from rayline.errors import ActorUnready
from rayline.models import MODEL_VARIABLE_PREFIX, model_variable

# A class that has it makes its own successor: given the paths of new models by name, it returns what serves from then on.
SUCCESSOR_METHOD = "with_models"
# In an environment of its own they were put together before the process started, from the bundle's folders and the app's values.
_PATHS = ("PATH", "LD_LIBRARY_PATH")


@dataclass(frozen=True, slots=True)
class LoadedApp:
    """The feature function of an app, ready to be called; `model_version` is what its class or function declares, `own_models`
    the paths of the models that came with it, by name."""

    function: Callable[..., Any]
    is_async: bool
    model_version: str | None
    own_models: Mapping[str, str] = field(default_factory=dict)


def load_app(spec: AppSpec, models: Mapping[str, str] | None = None) -> LoadedApp:
    """Load an app into this process: its root becomes the first folder of `sys.path`, its variables are set, `models` (paths by
    name) take the place of those that came with it.

    Raises ActorUnready, from the user's own exception where there is one, when the entrypoint cannot be loaded.
    """
    # As Ray does for actors with CPUs: a library that starts a thread for each core would take the neighbours' share.
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, int(spec.resources.num_cpus))))
    os.environ.update(_variables(spec))
    own_models = _own_models(spec)
    _name_models({**own_models, **(models or {})})
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
        elif spec.model_swap is ModelSwap.INSTANCE:
            raise TypeError("`model_swap: instance` needs a class, of which a second instance can be made")
    except BaseException as error:
        # A module may call sys.exit(): that is a reason, too, not the end of the worker.
        raise ActorUnready(
            f"app {spec.name} {spec.version}: {spec.entrypoint} below {root} cannot be loaded: {type(error).__name__}: {error}"
        ) from error
    if not callable(target):
        raise ActorUnready(
            f"app {spec.name} {spec.version}: {spec.entrypoint} is a {type(target).__name__}, not a function or class"
        )
    return _loaded(target, own_models)


def load_successor(spec: AppSpec, app: LoadedApp, models: Mapping[str, str]) -> LoadedApp:
    """What takes the place of `app` with these models (paths by name), made while `app` goes on serving: by its own
    `with_models`, or as another instance of its class.

    Raises ActorUnready, from the user's own exception, when it cannot be made.
    """
    paths = {**app.own_models, **models}
    _name_models(paths)
    try:
        if hasattr(app.function, SUCCESSOR_METHOD):
            target = getattr(app.function, SUCCESSOR_METHOD)(paths)
        else:
            own_class: Any = type(app.function)
            target = own_class(**spec.constructor)
    except BaseException as error:
        raise ActorUnready(f"app {spec.name} {spec.version}: {type(error).__name__}: {error}") from error
    if not callable(target) or is_async(target) != app.is_async:
        raise ActorUnready(
            f"app {spec.name} {spec.version}: {SUCCESSOR_METHOD} returned a {type(target).__name__}, "
            f"which cannot be called as {spec.entrypoint} is"
        )
    return _loaded(target, app.own_models)


def _variables(spec: AppSpec) -> dict[str, str]:
    """The app's own variables; in an environment of its own without those that would take its folders or models away."""
    if not spec.bundle:
        return dict(spec.env)
    return {name: value for name, value in spec.env.items() if name not in _PATHS and not name.startswith(MODEL_VARIABLE_PREFIX)}


def _own_models(spec: AppSpec) -> dict[str, str]:
    """The models that the manifest names: where the bundle has them, else their source beside the app's code."""
    found = {}
    for source in spec.models:
        path = os.environ.get(model_variable(source.name))
        if path is None and "://" not in source.source:
            path = str(Path(spec.root, source.source))
        if path is not None:
            found[source.name] = path
    return found


def _name_models(paths: Mapping[str, str]) -> None:
    """Let the app's process find these models, and no others, by their variables."""
    variables = {model_variable(name): path for name, path in paths.items()}
    for gone in [name for name in os.environ if name.startswith(MODEL_VARIABLE_PREFIX) and name not in variables]:
        del os.environ[gone]
    os.environ.update(variables)


def _loaded(target: Any, own_models: Mapping[str, str]) -> LoadedApp:
    version = getattr(target, "model_version", None)
    text = None if version is None else str(version)[:200]
    return LoadedApp(function=target, is_async=is_async(target), model_version=text, own_models=own_models)


def is_async(target: Any) -> bool:
    """Whether calling it gives a coroutine."""
    return inspect.iscoroutinefunction(target) or inspect.iscoroutinefunction(getattr(type(target), "__call__", None))  # noqa: B004
