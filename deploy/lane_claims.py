"""Which lane a result came from: its batch says so, or else the claim on its job's partition. `LaneClaims` is pure."""

from __future__ import annotations

from collections.abc import Mapping

from ingest import ledger_codec
from rayline.bus import KafkaSettings
from rayline.bus.progress import GroupProgress
from rayline.results import BATCH, SOURCE
from rayline.topics import group_id, requests_topic, transactional_id


async def read_claims(settings: KafkaSettings, app: str) -> dict[str, str]:
    """The lane that works on each partition (`<topic>/<number>`) of an app's jobs, as the last commit there says.

    Raises:
        BusError: Kafka does not tell.
        FormatError: another program commits for this group.
    """
    topic = requests_topic(app)
    async with GroupProgress(settings=settings, group_id=group_id(app), topic=topic) as progress:
        commits = await progress.metadata()
    owners = {tp.partition: ledger_codec.decode(metadata).owner for tp, metadata in commits.items()}
    return {f"{topic}/{number}": owner.removeprefix(transactional_id(app, "")) for number, owner in owners.items() if owner}


class LaneClaims:
    """Owns what is known of who works on which partition; does not own where claims are read.

    A result without a batch (refused when it was read, or too late before it was sent anywhere) is that of the lane whose
    claim on the partition was heard last: of a batch's result before it, or of a reading of claims.
    """

    def __init__(self) -> None:
        self._lanes: dict[str, str] = {}

    def learn(self, claims: Mapping[str, str]) -> None:
        """What `read_claims` says now."""
        self._lanes.update(claims)

    def lane_of(self, headers: Mapping[str, bytes | None]) -> str | None:
        """Of a result, given in the order in which the results of its partition stand; None where nobody is known."""
        place = (headers.get(SOURCE) or b"").decode("utf-8", "replace").rpartition("/")[0]
        batch = (headers.get(BATCH) or b"").decode("utf-8", "replace")
        lane = batch.rpartition("/")[0].rpartition("-")[0]
        if not lane:
            return self._lanes.get(place)
        self._lanes[place] = lane
        return lane
