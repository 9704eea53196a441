"""What `rayline submit` reads: a line that is no payload is named, whatever it holds."""

from __future__ import annotations

from pathlib import Path

import pytest

from deploy.cli.jobs import _lines
from rayline.errors import ConfigError
from rayline.jobs import ContentType


@pytest.mark.parametrize(
    ("raw", "told"),
    [
        (b'{"a": 1}\n\n{"a"\n', r"jobs.jsonl:3: not JSON"),
        (b'{"a": 1}\n' + b"[" * 100_000 + b"\n", r"jobs.jsonl:2: not JSON"),
        (b"\xff\xfe\n", r"jobs.jsonl is no text in UTF-8 .*--dir"),
    ],
)
def test_what_is_no_payload_is_named(tmp_path: Path, raw: bytes, told: str) -> None:
    file = tmp_path / "jobs.jsonl"
    file.write_bytes(raw)
    with pytest.raises(ConfigError, match=told):
        list(_lines(file, ContentType.JSON, None))


def test_a_field_becomes_the_id_and_one_that_is_missing_is_named(tmp_path: Path) -> None:
    file = tmp_path / "jobs.jsonl"
    file.write_text('{"id": 7}\n{"name": 8}\n')
    jobs = _lines(file, ContentType.JSON, "id")
    assert next(jobs).job_id == "7"
    with pytest.raises(ConfigError, match=r"jobs.jsonl:2: no field 'id'"):
        next(jobs)


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"gone\.jsonl cannot be read"):
        next(_lines(tmp_path / "gone.jsonl", ContentType.JSON, None))
