"""The states of a node's environments: steps in order, failures that are tried again, what is kept for actors that still run."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runtime_env.node.activation import (
    FIRST_RETRY_SECONDS,
    MAX_RETRY_SECONDS,
    UNDER_WAY,
    Activations,
    Failure,
    Phase,
    Wanted,
)

A1, A2, A3 = (Wanted("a", f"v{n}", f"sha256:a{n}") for n in (1, 2, 3))
B1 = Wanted("b", "v1", "sha256:b1")
BROKEN = Failure("it is broken", "mend it")
STEPS = (Phase.VERIFYING, Phase.UNPACKING, Phase.CHECKING)


def made_ready(all_: Activations, wanted: Wanted, now: float = 0.0) -> None:
    all_.begin(wanted.digest, now)
    for phase in STEPS:
        all_.advance(wanted.digest, phase, now)
    all_.succeed(wanted.digest, now)


def phases(all_: Activations) -> dict[str, Phase]:
    return {one.wanted.digest: one.phase for one in all_.all()}


def test_it_goes_through_every_step_and_is_ready() -> None:
    all_ = Activations()
    all_.want([A1], 0.0)
    assert not all_.settled
    assert all_.next_due(0.0) == A1
    seen = []
    all_.begin(A1.digest, 1.0)
    for phase in STEPS:
        seen.append(phases(all_)[A1.digest])
        all_.advance(A1.digest, phase, 2.0)
    seen.append(phases(all_)[A1.digest])
    all_.succeed(A1.digest, 3.0)
    assert seen == [Phase.FETCHING, *STEPS]
    assert phases(all_) == {A1.digest: Phase.READY}
    assert all_.settled
    assert all_.next_due(1e9) is None


@pytest.mark.parametrize("phase", [Phase.UNPACKING, Phase.CHECKING, Phase.READY])
def test_no_step_is_left_out(phase: Phase) -> None:
    all_ = Activations()
    all_.want([A1], 0.0)
    all_.begin(A1.digest, 0.0)
    with pytest.raises(ValueError, match="does not follow"):
        all_.advance(A1.digest, phase, 0.0)


def test_a_failure_has_a_reason_and_is_tried_again_later_each_time() -> None:
    all_ = Activations()
    all_.want([A1], 0.0)
    now, pauses = 0.0, []
    for _ in range(10):
        assert all_.next_due(now) == A1
        all_.begin(A1.digest, now)
        all_.fail(A1.digest, BROKEN, now)
        one = all_.get(A1.digest)
        assert one is not None
        assert (one.phase, one.failure) == (Phase.FAILED, BROKEN)
        assert all_.next_due(one.retry_at - 0.01) is None
        assert all_.wake_at() == one.retry_at
        pauses.append(one.retry_at - now)
        now = one.retry_at
    assert pauses[:3] == [FIRST_RETRY_SECONDS, 2 * FIRST_RETRY_SECONDS, 4 * FIRST_RETRY_SECONDS]
    assert pauses[-1] == MAX_RETRY_SECONDS
    assert all_.settled, "Ray does not wait for what failed"


def test_after_a_success_the_next_failure_counts_from_the_start() -> None:
    all_ = Activations()
    all_.want([A1], 0.0)
    all_.begin(A1.digest, 0.0)
    all_.fail(A1.digest, BROKEN, 0.0)
    made_ready(all_, A1)
    one = all_.get(A1.digest)
    assert one is not None
    assert (one.failures, one.failure) == (0, None)


def test_one_broken_app_keeps_nobody_else_waiting() -> None:
    all_ = Activations()
    all_.want([A1, B1], 0.0)
    all_.begin(A1.digest, 0.0)
    all_.fail(A1.digest, BROKEN, 0.0)
    assert all_.next_due(1e9) == B1


def test_the_version_that_ran_before_stays_until_another_one_did() -> None:
    all_ = Activations()
    all_.want([A1], 0.0)
    made_ready(all_, A1)
    assert all_.want([A2], 1.0) == frozenset()
    assert phases(all_) == {A1.digest: Phase.READY, A2.digest: Phase.ABSENT}
    all_.begin(A2.digest, 1.0)
    all_.fail(A2.digest, BROKEN, 1.0)
    assert all_.want([A3], 2.0) == {A2.digest}, "nothing ever ran from A2, so that A1 is still what ran before"
    made_ready(all_, A3)
    assert phases(all_) == {A1.digest: Phase.READY, A3.digest: Phase.READY}


def test_going_back_finds_everything_ready() -> None:
    all_ = Activations()
    all_.want([A1], 0.0)
    made_ready(all_, A1)
    all_.want([A2], 1.0)
    made_ready(all_, A2)
    assert all_.want([A1], 2.0) == frozenset()
    assert all_.settled
    assert all_.next_due(2.0) is None


def test_what_is_prefetched_waits_for_what_is_wanted_and_keeps_nothing_from_settling() -> None:
    all_ = Activations()
    ahead = replace(A1, ahead=True)
    all_.want([ahead, B1], 0.0)
    assert all_.next_due(0.0) == B1
    made_ready(all_, B1)
    assert all_.settled
    assert all_.next_due(0.0) == ahead
    made_ready(all_, ahead)
    all_.want([A1, B1], 1.0)
    assert all_.next_due(1.0) == A1, "it is looked at once more before it runs"


def test_an_app_that_is_gone_is_forgotten_also_while_it_is_worked_on() -> None:
    all_ = Activations()
    all_.want([A1], 0.0)
    all_.begin(A1.digest, 0.0)
    assert all_.want([], 1.0) == {A1.digest}
    all_.advance(A1.digest, Phase.VERIFYING, 1.0)
    all_.progress(A1.digest, 1, 2)
    all_.fail(A1.digest, BROKEN, 1.0)
    all_.succeed(A1.digest, 1.0)
    assert all_.all() == []
    assert all_.settled


@given(st.lists(st.tuples(st.sampled_from([A1, A2, A3]), st.booleans(), st.booleans()), max_size=30))
def test_an_app_that_ran_once_always_has_an_environment_to_run_from(history: list[tuple[Wanted, bool, bool]]) -> None:
    """Whatever is deployed, and whether it can be prepared or not."""
    all_ = Activations()
    ran = False
    for now, (wanted, prepared, works) in enumerate(history):
        all_.want([wanted, B1], float(now))
        one = all_.get(wanted.digest)
        assert one is not None
        if prepared and one.phase is not Phase.READY:
            all_.begin(wanted.digest, float(now))
            if works:
                for phase in (*STEPS, Phase.READY):
                    all_.advance(wanted.digest, phase, float(now))
            else:
                all_.fail(wanted.digest, BROKEN, float(now))
        ready = [one for one in all_.all() if one.wanted.app == "a" and one.phase is Phase.READY]
        ran = ran or bool(ready)
        assert bool(ready) == ran
        assert sum(one.wanted.app == "a" for one in all_.all()) <= 2
        assert not any(one.phase in UNDER_WAY for one in all_.all())
