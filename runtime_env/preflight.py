"""Tries in a throw-away process whether an app can be loaded: here before it is deployed, or in the environment of its bundle."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import rayline
from rayline.app_spec import AppSpec
from rayline.engines import Chosen
from rayline.errors import HealthCheckFailed, ManifestError
from runtime_env.bundle import Bundle
from runtime_env.process_environment import process_environment
from runtime_env.throwaway import run_throwaway

TRACEBACK_LINES: Final = 15

# Rayline's checkout is taken off the import path, because a user's project may have packages named as ours; only the app's folder
# is added (`-P`).
_PROGRAM: Final = """
import importlib, inspect, json, os, sys
spec = json.loads(sys.argv[1])
if sys.version.split()[0] != spec["python"]:
    raise RuntimeError(f"this is Python {sys.version}, not {spec['python']}")
sys.path[:] = [spec["root"], *(path for path in sys.path if path and os.path.realpath(path) not in spec["drop"])]
os.chdir(spec["root"])
module, _, attribute = spec["entrypoint"].partition(":")
target = importlib.import_module(module)
for part in attribute.split("."):
    target = getattr(target, part)
if inspect.isclass(target):
    inspect.signature(target).bind(**spec["constructor"])
elif not callable(target):
    raise TypeError(f"{spec['entrypoint']} is a {type(target).__name__}, not a function or class")
"""


def preflight(spec: AppSpec) -> None:
    """Import the entrypoint; a class's constructor arguments are checked against its signature, but it is not constructed.

    Raises ManifestError with the end of the user's own traceback when the entrypoint cannot be loaded.
    """
    root = Path(spec.root)
    where = f"app {spec.name} {spec.version}: entrypoint {spec.entrypoint} below {root}"
    if not root.is_dir():
        raise ManifestError(f"{where}: there is no such folder on this machine")
    checkout = Path(rayline.__path__[0]).resolve().parent
    drop = [] if checkout.name in ("site-packages", "dist-packages") else [str(checkout)]
    wanted = {
        "python": sys.version.split()[0],
        "root": str(root.resolve()),
        "entrypoint": spec.entrypoint,
        "constructor": dict(spec.constructor),
        "drop": drop,
    }
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"} | dict(spec.env)
    try:
        done = subprocess.run(
            [sys.executable, "-P", "-c", f"import rayline\n{_PROGRAM}", json.dumps(wanted, default=str)],
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            timeout=spec.limits.startup_seconds,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise ManifestError(f"{where} was not imported in limits.startup_seconds = {spec.limits.startup_seconds:g}") from error
    if done.returncode != 0:
        tail = done.stderr.decode(errors="replace").strip().splitlines()[-TRACEBACK_LINES:]
        raise ManifestError("\n".join([f"{where} cannot be loaded (exit code {done.returncode}):", *tail]))


def check_health(root: Path, bundle: Bundle, variables: Mapping[str, str] = os.environ, chosen: Chosen | None = None) -> None:
    """Import the entrypoint of an unpacked environment with its own interpreter and variables, on top of `variables`. `chosen` is
    what it computes with on this node; None where this is no node.

    Raises HealthCheckFailed with the end of the user's own traceback; nothing of the app stays loaded.
    """
    where = f"app {bundle.app} {bundle.app_version}: entrypoint {bundle.entrypoint} in {root}"
    if chosen is None and bundle.engine is not None:
        chosen = bundle.engine.stand_in()
    for model in bundle.models:
        if not (root / model.path).exists():
            raise HealthCheckFailed(f"{where}: model {model.name} is missing: unpack the bundle again")
    wanted = {
        "python": bundle.python,
        "root": str(root / "app"),
        "entrypoint": bundle.entrypoint,
        "constructor": dict(bundle.constructor),
        "drop": [],
    }
    environment = process_environment(root, bundle, variables, chosen)
    done = run_throwaway(root, bundle, _PROGRAM, wanted, environment, where=where, late=" was not imported")
    if done.returncode != 0:
        tail = done.stderr.strip().splitlines()[-TRACEBACK_LINES:]
        raise HealthCheckFailed("\n".join([f"{where} cannot be loaded (exit code {done.returncode}):", *tail]))
