"""Names the producers whose open transactions hold a lane's partitions up."""

from __future__ import annotations

import asyncio
import logging
from typing import Final

from aiokafka.structs import TopicPartition

from ingest.lane import Lane
from ingest.stalls import BlockedPartition
from rayline.bus.producers import OpenTransaction, open_transactions
from rayline.bus.settings import KafkaSettings
from rayline.errors import BusError

_log = logging.getLogger(__name__)

LOOK_SECONDS: Final = 1.0
# Where the broker does not tell: asked again now and then.
RETRY_SECONDS: Final = 15.0


async def name_producers(lane: Lane, settings: KafkaSettings) -> None:
    """Until cancelled: ask the broker for each partition that is held up, once it is."""
    while True:
        await asyncio.sleep(LOOK_SECONDS)
        blocked = lane.blocked()
        if not blocked:
            continue
        try:
            found = await open_transactions(settings, [TopicPartition(*one.key) for one in blocked])
        except BusError as error:
            _log.warning("who holds transactions open on the requests cannot be told now: %s", error)
            await asyncio.sleep(RETRY_SECONDS)
            continue
        for one in blocked:
            lane.name_producer(one, _who(one, found.get(TopicPartition(*one.key), ())))


def _who(blocked: BlockedPartition, found: tuple[OpenTransaction, ...]) -> str:
    """The one that began where the partition stands still; else whoever has one open there."""
    for transaction in sorted(found, key=lambda one: (one.start_offset != blocked.stable, one.start_offset)):
        return transaction.text()
    return "a producer that the broker does not name"
