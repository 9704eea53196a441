"""Which apps are deployed: the topic `rayline.apps` (key: name, value: JSON of AppSpec, tombstone: removed)."""

from __future__ import annotations

import json
import logging
from collections.abc import AsyncIterator

from rayline.app_spec import AppSpec
from rayline.bus import CompactedLog, KafkaSettings, Publisher, ensure_topics
from rayline.errors import FormatError, TopicMismatch
from rayline.topics import APPS, app_topics, platform_topics

_log = logging.getLogger(__name__)
_POLL_MS = 200
_HEADER_ROOM_BYTES = 64 * 1024


async def publish_app(settings: KafkaSettings, spec: AppSpec) -> list[TopicMismatch]:
    """Make the app's topics and announce the app; returns where existing topics differ from what they should be.

    Raises:
        BusError: Kafka refuses.
    """
    wanted = app_topics(
        spec.name,
        partitions=spec.partitions,
        max_message_bytes=max(spec.limits.max_job_bytes, spec.limits.max_result_bytes) + _HEADER_ROOM_BYTES,
    )
    differences = await ensure_topics(settings, [*platform_topics(), *wanted])
    async with Publisher(settings=settings, client_id="rayline-deploy") as publisher:
        await publisher.publish(APPS, key=spec.name.encode(), value=json.dumps(spec.as_dict()).encode())
    return differences


async def remove_app(settings: KafkaSettings, name: str) -> None:
    """Write the tombstone of an app; its topics and what is in them stay."""
    async with Publisher(settings=settings, client_id="rayline-deploy") as publisher:
        await publisher.publish(APPS, key=name.encode(), value=None)


class AppRegistry:
    """Reads `rayline.apps`.

    Owns one reader. A record that cannot be read is skipped with a warning: the app keeps its last good version.
    Life: `async with AppRegistry(...)`, then one of `snapshot` or `changes`.
    """

    def __init__(self, settings: KafkaSettings) -> None:
        self._reader = CompactedLog(settings=settings, topic=APPS, client_id="rayline-apps")
        self._apps: dict[str, AppSpec] = {}

    async def __aenter__(self) -> AppRegistry:
        await self._reader.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._reader.stop()

    async def snapshot(self) -> dict[str, AppSpec]:
        """The apps deployed at this moment, by name."""
        async for apps in self.changes():
            return apps
        raise AssertionError("unreachable: changes never ends")

    async def changes(self) -> AsyncIterator[dict[str, AppSpec]]:
        """All apps, once the whole topic is read and after each change of it, for ever."""
        first = True
        while True:
            changed = [self._take(record.key, record.value) for record in await self._reader.getmany(timeout_ms=_POLL_MS)]
            if self._reader.caught_up.is_set() and (first or any(changed)):
                first = False
                yield dict(self._apps)

    def _take(self, key: bytes | None, value: bytes | None) -> bool:
        name = (key or b"").decode("utf-8", "replace")
        if value is None:
            return self._apps.pop(name, None) is not None
        try:
            spec = AppSpec.from_dict(json.loads(value))
        except (ValueError, AttributeError, FormatError) as error:
            _log.warning("app %r in %s cannot be read and is left as it was: %s", name, APPS, error)
            return False
        if self._apps.get(name) == spec:
            return False
        self._apps[name] = spec
        return True
