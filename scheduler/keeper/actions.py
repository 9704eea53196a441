"""What a keeper does, and how it is told."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from rayline.events import Event


class ActionKind(StrEnum):
    """One step towards what is wanted; the value is the event's kind."""

    BUILD = "cluster.built"
    DISCARD = "cluster.discarded"
    START_POD = "pod.started"
    REPLACE_POD = "pod.replaced"
    STOP_POD = "pod.stopped"
    BACK_OFF = "backing_off"


@dataclass(frozen=True, slots=True)
class Action:
    """One step. `pod` is the pod it is about (None: the cluster as a whole), `replaces` the one that had its place before;
    `delay_ms` is how long nothing is tried after a failure."""

    kind: ActionKind
    cluster: str
    generation: int
    pod: str | None = None
    replaces: str | None = None
    reason: str | None = None
    delay_ms: int = 0

    def event(self) -> Event:
        """The record that tells of it."""
        subject = self.cluster if self.pod is None else f"{self.cluster}/{self.pod}"
        return Event(source="keeper", kind=self.kind.value, subject=subject, text=self.text(), reason=self.reason)

    def text(self) -> str:
        """One sentence for people."""
        cluster = f"cluster {self.cluster} (generation {self.generation})"
        because = f": {self.reason}" if self.reason else ""
        match self.kind:
            case ActionKind.BUILD:
                return f"{cluster} is being built{because}"
            case ActionKind.DISCARD:
                return f"{cluster} is discarded{because}"
            case ActionKind.START_POD:
                return f"{self.pod} starts in {self.cluster}"
            case ActionKind.REPLACE_POD:
                return f"{self.pod} replaces {self.replaces}{because}"
            case ActionKind.STOP_POD:
                return f"{self.pod} is stopped{because}"
            case ActionKind.BACK_OFF:
                what = cluster if self.pod is None else f"the place of {self.pod}"
                return f"{what} waits {self.delay_ms / 1000:g} s{because}"
