"""Jobs differ, their results can be foretold, and the app computes just that."""

from __future__ import annotations

import importlib.util
import json
from dataclasses import asdict
from pathlib import Path
from types import ModuleType

import msgpack
import pytest

import deploy.chaos
from deploy.chaos.jobs import expected_result, job_payload, rounds_for
from deploy.chaos.load import Clockwork, LoadOptions


@pytest.fixture
def feature(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The app's module, as a worker would import it."""
    monkeypatch.setenv("CHAOS_RECORD", str(tmp_path))
    monkeypatch.setenv("CHAOS_ROUNDS", "3")
    spec = importlib.util.spec_from_file_location("chaos_feature", Path(deploy.chaos.__path__[0]) / "app" / "feature.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_app_gives_the_expected_bytes_and_notes_what_it_ran(feature: ModuleType, tmp_path: Path) -> None:
    payload = job_payload(17)
    assert msgpack.packb(feature.digest(msgpack.unpackb(payload))) == expected_result(payload)
    (record,) = tmp_path.iterdir()
    assert [line.split()[:2] for line in record.read_text().splitlines()] == [["b", "17"], ["e", "17"]]


def test_jobs_and_their_results_differ() -> None:
    assert job_payload(1) != job_payload(2)
    assert expected_result(job_payload(1)) != expected_result(job_payload(2))
    assert msgpack.unpackb(job_payload(-1, poison=True))["poison"] is True


def test_jobs_are_due_at_a_steady_rate_and_extras_when_they_were_asked_for() -> None:
    clockwork = Clockwork(begun_ms=1000.0, rate_per_second=50.0, extras={-1: 1234.0})
    assert [clockwork.due_ms(number) for number in (0, 1, 50, -1)] == [1000.0, 1020.0, 2000.0, 1234.0]


def test_a_load_of_phases_has_the_rate_of_each_one_after_the_other_and_then_its_own() -> None:
    clockwork = Clockwork(begun_ms=1000.0, rate_per_second=10.0, phases=[(2.0, 10.0), (1.0, 50.0)])
    due = [clockwork.due_ms(number) for number in range(90)]
    assert due[:21] == [1000.0 + number * 100 for number in range(21)]
    assert due[20:71] == [3000.0 + number * 20 for number in range(51)]
    assert due[70:] == [4000.0 + number * 100 for number in range(20)]


def test_a_load_tells_its_process_all_of_its_phases() -> None:
    options = LoadOptions("k:1", "app", 10.0, phases=[(2.0, 10.0), (1.0, 50.0)])
    told = LoadOptions(**json.loads(json.dumps(asdict(options))))
    assert [told.clockwork(0.0).due_ms(n) for n in range(90)] == [options.clockwork(0.0).due_ms(n) for n in range(90)]


def test_more_work_takes_more_rounds() -> None:
    assert rounds_for(0) == 0
    assert rounds_for(20) > rounds_for(5) > 0
