"""What happened to parts of the platform, as records of `rayline.events`: for people and the console, never for control."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any, Final

from rayline.errors import FormatError

_VERSION: Final = 1
MAX_REASON_CHARS: Final = 2_000


@dataclass(frozen=True, slots=True)
class Event:
    """One event. When it happened is the record's own time (the broker's).

    `source` is who says it (`keeper`, `resource`, …), `kind` a stable word for machines (`pod.replaced`), `subject` what it is
    about (`c1`, `c1/c1-pod-3`, `lane-ocr-0`), `text` one sentence for people, `reason` why, where there is one.
    """

    source: str
    kind: str
    subject: str
    text: str
    reason: str | None = None

    @property
    def key(self) -> bytes:
        return self.subject.encode()


def encode_event(event: Event) -> bytes:
    """One record value of `rayline.events`: JSON with a version; a long reason is cut."""
    reason = None if event.reason is None else event.reason[:MAX_REASON_CHARS]
    fields = {"source": event.source, "kind": event.kind, "subject": event.subject, "text": event.text, "reason": reason}
    return json.dumps({"v": _VERSION, **fields}, ensure_ascii=False).encode()


def decode_event(value: bytes) -> Event:
    """Read a record value; raises FormatError on anything else."""
    try:
        data: Any = json.loads(value)
        if data["v"] != _VERSION:
            raise FormatError(f"event of version {data['v']!r}; this Rayline reads version {_VERSION}")
        texts = [data[name] for name in ("source", "kind", "subject", "text")]
        reason = data.get("reason")
        if not all(isinstance(text, str) for text in texts) or not isinstance(reason, str | None):
            raise FormatError(f"an event's fields are text: {data!r:.200}")
        return Event(texts[0], texts[1], texts[2], texts[3], reason)
    except (ValueError, TypeError, KeyError) as error:
        raise FormatError(f"not an event: {error!r}") from error
