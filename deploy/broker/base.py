"""What every source of a broker can do."""

from __future__ import annotations

from typing import Protocol

from rayline.bus import KafkaSettings


class Broker(Protocol):
    """A Kafka broker (or cluster) that can be made ready and let go.

    Life: `start` -> `settings` -> `stop`. `stop` ends only what `start` began: an existing cluster stays as it is.
    """

    async def start(self) -> str:
        """Make it ready; returns the bootstrap servers as `host:port[,...]`.

        Raises:
            RaylineError: it cannot be made ready; says why and what to do.
        """

    async def stop(self) -> None:
        """Let it go; does nothing before `start` and after `stop`."""

    @property
    def settings(self) -> KafkaSettings:
        """How clients reach it; only after `start`."""

    def describe(self) -> str:
        """One line for people: what it is and where."""
