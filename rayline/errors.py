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
    ├── EnvError                    an app's environment cannot be built, stored or put in place
    │   ├── BuildError              the environment cannot be built from what the manifest asks for
    │   │   ├── PinsConflict        no set of versions satisfies all requirements
    │   │   ├── PackageMissing      no index has the package, or none of its wheels fits
    │   │   ├── IndexUnreachable    the package index does not answer
    │   │   ├── InterpreterMissing  no interpreter of that version can be copied here
    │   │   ├── CondaMissing        a conda environment is asked for where conda or conda-pack is not
    │   │   └── NotRelocatable      a file names the folder it was built in
    │   ├── BundleRefused           a bundle that must not be used
    │   │   ├── Unsigned            no signature, outside development mode
    │   │   ├── SignatureWrong      signed by no trusted key, or changed after it was signed
    │   │   ├── RolledBack          older than what this node has seen of the app
    │   │   ├── WrongPlatform       made for another system, processor or C library
    │   │   ├── BlobTruncated       fewer or more bytes than the manifest says
    │   │   ├── BlobCorrupt         other bytes than the manifest says
    │   │   └── ArchiveUnsafe       an archive that our gate does not let in
    │   │       ├── PathEscape      a member is outside the folder
    │   │       ├── LinkEscape      a link, or a chain of links, leads out of the folder
    │   │       ├── HardLinkInside  a hard link
    │   │       ├── SpecialFile     a device, pipe or setuid file
    │   │       └── ArchiveBomb     more bytes, files or compression than was declared or is allowed
    │   ├── StoreError              a store cannot be read or written
    │   │   └── NotInStore          the store has no such bundle or blob
    │   ├── PeerError               this node cannot fetch from peers, or give to them
    │   ├── DiskFull                no room on this machine; nothing was left behind
    │   └── HealthCheckFailed       the app's entrypoint cannot be imported in its own environment
    ├── NoResult                    a job's result did not come within the time that its waiter gave it
    ├── NodeError                   a node is not known, or did not do what it was ordered to
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


class EnvError(RaylineError):
    """An app's environment cannot be built, stored or put in place."""


class BuildError(EnvError):
    """The environment cannot be built from what the manifest asks for."""


class PinsConflict(BuildError):
    """No set of versions satisfies all requirements."""


class PackageMissing(BuildError):
    """No index has the package, or none of its wheels fits this Python and platform."""


class IndexUnreachable(BuildError):
    """The package index does not answer."""


class InterpreterMissing(BuildError):
    """No interpreter of that version can be copied here."""


class CondaMissing(BuildError):
    """A conda environment is asked for where conda or conda-pack is not."""


class NotRelocatable(BuildError):
    """A file names the folder it was built in."""


class BundleRefused(EnvError):
    """A bundle that must not be used."""


class Unsigned(BundleRefused):
    """No signature, outside development mode."""


class SignatureWrong(BundleRefused):
    """Signed by no trusted key, or changed after it was signed."""


class RolledBack(BundleRefused):
    """Older than what this node has seen of the app."""


class WrongPlatform(BundleRefused):
    """Made for another system, processor or C library."""


class BlobTruncated(BundleRefused):
    """Fewer or more bytes than the manifest says."""


class BlobCorrupt(BundleRefused):
    """Other bytes than the manifest says."""


class ArchiveUnsafe(BundleRefused):
    """An archive that the gate does not let in."""


class PathEscape(ArchiveUnsafe):
    """A member is outside the folder."""


class LinkEscape(ArchiveUnsafe):
    """A link, or a chain of links, leads out of the folder."""


class HardLinkInside(ArchiveUnsafe):
    """A hard link: it could give a name inside to a file outside."""


class SpecialFile(ArchiveUnsafe):
    """A device, a pipe, or a setuid or setgid file."""


class ArchiveBomb(ArchiveUnsafe):
    """More bytes, files or compression than was declared or is allowed."""


class StoreError(EnvError):
    """A store of bundles cannot be read or written."""


class NotInStore(StoreError):
    """The store has no such bundle or blob."""


class PeerError(EnvError):
    """This node cannot fetch from peers, or give to them."""


class DiskFull(EnvError):
    """No room on this machine; nothing was left behind."""


class HealthCheckFailed(EnvError):
    """The app's entrypoint cannot be imported in its own environment."""


class ProviderAbsent(EnvError):
    """The app's engine has nothing to compute on here that the app asks for."""


class NoResult(RaylineError):
    """A job's result did not come within the time that its waiter gave it."""


class NodeError(RaylineError):
    """A node is not known, or did not do what it was ordered to."""


class ClusterError(RaylineError):
    """A Ray cluster could not be started or reached."""


class LaunchError(RaylineError):
    """A local process could not be started, or is running already."""
