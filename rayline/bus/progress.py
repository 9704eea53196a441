"""How far a consumer group has come, seen from outside it."""

from __future__ import annotations

import asyncio

import aiokafka.errors as kafka_errors
import tenacity
from aiokafka import AIOKafkaConsumer
from aiokafka.structs import TopicPartition

from rayline.bus.connection import close_whole, start_when_reachable
from rayline.bus.offsets import wait_for_committed
from rayline.bus.protocol import check_client
from rayline.bus.settings import KafkaSettings
from rayline.errors import BusError

_COORDINATOR_SECONDS = 30.0
_retry_settling = tenacity.AsyncRetrying(
    retry=tenacity.retry_if_exception(lambda error: bool(getattr(error, "retriable", False))),
    wait=tenacity.wait_fixed(0.2),
    stop=tenacity.stop_after_delay(_COORDINATOR_SECONDS),
    reraise=True,
)


class GroupProgress:
    """Committed offsets of one group on one topic, and how much lies behind them.

    Owns a consumer that is no member of the group. Life: `start` → any question → `stop`; also an async context manager.
    """

    def __init__(self, *, settings: KafkaSettings, group_id: str, topic: str) -> None:
        check_client()
        self._settings = settings
        self._group_id = group_id
        self._topic = topic
        self._consumer = AIOKafkaConsumer(**settings.client_kwargs(), group_id=group_id, enable_auto_commit=False)
        close_whole(self._consumer._client)
        self._partitions: list[TopicPartition] = []

    async def start(self) -> None:
        """Connect and find the topic's partitions.

        Raises:
            BrokerUnavailable: no broker answers.
            BusError: the topic does not exist.
        """
        try:
            await start_when_reachable(self._consumer.start, self._settings, _COORDINATOR_SECONDS)
            numbers = await self._consumer._client._wait_on_metadata(self._topic)
        except kafka_errors.UnknownTopicOrPartitionError as error:
            await self._consumer.stop()
            raise BusError(f"the topic {self._topic} does not exist: deploy the app that it belongs to first") from error
        except BaseException:
            await self._consumer.stop()
            raise
        self._partitions = [TopicPartition(self._topic, number) for number in sorted(numbers)]

    async def stop(self) -> None:
        await self._consumer.stop()

    async def __aenter__(self) -> GroupProgress:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    async def committed(self) -> dict[TopicPartition, int | None]:
        """The committed offset of each partition; None where there is none yet.

        Raises:
            BusError: the group's coordinator does not answer.
        """
        try:
            return {tp: await _retry_settling(self._consumer.committed, tp) for tp in self._partitions}
        except kafka_errors.KafkaError as error:
            raise BusError(f"the broker does not tell the committed offsets on {self._topic}: {error!r}") from error

    async def metadata(self) -> dict[TopicPartition, str]:
        """What was said with the last commit of each partition, whatever transaction is open; empty where there is none.

        Raises:
            BusError: the group's coordinator does not answer.
        """
        coordinator = self._consumer._coordinator
        committed = await wait_for_committed(
            coordinator, self._group_id, self._partitions, require_stable=False, timeout_seconds=_COORDINATOR_SECONDS
        )
        return {tp: said for tp, (_, said) in committed.items()}

    async def lag(self) -> int:
        """Records after the committed offsets; what is done out of order beyond them counts, too."""
        committed = await self.committed()
        try:
            ends = await self._consumer.end_offsets(self._partitions)
            starts = await self._consumer.beginning_offsets(self._partitions)
        except kafka_errors.KafkaError as error:
            raise BusError(f"the broker does not tell the bounds of {self._topic}: {error!r}") from error
        return sum(max(0, ends[tp] - (starts[tp] if offset is None else offset)) for tp, offset in committed.items())


async def wait_claimed(*, settings: KafkaSettings, group_id: str, topic: str, timeout_seconds: float) -> None:
    """Until each partition of the topic has an owner who committed for it: from then on jobs are worked on at once.

    Raises:
        TimeoutError: it did not come to that.
        BusError: as `GroupProgress`.
    """
    async with asyncio.timeout(timeout_seconds), GroupProgress(settings=settings, group_id=group_id, topic=topic) as progress:
        async for attempt in tenacity.AsyncRetrying(
            retry=tenacity.retry_if_result(lambda committed: None in committed.values()), wait=tenacity.wait_fixed(0.1)
        ):
            with attempt:
                committed = await progress.committed()
            attempt.retry_state.set_result(committed)
