"""The actors of one pod, as they wrote themselves down in the pod's directory; how its agent tells them to drain."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from pyarrow import ArrowException, flight

from rayline.wire import Hello

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class PodActor:
    """One actor process of this pod."""

    pid: int
    host: str
    port: int
    app: str
    version: str

    def is_alive(self) -> bool:
        return Path(f"/proc/{self.pid}").exists()


def read_pod_actors(pod_dir: Path) -> list[PodActor]:
    """Living actors of the pod; what dead ones left is removed."""
    actors = []
    for path in sorted(pod_dir.glob("actor-*.json")):
        try:
            actor = PodActor(**json.loads(path.read_text()))
        except (OSError, ValueError, TypeError) as error:
            _log.warning("%s cannot be read as an actor's entry: %s", path, error)
            continue
        if actor.is_alive():
            actors.append(actor)
        else:
            path.unlink(missing_ok=True)
    return actors


def drain_actor(actor: PodActor, *, token: str, timeout_seconds: float, on_notice: Callable[[], None]) -> bool:
    """Tell one actor to drain and block until nothing runs there; False when it did not get there in time or broke off.

    `on_notice` is called once the actor takes no more batches.
    """
    action = flight.Action("drain", Hello(actor.app, actor.version, token).pack())
    try:
        with flight.FlightClient(f"grpc://{actor.host}:{actor.port}") as client:
            results = client.do_action(action, flight.FlightCallOptions(timeout=max(0.1, timeout_seconds)))
            next(results)
            on_notice()
            return next(results).body.to_pybytes() == b"idle"
    except (ArrowException, OSError, StopIteration) as error:
        _log.warning("actor %d of %s did not drain: %s", actor.pid, actor.app, error)
        return False
