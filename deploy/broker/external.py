"""A Kafka cluster that exists already."""

from __future__ import annotations

from rayline.bus import KafkaSettings, check_reachable


class ExternalKafka:
    """Uses a cluster that others run; owns nothing of it."""

    def __init__(self, settings: KafkaSettings, *, timeout_seconds: float = 10.0) -> None:
        self._settings = settings
        self._timeout_seconds = timeout_seconds
        self._brokers: int | None = None

    async def start(self) -> str:
        """See that it answers.

        Raises:
            BrokerUnavailable: it does not.
            BusError: it refuses these credentials.
        """
        self._brokers = await check_reachable(self._settings, timeout_seconds=self._timeout_seconds)
        return self._settings.bootstrap_servers

    async def stop(self) -> None:
        self._brokers = None

    @property
    def settings(self) -> KafkaSettings:
        return self._settings

    def describe(self) -> str:
        size = "not contacted" if self._brokers is None else f"{self._brokers} broker(s)"
        return f"existing Kafka at {self._settings.bootstrap_servers}, {self._settings.security_protocol}, {size}"
