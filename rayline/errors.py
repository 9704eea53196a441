"""Every exception that Rayline raises on purpose; each message says the cause and the remedy.

    RaylineError
    ├── ConfigError                 what a person wrote (manifest, setting, option) cannot be used
    │   └── ManifestError           app.yaml: file, line and what would be right
    ├── FormatError                 bytes from a topic or a socket are not what they should be
    │   ├── InvalidJob              a job record that cannot be accepted; carries the reason code
    │   └── WireError               a Flight message outside the channel's protocol
    ├── BusError                    Kafka
    │   ├── BrokerUnavailable       no broker answers
    │   ├── ProducerFenced          another process took our transactional id: this one must stop
    │   ├── MemberFenced            the consumer group moved on: nothing was committed
    │   ├── TransactionIndefinite   the outcome of a transaction is unknown: discard the producer, read the state back
    │   ├── RecordTooLarge          the broker refuses a record of this size
    │   ├── OffsetLost              Kafka itself lost records that were not read yet
    │   ├── TopicMismatch           a topic exists with other settings than needed
    │   └── UnsupportedClient       aiokafka's internals are not what the transaction protocol was written for
    ├── WorkerError                 what goes wrong between the dispatcher and a worker
    │   ├── ChannelLost             the connection to an actor broke while a batch was there
    │   ├── ActorUnready            an actor could not load the app
    │   └── ContractError           a feature function returned what its app's declaration does not allow
    ├── NoResult                    a job's result did not come within the time that its waiter gave it
    ├── ClusterError                a Ray cluster could not be started or reached
    └── LaunchError                 a local process could not be started, or is running already

Each survives pickling: it crosses processes.
"""

from __future__ import annotations


class RaylineError(Exception):
    """Root of the tree."""


class ConfigError(RaylineError):
    """What a person wrote cannot be used."""


class ManifestError(ConfigError):
    """An app manifest is wrong; the message names file, line and what would be right."""


class FormatError(RaylineError):
    """Bytes from outside are not what they should be."""


class InvalidJob(FormatError):
    """A job record cannot be accepted.

    `reason` is a stable code (see `docs/protocol.md`); `producers_fault` decides whether it is dead-lettered.
    """

    def __init__(self, reason: str, message: str, producers_fault: bool = True) -> None:
        super().__init__(reason, message, producers_fault)
        self.reason = reason
        self.message = message
        self.producers_fault = producers_fault

    def __str__(self) -> str:
        return f"{self.reason}: {self.message}"


class WireError(FormatError):
    """A Flight message is outside the channel's protocol."""


class BusError(RaylineError):
    """Kafka failed us."""


class BrokerUnavailable(BusError):
    """No broker answers."""


class ProducerFenced(BusError):
    """Another process took our transactional id; this process must stop."""


class MemberFenced(BusError):
    """The consumer group moved on; nothing was committed."""


class TransactionIndefinite(BusError):
    """The outcome of a transaction is unknown; discard the producer and read the committed state back."""


class RecordTooLarge(BusError):
    """The broker refuses a record of this size."""


class OffsetLost(BusError):
    """Kafka lost records that were not read yet (retention, deletion, expired offsets).

    `partition` is (topic, partition), `position` the offset that was to be read next, `earliest` the first one that
    the broker still holds (None where it cannot be told).
    """

    def __init__(self, partition: tuple[str, int], position: int, earliest: int | None) -> None:
        super().__init__(partition, position, earliest)
        self.partition = partition
        self.position = position
        self.earliest = earliest

    def __str__(self) -> str:
        topic, partition = self.partition
        return (
            f"{topic}/{partition}: offset {self.position} was to be read next, but the broker holds records from "
            f"{self.earliest} on: they were deleted (retention, or the topic was made again) before they were read; "
            "lengthen retention.ms, and decide where to go on"
        )


class TopicMismatch(BusError):
    """A topic exists with other settings than needed."""


class UnsupportedClient(BusError):
    """aiokafka's internals are not what the transaction protocol was written for."""


class WorkerError(RaylineError):
    """Something went wrong between the dispatcher and a worker."""


class ChannelLost(WorkerError):
    """The connection to an actor broke while a batch was there."""


class ActorUnready(WorkerError):
    """An actor could not load the app."""


class ContractError(WorkerError):
    """A feature function returned what its app's declaration does not allow (or cannot be given what it asks for)."""


class NoResult(RaylineError):
    """A job's result did not come within the time that its waiter gave it."""


class ClusterError(RaylineError):
    """A Ray cluster could not be started or reached."""


class LaunchError(RaylineError):
    """A local process could not be started, or is running already."""
