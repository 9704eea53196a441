"""What a batch has answered so far, as the columns of ANSWER_SCHEMA."""

from __future__ import annotations

from collections.abc import Sequence

import pyarrow as pa

from rayline.wire import ANSWER_SCHEMA, JobStatus, binary_column, number_column


class Answers:
    """Finished jobs of one batch that were not handed out yet.

    Owns the columns. Does not own the stream: whoever calls `take` holds the stream's lock. One thread appends, one other may
    take at the same time: `indexes` is appended to last, so that its length counts complete rows.
    """

    __slots__ = ("indexes", "messages", "statuses", "taken", "types", "values")

    def __init__(self) -> None:
        self.indexes: list[int] = []
        self.statuses: list[int] = []
        self.values: list[bytes | None] = []
        self.types: list[str | None] = []
        self.messages: list[str | None] = []
        self.taken = 0

    def __len__(self) -> int:
        return len(self.indexes)

    def ok(self, index: int, value: bytes) -> None:
        self.statuses.append(0)
        self.values.append(value)
        self.types.append(None)
        self.messages.append(None)
        self.indexes.append(index)

    def fail(self, index: int, status: JobStatus, error_type: str, message: str) -> None:
        self.statuses.append(int(status))
        self.values.append(None)
        self.types.append(error_type)
        self.messages.append(message)
        self.indexes.append(index)

    def take(self) -> pa.RecordBatch:
        """All complete rows as one record batch of ANSWER_SCHEMA (0 rows are possible); they are forgotten here."""
        rows = len(self.indexes)
        columns = [
            number_column(self.indexes[:rows], pa.int32()),
            number_column(self.statuses[:rows], pa.int8()),
            binary_column(self.values[:rows], pa.binary()),
            _text_column(self.types[:rows]),
            _text_column(self.messages[:rows]),
        ]
        for values in (self.indexes, self.statuses, self.values, self.types, self.messages):
            del values[:rows]
        self.taken += rows
        return pa.RecordBatch.from_arrays(columns, schema=ANSWER_SCHEMA)


def _text_column(texts: Sequence[str | None]) -> pa.Array:
    if texts.count(None) == len(texts):
        return pa.nulls(len(texts), pa.string())
    return binary_column([None if text is None else text.encode() for text in texts], pa.string())
