"""Making topics as they should be, and saying where they are not."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from typing import Final

import aiokafka.errors as kafka_errors
import tenacity
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType

from rayline.bus.connection import close_whole, start_when_reachable
from rayline.bus.protocol import check_client
from rayline.bus.settings import KafkaSettings
from rayline.errors import BusError, TopicMismatch
from rayline.topics import TopicSpec

_NO_ERROR: Final = 0
_ALREADY_EXISTS: Final = 36
_VISIBLE_SECONDS: Final = 10.0


async def ensure_topics(
    settings: KafkaSettings, specs: Iterable[TopicSpec], *, timeout_seconds: float = 30.0
) -> list[TopicMismatch]:
    """Create the topics of `specs` that do not exist yet, and wait until the broker shows them.

    A topic that exists is never changed; where it is not as its spec says, the difference is returned.

    Raises:
        BrokerUnavailable: no broker answers.
        BusError: the broker refuses to create one.
    """
    wanted = {spec.name: spec for spec in specs}
    async with admin_client(settings, timeout_seconds) as client:
        existing = await _partition_counts(client)
        missing = [spec for name, spec in wanted.items() if name not in existing]
        if missing:
            await _create(client, missing)
        found = await describe(settings, [name for name in wanted if name in existing])
    return [difference for spec in found if (difference := _difference(wanted[spec.name], spec)) is not None]


async def missing_topics(settings: KafkaSettings, names: Sequence[str]) -> list[str]:
    """Those of `names` that do not exist; asks only what every client may ask.

    Raises:
        BrokerUnavailable: no broker answers.
    """
    async with admin_client(settings) as client:
        present = await _partition_counts(client)
    return [name for name in names if name not in present]


async def describe(settings: KafkaSettings, names: Sequence[str]) -> list[TopicSpec]:
    """The topics of `names` that exist, with their partitions and all their settings (replication is not told).

    Raises:
        BrokerUnavailable: no broker answers.
    """
    if not names:
        return []
    async with admin_client(settings) as client:
        counts = await _partition_counts(client)
        present = [name for name in names if name in counts]
        if not present:
            return []
        answers = await client.describe_configs([ConfigResource(ConfigResourceType.TOPIC, name) for name in present])
    config = {
        name: {entry[0]: entry[1] for entry in entries} for answer in answers for _, _, _, name, entries in answer.resources
    }
    return [TopicSpec(name, counts[name], config.get(name, {})) for name in present]


async def delete_topics(settings: KafkaSettings, names: Sequence[str]) -> None:
    """Delete topics and all that is in them; returns when the broker no longer shows them."""
    async with admin_client(settings) as client:
        await client.delete_topics(list(names))
        await _wait_for(client, lambda present: not set(names) & set(present), f"{sorted(names)} to go")


async def check_reachable(settings: KafkaSettings, *, timeout_seconds: float = 10.0) -> int:
    """Number of brokers in the cluster that answers.

    Raises:
        BrokerUnavailable: none does.
        BusError: it refuses these credentials.
    """
    async with admin_client(settings, timeout_seconds) as client:
        return len((await client.describe_cluster())["brokers"])


@asynccontextmanager
async def admin_client(settings: KafkaSettings, timeout_seconds: float = 30.0) -> AsyncIterator[AIOKafkaAdminClient]:
    """A connected client whose refusals and lost answers come out as BusError."""
    check_client()
    client = AIOKafkaAdminClient(**settings.client_kwargs(), client_id="rayline-admin", request_timeout_ms=15_000)
    close_whole(client._client)
    try:
        await start_when_reachable(client.start, settings, timeout_seconds)
        yield client
    except kafka_errors.KafkaError as error:
        raise BusError(f"the broker at {settings.bootstrap_servers} refused an admin request: {error!r}") from error
    finally:
        await client.close()


async def _partition_counts(client: AIOKafkaAdminClient) -> dict[str, int]:
    # Asking for a topic by its name would create it on a broker with auto.create.topics.enable.
    return {topic["topic"]: len(topic["partitions"]) for topic in await client.describe_topics()}


async def _create(client: AIOKafkaAdminClient, specs: Sequence[TopicSpec]) -> None:
    answer = await client.create_topics([_new_topic(spec) for spec in specs])
    refused = [
        f"{name}: {message or kafka_errors.for_code(code).__name__}"
        for name, code, message in answer.topic_errors
        if code not in (_NO_ERROR, _ALREADY_EXISTS)
    ]
    if refused:
        raise BusError(f"the broker does not create {'; '.join(refused)}: correct the settings or the permissions")
    names = {spec.name for spec in specs}
    await _wait_for(client, lambda present: names <= set(present), f"{sorted(names)} to appear")


def _new_topic(spec: TopicSpec) -> NewTopic:
    # aiokafka wants an assignment, if only an empty one, where the broker shall choose the replication.
    assignments: dict[int, int] | None = {} if spec.replication_factor < 0 else None
    return NewTopic(spec.name, spec.partitions, spec.replication_factor, assignments, spec.config)


async def _wait_for(client: AIOKafkaAdminClient, seen: Callable[[dict[str, int]], bool], what: str) -> None:
    try:
        await tenacity.AsyncRetrying(
            retry=tenacity.retry_if_result(lambda present: not seen(present)),
            wait=tenacity.wait_fixed(0.05),
            stop=tenacity.stop_after_delay(_VISIBLE_SECONDS),
        )(_partition_counts, client)
    except tenacity.RetryError as error:
        raise BusError(f"waited {_VISIBLE_SECONDS:g} s for {what}: look at the broker's log") from error


def _difference(wanted: TopicSpec, found: TopicSpec) -> TopicMismatch | None:
    differences = [
        f"{key} is {found.config.get(key)}, should be {value}"
        for key, value in sorted(wanted.config.items())
        if found.config.get(key) != value
    ]
    if found.partitions != wanted.partitions:
        differences.insert(0, f"it has {found.partitions} partitions, should have {wanted.partitions}")
    if not differences:
        return None
    return TopicMismatch(
        f"topic {wanted.name}: {'; '.join(differences)}; it is left as it is: alter it with kafka-configs or "
        "kafka-topics, or choose another app name"
    )
