"""What an operator orders by a key."""

from __future__ import annotations

from typing import Protocol

from deploy.node_orders import cordon_node, drain_node
from rayline.bus import KafkaSettings


class Orders(Protocol):
    """Orders to one node (`cluster/pod`); each returns when the node itself says so, or raises RaylineError."""

    async def drain(self, node: str) -> None: ...

    async def cordon(self, node: str, cordoned: bool) -> None: ...


class KafkaOrders:
    """Orders through the live configuration."""

    def __init__(self, settings: KafkaSettings) -> None:
        self._settings = settings

    async def drain(self, node: str) -> None:
        await drain_node(self._settings, node, gone_seconds=None)

    async def cordon(self, node: str, cordoned: bool) -> None:
        await cordon_node(self._settings, node, cordoned=cordoned)
