"""The console's process: connects, listens, says where it is, and ends in the reverse order."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass
from typing import Final

from deploy.console.access import Access
from deploy.console.frame import Console
from deploy.console.kafka_desk import KafkaDesk
from deploy.console.server import LOOPBACK, build, server, viewers
from deploy.console.watched import Watched
from deploy.observation import Observation
from rayline.bus import KafkaSettings
from rayline.config import ConfigWatch, ProcessIdentity, Role
from rayline.errors import ConfigError, LaunchError
from rayline.metrics import MetricsBoard, ProcessMetrics, Sample, declared

# An eviction is to be seen within two seconds; each look costs a drawing in every browser.
_CHANGES_PER_SECOND: Final = 1.0
_PICTURE: Final = "picture"
# The observation makes one a second, whatever Kafka does.
_PICTURE_SECONDS: Final = 10.0


@dataclass(frozen=True, slots=True)
class Place:
    """Where the console listens, the names it answers to, and the token that allows changes (None: nobody may)."""

    host: str
    port: int
    names: Collection[str] = ()
    token: str | None = None

    @property
    def far(self) -> bool:
        """Whether others than this machine can reach it."""
        return self.host not in LOOPBACK

    @property
    def address(self) -> str:
        """As a browser here would be told it."""
        shown = next(iter(self.names), None) or ("localhost" if self.host in ("0.0.0.0", "::", *LOOPBACK) else self.host)
        return f"http://{f'[{shown}]' if ':' in shown else shown}:{self.port}/"


async def run(settings: KafkaSettings, place: Place, *, on_ready: Callable[[str], None]) -> None:
    """Serve until SIGINT or SIGTERM. `on_ready` is told the address once it is listened to.

    Raises:
        ConfigError: the place asks for what is not safe or cannot be.
        LaunchError: the port is taken.
    """
    access = Access(token=place.token, read_needs_login=place.far)
    listening = _listen(place)
    identity = ProcessIdentity(role=Role.CONSOLE, name=f"{socket.gethostname()}-{place.port}")
    try:
        async with (
            ProcessMetrics(identity=identity) as metrics,
            Observation(settings, changes_per_second=_CHANGES_PER_SECOND) as observation,
            Watched(observation) as watched,
        ):
            _measure(metrics.board, watched)
            console = Console(source=watched, desk=KafkaDesk(settings), access=access)
            web = build(console, names={*LOOPBACK, place.host, *place.names}, far=place.far)
            serving = asyncio.create_task(server(web).serve(sockets=[listening]), name="console server")
            on_ready(place.address)
            # Only now: a page that says that no broker answers must not wait for one.
            async with ConfigWatch(settings=settings, identity=identity) as watch:
                metrics.tell_by(watch)
                await asyncio.wait({serving, watched.failure}, return_when=asyncio.FIRST_COMPLETED)
            if watched.failure.done():
                serving.cancel()
                await watched.failure
            await serving
    finally:
        listening.close()


def _measure(board: MetricsBoard, watched: Watched) -> None:
    def read(_: float) -> Iterable[Sample]:
        board.done(_PICTURE, watched.changed_at)
        return [Sample(declared.VIEWERS, viewers())]

    board.source(read)
    board.expect(_PICTURE, limit_seconds=_PICTURE_SECONDS, now=time.monotonic())


def _listen(place: Place) -> socket.socket:
    family = socket.AF_INET6 if ":" in place.host else socket.AF_INET
    listening = socket.socket(family, socket.SOCK_STREAM)
    try:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind((place.host, place.port))
    except socket.gaierror as error:
        listening.close()
        raise ConfigError(f"{place.host!r} is no address of this machine: {error.strerror}") from error
    except OSError as error:
        listening.close()
        raise LaunchError(
            f"the console cannot listen at {place.host}:{place.port} ({error.strerror}); choose another --port or --host"
        ) from error
    return listening
