"""Jobs: what they are called and what their headers say."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from tests.unit.ingest.jobs import job


@given(st.lists(st.tuples(st.sampled_from("abc"), st.binary(max_size=3)), max_size=8))
def test_the_last_header_of_a_name_counts(headers: list[tuple[str, bytes]]) -> None:
    one = job(headers=tuple(headers))
    assert {name: one.header(name) for name in "abc"} == {name: dict(headers).get(name) for name in "abc"}


def test_a_job_without_an_id_is_called_by_its_place() -> None:
    assert (job(17, partition=3).job_id, job(17, partition=3).source) == ("3-17", "app.requests/3/17")
    assert job(17, given_id="mine").job_id == "mine"
