"""A key never ends in a record that does not count for long: what was good is written again, and that comes to rest."""

from __future__ import annotations

import json

from hypothesis import given
from hypothesis import strategies as st

from rayline.config import SETTINGS, ProcessIdentity, Role
from rayline.config.last_good import LastGood
from rayline.config.state import ConfigState

KEY = b"app/ocr/batching.max_jobs"
LANE = ProcessIdentity(role=Role.LANE, app="ocr", name="0")


def in_force(log: list[bytes | None], first: int = 0) -> object:
    """What a lane makes of a log whose records before `first` are compacted away."""
    state = ConfigState(identity=LANE, declared=SETTINGS)
    for version, value in enumerate(log):
        if version >= first:
            state.take(key=KEY, value=value, version=version, apply=lambda _name, _value: None)
    return state.effective()["batching.max_jobs"].value


_value = st.sampled_from([b"5", b"6", b"{", b"0", b'"x"', None, b'{"v": 1}']) | st.integers(-1, 12).map(
    lambda offset: json.dumps({"v": 1, "value": 9, "if_previous": offset}).encode()
)


@given(st.lists(_value, min_size=1, max_size=8), st.integers(1, 3))
def test_after_repair_the_last_record_alone_says_what_was_in_force(written: list[bytes | None], registrars: int) -> None:
    log = list(written)
    seen = [LastGood(SETTINGS) for _ in range(registrars)]
    read = 0
    before = in_force(log)
    for _ in range(4):
        for registrar in seen:
            for version in range(read, len(log)):
                registrar.take(key=KEY, value=log[version], version=version)
        read = len(log)
        log += [change.encode() for registrar in seen for change in registrar.repairs()]
    assert len(log) == read, "the repairs did not come to rest"
    assert in_force(log) == before
    assert in_force(log, first=len(log) - 1) == before


def test_many_broken_records_under_one_key_ask_for_one_repair() -> None:
    registrar = LastGood(SETTINGS)
    registrar.take(key=KEY, value=b"5", version=0)
    for version in range(1, 100):
        registrar.take(key=KEY, value=b"{", version=version)
    (repair,) = registrar.repairs()
    assert (repair.value, repair.if_previous) == (5, 99)
    assert not registrar.repairs()
