"""Bytes into lines, whatever the bytes are. Pure."""

from __future__ import annotations


class LineCutter:
    """Owns the line that is not ended yet, of which it keeps `max_bytes` at most.

    A carriage return begins the line anew, as on a terminal: of a progress bar only its last state is kept.
    """

    __slots__ = ("_held", "_lost", "max_bytes")

    def __init__(self, max_bytes: int) -> None:
        self.max_bytes = max_bytes
        self._held = b""
        self._lost = 0

    @property
    def empty(self) -> bool:
        return not self._held and not self._lost

    def feed(self, data: bytes, most: int) -> tuple[list[bytes], int]:
        """The lines that end in `data`, `most` of them at most, and how many more there were."""
        if b"\n" not in data:
            self.hold(data)
            return [], 0
        *ended, rest = data.split(b"\n", most + 1)
        skipped = 0
        if len(ended) > most:
            skipped = 1 + rest.count(b"\n")
            rest = rest[rest.rfind(b"\n") + 1 :]
            del ended[most:]
        lines = []
        for line in ended:
            self.hold(line)
            lines.append(self._take())
        if not ended:
            # The line that was begun is among those that are skipped.
            self._held, self._lost = b"", 0
        self.hold(rest)
        return lines, skipped

    def end(self) -> bytes | None:
        """The line that was not ended, if there is one."""
        return None if self.empty else self._take()

    def hold(self, data: bytes) -> None:
        """A part of a line that does not end it."""
        if b"\r" in data or b"\r" in self._held:
            whole = (self._held + data).rstrip(b"\r")
            ending = b"\r" if (data or self._held).endswith(b"\r") else b""
            begin = whole.rfind(b"\r") + 1
            if begin:
                self._lost = 0
            whole = whole[begin:]
            self._lost += max(0, len(whole) - self.max_bytes)
            self._held = whole[: self.max_bytes] + ending
            return
        room = self.max_bytes - len(self._held)
        if len(data) > room:
            self._lost += len(data) - room
            data = data[:room]
        self._held += data

    def _take(self) -> bytes:
        line, lost = self._held.rstrip(b"\r"), self._lost
        self._held, self._lost = b"", 0
        return line if not lost else line + b" \xe2\x80\xa6 (%d bytes more)" % lost
