"""The actors of one pod, as they wrote themselves down in its directory: what they work on, and how its agent drains them."""

from __future__ import annotations

import json
import logging
import os
import signal
import socket
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from workers.drain_port import DRAIN_SUFFIX, IDLE, MAX_WORD_BYTES, give_order
from workers.job_gauge import GAUGE_SUFFIX, read_gauge
from workers.sessions import session_members

# From the moment in which an actor hands its jobs back until all of its answers are with gRPC.
HAND_BACK_SECONDS: Final = 0.7
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class PodActor:
    """One actor process of this pod; `port` is where it takes a `DrainPort`'s order."""

    pid: int
    app: str
    version: str
    port: Path

    def is_alive(self) -> bool:
        return Path(f"/proc/{self.pid}").exists()


def read_pod_actors(pod_dir: Path) -> list[PodActor]:
    """Living actors of the pod; what dead ones left is removed, and ended where it runs (as by `end_orphans`)."""
    actors = []
    for path in sorted(pod_dir.glob("actor-*.json")):
        try:
            actor = PodActor(**json.loads(path.read_text()), port=path.with_suffix(DRAIN_SUFFIX))
        except (OSError, ValueError, TypeError) as error:
            _log.warning("%s cannot be read as an actor's entry: %s", path, error)
            continue
        if actor.is_alive():
            actors.append(actor)
        else:
            _end_group(actor.pid)
            path.unlink(missing_ok=True)
            path.with_suffix(GAUGE_SUFFIX).unlink(missing_ok=True)
            actor.port.unlink(missing_ok=True)
    return actors


@dataclass(frozen=True, slots=True)
class PodWork:
    """How many actors serve in a pod, and how many jobs are with them; `jobs` is None where one does not tell."""

    actors: int
    jobs: int | None


def read_pod_work(pod_dir: str) -> PodWork:
    """What the gauges of living actors say now; cheap enough for each beat."""
    actors, jobs, known = 0, 0, True
    try:
        names = os.listdir(pod_dir)  # noqa: PTH208 - a tenth of iterdir's cost, once a second in each pod
    except OSError:
        return PodWork(0, None)
    for name in names:
        pid = name.removeprefix("actor-").removesuffix(GAUGE_SUFFIX)
        if not (name.endswith(GAUGE_SUFFIX) and pid.isdecimal() and os.path.exists(f"/proc/{pid}")):  # noqa: PTH110 - likewise
            continue
        gauged = read_gauge(f"{pod_dir}/{name}")
        actors += 1
        known &= gauged is not None
        jobs += gauged.here if gauged is not None else 0
    return PodWork(actors, jobs if known else None)


def end_orphans(pod_dir: str) -> list[int]:
    """SIGKILL what dead actors' code forked and left running, as far as it stayed in its actor's process group.

    Returns the ids of these actors, each once."""
    dead: list[int] = []
    try:
        names = os.listdir(pod_dir)  # noqa: PTH208 - as in `read_pod_work`
    except OSError:
        return dead
    for name in names:
        pid = name.removeprefix("actor-").removesuffix(GAUGE_SUFFIX)
        if not (name.endswith(GAUGE_SUFFIX) and pid.isdecimal()) or os.path.exists(f"/proc/{pid}"):  # noqa: PTH110 - likewise
            continue
        _end_group(int(pid))
        Path(pod_dir, name).unlink(missing_ok=True)
        dead.append(int(pid))
    return dead


def _end_group(actor: int) -> None:
    # Who has the id by now may be somebody else; a group of the pod's own session is the actor's.
    if any(_group_of(member) == actor for member in session_members(os.getsid(0))):
        with suppress(ProcessLookupError):
            os.killpg(actor, signal.SIGKILL)
            _log.warning("actor %d died and left processes running: they were ended", actor)


def _group_of(pid: int) -> int | None:
    try:
        return os.getpgid(pid)
    except ProcessLookupError:
        return None


def drain_actor(actor: PodActor, *, hand_back_seconds: float, on_notice: Callable[[], None]) -> bool:
    """Tell one actor to drain and block until it owes no answer; False when it did not get there or broke off.

    `on_notice` is called once the actor takes no more batches. What runs there still after `hand_back_seconds` is handed back.
    """
    hand_back_seconds = max(0.0, hand_back_seconds)
    until = time.monotonic() + hand_back_seconds + HAND_BACK_SECONDS
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as connection:
            connection.settimeout(until - time.monotonic())
            if give_order(actor.port, hand_back_seconds, connection):
                on_notice()
                connection.settimeout(max(0.001, until - time.monotonic()))
                if connection.recv(MAX_WORD_BYTES) == IDLE:
                    return True
        _log.warning("actor %d of %s broke off while it drained", actor.pid, actor.app)
    except OSError as error:
        _log.warning("actor %d of %s did not drain: %s", actor.pid, actor.app, error)
    return False
