"""Where Kafka comes from: a child process of ours, a cluster that exists, or a container."""

from __future__ import annotations

from deploy.broker.base import Broker
from deploy.broker.choice import choose_broker
from deploy.broker.container import ContainerKafka
from deploy.broker.external import ExternalKafka
from deploy.broker.local import LocalKafka

__all__ = ["Broker", "ContainerKafka", "ExternalKafka", "LocalKafka", "choose_broker"]
