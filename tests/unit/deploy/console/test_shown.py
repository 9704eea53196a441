"""Figures and text as people read them."""

from __future__ import annotations

import pytest

from deploy.console import shown


@pytest.mark.parametrize(
    ("share", "text"), [(None, "–"), (1.0, "100"), (0.9999999, "99.999"), (0.99983, "99.983"), (0.98765, "98.76"), (0.0, "0.00")]
)
def test_a_promise_that_was_broken_once_is_never_shown_as_kept(share: float | None, text: str) -> None:
    assert shown.attainment(share) == text


@pytest.mark.parametrize(
    ("value", "text"), [(None, "–"), (0, "0"), (12, "12"), (0.4, "0.4"), (1234, "1.2 k"), (654_321, "654 k"), (2.5e6, "2.5 M")]
)
def test_counts_are_short(value: float | None, text: str) -> None:
    assert shown.count(value) == text


@pytest.mark.parametrize(("value", "text"), [(None, "–"), (3.14, "3.1 ms"), (212.7, "213 ms"), (1234, "1.23 s")])
def test_durations_have_their_unit(value: float | None, text: str) -> None:
    assert shown.milliseconds(value) == text


def test_bytes_from_outside_become_one_harmless_line() -> None:
    assert shown.readable(b"a\x00b\nc\xff") == "a\\u0000b\\u000ac\\xff"
    assert shown.readable("x\u202egnp".encode()) == "x\\u202egnp"
    assert shown.readable(b"y" * 500) == "y" * 400 + " … (500 bytes)"
    assert shown.readable(None) == "–"


def test_versions_are_told_with_their_shares_where_not_the_newest_alone_answers() -> None:
    assert shown.versions("4f1c09a2b7deadbeef", []) == shown.versions("4f1c09a2b7deadbeef", [("4f1c09a2b7deadbeef", 1.0)])
    assert shown.versions("4f1c09a2b7deadbeef", []) == "4f1c09a2b7de"
    assert shown.versions("v2", [("v1", 0.9), ("v2", 0.1)]) == "v1 90 %, v2 10 %"
    assert shown.versions("v2", [("v1", 1.0)]) == "v1 100 %"
    assert shown.versions("v2", [(f"v{number}", 0.1) for number in range(10)]).count(",") == 3
