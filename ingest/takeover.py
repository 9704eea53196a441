"""Taking partitions over: fence the previous owner, read the stable committed state, claim it in our own name, then go on.

The order matters. The previous owner may be a process that was stopped in the middle of a transaction: only after it is fenced
nothing of it can be committed any more; only a stable read after that is the truth; and only after our own claim is committed
can our successor know whom to fence.
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Mapping, MutableMapping
from dataclasses import dataclass
from typing import Final

from aiokafka.structs import TopicPartition

from ingest import ledger_codec
from ingest.ledger import Ledger
from ingest.partition import PartitionState
from rayline.bus.consumer import GroupConsumer
from rayline.bus.settings import KafkaSettings
from rayline.bus.transactions import fence
from rayline.topics import group_id, results_topic

_log = logging.getLogger(__name__)

_NOTHING_COMMITTED: Final = -1


@dataclass(frozen=True, slots=True)
class Halted:
    """A partition that cannot go on without a person: what happened and what to do."""

    partition: TopicPartition
    reason: str


@dataclass(frozen=True, slots=True)
class Takeover:
    """What came of it: `kept` partitions go on where they were, `fresh` ones start from the committed state."""

    kept: frozenset[TopicPartition]
    fresh: frozenset[TopicPartition]
    halted: tuple[Halted, ...]
    fenced: tuple[str, ...]


async def read_back(
    *,
    settings: KafkaSettings,
    app: str,
    consumer: GroupConsumer,
    transactional_id: str,
    assigned: Collection[TopicPartition],
    partitions: MutableMapping[TopicPartition, PartitionState],
    result_partitions: int,
) -> Takeover:
    """Fence, read the committed state, and bring `partitions` up to it; every assigned one but the halted is in it afterwards.

    A partition that was ours before and that nobody claimed since keeps its jobs under way and its results.

    Raises:
        FormatError: commit metadata that is not a ledger: another program commits for this group.
        BusError: the broker does not answer, or a transaction stays open.
    """
    fenced = await _fence_previous(settings, consumer, transactional_id, assigned)
    committed = await consumer.committed_stable(assigned)
    earliest = await consumer.earliest(assigned)
    kept: set[TopicPartition] = set()
    fresh: set[TopicPartition] = set()
    halted: list[Halted] = []
    for tp, (offset, metadata) in committed.items():
        state = partitions.get(tp)
        if offset != _NOTHING_COMMITTED and offset < earliest[tp]:
            halted.append(
                Halted(
                    tp,
                    f"Kafka deleted {earliest[tp] - offset} record(s) from offset {offset} on before they were read "
                    "(retention or delete-records). They are lost. To accept that, stop the lanes and set the group's offset: "
                    + _reset_command(app, tp, "--to-earliest"),
                )
            )
            continue
        if offset == _NOTHING_COMMITTED:
            reason = await _why_not_new(consumer, app, tp, committed, result_partitions)
            if reason is not None:
                halted.append(Halted(tp, reason))
                continue
            offset = earliest[tp]
        if state is not None and ledger_codec.decode(metadata).owner == transactional_id:
            state.reconcile(offset, metadata)
            kept.add(tp)
        else:
            partitions[tp] = PartitionState(ledger=Ledger(owner=transactional_id, committed=offset, metadata=metadata))
            fresh.add(tp)
    for tp in [tp for tp in partitions if tp not in kept and tp not in fresh]:
        del partitions[tp]
    return Takeover(frozenset(kept), frozenset(fresh), tuple(halted), fenced)


async def _fence_previous(
    settings: KafkaSettings, consumer: GroupConsumer, transactional_id: str, assigned: Collection[TopicPartition]
) -> tuple[str, ...]:
    """Fence owners that left the group. One that is still a member gave its partitions up in this generation, by its own will."""
    owners = {ledger_codec.decode(metadata).owner for _, metadata in (await consumer.committed_so_far(assigned)).values()}
    owners -= {"", transactional_id}
    if not owners:
        return ()
    gone = sorted(owners - await consumer.live_members())
    for owner in gone:
        _log.warning("fencing %s, which owned some of our partitions and has left the group", owner)
        await fence(settings, owner)
    return tuple(gone)


async def _why_not_new(
    consumer: GroupConsumer,
    app: str,
    tp: TopicPartition,
    committed: Mapping[TopicPartition, tuple[int, str]],
    result_partitions: int,
) -> str | None:
    """Nothing is committed for this partition: None when it is new, else why it cannot be.

    Results of a partition that was added later share the partition of older ones: there the group's other offsets tell.
    """
    results = TopicPartition(results_topic(app), tp.partition % result_partitions)
    added_later = tp.partition >= result_partitions
    if added_later and any(offset != _NOTHING_COMMITTED for offset, _ in committed.values()):
        return None
    if (await consumer.latest([results])).get(results, 0) == 0:
        return None
    return (
        f"nothing is committed for it, yet {results.topic}/{results.partition} holds results: the group's offsets expired "
        "or were deleted. Starting again would repeat results. Stop the lanes and set the offset yourself: "
        + _reset_command(app, tp, "--to-offset N")
    )


def _reset_command(app: str, tp: TopicPartition, to: str) -> str:
    return f"kafka-consumer-groups --group {group_id(app)} --topic {tp.topic}:{tp.partition} --reset-offsets {to} --execute"
