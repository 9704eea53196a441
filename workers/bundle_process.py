"""Rayline's own code in the interpreter of a bundle: from this node's installation, so that an actor speaks as its lanes do.

Only the packages `rayline` and `workers` come from there, and only those of their modules that need nothing but what every bundle
has (pyarrow, msgpack); everything else that is imported is the bundle's. `workers` is taken out of sight before the app's code
runs: a user's project may have a package of that name.
"""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

import rayline
from rayline.errors import HealthCheckFailed

MAX_TOLD_CHARS = 2_000
_SECRETS = (
    *("RAYLINE_KAFKA_", "RAYLINE_CHANNEL_TOKEN", "RAYLINE_CONSOLE_TOKEN", "RAYLINE_INTERRUPTION_"),
    # The addresses of stores and indexes may hold passwords; who has the token gets every app's layers from peers.
    *("RAYLINE_PEERS_", "RAYLINE_ENV_", "RAYLINE_INDEX_"),
)

# Runs on Python 3.10 and later, before anything of ours is imported.
_PROGRAM = """
import importlib.machinery, json, sys
FOLDERS = json.loads(sys.argv[1])
class Ours:
    @staticmethod
    def find_spec(name, path=None, target=None):
        return importlib.machinery.PathFinder.find_spec(name, [FOLDERS[name]]) if name in FOLDERS else None
sys.path[:] = [path for path in sys.path if path]
sys.meta_path.insert(0, Ours)
from workers.guest import main
sys.meta_path.remove(Ours)
for name in [name for name in sys.modules if name.partition(".")[0] == "workers"]:
    del sys.modules[name]
main(sys.argv[2:])
"""


def without_secrets(variables: Mapping[str, str]) -> dict[str, str]:
    """What of a platform process's variables an app's process gets: nothing that opens the broker, the channel, the store or
    other nodes, nor Ray's own, which would lead a Ray of the app's into this cluster."""
    return {name: value for name, value in for_ray(variables).items() if not name.startswith("RAY_")}


def for_ray(variables: Mapping[str, str]) -> dict[str, str]:
    """What a pod's Ray gets, whose workers are processes of apps, too: Ray's own besides."""
    return {name: value for name, value in variables.items() if not name.startswith(_SECRETS)}


def guest_command(python: Path, *arguments: str) -> list[str]:
    """`workers.guest` in the interpreter of a bundle."""
    import workers

    folders = {package.__name__: str(Path(package.__path__[0]).resolve().parent) for package in (rayline, workers)}
    return [str(python), "-c", _PROGRAM, json.dumps(folders), *arguments]


def check_guest(python: Path, environment: Mapping[str, str], root: Path, *, timeout_seconds: float) -> None:
    """Import, in a process of its own, what an actor needs beside the app.

    Raises HealthCheckFailed where the bundle lacks it.
    """
    what = f"the environment in {root} cannot host actors"
    try:
        done = subprocess.run(
            guest_command(python, "check"),
            env=dict(environment),
            cwd=root,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            timeout=timeout_seconds,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise HealthCheckFailed(f"{what}: nothing was imported in {timeout_seconds:g} s") from error
    except OSError as error:
        raise HealthCheckFailed(f"{what}: its Python does not start: {error}") from error
    if done.returncode != 0:
        tail = done.stderr.decode(errors="replace").strip()[-MAX_TOLD_CHARS:]
        raise HealthCheckFailed(f"{what}; bundles for actors are built without --bare:\n{tail}")


def start_guest(command: Sequence[str], environment: Mapping[str, str], root: Path) -> tuple[subprocess.Popen[bytes], int]:
    """The process, and the file descriptor that its answers come from; calls go to its standard input.

    Call it in a thread that lives as long as the process shall: the kernel ends the process with that thread.
    """
    answers, theirs = os.pipe()
    try:
        process = subprocess.Popen(
            [*command, "serve", str(theirs)], stdin=subprocess.PIPE, env=dict(environment), cwd=root, pass_fds=(theirs,)
        )
    except BaseException:
        os.close(answers)
        raise
    finally:
        os.close(theirs)
    return process, answers
