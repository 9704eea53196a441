"""How much of what users' code prints is kept. Pure."""

from __future__ import annotations

from dataclasses import asdict, dataclass

import msgpack

from rayline.errors import WireError

# Shorter times than this are not worth the arithmetic.
REFILL_SECONDS = 0.01


@dataclass(frozen=True, slots=True)
class OutputLimits:
    """Live settings (`logs.…`). The rates hold for each worker process, and once more for what is written past Python."""

    enabled: bool = True
    lines_per_second: int = 500
    bytes_per_second: int = 262_144
    line_bytes: int = 8_192
    batch_lines: int = 1_000

    def pack(self) -> bytes:
        packed: bytes = msgpack.packb(asdict(self))
        return packed

    @classmethod
    def unpack(cls, data: bytes) -> OutputLimits:
        """Raises WireError on anything else."""
        try:
            values = msgpack.unpackb(data, raw=False)
            enabled = bool(values.pop("enabled"))
            return cls(enabled=enabled, **{name: int(value) for name, value in values.items()})
        except (ValueError, TypeError, KeyError, AttributeError, msgpack.exceptions.UnpackException) as error:
            raise WireError(f"not limits of output: {error!r}") from error


class LineBudget:
    """How many lines and bytes may pass now. Owns two buckets that hold `burst_seconds` worth of the rates."""

    __slots__ = ("_at", "_burst_seconds", "_bytes", "_limits", "_lines")

    def __init__(self, limits: OutputLimits, *, now: float, burst_seconds: float = 1.0) -> None:
        self._burst_seconds = burst_seconds
        self._at = now
        self._lines = self._bytes = 0.0
        self._limits = limits
        self.tune(limits)

    def tune(self, limits: OutputLimits) -> None:
        """Other rates from now on; the buckets are full."""
        self._limits = limits
        self._lines = limits.lines_per_second * self._burst_seconds
        self._bytes = limits.bytes_per_second * self._burst_seconds

    def room(self, now: float) -> int:
        """How many lines may pass at most."""
        limits, seconds = self._limits, now - self._at
        if seconds < REFILL_SECONDS:
            return int(self._lines) if self._bytes > 0 else 0
        self._at = now
        self._lines = min(limits.lines_per_second * self._burst_seconds, self._lines + limits.lines_per_second * seconds)
        self._bytes = min(limits.bytes_per_second * self._burst_seconds, self._bytes + limits.bytes_per_second * seconds)
        return int(self._lines) if self._bytes > 0 else 0

    def take(self, size: int) -> bool:
        """Let one line of so many bytes pass; False when there is no room for it."""
        if self._lines < 1 or self._bytes <= 0:
            return False
        self._lines -= 1
        self._bytes -= size
        return True
