"""Reading a group's committed offsets only when no open transaction can still change them."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any, Final

import aiokafka.errors as kafka_errors
import tenacity
from aiokafka.consumer.group_coordinator import GroupCoordinator
from aiokafka.structs import OffsetAndMetadata, TopicPartition

from rayline.bus.protocol import NO_OFFSET, OffsetFetch
from rayline.errors import BusError

_NO_ERROR: Final = 0
_UNSTABLE_OFFSET_COMMIT: Final = 88
_LOADING: Final = 14
_COORDINATOR_MOVED: Final = frozenset({15, 16})
_RETRY_SECONDS: Final = 0.02


class OffsetsUnstable(kafka_errors.KafkaError):
    """A transaction that holds offsets of these partitions is still open."""

    retriable = True


async def fetch_committed(
    coordinator: GroupCoordinator, group_id: str, partitions: Collection[TopicPartition], *, require_stable: bool
) -> dict[TopicPartition, tuple[int, str]]:
    """Ask once for (committed offset, metadata) of each partition; offset -1 where the group has none.

    Without `require_stable`: as of the last transaction that ended, whatever is still open.

    Raises:
        OffsetsUnstable: a transaction is open, or the coordinator is loading or moving; ask again.
        KafkaError: as the broker answered.
    """
    await coordinator.ensure_coordinator_known()
    response = await coordinator._send_req(OffsetFetch(group_id, partitions, require_stable=require_stable))
    _check(coordinator, response.error_code, "the group's coordinator is not ready")
    found: dict[TopicPartition, tuple[int, str]] = {}
    for topic, entries, _ in response.topics:
        for partition, offset, _, metadata, code, _ in entries:
            tp = TopicPartition(topic, partition)
            _check(coordinator, code, f"an open transaction holds offsets of {topic}/{partition}")
            found[tp] = (offset, metadata or "")
    return {tp: found.get(tp, (NO_OFFSET, "")) for tp in partitions}


async def wait_for_committed(
    coordinator: GroupCoordinator,
    group_id: str,
    partitions: Collection[TopicPartition],
    *,
    require_stable: bool,
    timeout_seconds: float,
) -> dict[TopicPartition, tuple[int, str]]:
    """`fetch_committed`, asked again until no transaction is in the way.

    Raises:
        BusError: it did not come to rest within `timeout_seconds`; or the broker refused the question.
    """
    try:
        async for attempt in tenacity.AsyncRetrying(
            retry=tenacity.retry_if_exception(lambda error: bool(getattr(error, "retriable", False))),
            wait=tenacity.wait_fixed(_RETRY_SECONDS),
            stop=tenacity.stop_after_delay(timeout_seconds),
            reraise=True,
        ):
            with attempt:
                return await fetch_committed(coordinator, group_id, partitions, require_stable=require_stable)
    except OffsetsUnstable as error:
        raise BusError(
            f"the committed offsets of group {group_id} did not become stable within {timeout_seconds:g} s ({error}): "
            "fence the producer that left the transaction open, or wait for its transaction timeout"
        ) from error
    except kafka_errors.KafkaError as error:
        raise BusError(f"the broker does not give the committed offsets of group {group_id}: {error!r}") from error
    raise AssertionError("unreachable: the loop above returns or raises")


def _check(coordinator: GroupCoordinator, code: int, waiting_for: str) -> None:
    if code == _NO_ERROR:
        return
    if code in _COORDINATOR_MOVED:
        coordinator.coordinator_dead()
        raise OffsetsUnstable(waiting_for)
    if code in (_UNSTABLE_OFFSET_COMMIT, _LOADING):
        raise OffsetsUnstable(waiting_for)
    error: Any = kafka_errors.for_code(code)
    raise error()


class StableCoordinator(GroupCoordinator):
    """aiokafka's coordinator, whose own refresh of committed positions is a stable read too."""

    async def _do_fetch_commit_offsets(self, partitions: Collection[TopicPartition]) -> dict[TopicPartition, OffsetAndMetadata]:
        committed = await fetch_committed(self, self.group_id, partitions, require_stable=True)
        return {tp: OffsetAndMetadata(offset, metadata) for tp, (offset, metadata) in committed.items() if offset != NO_OFFSET}
