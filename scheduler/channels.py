"""The open channels to actors."""

from __future__ import annotations

from collections.abc import Collection
from typing import Protocol

from rayline.reports import ActorEndpoint
from workers.channel import Channel


class ChannelFactory(Protocol):
    """Opens a channel to an actor; closing is the caller's."""

    def __call__(self, endpoint: ActorEndpoint) -> Channel: ...


class Channels:
    """Owns one channel for each actor process that was ever sent to, until that process is of no more use.

    Life: `to` opens what is not open; `keep` closes all others; `close` ends it.
    """

    def __init__(self, open_channel: ChannelFactory) -> None:
        self._open = open_channel
        self._channels: dict[str, Channel] = {}

    def to(self, endpoint: ActorEndpoint) -> Channel:
        channel = self._channels.get(endpoint.instance)
        if channel is None:
            channel = self._channels[endpoint.instance] = self._open(endpoint)
        return channel

    def keep(self, instances: Collection[str]) -> None:
        """Close the channels to all other actor processes than these."""
        for instance in self._channels.keys() - instances:
            self._channels.pop(instance).close()

    def close(self) -> None:
        self.keep(())
