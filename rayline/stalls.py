"""What makes no progress, as a process says it of itself: in its metrics, at /health, and in its presence."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any


class StallKind(StrEnum):
    """What makes no progress. Those from LANE on are told by who looks on: the process itself cannot, or does not know."""

    ACTIVITY = "activity"
    BROKER = "broker"
    LOOP = "loop"
    PARTITION = "partition"
    HALTED = "halted"
    OPEN_TRANSACTION = "open_transaction"
    NODES = "nodes"
    TRAFFIC = "traffic"
    LANE = "lane"
    PROCESS = "process"
    CONFIG = "config"
    SOURCE = "source"


@dataclass(frozen=True, slots=True)
class Stall:
    """`subject` is what it is about (a partition, an activity), `seconds` how long, `why` says it for people, with the remedy."""

    kind: StallKind
    subject: str
    seconds: float
    why: str

    @property
    def key(self) -> tuple[StallKind, str]:
        return self.kind, self.subject

    def text(self) -> str:
        return f"{self.subject}: {self.why} (for {self.seconds:.0f} s)"

    def as_dict(self) -> dict[str, Any]:
        return {"kind": self.kind.value, "subject": self.subject, "seconds": round(self.seconds, 1), "why": self.why}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Stall:
        """Raises ValueError, KeyError or TypeError for what is no stall."""
        return cls(StallKind(data["kind"]), str(data["subject"]), float(data["seconds"]), str(data["why"]))
